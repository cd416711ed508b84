//! Layers with packed weights, and what they do to rows.

use super::packed::{PANEL, Packed, Packer, Precision, ROWS};
use super::product::{Space, product};
use super::team::{Shared, Worker};
use super::weights::{AttentionWeights, FeedForwardWeights, Inward, LayerWeights, Map, NormWeights};
use crate::cpu::{inverse_rms, sigmoid, vectorised};
use crate::parameters::Gate;

pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) epsilon: f32,
}

pub(super) struct Linear {
    pub(super) matrix: Packed,
    pub(super) bias: Option<Vec<f32>>,
}

pub(super) struct Attention {
    pub(super) norm: Norm,
    pub(super) heads: usize,
    pub(super) key_heads: usize,
    pub(super) width: usize,
    /// To queries, keys and values, one after another; to queries alone in a layer that attends to a memory.
    pub(super) inward: Linear,
    pub(super) outward: Linear,
    pub(super) head_norms: Option<[Norm; 2]>,
    pub(super) scale: f32,
}

pub(super) enum Activation {
    /// Panels hold half of a gate's outputs and then half of the other map's.
    Gate(Gate),
    Relu,
}

pub(super) struct FeedForward {
    pub(super) norm: Norm,
    pub(super) activation: Activation,
    pub(super) inward: Packed,
    pub(super) d_ff: usize,
    pub(super) down: Linear,
}

pub(super) struct Layer {
    pub(super) attention: Attention,
    /// Attention to the memory, and the map from that to its keys and values.
    pub(super) memory: Option<(Attention, Linear)>,
    pub(super) feed_forward: FeedForward,
}

/// The map from final hidden states to logits, which may also be the table of embeddings.
pub struct Head(pub(super) Packed);

impl From<NormWeights> for Norm {
    fn from(NormWeights { weight, epsilon }: NormWeights) -> Self {
        Self { weight, epsilon: epsilon as f32 }
    }
}

impl Linear {
    /// Several maps of so many inputs as one.
    pub(super) fn side_by_side(maps: Vec<Map>, inputs: usize, packer: &mut Packer) -> Self {
        let outputs = |map: &Map| map.weight.len() / inputs;
        let bias = maps.iter().any(|map| map.bias.is_some()).then(|| {
            let bias = |map: &Map| map.bias.clone().unwrap_or_else(|| vec![0.0; outputs(map)]);
            maps.iter().flat_map(bias).collect()
        });
        let rows: Vec<usize> = maps.iter().flat_map(|map| 0..outputs(map)).collect();
        let mut maps = maps.into_iter().map(|map| map.weight);
        // One map alone is not copied first.
        let mut weight = maps.next().unwrap_or_default();
        maps.for_each(|more| weight.extend(more));
        Self { matrix: Packed::together(rows.len(), inputs, &weight, |output| rows[output], packer), bias }
    }
}

impl Attention {
    pub(super) fn new(
        weights: AttentionWeights,
        d_model: usize,
        to_memory: bool,
        packer: &mut Packer,
    ) -> (Self, Linear) {
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
            inward: Linear::side_by_side(inward, d_model, packer),
            outward: Linear::side_by_side(vec![o], inner, packer),
            head_norms,
            scale,
        };
        (attention, Linear::side_by_side(of_memory, d_model, packer))
    }

    /// Columns of the queries.
    pub(super) fn inner(&self) -> usize {
        self.heads * self.width
    }
}

impl FeedForward {
    pub(super) fn new(weights: FeedForwardWeights, d_model: usize, packer: &mut Packer) -> Self {
        let FeedForwardWeights { norm, inward, down } = weights;
        let d_ff = down.len() / d_model;
        let (activation, inward) = match inward {
            Inward::Relu(map) => (Activation::Relu, Packed::new(d_ff, d_model, &map, packer)),
            Inward::Gated { activation, gate, up } => {
                let half = PANEL / 2;
                let mut both = vec![0f32; d_ff.div_ceil(half) * PANEL * d_model];
                let halves = gate.chunks(half * d_model).zip(up.chunks(half * d_model));
                for (both, (gate, up)) in both.chunks_exact_mut(PANEL * d_model).zip(halves) {
                    both[..gate.len()].copy_from_slice(gate);
                    both[half * d_model..][..up.len()].copy_from_slice(up);
                }
                let row = |output| output / PANEL * half + output % half;
                (Activation::Gate(activation), Packed::together(both.len() / d_model, d_model, &both, row, packer))
            }
        };
        Self {
            norm: norm.into(),
            activation,
            inward,
            d_ff,
            down: Linear { matrix: Packed::new(d_model, d_ff, &down, packer), bias: None },
        }
    }
}

impl Layer {
    pub(super) fn new(weights: LayerWeights, d_model: usize, packer: &mut Packer) -> Self {
        let LayerWeights { attention, memory, feed_forward } = weights;
        Self {
            attention: Attention::new(attention, d_model, false, packer).0,
            memory: memory.map(|memory| Attention::new(memory, d_model, true, packer)),
            feed_forward: FeedForward::new(feed_forward, d_model, packer),
        }
    }
}

