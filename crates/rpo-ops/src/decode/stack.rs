//! A stack of layers and what it does to rows.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::attend::{QUERIES, Query, attend};
use super::bytes;
use super::packed::{Input, PANEL, Packed, Precision};
use super::past::{Past, Shape, parts, write};
use super::team::{Shared, Worker, together};
use crate::cpu::{inverse_rms, sigmoid, vectorised};
use crate::parameters::Gate;
use crate::plan::relative_position_bucket;
use crate::rotary::Rotary;

/// Rows of a sequence that one task attends for, at most.
const RUN: usize = 8;
/// Into how many pieces for each thread a product's panels are parted.
const PIECES: usize = 4;

/// Weight of an RMS norm.
#[derive(Clone, Debug)]
pub struct NormWeights {
    /// By coordinate.
    pub weight: Vec<f32>,
    /// Added to the mean square.
    pub epsilon: f64,
}

/// A linear map.
#[derive(Clone, Debug)]
pub struct Map {
    /// `(outputs, inputs)`, row-major.
    pub weight: Vec<f32>,
    /// `(outputs)`.
    pub bias: Option<Vec<f32>>,
}

/// Parameters of an attention layer.
#[derive(Clone, Debug)]
pub struct AttentionWeights {
    /// Of the norm before it.
    pub norm: NormWeights,
    /// Heads of the queries, and of keys and values, each of which serves as many of the queries.
    pub heads: [usize; 2],
    /// To the queries, `heads * width`.
    pub q: Map,
    /// To the keys, `key heads * width`: of the rows themselves or, in a layer that attends to a memory, of it.
    pub k: Map,
    /// To the values, as many.
    pub v: Map,
    /// From `heads * width` back.
    pub o: Map,
    /// Weights of the norms of each head of the queries and of the keys, `(width)`.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// By what queries are multiplied.
    pub scale: f32,
}

/// What a feed-forward layer does before its last map.
#[derive(Clone, Debug)]
pub enum Inward {
    /// `activation(gate x) * (up x)`.
    Gated {
        /// The activation.
        activation: Gate,
        /// To `d_ff`.
        gate: Vec<f32>,
        /// To `d_ff`.
        up: Vec<f32>,
    },
    /// `max(map x, 0)`.
    Relu(Vec<f32>),
}

/// Parameters of a feed-forward layer.
#[derive(Clone, Debug)]
pub struct FeedForwardWeights {
    /// Of the norm before it.
    pub norm: NormWeights,
    /// The first map or maps.
    pub inward: Inward,
    /// From `d_ff` back, `(d_model, d_ff)`.
    pub down: Vec<f32>,
}

/// Parameters of a layer.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// Of the rows of a sequence to each other.
    pub attention: AttentionWeights,
    /// To the sequence's memory.
    pub memory: Option<AttentionWeights>,
    /// The last part.
    pub feed_forward: FeedForwardWeights,
}

/// A table of T5's relative position biases.
#[derive(Clone, Debug)]
pub struct Bias {
    /// `(buckets, heads)`, row-major.
    pub table: Vec<f32>,
    /// Rows of the table.
    pub buckets: usize,
    /// Distances from which on all share a bucket.
    pub max_distance: usize,
}

/// How positions enter attention.
#[derive(Clone, Debug)]
pub enum Position {
    /// By T5's biases: one table for all layers, or one for each.
    Bias(Vec<Bias>),
    /// By rotation.
    Rotary(Rotary),
}

/// A text that is read or written.
#[derive(Clone)]
pub struct Sequence {
    /// Its own tokens.
    pub own: Past,
    /// What it attends to besides: the prompt of an encoder-decoder.
    pub memory: Option<Past>,
}

struct Norm {
    weight: Vec<f32>,
    epsilon: f32,
}

struct Linear {
    matrix: Packed,
    bias: Option<Vec<f32>>,
}

struct Attention {
    norm: Norm,
    heads: usize,
    key_heads: usize,
    width: usize,
    /// To queries, keys and values, one after another; to queries alone in a layer that attends to a memory.
    inward: Linear,
    outward: Linear,
    head_norms: Option<[Norm; 2]>,
    scale: f32,
}

