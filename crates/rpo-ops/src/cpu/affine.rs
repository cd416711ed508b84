//! Maps by matrices of weights, stored `(outputs, inputs)`, and their gradients. All tensors are dense.
//!
//! A matrix `W` with an adapter (LoRA) acts as `W + scale B A`. For many tokens that sum is made anew each time it is needed,
//! at the cost of reading `W`; for few, `x` goes through `A` and `B` by themselves. Of `A` and `B` alone there are gradients,
//!
//! ```text
//! dB = scale G^T (x A^T)        dA = scale (G B)^T x
//! ```
//!
//! which cost a small part of `dW = G^T x`.

use burn_flex::FlexTensor;

use super::memory::{self, Matrix, Store, Value, multiply, rows_columns, tensor, values, widened};
use super::node::{Inputs, OfInputs, Operation};
use super::pointwise::{column_sums, repeated};
use crate::parameters::{self, Compute};

/// Where the parameters of a map stand among a node's inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine {
    weight: usize,
    bias: Option<usize>,
    adapter: Option<Adapter>,
    compute: Compute,
}

#[derive(Clone, Copy, Debug)]
struct Adapter {
    a: usize,
    b: usize,
    scale: f32,
}

impl Affine {
    /// Adds the parameters of `map` to `inputs`.
    pub(super) fn of(map: parameters::Affine, inputs: &mut Inputs<burn::backend::Dispatch>) -> Self {
        let parameters::Affine { weight, bias, adapter, compute } = map;
        Self {
            weight: inputs.add(weight),
            bias: bias.map(|bias| inputs.add(bias)),
            adapter: adapter.map(|parameters::Adapter { a, b, scale }| Adapter {
                a: inputs.add(a),
                b: inputs.add(b),
                scale: scale as f32,
            }),
            compute,
        }
    }

    /// What its products are computed in.
    pub(super) fn compute(self) -> Compute {
        self.compute
    }

    /// The matrix that acts on `tokens` tokens, and an adapter that acts beside it where that is less work.
    fn parts(self, inputs: &[FlexTensor], tokens: usize) -> (FlexTensor, Option<Adapter>) {
        let weight = inputs[self.weight].clone();
        let Some(adapter) = self.adapter else { return (weight, None) };
        let (outputs, width) = rows_columns(&weight);
        if tokens * (outputs + width) < outputs * width {
            return (weight, Some(adapter));
        }
        let Adapter { a, b, scale } = adapter;
        let mut sum = widened(&weight);
        self.add(&mut sum, matrix(&scaled(&inputs[b], scale)), matrix(&inputs[a]));
        (sum, None)
    }

    /// `a b`.
    fn result<T: Value>(self, a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
        let shape = [a.rows(), b.columns()];
        tensor(T::product(a, b, self.compute), shape)
    }

    /// Adds `a b` to `sum`.
    fn add(self, sum: &mut FlexTensor, a: Matrix<'_>, b: Matrix<'_>) {
        let (_, width) = rows_columns(sum);
        multiply(a, b, sum.storage_mut(), width, Store::Add, self.compute);
    }

    /// `x weight^T + bias`.
    pub(super) fn forward<T: Value>(self, inputs: &[FlexTensor], x: &FlexTensor) -> FlexTensor {
        let ((n, _), (outputs, _)) = (rows_columns(x), rows_columns(&inputs[self.weight]));
        if let Some(bias) = self.bias {
            let mut y = tensor(repeated(inputs[bias].storage(), n), [n, outputs]);
            self.add_product(inputs, &mut y, x);
            return memory::converted::<T>(y);
        }
        let (weight, beside) = self.parts(inputs, n);
        let Some(adapter) = beside else { return self.result::<T>(matrix(x), weights(&weight).t()) };
        let mut y = self.result::<f32>(matrix(x), weights(&weight).t());
        self.forward_beside(adapter, inputs, &mut y, x);
        memory::converted::<T>(y)
    }

