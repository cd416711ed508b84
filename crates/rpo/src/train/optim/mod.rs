//! Optimizers, one file each, with what they share: accumulation, clipping, weight decay, the schedule, saving.

mod adafactor;
mod adamw;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use rpo_ops::sum_of_squares;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use adafactor::Adafactor;
pub use adamw::AdamW;

use crate::error::{Error, Result};
use crate::host::{host, vector};
use crate::model::NamedParameters;
use crate::score::Learner;
use crate::store::tensors::{TensorFile, write_flat};
use crate::train::Progress;

/// How gradients become updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Algorithm {
    /// AdamW.
    AdamW(AdamW),
    /// Adafactor.
    Adafactor(Adafactor),
}

impl Algorithm {
    fn validate(&self) -> Result<()> {
        match self {
            Self::AdamW(adamw) => adamw.validate(),
            Self::Adafactor(adafactor) => adafactor.validate(),
        }
    }

    /// Name and length of what is remembered of a parameter; all zeros at first.
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        match self {
            Self::AdamW(_) => AdamW::state(shape),
            Self::Adafactor(_) => Adafactor::state(shape),
        }
    }

    /// The parameter and what is remembered of it after a step.
    fn update(
        &self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        shape: &[usize],
        state: Vec<Tensor<1>>,
        now: Now,
    ) -> Updated {
        match self {
            Self::AdamW(adamw) => adamw.update(value, gradient, state, now),
            Self::Adafactor(adafactor) => adafactor.update(value, gradient, shape, state, now),
        }
    }
}

/// What an algorithm is told of the step.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// Its number, from 1.
    step: usize,
    /// By what gradients are multiplied first.
    scale: f64,
    /// Learning rate.
    rate: f64,
    /// Decoupled weight decay, as a multiple of the learning rate.
    weight_decay: f64,
}

/// A parameter and what is remembered of it.
type Updated = (Tensor<1>, Vec<Tensor<1>>);

/// Settings of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", from = "Written")]
#[schemars(!from, default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Largest learning rate, reached after the warm-up. Where none is written: 1e-4 for AdamW, as the authors of RPO have
    /// it; 1e-3 for Adafactor, whose updates are relative to their own size, as transformers advises for T5.
    pub learning_rate: f64,
    /// Decoupled weight decay, as a multiple of the learning rate.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm, the policy's and the value network's apart; 0 turns clipping off.
    pub max_grad_norm: f64,
    /// How gradients become updates.
    pub algorithm: Algorithm,
}

/// The settings as they are written, any of them or none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Written {
    learning_rate: Option<f64>,
    weight_decay: f64,
    max_grad_norm: f64,
    algorithm: Algorithm,
}

impl Default for Written {
    fn default() -> Self {
        let algorithm = Algorithm::AdamW(AdamW::default());
        Self { learning_rate: None, weight_decay: 0.01, max_grad_norm: 1.0, algorithm }
    }
}

impl From<Written> for OptimizerConfig {
    fn from(written: Written) -> Self {
        let Written { learning_rate, weight_decay, max_grad_norm, algorithm } = written;
        let usual = match algorithm {
            Algorithm::AdamW(_) => 1e-4,
            Algorithm::Adafactor(_) => 1e-3,
        };
        Self { learning_rate: learning_rate.unwrap_or(usual), weight_decay, max_grad_norm, algorithm }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Written::default().into()
    }
}

impl OptimizerConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn validate(&self) -> Result<()> {
        let Self { learning_rate, weight_decay, max_grad_norm, .. } = *self;
        check("learning-rate", learning_rate, learning_rate > 0.0, "positive")?;
        check("weight-decay", weight_decay, weight_decay >= 0.0, "zero or positive")?;
        check("max-grad-norm", max_grad_norm, max_grad_norm >= 0.0, "zero or positive")?;
        self.algorithm.validate()
    }
}

fn check(field: &'static str, value: f64, allowed: bool, range: &str) -> Result<()> {
    match allowed && value.is_finite() {
        true => Ok(()),
        false => Err(Error::Setting { field, problem: format!("{value} is not {range}") }),
    }
}

/// Gradients of every parameter, summed over micro-batches.
#[derive(Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<1>>,
}

impl GradientSum {
    /// Adds what a backward pass reached.
    pub fn add(&mut self, gradients: Vec<(String, Option<Tensor<1>>)>) {
        for (name, gradient) in gradients {
            let Some(gradient) = gradient else { continue };
            let sum = match self.by_name.remove(&name) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.by_name.insert(name, sum);
        }
    }

