//! The operations that decide the speed of a step, each as one node of the graph with kernels and gradients of our own on
//! the CPU. Each kernel has a twin built from Burn operations (`composed.rs`), used on other devices and as the test oracle.

mod attention;
mod head;
mod layers;
mod linear;
mod memory;
mod pointwise;
mod prefixed;
mod simd;
#[cfg(test)]
mod tests;
mod update;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchDevice, Flex, backend_extension};
use burn::tensor::{Device, Tensor};
pub(crate) use layers::Settings;
use memory::dense;

use crate::plan::Plan;

pub(crate) use prefixed::PrefixPlan;
pub use update::{AdamW, adamw, sum_of_squares};

/// Whether tensors on `device` have kernels of our own, and they are not switched off (feature `composed`).
pub(crate) fn supported(device: &Device) -> bool {
    !cfg!(feature = "composed") && matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The operations on tensors of a backend that may track gradients.
#[backend_extension(Flex, Autodiff)]
pub trait Fused: Backend {
    /// `x weight^T`.
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `x / sqrt(mean(x^2) + epsilon) * weight`.
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;
    /// `x + (activation(h gate^T) * h up^T) down^T` with `h = rms_norm(x)`.
    fn fused_feed_forward(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
    /// `x + attention(rms_norm(x), memory) o^T`; `plan` says whether `memory` and `table` mean anything.
    #[allow(clippy::too_many_arguments, reason = "each tensor of a node is an argument")]
    fn fused_attention_layer(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        memory: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        table: FloatTensor<Self>,
        plan: Plan,
        epsilon: f64,
    ) -> FloatTensor<Self>;
    /// Attention of turned queries and keys with a shared prefix; see [`crate::prefixed_attention`].
    fn fused_prefixed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: PrefixPlan,
    ) -> FloatTensor<Self>;
    /// `log softmax(hidden weight^T)[label]`.
    fn fused_label_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: Vec<u32>,
        keep_logits: bool,
    ) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::linear(&dense(x), &dense(weight))
    }

    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        pointwise::rms_norm(x, weight, epsilon)
    }

    fn fused_feed_forward(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        layers::feed_forward(&[x, norm, gate, up, down].map(dense), settings).0
    }

    fn fused_attention_layer(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        memory: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        table: FloatTensor<Self>,
        plan: Plan,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let inputs = attention_inputs([x, norm, memory, q, k, v, o, table], &plan);
        layers::attention_layer(&inputs, &plan, epsilon).0
    }

    fn fused_prefixed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: PrefixPlan,
    ) -> FloatTensor<Self> {
        prefixed::forward([q, k, v].map(dense), &plan).0
    }

    fn fused_label_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: Vec<u32>,
        _: bool,
    ) -> FloatTensor<Self> {
        head::forward(hidden, weight, &labels, false).0
    }
}

/// The inputs of an attention layer, of which some only stand in for nothing.
fn attention_inputs(tensors: [FloatTensor<Flex>; 8], plan: &Plan) -> layers::AttentionInputs {
    let [x, norm, memory, q, k, v, o, table] = tensors.map(dense);
    layers::AttentionInputs { x, norm, memory: plan.memory.as_ref().map(|_| memory), weights: [q, k, v, o], table }
}

/// A parent of a node and the gradient for it; nothing happens if either is missing.
macro_rules! register {
    ($gradients:expr, $($parent:expr => $gradient:expr),+ $(,)?) => {
        $(if let (Some(parent), Some(gradient)) = ($parent, $gradient) {
            $gradients.register::<Flex>(parent.id, gradient);
        })+
    };
}

#[derive(Debug)]
struct Linear;

impl Backward<Flex, 2> for Linear {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = dense(gradients.consume::<Flex>(&ops.node));
        let [x, weight] = ops.parents;
        let wanted = [x.is_some(), weight.is_some()];
        register!(
            gradients,
            x => wanted[0].then(|| linear::of_input(&gradient, &ops.state.1)),
            weight => wanted[1].then(|| linear::of_weight(&gradient, &ops.state.0)),
        );
    }
}

#[derive(Debug)]
struct RmsNorm {
    epsilon: f64,
}

impl Backward<Flex, 2> for RmsNorm {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [x, weight] = ops.parents;
        let [of_x, of_weight] = pointwise::rms_norm_backward(ops.state.0, ops.state.1, gradient, None, self.epsilon);
        register!(gradients, x => Some(of_x), weight => Some(of_weight));
    }
}

#[derive(Debug)]
struct FeedForward {
    settings: Settings,
}

impl Backward<Flex, 5> for FeedForward {
    type State = ([FloatTensor<Flex>; 5], [FloatTensor<Flex>; 2]);

    fn backward(self, ops: Ops<Self::State, 5>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = dense(gradients.consume::<Flex>(&ops.node));
        let (inputs, kept) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = layers::feed_forward_backward(inputs, kept, gradient, self.settings, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            register!(gradients, parent => gradient);
        }
    }
}

#[derive(Debug)]
struct AttentionLayer {
    plan: Plan,
    epsilon: f64,
}

impl Backward<Flex, 8> for AttentionLayer {
    type State = (layers::AttentionInputs, layers::AttentionKept);