enum Activation {
    /// Panels hold half of a gate's outputs and then half of the other map's.
    Gate(Gate),
    Relu,
}

struct FeedForward {
    norm: Norm,
    activation: Activation,
    inward: Packed,
    d_ff: usize,
    down: Linear,
}

struct Layer {
    attention: Attention,
    /// Attention to the memory, and the map from that to its keys and values.
    memory: Option<(Attention, Linear)>,
    feed_forward: FeedForward,
}

/// The map from final hidden states to logits, which may also be the table of embeddings.
pub struct Head(Packed);

/// An encoder or a decoder, without embeddings and head.
pub struct Stack {
    d_model: usize,
    layers: Vec<Layer>,
    norm: Norm,
    /// By what the normalised states are multiplied.
    scale: f32,
    /// Whether a token sees only what comes before it.
    causal: bool,
    position: Position,
    precision: Precision,
    /// Kept from one computation to the next.
    space: Mutex<Space>,
}

impl From<NormWeights> for Norm {
    fn from(NormWeights { weight, epsilon }: NormWeights) -> Self {
        Self { weight, epsilon: epsilon as f32 }
    }
}

impl Linear {
    /// Several maps of so many inputs as one.
    fn side_by_side(maps: Vec<Map>, inputs: usize, precision: Precision) -> Self {
        let outputs = |map: &Map| map.weight.len() / inputs;
        let bias = maps.iter().any(|map| map.bias.is_some()).then(|| {
            let bias = |map: &Map| map.bias.clone().unwrap_or_else(|| vec![0.0; outputs(map)]);
            maps.iter().flat_map(bias).collect()
        });
        let all: usize = maps.iter().map(outputs).sum();
        let mut maps = maps.into_iter().map(|map| map.weight);
        // One map alone is not copied first.
        let mut weight = maps.next().unwrap_or_default();
        maps.for_each(|more| weight.extend(more));
        Self { matrix: Packed::new(all, inputs, &weight, precision), bias }
    }
}

impl Attention {
    fn new(weights: AttentionWeights, d_model: usize, to_memory: bool, precision: Precision) -> (Self, Linear) {
        let AttentionWeights { norm, heads: [heads, key_heads], q, k, v, o, head_norms, scale } = weights;
        let inner = q.weight.len() / d_model;
        let epsilon = norm.epsilon;
        let head_norms = head_norms.map(|norms| norms.map(|weight| Norm::from(NormWeights { weight, epsilon })));
        let (inward, of_memory) = match to_memory {
            true => (vec![q], vec![k, v]),
            false => (vec![q, k, v], Vec::new()),
        };
        let attention = Self {
            norm: norm.into(),
            heads,
            key_heads,
            width: inner / heads,
            inward: Linear::side_by_side(inward, d_model, precision),
            outward: Linear::side_by_side(vec![o], inner, precision),
            head_norms,
            scale,
        };
        (attention, Linear::side_by_side(of_memory, d_model, precision))
    }

    /// Columns of the queries.
    fn inner(&self) -> usize {
        self.heads * self.width
    }
}

impl FeedForward {
    fn new(weights: FeedForwardWeights, d_model: usize, precision: Precision) -> Self {
        let FeedForwardWeights { norm, inward, down } = weights;
        let d_ff = down.len() / d_model;
        let (activation, inward) = match inward {
            Inward::Relu(map) => (Activation::Relu, Packed::new(d_ff, d_model, &map, precision)),
            Inward::Gated { activation, gate, up } => {
                let half = PANEL / 2;
                let mut both = vec![0f32; d_ff.div_ceil(half) * PANEL * d_model];
                let halves = gate.chunks(half * d_model).zip(up.chunks(half * d_model));
                for (both, (gate, up)) in both.chunks_exact_mut(PANEL * d_model).zip(halves) {
                    both[..gate.len()].copy_from_slice(gate);
                    both[half * d_model..][..up.len()].copy_from_slice(up);
                }
                (Activation::Gate(activation), Packed::new(both.len() / d_model, d_model, &both, precision))
            }
        };
        Self {
            norm: norm.into(),
            activation,
            inward,
            d_ff,
            down: Linear { matrix: Packed::new(d_model, d_ff, &down, precision), bias: None },
        }
    }
}

