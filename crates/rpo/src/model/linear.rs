//! Linear maps, which models of every family are made of, and the adapters that they may carry.

#![allow(non_snake_case, reason = "PEFT's keys")]

use burn::module::{Module, Param};
use burn::tensor::{FloatDType, Int, Tensor, TensorData, module::embedding};
use rpo_ops::{Affine, Compute, linear};

use super::weights::{Builder, Init, Weights};
use crate::error::Result;

/// A matrix stored `(outputs, inputs)` as in the checkpoint, with or without bias.
#[derive(Module, Debug)]
pub struct Linear {
    pub(super) weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
    adapter: Option<Adapter>,
    #[module(skip)]
    pub(super) compute: Compute,
}

/// A change of a matrix of low rank: `scale B A` is added to it (LoRA, arXiv 2106.09685). Field names are PEFT's keys.
#[derive(Module, Debug)]
pub struct Adapter {
    /// `(rank, inputs)`.
    lora_A: Factor,
    /// `(outputs, rank)`.
    lora_B: Factor,
    #[module(skip)]
    scale: f64,
}

/// One of the two matrices of an adapter.
#[derive(Module, Debug)]
struct Factor {
    weight: Param<Tensor<2>>,
}

impl Linear {
    /// Without bias.
    pub(super) fn new(mut at: Builder<'_>, [inputs, outputs]: [usize; 2], std: f64) -> Result<Self> {
        Ok(Self {
            weight: at.matrix("weight", [outputs, inputs], Init::Normal(std))?,
            bias: None,
            adapter: None,
            compute: Compute::F32,
        })
    }

    /// With a bias, if `biased`.
    pub(super) fn biased(mut at: Builder<'_>, shape: [usize; 2], init: Init, biased: bool) -> Result<Self> {
        let [inputs, outputs] = shape;
        let weight = at.matrix("weight", [outputs, inputs], init)?;
        let bias = if biased { Some(at.param("bias", [outputs], Init::Constant(0.0))?) } else { None };
        Ok(Self { weight, bias, adapter: None, compute: Compute::F32 })
    }

    /// Its matrix, `(outputs, inputs)`, in what is computed in.
    pub(super) fn table(&self) -> Tensor<2> {
        self.weight.val().cast(FloatDType::F32)
    }

    /// `[outputs, inputs]`.
    pub(super) fn shape(&self) -> [usize; 2] {
        self.weight.val().dims()
    }

    /// By what the product of its adapter's matrices is multiplied, if it has one.
    pub(super) fn scale(&self) -> Option<f64> {
        self.adapter.as_ref().map(|adapter| adapter.scale)
    }

    /// `(tokens, inputs)` to `(tokens, outputs)`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.affine())
    }

    /// Its parameters, for a layer that it is part of.
    pub(super) fn affine(&self) -> Affine {
        let adapter = self.adapter.as_ref().map(|Adapter { lora_A, lora_B, scale }| rpo_ops::Adapter {
            a: lora_A.weight.val(),
            b: lora_B.weight.val(),
            scale: *scale,
        });
        let bias = self.bias.as_ref().map(Param::val);
        Affine { weight: self.weight.val(), bias, adapter, compute: self.compute }
    }

    /// Adds an adapter whose matrices `weights` has under this map's `name`. A fresh one changes nothing: `A` is drawn as by
    /// PEFT, uniformly within `1 / sqrt(inputs)`, and `B` is zero.
    pub(super) fn adapt(&mut self, name: &str, rank: usize, scale: f64, weights: &mut dyn Weights) -> Result<()> {
        let device = self.weight.val().device();
        let [outputs, inputs] = self.shape();
        let mut root = Builder::new(weights, &device);
        let mut at = root.at(name);
        let uniform = Init::Uniform((inputs as f64).powf(-0.5));
        self.adapter = Some(Adapter {
            lora_A: Factor { weight: at.at("lora_A").param("weight", [rank, inputs], uniform)? },
            lora_B: Factor { weight: at.at("lora_B").param("weight", [outputs, rank], Init::Constant(0.0))? },
            scale,
        });
        Ok(())
    }
}

/// Hears of every linear map of a model's blocks by its name, which is the checkpoint's key without `.weight`.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&str, &mut Linear) -> Result<()>;

/// Visits `maps`, which lie in `at`.
pub(super) fn visit<'a>(
    at: &str,
    maps: impl IntoIterator<Item = (&'static str, &'a mut Linear)>,
    visit: Visit<'_>,
) -> Result<()> {
    maps.into_iter().try_for_each(|(name, map)| visit(&format!("{at}.{name}"), map))
}

/// The rows of `table` for packed token ids: `(tokens)` to `(tokens, d_model)`.
pub(crate) fn embed(table: &Linear, ids: &[u32]) -> Tensor<2> {
    let table = table.weight.val();
    let [_, d_model] = table.dims();
    let n = ids.len();
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, n]), &table.device());
    embedding(table, ids).reshape([n, d_model]).cast(FloatDType::F32)
}