impl Head {
    /// Packs `(vocabulary, d_model)` values.
    pub fn new(d_model: usize, table: &[f32], precision: Precision) -> Self {
        Self(Packed::new(table.len() / d_model, d_model, table, &mut precision.into()))
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

impl Norm {
    pub(super) fn of(&self, x: &[f32], y: &mut [f32]) {
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
    pub(super) fn inward(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: usize, space: &Space) {
        let width = match self.activation {
            Activation::Relu => PANEL,
            Activation::Gate(_) => PANEL / 2,
        };
        let mut values = [[0f32; PANEL]; ROWS];
        product(worker, &self.inward, x, rows, space, |panel, first, sums| {
            self.activation.of(sums, &mut values);
            let some = width.min(self.d_ff - panel * width);
            for (row, values) in (first..).zip(&values[..sums.len()]) {
                let at = row * self.d_ff + panel * width;
                // SAFETY: a panel is multiplied by one thread, and what it gives is nobody else's.
                #[expect(unsafe_code, reason = "threads share it")]
                unsafe { space.wide.write(at..at + some) }.copy_from_slice(&values[..some]);
            }
        });
    }
}

impl Activation {
    /// What becomes of the first maps' outputs in a panel, row by row.
    fn of(&self, sums: &[[f32; PANEL]], values: &mut [[f32; PANEL]]) {
        vectorised(
            #[inline(always)]
            || {
                for (values, sums) in values.iter_mut().zip(sums) {
                    match self {
                        Self::Relu => values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum.max(0.0)),
                        Self::Gate(gate) => {
                            let [scale, cubic] = gate.coefficients();
                            let (gates, ups) = sums.split_at(PANEL / 2);
                            for ((value, &g), &u) in values.iter_mut().zip(gates).zip(ups) {
                                *value = g * sigmoid(scale * g * (cubic * g * g + 1.0)) * u;
                            }
                        }
                    }
                }
            },
        );
    }
}

impl Linear {
    /// `y = map x`.
    pub(super) fn replace(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: usize, space: &Space, y: &Shared<f32>) {
        self.apply(worker, x, rows, space, y, |y, value| *y = value);
    }

    /// `y += map x`.
    pub(super) fn add(&self, worker: &Worker<'_>, x: &Shared<f32>, rows: usize, space: &Space, y: &Shared<f32>) {
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

/// The rows of the residual stream, normalised.
pub(super) fn normalise(worker: &Worker<'_>, x: &Shared<f32>, norm: &Norm, y: &Shared<f32>, rows: usize) {
    let width = norm.weight.len();
    worker.phase(rows, |row| {
        let of = row * width..(row + 1) * width;
        // SAFETY: products were added in other phases, and nobody writes to the residual stream in this one; a row is normalised
        // by one thread, and nobody reads it in this phase.
        #[expect(unsafe_code, reason = "threads share it")]
        let (x, y) = unsafe { (&x.read()[of.clone()], y.write(of)) };
        norm.of(x, y);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dither;

    #[test]
    fn maps_beside_others_are_rounded_as_by_themselves() {
        let inputs = 24;
        let weights =
            |outputs: usize, k: usize| -> Vec<f32> { (0..outputs * inputs).map(|i| ((i + k) as f32).sin()).collect() };
        let maps = [weights(40, 1), weights(20, 2), weights(20, 3)];
        let mut packer = Packer::from(Precision::Bf16);
        let of_maps = maps.iter().map(|weight| Map { weight: weight.clone(), bias: None }).collect();
        let all = Linear::side_by_side(of_maps, inputs, &mut packer).matrix;
        let row = |packed: &Packed, output| {
            let mut row = vec![0f32; inputs];
            packed.row(output, &mut row);
            row
        };
        let rounded = |weights: &[f32]| -> Vec<f32> { dither::to_bf16(weights, inputs).map(f32::from).collect() };
        let want: Vec<f32> = maps.iter().flat_map(|map| rounded(map)).collect();
        for (output, want) in want.chunks_exact(inputs).enumerate() {
            assert_eq!(row(&all, output), want, "output {output}");
        }
        let d_ff = 40;
        let norm = NormWeights { weight: vec![1.0; inputs], epsilon: 1e-6 };
        let [gate, up, down] = [4, 5, 6].map(|k| weights(d_ff, k));
        let inward = Inward::Gated { activation: Gate::Silu, gate: gate.clone(), up: up.clone() };
        let both = FeedForward::new(FeedForwardWeights { norm, inward, down }, inputs, &mut packer).inward;
        let half = PANEL / 2;
        for (map, weights) in [gate, up].iter().enumerate() {
            for (output, want) in rounded(weights).chunks_exact(inputs).enumerate() {
                let place = output / half * PANEL + map * half + output % half;
                assert_eq!(row(&both, place), want, "map {map}, output {output}");
            }
        }
    }
}