impl Head {
    /// Packs `(vocabulary, d_model)` values.
    pub fn new(d_model: usize, table: &[f32], precision: Precision) -> Self {
        Self(Packed::new(table.len() / d_model, d_model, table, precision))
    }

    /// The rows of these tokens: `(tokens, d_model)`.
    pub fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let mut rows = vec![0f32; tokens.len() * self.0.inputs()];
        for (&token, row) in tokens.iter().zip(rows.chunks_exact_mut(self.0.inputs())) {
            self.0.row(token as usize, row);
        }
        rows
    }
}

/// Whose rows are computed.
struct Rows<'a> {
    sequences: &'a [Sequence],
    /// Of each row: whose it is and where it stands.
    of: Vec<(usize, usize)>,
    /// Rows that see the same own tokens, and such that see the same memory.
    own: Vec<Range<usize>>,
    memory: Vec<Range<usize>>,
    /// By head of a bias table, for each table: from the farthest before a token to the farthest after it.
    biases: Vec<Vec<f32>>,
    /// The farthest distance either way.
    reach: usize,
    /// Cosines and sines by row.
    angles: [Vec<f32>; 2],
}

/// Memory for what lies between phases, by row.
#[derive(Default)]
struct Space {
    /// What a product takes: normalised or mixed.
    narrow: Shared<f32>,
    /// The same of the feed-forward layer's last map.
    wide: Shared<f32>,
    /// Either, rounded, with scales.
    bytes: Shared<u8>,
    scales: Shared<f32>,
    /// Queries, keys and values.
    inward: Shared<f32>,
    logits: Shared<f32>,
}

impl Stack {
    /// Packs the layers. `scale` multiplies the last norm's result; a `causal` stack's tokens see only what comes before them.
    ///
    /// # Errors
    /// Those of `layers`.
    pub fn new<E>(
        d_model: usize,
        layers: impl IntoIterator<Item = Result<LayerWeights, E>>,
        norm: NormWeights,
        scale: f32,
        causal: bool,
        position: Position,
        precision: Precision,
    ) -> Result<Self, E> {
        let layer = |LayerWeights { attention, memory, feed_forward }| Layer {
            attention: Attention::new(attention, d_model, false, precision).0,
            memory: memory.map(|memory| Attention::new(memory, d_model, true, precision)),
            feed_forward: FeedForward::new(feed_forward, d_model, precision),
        };
        // One by one, so that no layer's weights are held twice.
        let layers = layers.into_iter().map(|weights| weights.map(layer)).collect::<Result<_, E>>()?;
        Ok(Self { d_model, layers, norm: norm.into(), scale, causal, position, precision, space: Mutex::default() })
    }

    /// A text without tokens, or the tokens that one computation needs alone, if they are not `kept`.
    pub fn past(&self, kept: bool) -> Past {
        let of = self.layers.first().map(|layer| (layer.attention.key_heads, layer.attention.width));
        let (heads, width) = of.unwrap_or_default();
        Past::new(self.shape(if kept { self.layers.len() } else { 1 }, heads, width))
    }

    fn shape(&self, layers: usize, heads: usize, width: usize) -> Shape {
        Shape::new(layers, heads, width, self.precision != Precision::F32)
    }

