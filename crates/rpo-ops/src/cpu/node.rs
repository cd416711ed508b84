//! How an operation with kernels of its own becomes one node of the graph.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor,
    DispatchTensorKind, ExtensionType, Flex, backend_extension,
};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use super::memory::{dense, tensor};

/// What a node computes from its inputs, all of which are dense.
pub trait Operation: Debug + Send + Sync + 'static {
    /// What the gradients need beside the inputs.
    type Kept: Clone + Debug + Send + 'static;

    /// The result, and what is kept: little is, if it is not `tracked`, for then no gradient will be asked for.
    fn forward(&self, inputs: &[FlexTensor], tracked: bool) -> (FlexTensor, Self::Kept);

    /// Finds the gradients of the inputs, given that of the result. One that costs a product of matrices only where it is
    /// wanted.
    fn backward(&self, of: &mut OfInputs<'_>, kept: Self::Kept, gradient: FlexTensor);
}

/// The gradients of a node's inputs, by their places.
#[derive(Debug)]
pub struct OfInputs<'a> {
    pub(super) inputs: &'a [FlexTensor],
    wanted: Vec<bool>,
    found: Vec<Option<FlexTensor>>,
}

impl OfInputs<'_> {
    /// Whether a gradient is asked for.
    pub(super) fn wants(&self, place: usize) -> bool {
        self.wanted[place]
    }

    pub(super) fn put(&mut self, place: usize, gradient: FlexTensor) {
        self.found[place] = Some(gradient);
    }
}

/// The inputs of a node.
#[derive(Debug)]
pub struct Inputs<B: Backend>(Vec<FloatTensor<B>>);

impl Inputs<Dispatch> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an input and returns its place.
    pub(crate) fn add<const D: usize>(&mut self, input: Tensor<D>) -> usize {
        self.0.push(input.into_dispatch());
        self.0.len() - 1
    }

    /// The result of `operation` on these inputs.
    pub(crate) fn run<const D: usize>(self, operation: impl Operation) -> Tensor<D> {
        Tensor::from_dispatch(Dispatch::fused(self, operation))
    }
}

impl<B: Backend> ExtensionType<B> for Inputs<B> {
    type Target = Inputs<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let map = |tensor| DispatchTensor { kind: map_kind(BackendTensor::Float(tensor)), autodiff };
        Inputs(self.0.into_iter().map(map).collect())
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.into_iter().map(|tensor| unwrap_kind(tensor).float()).collect())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let contexts = target.0.iter().map(|tensor| tensor.autodiff);
        contexts.fold(DispatchAutodiffContext::Disabled, DispatchAutodiffContext::merge)
    }
}

/// Operations on tensors of a backend that may track gradients.
#[backend_extension(Flex, Autodiff)]
pub trait Fused: Backend {
    /// The result of an operation.
    fn fused<O: Operation>(#[extension_type] inputs: Inputs<Self>, operation: O) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn fused<O: Operation>(inputs: Inputs<Self>, operation: O) -> FloatTensor<Self> {
        let inputs: Vec<FlexTensor> = inputs.0.into_iter().map(dense).collect();
        operation.forward(&inputs, false).0
    }
}

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused<O: Operation>(inputs: Inputs<Self>, operation: O) -> FloatTensor<Self> {
        match inputs.0.len() {
            0..=2 => fused::<O, C, 2>(inputs, operation),
            3..=8 => fused::<O, C, 8>(inputs, operation),
            _ => fused::<O, C, MOST>(inputs, operation),
        }
    }
}

/// Inputs of the largest node.
const MOST: usize = 24;

/// A node with `N` parents. The engine's nodes have a fixed number of them: constants stand in for those that are missing.
fn fused<O: Operation, C: CheckpointStrategy, const N: usize>(
    inputs: Inputs<Autodiff<Flex, C>>,
    operation: O,
) -> FloatTensor<Autodiff<Flex, C>> {
    assert!(inputs.0.len() <= N, "{operation:?} has too many inputs");
    let (mut primitives, mut nodes) = (Vec::with_capacity(N), Vec::with_capacity(N));
    for input in inputs.0 {
        let (primitive, node) = input.into_parts();
        primitives.push(dense(primitive));
        nodes.push(node);
    }
    let missing = || Autodiff::<Flex, C>::from_inner(tensor(vec![0.0], [1])).into_parts().1;
    nodes.resize_with(N, missing);
    let Ok(nodes) = <[_; N]>::try_from(nodes) else { unreachable!("resized") };
    let (inputs, operation) = (primitives, Arc::new(operation));
    match Node(operation.clone()).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(node) => {
            let (result, kept) = operation.forward(&inputs, true);
            node.finish((inputs, kept), result)
        }
        OpsKind::UnTracked(node) => node.finish(operation.forward(&inputs, false).0),
    }
}

/// An operation as the engine's graph knows it.
#[derive(Debug)]
struct Node<O>(Arc<O>);

impl<O: Operation, const N: usize> Backward<Flex, N> for Node<O> {
    type State = (Vec<FlexTensor>, O::Kept);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = dense(gradients.consume::<Flex>(&ops.node));
        let (inputs, kept) = ops.state;
        let wanted: Vec<bool> = ops.parents.iter().map(Option::is_some).take(inputs.len()).collect();
        let mut of = OfInputs { inputs: &inputs, found: vec![None; inputs.len()], wanted };
        self.0.backward(&mut of, kept, gradient);
        for (parent, gradient) in ops.parents.into_iter().zip(of.found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
