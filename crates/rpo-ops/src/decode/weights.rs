//! What layers are made of, as models have it.

use crate::parameters::Gate;
use crate::plan::relative_position_bucket;
use crate::rotary::Rotary;

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

impl Bias {
    /// The bias of each head for keys from `reach - 1` tokens before a query to as many after it.
    pub(super) fn over(&self, reach: usize, causal: bool) -> Vec<f32> {
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