    /// Keys and values that the layers see of memories, whose states `(tokens, d_model)` lie end to end.
    pub fn memories(&self, states: Vec<f32>, lengths: &[usize]) -> Vec<Past> {
        let of = self.layers.first().and_then(|layer| layer.memory.as_ref());
        let Some((heads, width)) = of.map(|(attention, _)| (attention.key_heads, attention.width)) else {
            return Vec::new();
        };
        let mut memories = vec![Past::new(self.shape(self.layers.len(), heads, width)); lengths.len()];
        memories.iter_mut().zip(lengths).for_each(|(memory, &n)| memory.grow(n));
        let (rows, inner) = (states.len() / self.d_model, heads * width);
        let runs = runs(lengths.iter().copied());
        let of: Vec<(usize, usize)> =
            lengths.iter().enumerate().flat_map(|(s, &n)| (0..n).map(move |t| (s, t))).collect();
        let states = Shared::from(states);
        let mut space = self.space();
        space.make_room(self, rows, 0);
        let keys_values = Shared::new(0f32, rows * 2 * inner);
        together(|worker| {
            for (l, layer) in self.layers.iter().enumerate() {
                let Some((_, map)) = &layer.memory else { continue };
                map.replace(worker, &states, rows, &space, &keys_values);
                worker.phase(runs.len() * heads, 1, |pieces| {
                    for piece in pieces {
                        let (run, head) = (&runs[piece / heads], piece % heads);
                        for row in run.clone() {
                            let (sequence, token) = of[row];
                            // SAFETY: the products are done and nobody writes to them in this phase; and a token's values in
                            // a head are written by one thread.
                            #[expect(unsafe_code, reason = "threads share it")]
                            unsafe {
                                let [k, v] = [0, inner].map(|at| {
                                    let at = row * 2 * inner + at + head * width;
                                    &keys_values.read()[at..at + width]
                                });
                                write(&memories[sequence], l, head, token, k, v);
                            }
                        }
                    }
                });
            }
        });
        memories
    }

    /// Final hidden states of rows: `x` holds the embeddings of `counts[i]` tokens of sequence `i`, `(rows, d_model)`; they are
    /// appended to its own.
    pub fn states(&self, x: Vec<f32>, sequences: &mut [Sequence], counts: &[usize]) -> Vec<f32> {
        let rows = self.rows(sequences, counts);
        let (x, n) = (Shared::from(x), rows.of.len());
        let states = Shared::new(0f32, n * self.d_model);
        let mut space = self.space();
        space.make_room(self, n, 0);
        together(|worker| {
            self.through(worker, &x, &rows, &space);
            self.finish(worker, &x, |row, state| {
                // SAFETY: a row is finished by one thread.
                #[expect(unsafe_code, reason = "threads share it")]
                unsafe { states.write(row * self.d_model..(row + 1) * self.d_model) }.copy_from_slice(state);
            });
        });
        states.into_inner()
    }

    /// Appends rows to their sequences, as [`Self::states`], whose hidden states nobody wants.
    pub fn read(&self, x: Vec<f32>, sequences: &mut [Sequence], counts: &[usize]) {
        let rows = self.rows(sequences, counts);
        let x = Shared::from(x);
        let mut space = self.space();
        space.make_room(self, rows.of.len(), 0);
        together(|worker| self.through(worker, &x, &rows, &space));
    }

    /// The next token of each sequence, as [`Self::states`]; `choose` gets each row's logits under `head`.
    pub fn step<R: Send>(
        &self,
        x: Vec<f32>,
        sequences: &mut [Sequence],
        head: &Head,
        choose: &(impl Fn(usize, &mut [f32]) -> R + Sync),
    ) -> Vec<R> {
        let rows = self.rows(sequences, &vec![1; sequences.len()]);
        let (x, n, vocabulary) = (Shared::from(x), rows.of.len(), head.0.outputs());
        let mut space = self.space();
        space.make_room(self, n, n * vocabulary);
        let space = &*space;
        let chosen: Vec<Mutex<Option<R>>> = (0..n).map(|_| Mutex::new(None)).collect();
        together(|worker| {
            self.through(worker, &x, &rows, space);
            self.finish(worker, &x, |row, state| {
                // SAFETY: a row is finished by one thread.
                #[expect(unsafe_code, reason = "threads share it")]
                unsafe { space.narrow.write(row * self.d_model..(row + 1) * self.d_model) }.copy_from_slice(state);
            });
            product(worker, &head.0, &space.narrow, n, space, |panel, first, sums| {
                let of = head.0.outputs_of(panel);
                for (row, sums) in (first..).zip(sums) {
                    let at = row * vocabulary;
                    // SAFETY: a panel is multiplied by one thread, and its outputs are nobody else's.
                    #[expect(unsafe_code, reason = "threads share it")]
                    let logits = unsafe { space.logits.write(at + of.start..at + of.end) };
                    logits.copy_from_slice(&sums[..of.len()]);
                }
            });
            worker.phase(n, 1, |rows| {
                for row in rows {
                    // SAFETY: the products are done, and a row is chosen from by one thread.
                    #[expect(unsafe_code, reason = "threads share it")]
                    let logits = unsafe { space.logits.write(row * vocabulary..(row + 1) * vocabulary) };
                    let choice = choose(row, logits);
                    *chosen[row].lock().unwrap_or_else(PoisonError::into_inner) = Some(choice);
                }
            });
        });
        let taken = |cell: Mutex<Option<R>>| cell.into_inner().unwrap_or_else(PoisonError::into_inner);
        chosen.into_iter().filter_map(taken).collect()
    }