    /// These gradients and those of later micro-batches.
    pub(crate) fn plus(mut self, later: Self) -> Self {
        self.add(later.by_name.into_iter().map(|(name, gradient)| (name, Some(gradient))).collect());
        self
    }

    /// Sets the gradient of one parameter.
    pub(crate) fn insert(&mut self, name: String, gradient: Tensor<1>) {
        self.by_name.insert(name, gradient);
    }

    /// The numbers themselves.
    pub(crate) fn into_host(self) -> Result<BTreeMap<String, Vec<f32>>> {
        self.by_name.into_iter().map(|(name, gradient)| Ok((name, host(gradient)?))).collect()
    }

    /// The gradients by the learner's names of its parameters.
    pub fn by_name(&self) -> &BTreeMap<String, Tensor<1>> {
        &self.by_name
    }

    /// The squared L2 norm of each parameter's gradient.
    pub fn squares(&self) -> Squares {
        Squares(self.by_name.iter().map(|(name, g)| (name.clone(), sum_of_squares(g.clone()))).collect())
    }

    /// [`Squares::norms`].
    pub fn norms(&self) -> [f64; 2] {
        self.squares().norms()
    }
}

/// Squared L2 norms of gradients by the names of their parameters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Squares(BTreeMap<String, f64>);

impl Squares {
    /// Those of several ranks, each of which has other parameters.
    pub(crate) fn of_all(ranks: Vec<Self>) -> Self {
        Self(ranks.into_iter().flat_map(|Self(squares)| squares).collect())
    }

    /// Checks that every parameter of `learner` that is trained was reached.
    ///
    /// # Errors
    /// Names one without a gradient: the loss does not depend on it, which is a mistake.
    pub fn complete(&self, learner: &Learner) -> std::result::Result<(), String> {
        match learner.trained().into_iter().find(|p| !self.0.contains_key(&p.name)) {
            Some(p) => Err(format!("parameter `{}` received no gradient", p.name)),
            None => Ok(()),
        }
    }

    /// The L2 norms over the parameters of the policy and over those of the value network, which is 0 where there is none.
    /// Not finite if a gradient is not.
    pub fn norms(&self) -> [f64; 2] {
        PARTS.map(|part| {
            self.0.iter().filter(|(name, _)| name.starts_with(part)).map(|(_, square)| square).sum::<f64>().sqrt()
        })
    }
}

/// The two parts of a learner, by the beginning of their parameters' names.
const PARTS: [&str; 2] = ["policy.", "value."];

/// The optimizer with its state.
pub struct Optimizer {
    config: OptimizerConfig,
    step: usize,
    state: BTreeMap<String, Vec<Tensor<1>>>,
}

