//! A stack of layers and what it does to rows.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::attend::{QUERIES, Query, attend};
use super::bytes::{self, Group, Rounded};
use super::layers::{Attention, Head, Layer, Norm, normalise};
use super::packed::{Precision, ROWS};
use super::past::{Past, Shape, parts, write};
use super::product::{Space, product};
use super::team::{Shared, Worker, together};
use super::weights::{LayerWeights, NormWeights, Position};
use crate::cpu::inverse_rms;

/// Rows of a sequence that one task attends for, at most.
const RUN: usize = 8;

/// A text that is read or written.
#[derive(Clone)]
pub struct Sequence {
    /// Its own tokens.
    pub own: Past,
    /// What it attends to besides: the prompt of an encoder-decoder.
    pub memory: Option<Past>,
}

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
    space: Space,
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
        let mut packer = precision.into();
        let mut layer = |weights| Layer::new(weights, d_model, &mut packer);
        // One by one, so that no layer's weights are held twice.
        let layers = layers.into_iter().map(|weights| weights.map(&mut layer)).collect::<Result<_, E>>()?;
        Ok(Self { d_model, layers, norm: norm.into(), scale, causal, position, precision, space: Space::default() })
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
    pub fn memories(&mut self, states: Vec<f32>, lengths: &[usize]) -> Vec<Past> {
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
        self.make_room(rows, 0);
        let space = &self.space;
        let keys_values = Shared::new(0f32, rows * 2 * inner);
        together(self.phases(), |worker| {
            for (l, layer) in self.layers.iter().enumerate() {
                let Some((_, map)) = &layer.memory else { continue };
                map.replace(worker, &states, rows, space, &keys_values);
                worker.phase(runs.len() * heads, |piece| {
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
                });
            }
        });
        memories
    }

    /// Final hidden states of rows: `x` holds the embeddings of `counts[i]` tokens of sequence `i`, `(rows, d_model)`; they are
    /// appended to its own.
    pub fn states(&mut self, x: Vec<f32>, sequences: &mut [Sequence], counts: &[usize]) -> Vec<f32> {
        let rows = self.rows(sequences, counts);
        let (x, n) = (Shared::from(x), rows.of.len());
        let states = Shared::new(0f32, n * self.d_model);
        self.make_room(n, 0);
        let space = &self.space;
        together(self.phases(), |worker| {
            self.through(worker, &x, &rows, space);
            self.finish(worker, &x, n, |row, state| {
                // SAFETY: a row is finished by one thread.
                #[expect(unsafe_code, reason = "threads share it")]
                unsafe { states.write(row * self.d_model..(row + 1) * self.d_model) }.copy_from_slice(state);
            });
        });
        states.into_inner()
    }

    /// Appends rows to their sequences, as [`Self::states`], whose hidden states nobody wants.
    pub fn read(&mut self, x: Vec<f32>, sequences: &mut [Sequence], counts: &[usize]) {
        let rows = self.rows(sequences, counts);
        let x = Shared::from(x);
        self.make_room(rows.of.len(), 0);
        let space = &self.space;
        together(self.phases(), |worker| self.through(worker, &x, &rows, space));
    }

    /// The next token of each sequence, as [`Self::states`]; `choose` gets each row's logits under `head`.
    pub fn step<R: Send>(
        &mut self,
        x: Vec<f32>,
        sequences: &mut [Sequence],
        head: &Head,
        choose: &(impl Fn(usize, &mut [f32]) -> R + Sync),
    ) -> Vec<R> {
        let rows = self.rows(sequences, &vec![1; sequences.len()]);
        let (x, n, vocabulary) = (Shared::from(x), rows.of.len(), head.0.outputs());
        self.make_room(n, n * vocabulary);
        let space = &self.space;
        let chosen: Vec<Mutex<Option<R>>> = (0..n).map(|_| Mutex::new(None)).collect();
        together(self.phases(), |worker| {
            self.through(worker, &x, &rows, space);
            self.finish(worker, &x, n, |row, state| {
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
            worker.phase(n, |row| {
                // SAFETY: the products are done, and a row is chosen from by one thread.
                #[expect(unsafe_code, reason = "threads share it")]
                let logits = unsafe { space.logits.write(row * vocabulary..(row + 1) * vocabulary) };
                let choice = choose(row, logits);
                *chosen[row].lock().unwrap_or_else(PoisonError::into_inner) = Some(choice);
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

    /// More phases than a computation has: a product has three at most, and a layer seven of them beside a few of its own.
    fn phases(&self) -> usize {
        32 * (self.layers.len() + 1)
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
        let mut k = vec![0f32; width];
        worker.phase(rows.own.len() * key_heads, |piece| {
            // SAFETY: the products are done, and nobody writes to them in this phase.
            #[expect(unsafe_code, reason = "threads share it")]
            let values = unsafe { space.inward.read() };
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
        let span = 2 * rows.reach.max(1) - 1;
        let bias = rows.biases.get(l.min(rows.biases.len().saturating_sub(1))).filter(|_| own);
        let (mut scores, mut queries, mut mixed) =
            (Vec::new(), vec![0f32; QUERIES * width], vec![0f32; QUERIES * width]);
        worker.phase(runs.len() * key_heads, |piece| {
            // SAFETY: the products are done, and nobody writes to them in this phase.
            #[expect(unsafe_code, reason = "threads share it")]
            let values = unsafe { space.inward.read() };
            let (head, run) = (piece / runs.len(), runs[piece % runs.len()].clone());
            let sequence = &rows.sequences[rows.of[run.start].0];
            let Some(past) = (if own { Some(&sequence.own) } else { sequence.memory.as_ref() }) else { return };
            let sees = |row: usize| if own && self.causal { rows.of[row].1 + 1 } else { past.len() };
            let farthest = run.clone().map(sees).max().unwrap_or(0);
            // SAFETY: keys and values were written in another phase.
            #[expect(unsafe_code, reason = "threads share it")]
            let parts = unsafe { parts(past, l, head, farthest) };
            let all: Vec<(usize, usize)> =
                run.flat_map(|row| (head * group..(head + 1) * group).map(move |head| (row, head))).collect();
            for some in all.chunks(QUERIES) {
                let mut of = [Query { sees: 0, bias: None }; QUERIES];
                for (((row, head), query), of) in some.iter().copied().zip(queries.chunks_exact_mut(width)).zip(&mut of)
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
    fn finish(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: usize, take: impl Fn(usize, &[f32])) {
        let mut state = vec![0f32; self.d_model];
        worker.phase(rows, |row| {
            // SAFETY: the last product is done, and nobody writes to the residual stream any more.
            #[expect(unsafe_code, reason = "threads share it")]
            let x = unsafe { x.read() };
            self.norm.of(&x[row * self.d_model..(row + 1) * self.d_model], &mut state);
            if self.scale != 1.0 {
                state.iter_mut().for_each(|state| *state *= self.scale);
            }
            take(row, &state);
        });
    }

    /// Makes room for so many rows, and so many logits.
    fn make_room(&mut self, rows: usize, logits: usize) {
        let space = &mut self.space;
        let (mut narrow, mut wide, mut inward) = (self.d_model, 0, 0);
        for Layer { attention, memory, feed_forward } in &self.layers {
            let attentions = std::iter::once(attention).chain(memory.iter().map(|(attention, _)| attention));
            for attention in attentions {
                narrow = narrow.max(attention.inner());
                inward = inward.max(attention.inward.matrix.outputs());
            }
            wide = wide.max(feed_forward.d_ff);
        }
        space.narrow.reach(0.0, rows * narrow);
        space.wide.reach(0.0, rows * wide);
        space.inward.reach(0.0, rows * inward);
        space.logits.reach(0.0, logits);
        // Tiles may have places for a few rows more.
        let (inputs, places) = (narrow.max(wide), rows * 4 / 3 + ROWS);
        if self.precision == Precision::Int8 {
            space.bytes.reach(Group::default(), rows * bytes::groups(inputs));
            space.rounded.reach(Rounded::default(), rows);
            space.byte_tiles.reach(Group::default(), places * bytes::groups(inputs));
        } else {
            space.tiles.reach(0.0, places * inputs);
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