    /// Makes room in the sequences for their rows, and says where these stand.
    fn rows<'a>(&self, sequences: &'a mut [Sequence], counts: &[usize]) -> Rows<'a> {
        let mut of = Vec::new();
        for (s, (sequence, &n)) in sequences.iter_mut().zip(counts).enumerate() {
            of.extend((sequence.own.len()..).take(n).map(|position| (s, position)));
            sequence.own.grow(n);
        }
        let same_memory = |a: &Sequence, b: &Sequence| match (&a.memory, &b.memory) {
            (Some(a), Some(b)) => a.shares(b),
            _ => false,
        };
        let mut together: Vec<usize> = Vec::new();
        for (s, &n) in counts.iter().enumerate() {
            match together.last_mut() {
                Some(last) if s > 0 && same_memory(&sequences[s - 1], &sequences[s]) => *last += n,
                _ => together.push(n),
            }
        }
        let reach = sequences.iter().map(|sequence| sequence.own.len()).max().unwrap_or(0);
        let (mut biases, mut angles) = (Vec::new(), [Vec::new(), Vec::new()]);
        match &self.position {
            Position::Bias(tables) => biases = tables.iter().map(|bias| bias.over(reach, self.causal)).collect(),
            Position::Rotary(rotary) => {
                angles = rotary.angles(&of.iter().map(|(_, position)| *position).collect::<Vec<_>>());
            }
        }
        Rows {
            sequences,
            own: runs(counts.iter().copied()),
            memory: runs(together.into_iter()),
            of,
            biases,
            reach,
            angles,
        }
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        // What lies in it is written before it is read.
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of the residual stream through all layers.
    fn through(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: &Rows<'_>, space: &Space) {
        let (n, Space { narrow, wide, inward, .. }) = (rows.of.len(), space);
        for (l, Layer { attention, memory, feed_forward }) in self.layers.iter().enumerate() {
            normalise(worker, x, &attention.norm, narrow, n);
            attention.inward.replace(worker, narrow, n, space, inward);
            self.keep(worker, l, attention, rows, space);
            self.attend(worker, (l, attention), rows, true, space);
            attention.outward.add(worker, narrow, n, space, x);
            if let Some((attention, _)) = memory {
                normalise(worker, x, &attention.norm, narrow, n);
                attention.inward.replace(worker, narrow, n, space, inward);
                self.attend(worker, (l, attention), rows, false, space);
                attention.outward.add(worker, narrow, n, space, x);
            }
            normalise(worker, x, &feed_forward.norm, narrow, n);
            feed_forward.inward(worker, narrow, n, space);
            feed_forward.down.add(worker, wide, n, space, x);
        }
    }

    /// Writes the rows' keys and values to their sequences.
    fn keep(&self, worker: &Worker<'_>, l: usize, attention: &Attention, rows: &Rows<'_>, space: &Space) {
        let Attention { key_heads, width, .. } = *attention;
        let (inner, columns) = (attention.inner(), attention.inward.matrix.outputs());
        // SAFETY: the products are done, and nobody writes to them in this phase.
        #[expect(unsafe_code, reason = "threads share it")]
        let values = unsafe { space.inward.read() };
        worker.phase(rows.own.len() * key_heads, 1, |pieces| {
            let mut k = vec![0f32; width];
            for piece in pieces {
                let (run, head) = (&rows.own[piece / key_heads], piece % key_heads);
                for row in run.clone() {
                    let (sequence, position) = rows.of[row];
                    let at = row * columns + inner + head * width;
                    k.copy_from_slice(&values[at..at + width]);
                    self.turn(&mut k, attention.head_norms.as_ref().map(|[_, of_keys]| of_keys), rows, row);
                    let v = &values[at + key_heads * width..][..width];
                    // SAFETY: the text is grown, and a token's values in a head are written by one thread.
                    #[expect(unsafe_code, reason = "threads share it")]
                    unsafe {
                        write(&rows.sequences[sequence].own, l, head, position, &k, v);
                    }
                }
            }
        });
    }

    /// Mixes values for the queries of every row: its `own` sequence's or its memory's.
    fn attend(
        &self,
        worker: &Worker<'_>,
        (l, attention): (usize, &Attention),
        rows: &Rows<'_>,
        own: bool,
        space: &Space,
    ) {
        let Attention { heads, key_heads, width, scale, .. } = *attention;
        let (group, columns) = (heads / key_heads, attention.inward.matrix.outputs());
        let runs = if own { &rows.own } else { &rows.memory };
        // SAFETY: the products are done, and nobody writes to them in this phase.
        #[expect(unsafe_code, reason = "threads share it")]
        let values = unsafe { space.inward.read() };
        let span = 2 * rows.reach.max(1) - 1;
        let bias = rows.biases.get(l.min(rows.biases.len().saturating_sub(1))).filter(|_| own);
        worker.phase(runs.len() * key_heads, 1, |pieces| {
            let (mut scores, mut queries, mut mixed) =
                (Vec::new(), vec![0f32; QUERIES * width], vec![0f32; QUERIES * width]);
            for piece in pieces {
                let (head, run) = (piece / runs.len(), runs[piece % runs.len()].clone());
                let sequence = &rows.sequences[rows.of[run.start].0];
                let Some(past) = (if own { Some(&sequence.own) } else { sequence.memory.as_ref() }) else { continue };
                let sees = |row: usize| if own && self.causal { rows.of[row].1 + 1 } else { past.len() };
                let farthest = run.clone().map(sees).max().unwrap_or(0);
                // SAFETY: keys and values were written in another phase.
                #[expect(unsafe_code, reason = "threads share it")]
                let parts = unsafe { parts(past, l, head, farthest) };
                let all: Vec<(usize, usize)> =
                    run.flat_map(|row| (head * group..(head + 1) * group).map(move |head| (row, head))).collect();
                for some in all.chunks(QUERIES) {
                    let mut of = [Query { sees: 0, bias: None }; QUERIES];
                    for (((row, head), query), of) in
                        some.iter().copied().zip(queries.chunks_exact_mut(width)).zip(&mut of)
                    {
                        query.copy_from_slice(&values[row * columns + head * width..][..width]);
                        let norm = attention.head_norms.as_ref().map(|[of_queries, _]| of_queries);
                        if own {
                            self.turn(query, norm, rows, row);
                        }
                        query.iter_mut().for_each(|q| *q *= scale);
                        // From the first token, which lies as far before this one as its position says.
                        let from = head * span + rows.reach - 1 - rows.of[row].1;
                        *of = Query { sees: sees(row), bias: bias.map(|bias| &bias[from..]) };
                    }
                    let n = some.len();
                    attend(&queries[..n * width], &of[..n], past.shape(), &parts, &mut scores, &mut mixed[..n * width]);
                    for ((row, head), mixed) in some.iter().zip(mixed.chunks_exact(width)) {
                        let at = (row * heads + head) * width;
                        // SAFETY: a head of a row is mixed by one thread.
                        #[expect(unsafe_code, reason = "threads share it")]
                        unsafe { space.narrow.write(at..at + width) }.copy_from_slice(mixed);
                    }
                }
            }
        });
    }

    /// Normalises and turns a head of a query or key.
    fn turn(&self, head: &mut [f32], norm: Option<&Norm>, rows: &Rows<'_>, row: usize) {
        if let Some(norm) = norm {
            let scale = inverse_rms(head, norm.epsilon);
            head.iter_mut().zip(&norm.weight).for_each(|(x, w)| *x = *x * scale * w);
        }
        if let Position::Rotary(_) = self.position {
            let half = head.len() / 2;
            let [cos, sin] = rows.angles.each_ref().map(|angles| &angles[row * half..(row + 1) * half]);
            let (first, second) = head.split_at_mut(half);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    /// Gives `take` every row through the last norm.
    fn finish(&self, worker: &Worker<'_>, x: &Shared<f32>, take: impl Fn(usize, &[f32])) {
        // SAFETY: the last product is done, and nobody writes to the residual stream any more.
        #[expect(unsafe_code, reason = "threads share it")]
        let x = unsafe { x.read() };
        worker.phase(x.len() / self.d_model, 1, |rows| {
            let mut state = vec![0f32; self.d_model];
            for row in rows {
                self.norm.of(&x[row * self.d_model..(row + 1) * self.d_model], &mut state);
                if self.scale != 1.0 {
                    state.iter_mut().for_each(|state| *state *= self.scale);
                }
                take(row, &state);
            }
        });
    }
}

impl Bias {
    /// The bias of each head for keys from `reach - 1` tokens before a query to as many after it.
    fn over(&self, reach: usize, causal: bool) -> Vec<f32> {
        let heads = self.table.len() / self.buckets;
        let span = 2 * reach.max(1) - 1;
        let mut over = vec![0f32; heads * span];
        for i in 0..span {
            let relative = i as i64 - (reach.max(1) - 1) as i64;
            if causal && relative > 0 {
                break;
            }
            let bucket = relative_position_bucket(relative, !causal, self.buckets, self.max_distance);
            for head in 0..heads {
                over[head * span + i] = self.table[bucket * heads + head];
            }
        }
        over
    }
}

impl Norm {
    fn of(&self, x: &[f32], y: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || {
                let scale = inverse_rms(x, self.epsilon);
                y.iter_mut().zip(x).zip(&self.weight).for_each(|((y, x), w)| *y = x * scale * w);
            },
        );
    }
}

