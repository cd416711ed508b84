//! AdamW (arXiv 1711.05101), gradient accumulation and clipping, and the learning-rate schedule.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::t5::T5;
use crate::tensor_file::{TensorFile, write_safetensors};

/// Settings of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct OptimizerConfig {
    /// Largest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Decoupled weight decay, as a multiple of the learning rate.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 turns clipping off.
    pub max_grad_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 }
    }
}

/// Gradients of every parameter, summed over micro-batches.
#[derive(Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<1>>,
}

impl GradientSum {
    /// Adds one backward pass.
    ///
    /// # Errors
    /// If a parameter has no gradient: then the loss does not depend on it, which is a mistake.
    pub fn add(&mut self, gradients: Vec<(String, Option<Tensor<1>>)>) -> std::result::Result<(), String> {
        for (name, gradient) in gradients {
            let Some(gradient) = gradient else { return Err(format!("parameter `{name}` received no gradient")) };
            let sum = match self.by_name.remove(&name) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.by_name.insert(name, sum);
        }
        Ok(())
    }

    /// The L2 norm over all parameters.
    pub fn norm(&self) -> f64 {
        let squares = self.by_name.values().map(|g| f64::from(g.clone().square().sum().into_scalar::<f32>()));
        squares.sum::<f64>().sqrt()
    }

    /// The sums by parameter name.
    pub fn into_inner(self) -> BTreeMap<String, Tensor<1>> {
        self.by_name
    }
}

/// AdamW with its state.
pub struct AdamW {
    config: OptimizerConfig,
    step: usize,
    moments: BTreeMap<String, [Tensor<1>; 2]>,
}

impl AdamW {
    /// A fresh optimizer.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(config: OptimizerConfig) -> Result<Self> {
        let check = |field, value: f64, allowed: bool, range: &str| match allowed && value.is_finite() {
            true => Ok(()),
            false => Err(Error::Setting { field, problem: format!("{value} is not {range}") }),
        };
        let OptimizerConfig { learning_rate, beta1, beta2, epsilon, weight_decay, max_grad_norm } = config;
        check("learning-rate", learning_rate, learning_rate > 0.0, "positive")?;
        check("beta1", beta1, (0.0..1.0).contains(&beta1), "in [0, 1)")?;
        check("beta2", beta2, (0.0..1.0).contains(&beta2), "in [0, 1)")?;
        check("epsilon", epsilon, epsilon > 0.0, "positive")?;
        check("weight-decay", weight_decay, weight_decay >= 0.0, "zero or positive")?;
        check("max-grad-norm", max_grad_norm, max_grad_norm >= 0.0, "zero or positive")?;
        Ok(Self { config, step: 0, moments: BTreeMap::new() })
    }

    /// Applies one step of size `learning_rate`; returns the model and the gradients' norm before clipping.
    pub fn update(&mut self, model: T5, gradients: GradientSum, learning_rate: f64) -> (T5, f64) {
        self.step += 1;
        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, max_grad_norm, .. } = self.config;
        let norm = gradients.norm();
        let clip = if max_grad_norm > 0.0 && norm > max_grad_norm { max_grad_norm / norm } else { 1.0 };
        let correction = |beta: f64| 1.0 - beta.powi(self.step as i32);
        let (bias1, bias2) = (correction(beta1), correction(beta2));
        let mut gradients = gradients.into_inner();
        let moments = &mut self.moments;
        let model = model.map_parameters(|name, value| {
            let Some(gradient) = gradients.remove(name) else { return value };
            let gradient = if clip < 1.0 { gradient.mul_scalar(clip) } else { gradient };
            let [mean, square] = moments.remove(name).unwrap_or_else(|| [gradient.zeros_like(), gradient.zeros_like()]);
            let mean = mean.mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
            let square = square.mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
            let root = square.clone().div_scalar(bias2).sqrt().add_scalar(epsilon);
            let change = mean.clone().div(root).mul_scalar(learning_rate / bias1);
            moments.insert(name.to_string(), [mean, square]);
            value.mul_scalar(1.0 - learning_rate * weight_decay) - change
        });
        (model, norm)
    }

    /// Writes the state.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let named = self.moments.iter().flat_map(|(name, [mean, square])| {
            [(format!("mean.{name}"), Moment::of(mean)), (format!("square.{name}"), Moment::of(square))]
        });
        write_safetensors(named, path)
    }

    /// Continues from the state in `path` after `step` steps.
    ///
    /// # Errors
    /// If the file is unreadable or belongs to another model.
    pub fn resume(config: OptimizerConfig, step: usize, model: &T5, path: &Path) -> Result<Self> {
        let mut file = TensorFile::open(path)?;
        let device = model.device().inner();
        let mut moments = BTreeMap::new();
        for parameter in model.parameters() {
            let elements = parameter.shape.iter().product();
            let mut read = |kind: &str| -> Result<Tensor<1>> {
                let name = format!("{kind}.{}", parameter.name);
                let missing = || Error::weights(path, format!("tensor `{name}` is missing"));
                let values = file.read(&name, &[elements])?.ok_or_else(missing)?;
                Ok(on_device(&values, &device))
            };
            moments.insert(parameter.name.clone(), [read("mean")?, read("square")?]);
        }
        Ok(Self { step, moments, ..Self::new(config)? })
    }
}

