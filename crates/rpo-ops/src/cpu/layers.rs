//! The layers of a block as single nodes of the graph, from the norm to the residual add. What costs a product of matrices is
//! kept for the gradients; norms and activations are computed again.

use burn::backend::Dispatch;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use half::bf16;

use super::affine::Affine;
use super::attention;
use super::memory::Value;
use super::node::{Inputs, OfInputs, Operation};
use super::pointwise::{gated, gated_backward, rms_norm, rms_norm_backward};
use super::prefixed::{self, PrefixPlan};

use crate::parameters::{Compute, Gate, GatedFeedForward};
use crate::plan::Plan;
use crate::{RelativeBias, parameters};

/// The residual stream and the norm that a layer begins with, among the inputs.
#[derive(Clone, Copy, Debug)]
struct Normed {
    x: usize,
    norm: usize,
    epsilon: f64,
}

impl Normed {
    fn of(x: Tensor<2>, norm: Tensor<1>, epsilon: f64, inputs: &mut Inputs<Dispatch>) -> Self {
        Self { x: inputs.add(x), norm: inputs.add(norm), epsilon }
    }

    /// `rms_norm(x)`.
    fn forward<T: Value>(self, inputs: &[FlexTensor]) -> FlexTensor {
        rms_norm::<f32, T>(&inputs[self.x], &inputs[self.norm], self.epsilon)
    }

    /// Whether something before the layer's maps learns.
    fn learns(self, of: &OfInputs<'_>) -> bool {
        of.wants(self.x) || of.wants(self.norm)
    }

    /// The gradients of `x`, also through the residual add, and of the norm.
    fn backward(self, of: &mut OfInputs<'_>, of_h: FlexTensor, gradient: &FlexTensor) {
        let (x, norm) = (&of.inputs[self.x], &of.inputs[self.norm]);
        let [of_x, of_norm] = rms_norm_backward::<f32>(x, norm, of_h, Some(gradient), self.epsilon);
        of.put(self.x, of_x);
        of.put(self.norm, of_norm);
    }
}

/// `x + (activation(h gate^T) * h up^T) down^T` with `h = rms_norm(x)`.
#[derive(Debug)]
struct FeedForward {
    normed: Normed,
    activation: Gate,
    gate: Affine,
    up: Affine,
    down: Affine,
}

pub(crate) fn feed_forward(x: Tensor<2>, layer: GatedFeedForward) -> Tensor<2> {
    let GatedFeedForward { norm, epsilon, activation, gate, up, down } = layer;
    let mut inputs = Inputs::new();
    let normed = Normed::of(x, norm, epsilon, &mut inputs);
    let [gate, up, down] = [gate, up, down].map(|map| Affine::of(map, &mut inputs));
    inputs.run(FeedForward { normed, activation, gate, up, down })
}

impl Operation for FeedForward {
    /// What the gate and `up` give.
    type Kept = [FlexTensor; 2];

    fn forward(&self, inputs: &[FlexTensor], _: bool) -> (FlexTensor, Self::Kept) {
        match self.gate.compute() {
            Compute::F32 => self.forward_in::<f32>(inputs),
            Compute::Bf16 => self.forward_in::<bf16>(inputs),
        }
    }

    fn backward(&self, of: &mut OfInputs<'_>, kept: Self::Kept, gradient: FlexTensor) {
        match self.gate.compute() {
            Compute::F32 => self.backward_in::<f32>(of, kept, &gradient),
            Compute::Bf16 => self.backward_in::<bf16>(of, kept, &gradient),
        }
    }
}

impl FeedForward {
    fn forward_in<T: Value>(&self, inputs: &[FlexTensor]) -> (FlexTensor, [FlexTensor; 2]) {
        let h = self.normed.forward::<T>(inputs);
        let [gate, up] = [self.gate, self.up].map(|map| map.forward::<T>(inputs, &h));
        drop(h);
        let product = gated::<T>(self.activation, &gate, &up);
        (self.down.forward_onto(inputs, &inputs[self.normed.x], &product), [gate, up])
    }