impl FeedForward {
    /// The first maps and what follows them.
    fn inward(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: usize, space: &Space) {
        product(worker, &self.inward, x, rows, space, |panel, first, sums| {
            for (row, sums) in (first..).zip(sums) {
                let mut values = [0f32; PANEL];
                let (at, width) = match self.activation {
                    Activation::Relu => {
                        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum.max(0.0));
                        (panel * PANEL, PANEL)
                    }
                    Activation::Gate(gate) => {
                        let [scale, cubic] = gate.coefficients();
                        let (gates, ups) = sums.split_at(PANEL / 2);
                        vectorised(
                            #[inline(always)]
                            || {
                                for ((value, &g), &u) in values.iter_mut().zip(gates).zip(ups) {
                                    *value = g * sigmoid(scale * g * (cubic * g * g + 1.0)) * u;
                                }
                            },
                        );
                        (panel * PANEL / 2, PANEL / 2)
                    }
                };
                let (some, at) = (width.min(self.d_ff - at), row * self.d_ff + at);
                // SAFETY: a panel is multiplied by one thread, and what it gives is nobody else's.
                #[expect(unsafe_code, reason = "threads share it")]
                unsafe { space.wide.write(at..at + some) }.copy_from_slice(&values[..some]);
            }
        });
    }
}

