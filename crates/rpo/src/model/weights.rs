//! Where the model's tensors come from: a fresh random initialisation here, a checkpoint in `checkpoint`.

use burn::module::Param;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use rpo_ops::dither;

use crate::error::Result;

/// How a tensor is initialised when there is no checkpoint.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// All ones times the factor (norm weights).
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between this and its negative.
    Uniform(f64),
}

/// Gives the values of every tensor that a model asks for by its Hugging Face name, in row-major order.
pub trait Weights {
    /// Values of `name`, which must have `shape`.
    ///
    /// # Errors
    /// If the source has no such tensor or one of another shape.
    fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Vec<f32>>;

    /// Whether matrices are rounded to bfloat16 (by [`dither`]) and held so: they take half the memory, and cannot be trained.
    fn rounded(&self) -> bool {
        false
    }
}

/// Fresh weights as transformers' `_init_weights` draws them; equal for equal seeds on every platform.
pub struct RandomWeights {
    seed: u64,
}

impl RandomWeights {
    /// Weights decided by `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }
}

impl Weights for RandomWeights {
    fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Vec<f32>> {
        let n = shape.iter().product();
        // A stream per name: a tensor's values do not depend on which others the model has.
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let mut rng = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
        let mut draw = || -> f32 {
            match init {
                Init::Constant(value) => value as f32,
                Init::Normal(std) => {
                    let z: f32 = StandardNormal.sample(&mut rng);
                    z * std as f32
                }
                Init::Uniform(bound) => {
                    let z: f32 = StandardUniform.sample(&mut rng);
                    (2.0 * z - 1.0) * bound as f32
                }
            }
        };
        Ok((0..n).map(|_| draw()).collect())
    }
}

/// Names tensors below a prefix and puts them on a device while a model is built.
pub(crate) struct Builder<'a> {
    weights: &'a mut dyn Weights,
    device: &'a Device,
    prefix: String,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(weights: &'a mut dyn Weights, device: &'a Device) -> Self {
        Self { weights, device, prefix: String::new() }
    }

    /// The builder for what lies below `name`.
    pub(crate) fn at(&mut self, name: impl std::fmt::Display) -> Builder<'_> {
        Builder { prefix: format!("{}{name}.", self.prefix), weights: self.weights, device: self.device }
    }

    pub(crate) fn param<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>> {
        Ok(Param::from_data(TensorData::new(self.values(name, &shape, init)?, shape), self.device))
    }

    fn values(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Vec<f32>> {
        self.weights.get(&format!("{}{name}", self.prefix), shape, init)
    }

    /// A matrix, which may be held in bfloat16.
    pub(crate) fn matrix(&mut self, name: &str, shape: [usize; 2], init: Init) -> Result<Param<Tensor<2>>> {
        if !self.weights.rounded() {
            return self.param(name, shape, init);
        }
        let mut values = self.values(name, &shape, init)?;
        // They may be what an earlier training left.
        dither::round_to_bf16(&mut values, shape[1]);
        let matrix = Param::<Tensor<2>>::from_data(TensorData::new(values, shape), self.device);
        Ok(matrix.set_require_grad(false).map(|matrix| matrix.cast(FloatDType::BF16)))
    }
}