    fn backward_in<T: Value>(&self, of: &mut OfInputs<'_>, kept: [FlexTensor; 2], gradient: &FlexTensor) {
        let Self { normed, activation, gate, up, down } = *self;
        let ([gated, upped], inputs) = (kept, of.inputs);
        let of_product = down.of_input::<T>(inputs, gradient);
        let [product, of_gated, of_upped] = gated_backward::<T>(activation, gated, upped, of_product);
        down.of_parameters(of, gradient, &product);
        drop(product);
        if gate.learns(of) || up.learns(of) {
            let h = normed.forward::<T>(inputs);
            gate.of_parameters(of, &of_gated, &h);
            up.of_parameters(of, &of_upped, &h);
        }
        if normed.learns(of) {
            let mut of_h = gate.of_input::<f32>(inputs, &of_gated);
            up.of_input_onto(inputs, &mut of_h, &of_upped);
            normed.backward(of, of_h, gradient);
        }
    }
}

/// `x + attention(h, memory) o^T` with `h = rms_norm(x)`.
#[derive(Debug)]
struct AttentionLayer {
    normed: Normed,
    q: Affine,
    k: Affine,
    v: Affine,
    o: Affine,
    /// Norms of the heads of queries and keys.
    head_norms: Option<[usize; 2]>,
    kind: Kind,
}

/// What queries, keys and values go through.
#[derive(Debug)]
enum Kind {
    /// T5's: to `memory`, if there is one, with biases of a table, if there is one.
    Biased { plan: Plan, memory: Option<usize>, table: Option<usize> },
    /// That of decoder-only models.
    Prefixed(PrefixPlan),
}

/// Attention as `plan` says: to `memory` or, without one, to the layer's own tokens.
pub(crate) fn attention_layer(
    x: Tensor<2>,
    layer: parameters::AttentionLayer,
    plan: Plan,
    memory: Option<Tensor<2>>,
    bias: Option<&RelativeBias>,
) -> Tensor<2> {
    layer_with(x, layer, |inputs| Kind::Biased {
        plan,
        memory: memory.map(|memory| inputs.add(memory)),
        table: bias.map(|bias| inputs.add(bias.table())),
    })
}

/// Attention to a shared prefix and the past.
pub(crate) fn prefixed_layer(x: Tensor<2>, layer: parameters::AttentionLayer, plan: PrefixPlan) -> Tensor<2> {
    layer_with(x, layer, |_| Kind::Prefixed(plan))
}

fn layer_with(
    x: Tensor<2>,
    layer: parameters::AttentionLayer,
    kind: impl FnOnce(&mut Inputs<Dispatch>) -> Kind,
) -> Tensor<2> {
    let parameters::AttentionLayer { norm, epsilon, heads: _, q, k, v, o, head_norms } = layer;
    let mut inputs = Inputs::new();
    let normed = Normed::of(x, norm, epsilon, &mut inputs);
    let [q, k, v, o] = [q, k, v, o].map(|map| Affine::of(map, &mut inputs));
    let head_norms = head_norms.map(|norms| norms.map(|norm| inputs.add(norm)));
    let kind = kind(&mut inputs);
    inputs.run(AttentionLayer { normed, q, k, v, o, head_norms, kind })
}

/// What the gradients of an attention layer need beside its inputs.
#[derive(Clone, Debug)]
pub(super) struct AttentionKept {
    /// Queries, keys and values as they attend, what that gives, and the softmax's denominators.
    attended: [FlexTensor; 5],
    /// Queries and keys before their norms.
    unnormed: Option<[FlexTensor; 2]>,
}

impl AttentionLayer {
    /// What keys and values are made of: the memory, or `h`.
    fn source<'a>(&self, inputs: &'a [FlexTensor], h: &'a FlexTensor) -> &'a FlexTensor {
        match self.kind {
            Kind::Biased { memory: Some(memory), .. } => &inputs[memory],
            _ => h,
        }
    }
}

impl Operation for AttentionLayer {
    type Kept = AttentionKept;

    fn forward(&self, inputs: &[FlexTensor], _: bool) -> (FlexTensor, AttentionKept) {
        match self.q.compute() {
            Compute::F32 => self.forward_in::<f32>(inputs),
            Compute::Bf16 => self.forward_in::<bf16>(inputs),
        }
    }