impl Linear {
    /// `y = map x`.
    fn replace(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: usize, space: &Space, y: &Shared<f32>) {
        self.apply(worker, x, rows, space, y, |y, value| *y = value);
    }

    /// `y += map x`.
    fn add(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: usize, space: &Space, y: &Shared<f32>) {
        self.apply(worker, x, rows, space, y, |y, value| *y += value);
    }

    fn apply(
        &self,
        worker: &Worker<'_>,
        x: &Shared<f32>,
        rows: usize,
        space: &Space,
        y: &Shared<f32>,
        put: impl Fn(&mut f32, f32),
    ) {
        let Self { matrix, bias } = self;
        product(worker, matrix, x, rows, space, |panel, first, sums| {
            let of = matrix.outputs_of(panel);
            for (row, sums) in (first..).zip(sums) {
                let at = row * matrix.outputs();
                // SAFETY: a panel is multiplied by one thread, and its outputs are nobody else's.
                #[expect(unsafe_code, reason = "threads share it")]
                let y = unsafe { y.write(at + of.start..at + of.end) };
                match bias {
                    None => y.iter_mut().zip(sums).for_each(|(y, sum)| put(y, *sum)),
                    Some(bias) => {
                        let values = sums.iter().zip(&bias[of.clone()]);
                        y.iter_mut().zip(values).for_each(|(y, (sum, bias))| put(y, sum + bias));
                    }
                }
            }
        });
    }
}