fn on_device(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_floats(values, device)
}

/// A moment on its way into a file.
struct Moment {
    values: Tensor<1>,
    shape: [usize; 1],
}

impl Moment {
    fn of(values: &Tensor<1>) -> Self {
        Self { values: values.clone(), shape: values.dims() }
    }
}

impl View for Moment {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.to_data().as_bytes().to_vec())
    }

    fn data_len(&self) -> usize {
        self.shape[0] * 4
    }
}

/// Share of the largest learning rate at optimizer step `step` (from 1) of `total`: linear warm-up, then linear decay to
/// nothing just after the last step.
pub fn linear_schedule(step: usize, warmup: usize, total: usize) -> f64 {
    match step <= warmup {
        true => step as f64 / warmup as f64,
        false => (total + 1).saturating_sub(step) as f64 / (total - warmup) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::t5::{Config, RandomWeights};

    #[test]
    fn the_schedule_by_hand() {
        let at = |step| linear_schedule(step, 2, 6);
        assert_eq!([at(1), at(2), at(3), at(4), at(6)], [0.5, 1.0, 1.0, 0.75, 0.25]);
        assert_eq!(linear_schedule(1, 0, 1), 1.0);
    }

    #[test]
    fn two_steps_by_hand() {
        let text = r#"{"model_type":"t5","vocab_size":4,"d_model":2,"d_kv":2,"d_ff":2,"num_layers":1,"num_heads":1}"#;
        let config = Config::parse(text).expect("valid");
        let device = Device::flex();
        let mut model = T5::new(&config, &mut RandomWeights::new(0), &device).expect("random");
        let value = |model: &T5| -> f64 {
            let first = model.parameters().swap_remove(0).values.into_data().try_to_vec::<f32>().expect("f32")[0];
            f64::from(first)
        };
        let settings = OptimizerConfig { max_grad_norm: 0.0, weight_decay: 0.5, ..OptimizerConfig::default() };
        let mut adam = AdamW::new(settings).expect("valid");
        let mut want = value(&model);
        let (mut mean, mut square) = (0.0, 0.0);
        for (step, g) in [(1, 0.3), (2, -0.1)] {
            let mut sum = GradientSum::default();
            let all = |p: crate::t5::Parameter| (p.name, Some(p.values.ones_like() * g));
            sum.add(model.parameters().into_iter().map(all).collect()).expect("all there");
            model = adam.update(model, sum, 0.01).0;
            mean = 0.9 * mean + 0.1 * g;
            square = 0.999 * square + 0.001 * g * g;
            let (m, v) = (mean / (1.0 - 0.9f64.powi(step)), square / (1.0 - 0.999f64.powi(step)));
            want = want * (1.0 - 0.01 * 0.5) - 0.01 * m / (v.sqrt() + 1e-8);
            assert!((value(&model) - want).abs() < 1e-6, "step {step}: {} for {want}", value(&model));
        }
    }

    #[test]
    fn a_parameter_without_gradient_is_an_error() {
        let said = GradientSum::default().add(vec![("lm_head.weight".into(), None)]).expect_err("missing");
        assert!(said.contains("lm_head.weight"));
    }
}