    fn backward(&self, of: &mut OfInputs<'_>, kept: AttentionKept, gradient: FlexTensor) {
        match self.q.compute() {
            Compute::F32 => self.backward_in::<f32>(of, kept, &gradient),
            Compute::Bf16 => self.backward_in::<bf16>(of, kept, &gradient),
        }
    }
}

impl AttentionLayer {
    fn forward_in<T: Value>(&self, inputs: &[FlexTensor]) -> (FlexTensor, AttentionKept) {
        let h = self.normed.forward::<T>(inputs);
        let source = self.source(inputs, &h);
        let [mut q, mut k] = [self.q.forward::<T>(inputs, &h), self.k.forward::<T>(inputs, source)];
        let v = self.v.forward::<T>(inputs, source);
        drop(h);
        let mut unnormed = None;
        if let Some([of_q, of_k]) = self.head_norms {
            let epsilon = self.normed.epsilon;
            let [by_q, by_k] = [of_q, of_k].map(|norm| &inputs[norm]);
            let normed = [rms_norm::<T, T>(&q, by_q, epsilon), rms_norm::<T, T>(&k, by_k, epsilon)];
            unnormed = Some([q, k]);
            [q, k] = normed;
        }
        let (mixed, denominators) = match &self.kind {
            Kind::Biased { plan, table, .. } => {
                attention::forward::<T>(&q, &k, &v, table.map(|i| &inputs[i]), plan, self.q.compute())
            }
            Kind::Prefixed(plan) => {
                [q, k] = plan.turned::<T>([q, k]);
                prefixed::forward::<T>(&q, &k, &v, plan, self.q.compute())
            }
        };
        let y = self.o.forward_onto(inputs, &inputs[self.normed.x], &mixed);
        (y, AttentionKept { attended: [q, k, v, mixed, denominators], unnormed })
    }

    fn backward_in<T: Value>(&self, of: &mut OfInputs<'_>, kept: AttentionKept, gradient: &FlexTensor) {
        let Self { normed, q, k, v, o, .. } = *self;
        let compute = q.compute();
        let inputs = of.inputs;
        let AttentionKept { attended, unnormed } = kept;
        o.of_parameters(of, gradient, &attended[3]);
        let of_mixed = o.of_input::<T>(inputs, gradient);
        let [mut of_q, mut of_k, of_v] = match &self.kind {
            Kind::Prefixed(plan) => prefixed::backward::<T>(&attended, &of_mixed, plan, compute),
            Kind::Biased { plan, table, .. } => {
                let table = table.map(|table| (table, &inputs[table]));
                let values = table.map(|(_, values)| values);
                let (of_attended, of_table) = attention::backward::<T>(&attended, values, &of_mixed, plan, compute);
                if let Some((table, _)) = table {
                    of.put(table, of_table);
                }
                of_attended
            }
        };
        drop((attended, of_mixed));
        if let (Some(norms), Some(unnormed)) = (self.head_norms, unnormed) {
            for ((norm, before), of_normed) in norms.into_iter().zip(&unnormed).zip([&mut of_q, &mut of_k]) {
                let given = std::mem::replace(of_normed, before.clone());
                let [of_before, of_norm] = rms_norm_backward::<T>(before, &inputs[norm], given, None, normed.epsilon);
                *of_normed = of_before;
                of.put(norm, of_norm);
            }
        }
        if [q, k, v].iter().any(|map| map.learns(of)) {
            let h = normed.forward::<T>(inputs);
            let source = self.source(inputs, &h);
            q.of_parameters(of, &of_q, &h);
            k.of_parameters(of, &of_k, source);
            v.of_parameters(of, &of_v, source);
        }
        if let Kind::Biased { memory: Some(memory), .. } = self.kind
            && of.wants(memory)
        {
            let mut of_memory = k.of_input::<f32>(inputs, &of_k);
            v.of_input_onto(inputs, &mut of_memory, &of_v);
            of.put(memory, of_memory);
        }
        if !normed.learns(of) {
            return;
        }
        let mut of_h = q.of_input::<f32>(inputs, &of_q);
        if !matches!(self.kind, Kind::Biased { memory: Some(_), .. }) {
            k.of_input_onto(inputs, &mut of_h, &of_k);
            v.of_input_onto(inputs, &mut of_h, &of_v);
        }
        normed.backward(of, of_h, gradient);
    }
}