/// Every panel times all rows of `x`, which are rounded before if the matrix takes bytes.
fn product(
    worker: &Worker<'_>,
    matrix: &Packed,
    x: &Shared<f32>,
    rows: usize,
    space: &Space,
    mut take: impl FnMut(usize, usize, &[[f32; PANEL]]),
) {
    let (inputs, stride) = (matrix.inputs(), bytes::stride(matrix.inputs()));
    // SAFETY: the rows were written in another phase, and nobody writes to them in this one.
    #[expect(unsafe_code, reason = "threads share it")]
    let x = &unsafe { x.read() }[..rows * inputs];
    if matrix.takes_bytes() {
        worker.phase(rows, 1, |some| {
            for row in some {
                // SAFETY: a row is rounded by one thread, and nobody reads it in this phase.
                #[expect(unsafe_code, reason = "threads share it")]
                let (bytes, scale) =
                    unsafe { (space.bytes.write(row * stride..(row + 1) * stride), space.scales.write(row..row + 1)) };
                scale[0] = bytes::round(&x[row * inputs..(row + 1) * inputs], bytes);
            }
        });
    }
    let input = match matrix.takes_bytes() {
        // SAFETY: the rows were rounded in another phase.
        #[expect(unsafe_code, reason = "threads share it")]
        true => unsafe { Input::Bytes(space.bytes.read(), space.scales.read()) },
        false => Input::Floats(x),
    };
    let some = matrix.panels() / (PIECES * worker.threads());
    worker.phase(matrix.panels(), some, |panels| {
        for panel in panels {
            matrix.panel_times(panel, input, rows, |first, sums| take(panel, first, sums));
        }
    });
}

/// The rows of the residual stream, normalised.
fn normalise(worker: &Worker<'_>, x: &Shared<f32>, norm: &Norm, y: &Shared<f32>, rows: usize) {
    let width = norm.weight.len();
    // SAFETY: products were added in other phases, and nobody writes to the residual stream in this one.
    #[expect(unsafe_code, reason = "threads share it")]
    let x = unsafe { x.read() };
    worker.phase(rows, 1, |some| {
        for row in some {
            let of = row * width..(row + 1) * width;
            // SAFETY: a row is normalised by one thread, and nobody reads it in this phase.
            #[expect(unsafe_code, reason = "threads share it")]
            norm.of(&x[of.clone()], unsafe { y.write(of) });
        }
    });
}

impl Space {
    /// Room for so many rows of a stack, and so many logits.
    fn make_room(&mut self, stack: &Stack, rows: usize, logits: usize) {
        let (mut narrow, mut wide, mut inward) = (stack.d_model, 0, 0);
        for Layer { attention, memory, feed_forward } in &stack.layers {
            let attentions = std::iter::once(attention).chain(memory.iter().map(|(attention, _)| attention));
            for attention in attentions {
                narrow = narrow.max(attention.inner());
                inward = inward.max(attention.inward.matrix.outputs());
            }
            wide = wide.max(feed_forward.d_ff);
        }
        self.narrow.reach(0.0, rows * narrow);
        self.wide.reach(0.0, rows * wide);
        self.inward.reach(0.0, rows * inward);
        self.logits.reach(0.0, logits);
        if stack.precision == Precision::Int8 {
            self.bytes.reach(0, rows * bytes::stride(narrow.max(wide)));
            self.scales.reach(0.0, rows);
        }
    }
}

/// Ranges of consecutive rows, `RUN` of one sequence at most.
fn runs(counts: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut first = 0;
    for n in counts {
        runs.extend((0..n).step_by(RUN).map(|at| first + at..first + n.min(at + RUN)));
        first += n;
    }
    runs
}