impl Optimizer {
    /// A fresh optimizer.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(config: OptimizerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, step: 0, state: BTreeMap::new() })
    }

    /// Applies one step with a learning rate for the policy and one for the value network; `norms` are the gradients' own
    /// ([`GradientSum::norms`]) and finite.
    #[must_use]
    pub fn update(&mut self, learner: Learner, gradients: GradientSum, norms: [f64; 2], rates: [f64; 2]) -> Learner {
        self.step += 1;
        let OptimizerConfig { weight_decay, max_grad_norm, algorithm, .. } = &self.config;
        let clips =
            norms.map(|norm| if *max_grad_norm > 0.0 && norm > *max_grad_norm { max_grad_norm / norm } else { 1.0 });
        let mut gradients = gradients.by_name;
        let (step, state) = (self.step, &mut self.state);
        learner.map_parameters(|name, shape, value| {
            let Some(gradient) = gradients.remove(name) else { return value };
            let part = usize::from(name.starts_with(PARTS[1]));
            let remembered = state.remove(name).unwrap_or_else(|| {
                let device = gradient.device();
                algorithm.state(shape).into_iter().map(|(_, n)| Tensor::zeros([n], &device)).collect()
            });
            let now = Now { step, scale: clips[part], rate: rates[part], weight_decay: *weight_decay };
            let (value, remembered) = algorithm.update(value, gradient, shape, remembered, now);
            state.insert(name.to_string(), remembered);
            value
        })
    }

    /// Counts a step that is not applied.
    pub fn skip(&mut self) {
        self.step += 1;
    }

    /// Steps that were counted.
    pub(crate) fn steps(&self) -> usize {
        self.step
    }

    /// What is remembered of every parameter, by its name, as numbers.
    pub(crate) fn to_host(&self) -> Result<Vec<(String, Vec<Vec<f32>>)>> {
        let numbers = |state: &[Tensor<1>]| state.iter().map(|values| host(values.clone())).collect::<Result<_>>();
        self.state.iter().map(|(name, state)| Ok((name.clone(), numbers(state)?))).collect()
    }

    /// The same optimizer after `step` steps, remembering this.
    pub(crate) fn with_state(
        &self,
        step: usize,
        state: impl IntoIterator<Item = (String, Vec<Vec<f32>>)>,
        device: &Device,
    ) -> Self {
        let numbers = |values: Vec<f32>| vector(values, device);
        let state = state.into_iter().map(|(name, state)| (name, state.into_iter().map(numbers).collect())).collect();
        Self { config: self.config.clone(), step, state }
    }

    /// What is remembered of every parameter, by its name.
    pub(crate) fn state(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.state.iter().flat_map(|(name, state)| state.iter().map(move |values| (name.as_str(), values)))
    }

    /// Writes the state of `learner`'s parameters.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, learner: &Learner, path: &Path) -> Result<()> {
        let named = learner.trained().into_iter().flat_map(|p| {
            let kinds = self.config.algorithm.state(&p.shape);
            let state = self.state.get(&p.name).into_iter().flatten();
            kinds.into_iter().zip(state).map(move |((kind, _), values)| (format!("{kind}.{}", p.name), values.clone()))
        });
        write_flat(named.collect(), path)
    }

    /// Continues from the state in `path` of a run that is so far.
    ///
    /// # Errors
    /// If the file is unreadable or belongs to another model or algorithm.
    pub fn resume(config: OptimizerConfig, progress: &Progress, learner: &Learner, path: &Path) -> Result<Self> {
        let mut file = TensorFile::open(path)?;
        let device = learner.policy.device().inner();
        let mut state = BTreeMap::new();
        // A run that has not learned anything has no state yet.
        let learned = progress.step > progress.skipped;
        let parameters = if learned { learner.trained() } else { Vec::new() };
        for parameter in parameters {
            let read = |(kind, n): (&str, usize)| -> Result<Tensor<1>> {
                let name = format!("{kind}.{}", parameter.name);
                let missing = || Error::file(path, format!("tensor `{name}` is missing"));
                Ok(Tensor::from_floats(file.read(&name, &[n])?.ok_or_else(missing)?.as_slice(), &device))
            };
            let moments = config.algorithm.state(&parameter.shape).into_iter().map(read).collect::<Result<_>>()?;
            state.insert(parameter.name.clone(), moments);
        }
        Ok(Self { step: progress.step, state, ..Self::new(config)? })
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
    use crate::model::{Config, Model, RandomWeights, ValueKind, ValueNetwork};

    #[test]
    fn the_schedule_by_hand() {
        let at = |step| linear_schedule(step, 2, 6);
        assert_eq!([at(1), at(2), at(3), at(4), at(6)], [0.5, 1.0, 1.0, 0.75, 0.25]);
        assert_eq!(linear_schedule(1, 0, 1), 1.0);
    }

    const TEXT: &str =
        r#"{"model_type":"t5","vocab_size":4,"d_model":2,"d_kv":2,"d_ff":2,"num_layers":1,"num_heads":1}"#;

    fn learner() -> Learner {
        let config = Config::parse(TEXT).expect("valid");
        let policy = Model::new(&config, &mut RandomWeights::new(0), &Device::flex()).expect("random");
        let value = ValueNetwork::new(&policy, ValueKind::OwnEncoder, 0).expect("random");
        Learner { policy, value: Some(value) }
    }

    /// Values of the parameter of this name.
    fn values(learner: &Learner, name: &str) -> Vec<f64> {
        let found = learner.parameters().into_iter().find(|p| p.name == name).expect("a parameter");
        found.values.into_data().try_to_vec::<f32>().expect("f32").into_iter().map(f64::from).collect()
    }

    /// The gradients `at(i)` for element `i` of every parameter.
    fn gradients(learner: &Learner, at: impl Fn(usize) -> f64) -> GradientSum {
        let mut sum = GradientSum::default();
        let device = Device::flex();
        let all = learner.parameters().into_iter().map(|p| {
            let [n] = p.values.dims();
            let values: Vec<f32> = (0..n).map(|i| at(i) as f32).collect();
            (p.name, Some(Tensor::from_floats(values.as_slice(), &device)))
        });
        sum.add(all.collect());
        sum
    }

    fn config(algorithm: Algorithm) -> OptimizerConfig {
        OptimizerConfig { max_grad_norm: 0.0, weight_decay: 0.5, algorithm, ..OptimizerConfig::default() }
    }

    #[test]
    fn two_steps_of_adamw_by_hand_at_two_rates() {
        let mut learner = learner();
        let mut adam = Optimizer::new(config(Algorithm::AdamW(AdamW::default()))).expect("valid");
        let rates = [0.01, 0.03];
        let names = ["policy.shared.weight", "value.head.weight"];
        let mut want = names.map(|name| values(&learner, name)[0]);
        let (mut mean, mut square) = (0.0, 0.0);
        for (step, g) in [(1, 0.3), (2, -0.1)] {
            let gradients = gradients(&learner, |_| g);
            let norms = gradients.norms();
            learner = adam.update(learner, gradients, norms, rates);
            mean = 0.9 * mean + 0.1 * g;
            square = 0.999 * square + 0.001 * g * g;
            let (m, v) = (mean / (1.0 - 0.9f64.powi(step)), square / (1.0 - 0.999f64.powi(step)));
            for ((want, rate), name) in want.iter_mut().zip(rates).zip(names) {
                *want = *want * (1.0 - rate * 0.5) - rate * m / (v.sqrt() + 1e-8);
                let got = values(&learner, name)[0];
                assert!((got - *want).abs() < 1e-6, "{name}, step {step}: {got} for {want}");
            }
        }
    }

    #[test]
    fn two_steps_of_adafactor_by_hand() {
        let mut learner = learner();
        let mut adafactor = Optimizer::new(config(Algorithm::Adafactor(Adafactor::default()))).expect("valid");
        let name = "policy.shared.weight";
        let (rows, columns) = (4, 2);
        let mut want = values(&learner, name);
        let (mut r, mut c) = (vec![0.0; rows], vec![0.0; columns]);
        for (step, scale) in [(1, 0.3), (2, -2.0)] {
            let g = |i: usize| scale * (i as f64 - 2.5);
            let gradients = gradients(&learner, g);
            let norms = gradients.norms();
            learner = adafactor.update(learner, gradients, norms, [0.01; 2]);
            let beta = 1.0 - f64::from(step).powf(-0.8);
            for (i, r) in r.iter_mut().enumerate() {
                *r = beta * *r + (1.0 - beta) * (0..columns).map(|j| g(i * columns + j).powi(2)).sum::<f64>() / 2.0;
            }
            for (j, c) in c.iter_mut().enumerate() {
                *c = beta * *c + (1.0 - beta) * (0..rows).map(|i| g(i * columns + j).powi(2)).sum::<f64>() / 4.0;
            }
            let mean = r.iter().sum::<f64>() / rows as f64;
            let u: Vec<f64> = (0..8).map(|k| g(k) / (r[k / columns] * c[k % columns] / mean).sqrt()).collect();
            let rms = (u.iter().map(|u| u * u).sum::<f64>() / 8.0).sqrt();
            assert!(step == 1 || rms > 1.0, "the second update is clipped");
            for (k, (got, want)) in values(&learner, name).iter().zip(&mut want).enumerate() {
                *want = *want * (1.0 - 0.01 * 0.5) - 0.01 * u[k] / rms.max(1.0);
                assert!((got - *want).abs() < 1e-6, "step {step}, element {k}: {got} for {want}");
            }
        }
    }

    #[test]
    fn policy_and_value_are_clipped_apart() {
        let learner = learner();
        let mut one = gradients(&learner, |_| 0.0);
        let n = learner.parameters().iter().filter(|p| p.name.starts_with("value.")).count();
        assert!(n > 1 && one.norms()[0] == 0.0);
        let loud = |name: &str, g: Tensor<1>| {
            if name.starts_with("value.") { g.add_scalar(100.0) } else { g.add_scalar(1e-3) }
        };
        one.by_name = std::mem::take(&mut one.by_name).into_iter().map(|(n, g)| (n.clone(), loud(&n, g))).collect();
        let [policy, value] = one.norms();
        assert!(policy < 1.0 && value > 1.0);
        let mut adam = Optimizer::new(OptimizerConfig::default()).expect("valid");
        let norms = one.norms();
        assert_eq!(norms[0], policy);
        let _ = adam.update(learner, one, norms, [0.01; 2]);
        let first =
            |name: &str| f64::from(adam.state[name][0].clone().into_data().try_to_vec::<f32>().expect("f32")[0]);
        assert!((first("policy.shared.weight") - 0.1 * 1e-3).abs() < 1e-9, "the policy's gradient is as it was");
        assert!(first("value.head.weight") < 0.1, "the value's is scaled down");
    }

    #[test]
    fn a_parameter_without_gradient_is_an_error() {
        let learner = learner();
        let mut sum = gradients(&learner, |_| 1.0);
        sum.squares().complete(&learner).expect("all there");
        sum.by_name.remove("policy.shared.weight");
        assert!(sum.squares().complete(&learner).expect_err("missing").contains("policy.shared.weight"));
    }
}
