//! Linear maps, which models of every family are made of.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, module::embedding};
use rpo_ops::{Affine, linear};

use super::weights::{Builder, Init};
use crate::error::Result;

/// A matrix stored `(outputs, inputs)` as in the checkpoint, with or without bias.
#[derive(Module, Debug)]
pub struct Linear {
    pub(super) weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Without bias.
    pub(super) fn new(mut at: Builder<'_>, [inputs, outputs]: [usize; 2], std: f64) -> Result<Self> {
        Ok(Self { weight: at.param("weight", [outputs, inputs], Init::Normal(std))?, bias: None })
    }

    /// With a bias, if `biased`.
    pub(super) fn biased(mut at: Builder<'_>, shape: [usize; 2], init: Init, biased: bool) -> Result<Self> {
        let [inputs, outputs] = shape;
        let weight = at.param("weight", [outputs, inputs], init)?;
        let bias = if biased { Some(at.param("bias", [outputs], Init::Constant(0.0))?) } else { None };
        Ok(Self { weight, bias })
    }

    /// `(tokens, inputs)` to `(tokens, outputs)`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.affine())
    }

    /// Its parameters, for a layer that it is part of.
    pub(super) fn affine(&self) -> Affine {
        Affine { weight: self.weight.val(), bias: self.bias.as_ref().map(Param::val), adapter: None }
    }
}

/// The rows of `table` for packed token ids: `(tokens)` to `(tokens, d_model)`.
pub(crate) fn embed(table: &Linear, ids: &[u32]) -> Tensor<2> {
    let table = table.weight.val();
    let [_, d_model] = table.dims();
    let n = ids.len();
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, n]), &table.device());
    embedding(table, ids).reshape([n, d_model])
}