    fn backward(self, ops: Ops<Self::State, 8>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = dense(gradients.consume::<Flex>(&ops.node));
        let (inputs, kept) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = layers::attention_layer_backward(inputs, kept, gradient, &self.plan, self.epsilon, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            register!(gradients, parent => gradient);
        }
    }
}

#[derive(Debug)]
struct PrefixedAttention {
    plan: PrefixPlan,
}

impl Backward<Flex, 3> for PrefixedAttention {
    type State = prefixed::Kept;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = dense(gradients.consume::<Flex>(&ops.node));
        let of_inputs = prefixed::backward(ops.state, &gradient, &self.plan);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            register!(gradients, parent => Some(gradient));
        }
    }
}

#[derive(Debug)]
struct LabelLogProbs {
    labels: Vec<u32>,
}

impl Backward<Flex, 2> for LabelLogProbs {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>, head::Saved);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [hidden, weight] = ops.parents;
        let (h, w, saved) = ops.state;
        let [of_hidden, of_weight] = head::backward(h, w, &self.labels, saved, gradient);
        register!(gradients, hidden => Some(of_hidden), weight => Some(of_weight));
    }
}

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (dense(x), dense(weight));
        match Linear.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((x.clone(), weight.clone()), linear::linear(&x, &weight)),
            OpsKind::UnTracked(node) => node.finish(linear::linear(&x, &weight)),
        }
    }

    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        match (RmsNorm { epsilon }).prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((x.clone(), weight.clone()), pointwise::rms_norm(x, weight, epsilon)),
            OpsKind::UnTracked(node) => node.finish(pointwise::rms_norm(x, weight, epsilon)),
        }
    }

    fn fused_feed_forward(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let tensors = [x, norm, gate, up, down];
        let inputs = tensors.each_ref().map(|t| dense(t.clone().into_primitive()));
        let nodes = tensors.map(|t| t.into_parts().1);
        let (y, kept) = layers::feed_forward(&inputs, settings);
        match (FeedForward { settings }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((inputs, kept), y),
            OpsKind::UnTracked(node) => node.finish(y),
        }
    }

    fn fused_attention_layer(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        memory: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        table: FloatTensor<Self>,
        plan: Plan,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let tensors = [x, norm, memory, q, k, v, o, table];
        let inputs = attention_inputs(tensors.each_ref().map(|t| t.clone().into_primitive()), &plan);
        let nodes = tensors.map(|t| t.into_parts().1);
        let (y, kept) = layers::attention_layer(&inputs, &plan, epsilon);
        match (AttentionLayer { plan, epsilon }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((inputs, kept), y),
            OpsKind::UnTracked(node) => node.finish(y),
        }
    }

    fn fused_prefixed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: PrefixPlan,
    ) -> FloatTensor<Self> {
        let tensors = [q, k, v];
        let inputs = tensors.each_ref().map(|t| dense(t.clone().into_primitive()));
        let nodes = tensors.map(|t| t.into_parts().1);
        let (y, kept) = prefixed::forward(inputs, &plan);
        match (PrefixedAttention { plan }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish(kept, y),
            OpsKind::UnTracked(node) => node.finish(y),
        }
    }

    fn fused_label_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: Vec<u32>,
        keep_logits: bool,
    ) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (weight, weight_node)) = (hidden.into_parts(), weight.into_parts());
        let op = LabelLogProbs { labels: labels.clone() };
        match op.prepare::<C>([hidden_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => {
                let (log_probs, saved) = head::forward(hidden.clone(), weight.clone(), &labels, keep_logits);
                node.finish((hidden, weight, saved), log_probs)
            }
            OpsKind::UnTracked(node) => node.finish(head::forward(hidden, weight, &labels, false).0),
        }
    }
}

pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_linear(x.into_dispatch(), weight.into_dispatch()))
}

pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_rms_norm(x.into_dispatch(), weight.into_dispatch(), epsilon))
}

/// Of `[x, gate, up, down]`.
pub(crate) fn feed_forward(tensors: [Tensor<2>; 4], norm: Tensor<1>, settings: Settings) -> Tensor<2> {
    let [x, gate, up, down] = tensors.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fused_feed_forward(x, norm.into_dispatch(), gate, up, down, settings))
}

/// Of `[x, memory, q, k, v, o, table]`.
pub(crate) fn attention_layer(tensors: [Tensor<2>; 7], norm: Tensor<1>, plan: Plan, epsilon: f64) -> Tensor<2> {
    let [x, memory, q, k, v, o, table] = tensors.map(Tensor::into_dispatch);
    let norm = norm.into_dispatch();
    Tensor::from_dispatch(Dispatch::fused_attention_layer(x, norm, memory, q, k, v, o, table, plan, epsilon))
}

/// Of `[q, k, v]`.
pub(crate) fn prefixed_attention(tensors: [Tensor<2>; 3], plan: PrefixPlan) -> Tensor<2> {
    let [q, k, v] = tensors.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fused_prefixed_attention(q, k, v, plan))
}

pub(crate) fn label_log_probs(hidden: Tensor<2>, weight: Tensor<2>, labels: &[u32], keep_logits: bool) -> Tensor<1> {
    let (hidden, weight) = (hidden.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_label_log_probs(hidden, weight, labels.to_vec(), keep_logits))
}