    /// `residual + x weight^T + bias`.
    pub(super) fn forward_onto(self, inputs: &[FlexTensor], residual: &FlexTensor, x: &FlexTensor) -> FlexTensor {
        let (n, width) = rows_columns(residual);
        let mut sum = memory::copied(residual.storage());
        if let Some(bias) = self.bias {
            let bias: &[f32] = inputs[bias].storage();
            sum.chunks_exact_mut(width).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        let mut sum = tensor(sum, [n, width]);
        self.add_product(inputs, &mut sum, x);
        sum
    }

    /// Adds `x weight^T` to `sum`.
    fn add_product(self, inputs: &[FlexTensor], sum: &mut FlexTensor, x: &FlexTensor) {
        let (weight, beside) = self.parts(inputs, rows_columns(x).0);
        self.add(sum, matrix(x), weights(&weight).t());
        if let Some(adapter) = beside {
            self.forward_beside(adapter, inputs, sum, x);
        }
    }

    /// Adds `scale (x A^T) B^T` to `y`.
    fn forward_beside(self, adapter: Adapter, inputs: &[FlexTensor], y: &mut FlexTensor, x: &FlexTensor) {
        self.add(y, matrix(&self.narrowed(adapter, inputs, x)), matrix(&inputs[adapter.b]).t());
    }

    /// Gradient of `x`.
    pub(super) fn of_input<T: Value>(self, inputs: &[FlexTensor], gradient: &FlexTensor) -> FlexTensor {
        let (weight, beside) = self.parts(inputs, rows_columns(gradient).0);
        let Some(adapter) = beside else { return self.result::<T>(matrix(gradient), weights(&weight)) };
        let mut of_x = self.result::<f32>(matrix(gradient), weights(&weight));
        self.backward_beside(adapter, inputs, &mut of_x, gradient);
        memory::converted::<T>(of_x)
    }

    /// Adds [`Self::of_input`] to `sum`.
    pub(super) fn of_input_onto(self, inputs: &[FlexTensor], sum: &mut FlexTensor, gradient: &FlexTensor) {
        let (weight, beside) = self.parts(inputs, rows_columns(gradient).0);
        self.add(sum, matrix(gradient), weights(&weight));
        if let Some(adapter) = beside {
            self.backward_beside(adapter, inputs, sum, gradient);
        }
    }

    /// Adds `scale (G B) A` to the gradient of `x`.
    fn backward_beside(self, adapter: Adapter, inputs: &[FlexTensor], of_x: &mut FlexTensor, gradient: &FlexTensor) {
        self.add(of_x, matrix(&self.of_narrowed(adapter, inputs, gradient)), matrix(&inputs[adapter.a]));
    }

    /// `scale x A^T`: `(tokens, rank)`.
    fn narrowed(self, adapter: Adapter, inputs: &[FlexTensor], x: &FlexTensor) -> FlexTensor {
        scaled(&self.result::<f32>(matrix(x), matrix(&inputs[adapter.a]).t()), adapter.scale)
    }

    /// `scale G B`, the gradient of `x A^T`: `(tokens, rank)`.
    fn of_narrowed(self, adapter: Adapter, inputs: &[FlexTensor], gradient: &FlexTensor) -> FlexTensor {
        self.result::<f32>(matrix(gradient), matrix(&scaled(&inputs[adapter.b], adapter.scale)))
    }

    /// Whether the gradient of some parameter is wanted.
    pub(super) fn learns(self, of: &OfInputs<'_>) -> bool {
        let of_adapter = self.adapter.map(|Adapter { a, b, .. }| [a, b]);
        let all = [self.weight].into_iter().chain(self.bias).chain(of_adapter.into_iter().flatten());
        all.into_iter().any(|place| of.wants(place))
    }

    /// The gradients of the parameters.
    pub(super) fn of_parameters(self, of: &mut OfInputs<'_>, gradient: &FlexTensor, x: &FlexTensor) {
        if of.wants(self.weight) {
            of.put(self.weight, self.result::<f32>(matrix(gradient).t(), matrix(x)));
        }
        if let Some(bias) = self.bias.filter(|bias| of.wants(*bias)) {
            of.put(bias, column_sums(gradient));
        }
        let Some(adapter) = self.adapter else { return };
        let inputs = of.inputs;
        if of.wants(adapter.b) {
            let narrowed = self.narrowed(adapter, inputs, x);
            of.put(adapter.b, self.result::<f32>(matrix(gradient).t(), matrix(&narrowed)));
        }
        if of.wants(adapter.a) {
            let of_narrowed = self.of_narrowed(adapter, inputs, gradient);
            of.put(adapter.a, self.result::<f32>(matrix(&of_narrowed).t(), matrix(x)));
        }
    }
}

fn matrix(x: &FlexTensor) -> Matrix<'_> {
    let (rows, columns) = rows_columns(x);
    Matrix::of(values(x), rows, columns, columns)
}

fn weights(x: &FlexTensor) -> Matrix<'_> {
    matrix(x).dithered()
}

pub(super) fn scaled(x: &FlexTensor, scale: f32) -> FlexTensor {
    let (rows, columns) = rows_columns(x);
    tensor(x.storage::<f32>().iter().map(|x| scale * x).collect(), [rows, columns])
}

/// A map alone.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) x: usize,
    pub(super) map: Affine,
}

impl Operation for Linear {
    type Kept = ();

    fn forward(&self, inputs: &[FlexTensor], _: bool) -> (FlexTensor, ()) {
        (self.map.forward::<f32>(inputs, &inputs[self.x]), ())
    }

    fn backward(&self, of: &mut OfInputs<'_>, (): (), gradient: FlexTensor) {
        let inputs = of.inputs;
        self.map.of_parameters(of, &gradient, &inputs[self.x]);
        if of.wants(self.x) {
            of.put(self.x, self.map.of_input::<f32>(inputs, &gradient));
        }
    }
}
