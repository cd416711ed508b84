//! The layers of a T5 block as single nodes of the graph, from the norm to the residual add. What costs a product of
//! matrices is kept for the gradients; norms and activations are computed again.

use burn_flex::FlexTensor;

use super::attention;
use super::linear::{linear, linear_onto, of_input, of_input_onto, of_weight};
use super::pointwise::{gated, gated_backward, rms_norm, rms_norm_backward};

use crate::parameters::Gate;
use crate::plan::Plan;

/// What a feed-forward layer is told beside its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Added to the mean square in the norm.
    pub(crate) epsilon: f64,
    /// What the gate's values go through.
    pub(crate) activation: Gate,
}

/// `x + (activation(h gate^T) * h up^T) down^T` with `h = rms_norm(x)`, of `[x, norm, gate, up, down]`; and the products
/// with `gate` and `up`, which [`feed_forward_backward`] needs.
pub(super) fn feed_forward(inputs: &[FlexTensor; 5], settings: Settings) -> (FlexTensor, [FlexTensor; 2]) {
    let [x, norm, gate, up, down] = inputs;
    let h = rms_norm(x.clone(), norm.clone(), settings.epsilon);
    let [gate, up] = [gate, up].map(|weight| linear(&h, weight));
    drop(h);
    let product = gated(settings.activation, gate.clone(), up.clone());
    (linear_onto(x, &product, down), [gate, up])
}

/// Gradients of the inputs. Those of matrices, each of which costs a product, only where `wanted`.
pub(super) fn feed_forward_backward(
    inputs: [FlexTensor; 5],
    kept: [FlexTensor; 2],
    gradient: FlexTensor,
    settings: Settings,
    wanted: [bool; 5],
) -> [Option<FlexTensor>; 5] {
    let Settings { epsilon, activation } = settings;
    let [x, norm, gate, up, down] = inputs;
    let [gated, upped] = kept;
    let [product, of_gated, of_upped] = gated_backward(activation, gated, upped, of_input(&gradient, &down));
    let of_down = wanted[4].then(|| of_weight(&gradient, &product));
    drop(product);
    let [mut of_gate, mut of_up] = [None, None];
    if wanted[2] || wanted[3] {
        let h = rms_norm(x.clone(), norm.clone(), epsilon);
        of_gate = wanted[2].then(|| of_weight(&of_gated, &h));
        of_up = wanted[3].then(|| of_weight(&of_upped, &h));
    }
    let mut of_h = of_input(&of_gated, &gate);
    of_input_onto(&mut of_h, &of_upped, &up);
    let [of_x, of_norm] = rms_norm_backward(x, norm, of_h, Some(gradient), epsilon);
    [Some(of_x), Some(of_norm), of_gate, of_up, of_down]
}

/// What an attention layer works on.
#[derive(Clone, Debug)]
pub(super) struct AttentionInputs {
    pub(super) x: FlexTensor,
    pub(super) norm: FlexTensor,
    /// What is attended to, if not the normed `x`.
    pub(super) memory: Option<FlexTensor>,
    /// Matrices of queries, keys and values, and of the output.
    pub(super) weights: [FlexTensor; 4],
    /// Table of position biases; see [`Plan`].
    pub(super) table: FlexTensor,
}

/// What the gradients need beside: queries, keys, values, their mixture, and the softmax's denominators.
pub(super) type AttentionKept = [FlexTensor; 5];

/// `x + attention(h, memory) o^T` with `h = rms_norm(x)`.
pub(super) fn attention_layer(inputs: &AttentionInputs, plan: &Plan, epsilon: f64) -> (FlexTensor, AttentionKept) {
    let AttentionInputs { x, norm, memory, weights: [q, k, v, o], table } = inputs;
    let h = rms_norm(x.clone(), norm.clone(), epsilon);
    let source = memory.as_ref().unwrap_or(&h);
    let [q, k, v] = [linear(&h, q), linear(source, k), linear(source, v)];
    drop(h);
    let (mixed, denominators) = attention::forward(&q, &k, &v, table, plan);
    (linear_onto(x, &mixed, o), [q, k, v, mixed, denominators])
}

/// Gradients of `[x, norm, memory, q, k, v, o, table]`. Those of matrices, each of which costs a product, only where `wanted`.
pub(super) fn attention_layer_backward(
    inputs: AttentionInputs,
    kept: AttentionKept,
    gradient: FlexTensor,
    plan: &Plan,
    epsilon: f64,
    wanted: [bool; 8],
) -> [Option<FlexTensor>; 8] {
    let AttentionInputs { x, norm, memory, weights: [q, k, v, o], table } = inputs;
    let of_o = wanted[6].then(|| of_weight(&gradient, &kept[3]));
    let [of_queries, of_keys, of_values, of_table] = attention::backward(&kept, &table, &of_input(&gradient, &o), plan);
    drop(kept);
    let [mut of_q, mut of_k, mut of_v] = [None, None, None];
    if wanted[3..6].contains(&true) {
        let h = rms_norm(x.clone(), norm.clone(), epsilon);
        let source = memory.as_ref().unwrap_or(&h);
        of_q = wanted[3].then(|| of_weight(&of_queries, &h));
        of_k = wanted[4].then(|| of_weight(&of_keys, source));
        of_v = wanted[5].then(|| of_weight(&of_values, source));
    }
    let mut of_h = of_input(&of_queries, &q);
    let mut of_memory = memory.map(|_| of_input(&of_keys, &k));
    match &mut of_memory {
        Some(of_memory) => of_input_onto(of_memory, &of_values, &v),
        None => {
            of_input_onto(&mut of_h, &of_keys, &k);
            of_input_onto(&mut of_h, &of_values, &v);
        }
    }
    let [of_x, of_norm] = rms_norm_backward(x, norm, of_h, Some(gradient), epsilon);
    [Some(of_x), Some(of_norm), of_memory, of_q, of_k, of_v, of_o, Some(of_table)]
}
