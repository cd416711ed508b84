//! The operations that decide the speed of a step, each as one node of the graph with kernels and gradients of our own on
//! the CPU. What stands in `attention.rs`, `elementwise.rs` and `log_prob.rs` is the same in terms of Burn's operations, for
//! every other device, and what these are tested against.

mod attention;
mod head;
mod memory;
mod pointwise;
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

pub(crate) use attention::{Plan, Position};
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
    /// `gelu_new(gate) * up`.
    fn fused_gated_gelu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `softmax(q k^T + bias) v` by segment and head.
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        table: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;
    /// `log softmax(hidden weight^T)[label]`.
    fn fused_label_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: Vec<u32>,
    ) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        pointwise::linear(x, weight)
    }

    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        pointwise::rms_norm(x, weight, epsilon)
    }

    fn fused_gated_gelu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        pointwise::gated_gelu(gate, up)
    }

    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        table: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        attention::forward(q, k, v, table, &plan).0
    }

    fn fused_label_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: Vec<u32>,
    ) -> FloatTensor<Self> {
        head::forward(hidden, weight, &labels, false).0
    }
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
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [x, weight] = ops.parents;
        let wanted = [x.is_some(), weight.is_some()];
        let [of_x, of_weight] = pointwise::linear_backward(ops.state.0, ops.state.1, gradient, wanted);
        register!(gradients, x => of_x, weight => of_weight);
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
        let [of_x, of_weight] = pointwise::rms_norm_backward(ops.state.0, ops.state.1, gradient, self.epsilon);
        register!(gradients, x => Some(of_x), weight => Some(of_weight));
    }
}

#[derive(Debug)]
struct GatedGelu;

impl Backward<Flex, 2> for GatedGelu {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [gate, up] = ops.parents;
        let [of_gate, of_up] = pointwise::gated_gelu_backward(ops.state.0, ops.state.1, gradient);
        register!(gradients, gate => Some(of_gate), up => Some(of_up));
    }
}

#[derive(Debug)]
struct Attention {
    plan: Plan,
}

impl Backward<Flex, 4> for Attention {
    /// Inputs, result and denominators.
    type State = [FloatTensor<Flex>; 6];

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [q, k, v, table, mixed, denominators] = ops.state;
        let saved = attention::Saved { q, k, v, table, mixed, denominators };
        let [of_q, of_k, of_v, of_table] = attention::backward(saved, gradient, &self.plan);
        let [q, k, v, table] = ops.parents;
        register!(gradients, q => Some(of_q), k => Some(of_k), v => Some(of_v), table => Some(of_table));
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
        match Linear.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((x.clone(), weight.clone()), pointwise::linear(x, weight)),
            OpsKind::UnTracked(node) => node.finish(pointwise::linear(x, weight)),
        }
    }

    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        match (RmsNorm { epsilon }).prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((x.clone(), weight.clone()), pointwise::rms_norm(x, weight, epsilon)),
            OpsKind::UnTracked(node) => node.finish(pointwise::rms_norm(x, weight, epsilon)),
        }
    }

    fn fused_gated_gelu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        match GatedGelu.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((gate.clone(), up.clone()), pointwise::gated_gelu(gate, up)),
            OpsKind::UnTracked(node) => node.finish(pointwise::gated_gelu(gate, up)),
        }
    }

    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        table: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node)) = (q.into_parts(), k.into_parts());
        let ((v, v_node), (table, table_node)) = (v.into_parts(), table.into_parts());
        let (mixed, denominators) = attention::forward(q.clone(), k.clone(), v.clone(), table.clone(), &plan);
        match (Attention { plan }).prepare::<C>([q_node, k_node, v_node, table_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish([q, k, v, table, mixed.clone(), denominators], mixed),
            OpsKind::UnTracked(node) => node.finish(mixed),
        }
    }

    fn fused_label_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: Vec<u32>,
    ) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (weight, weight_node)) = (hidden.into_parts(), weight.into_parts());
        let op = LabelLogProbs { labels: labels.clone() };
        match op.prepare::<C>([hidden_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => {
                let (log_probs, saved) = head::forward(hidden.clone(), weight.clone(), &labels, true);
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

pub(crate) fn gated_gelu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_gated_gelu(gate.into_dispatch(), up.into_dispatch()))
}

pub(crate) fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, table: Tensor<2>, plan: Plan) -> Tensor<2> {
    let [q, k, v, table] = [q, k, v, table].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fused_attention(q, k, v, table, plan))
}

pub(crate) fn label_log_probs(hidden: Tensor<2>, weight: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let (hidden, weight) = (hidden.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_label_log_probs(hidden, weight, labels.to_vec()))
}
