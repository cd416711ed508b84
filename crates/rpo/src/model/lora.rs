//! LoRA (arXiv 2106.09685): adapters of low rank are trained instead of whole matrices, and go in and out in PEFT's format.
//!
//! A linear map `x W^T` becomes `x (W + scale B A)^T` with `A` of shape `(rank, inputs)` and `B` of shape `(outputs, rank)`.
//! `B` begins at zero, so that an adapted model begins as the model that it adapts, which is therefore its own reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{FloatDType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::peft::{CONFIG, FACTORS, PREFIX, TENSORS, flat, is_target};
use super::{Config, Linear, Model, NamedParameters, Parameter, Weights};
use crate::error::{Error, Result};
use crate::store::files::write_file;
use crate::store::shards::{self, Stored, StoredAs};

/// Which adapters are trained, if any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Lora {
    /// Rank of the adapters; 0 trains the whole model instead.
    pub rank: usize,
    /// The product of an adapter's matrices is multiplied by this over the rank; by default it is twice the rank.
    pub alpha: Option<f64>,
    /// Names of the linear maps that are adapted, such as `q` and `v` of T5; by default all of the blocks.
    pub targets: Vec<String>,
}

impl Lora {
    /// Whether adapters are trained at all.
    pub fn is_on(&self) -> bool {
        self.rank > 0
    }

    fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// If `alpha` is no positive number, or something is set of adapters that are off.
    pub fn validate(&self) -> Result<()> {
        let refuse = |field, problem: &str| Err(Error::Setting { field, problem: problem.into() });
        let off = "says how adapters are trained, but `lora.rank` is 0, which trains the whole model";
        match self.alpha {
            Some(alpha) if !(alpha.is_finite() && alpha > 0.0) => {
                refuse("lora.alpha", &format!("{alpha} is not positive"))
            }
            Some(_) if !self.is_on() => refuse("lora.alpha", off),
            _ if !self.is_on() && !self.targets.is_empty() => refuse("lora.targets", off),
            _ => Ok(()),
        }
    }

    /// Numbers that adapters of `model`, which can have them, hold.
    pub fn parameters(&self, model: &Model) -> usize {
        let adapted = maps(model).into_iter().filter(|(name, _)| self.adapts(name));
        adapted.map(|(_, map)| self.rank * map.shape().iter().sum::<usize>()).sum()
    }

    /// Whether the linear map `name` gets an adapter.
    fn adapts(&self, name: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| is_target(name, target))
    }

    /// Checks that `model` can have such adapters.
    ///
    /// # Errors
    /// If a target names no linear map of the model, or the rank is above that of every matrix.
    pub fn check(&self, model: &Model) -> Result<()> {
        let refuse = |field, problem: String| Err(Error::Setting { field, problem });
        let maps = maps(model);
        let adapted = maps.iter().filter(|(name, _)| self.adapts(name));
        let most = adapted.filter_map(|(_, map)| map.shape().into_iter().min()).max().unwrap_or(0);
        if let Some(target) = self.targets.iter().find(|target| !maps.iter().any(|(name, _)| is_target(name, target))) {
            let there: BTreeSet<&str> = maps.iter().map(|(name, _)| last_part(name)).collect();
            let there = there.into_iter().collect::<Vec<_>>().join(", ");
            let problem = format!("no linear map of this model is called `{target}`; there are {there}");
            return refuse("lora.targets", problem);
        }
        match self.rank > most {
            true => {
                let problem = format!("{} is above the rank of any matrix that is adapted, {most} at most", self.rank);
                refuse("lora.rank", problem)
            }
            false => Ok(()),
        }
    }

    /// `model` with adapters, of which `weights` has the matrices: they alone are trained from now on. The same model where
    /// adapters are off.
    ///
    /// # Errors
    /// Those of [`Self::check`] and of `weights`.
    pub fn attach(&self, model: Model, weights: &mut dyn Weights) -> Result<Model> {
        self.check(&model)?;
        if !self.is_on() {
            return Ok(model);
        }
        let mut model = model.no_grad();
        let scale = self.alpha() / self.rank as f64;
        model.visit_maps(&mut |name, map| match self.adapts(name) {
            true => map.adapt(name, self.rank, scale, weights),
            false => Ok(()),
        })?;
        Ok(model)
    }

    /// Writes the adapters of `model` to `dir`, as PEFT does; `base` is the name or path of the model that they change.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn write(&self, model: &Model, base: &str, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
        let of_adapters = model.parameters().into_iter().filter(|p| is_factor(&p.name));
        let of_adapters: Vec<Parameter> =
            of_adapters.map(|p| Parameter { name: format!("{PREFIX}{}", p.name), ..p }).collect();
        let settings = json!({
            "peft_type": "LORA",
            "task_type": match model.config() {
                Config::T5(_) => "SEQ_2_SEQ_LM",
                Config::Llama(_) => "CAUSAL_LM",
            },
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha(),
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": targets(model),
            "fan_in_fan_out": false,
            "use_rslora": false,
            "use_dora": false,
            "inference_mode": true,
        });
        write_file(&dir.join(CONFIG), format!("{settings:#}\n").as_bytes())?;
        shards::write_single(of_adapters.into_iter().map(Stored::from).collect(), StoredAs::F32, &dir.join(TENSORS))
    }
}

/// The names of the adapted maps of `model`: their last parts, unless other maps are called so that have no adapter.
fn targets(model: &Model) -> BTreeSet<String> {
    let maps = maps(model);
    let whole = |part: &str| maps.iter().all(|(name, map)| map.scale().is_some() || last_part(name) != part);
    let named = |name: &String| if whole(last_part(name)) { last_part(name).to_string() } else { name.clone() };
    maps.iter().filter(|(_, map)| map.scale().is_some()).map(|(name, _)| named(name)).collect()
}

/// The linear maps of a model's blocks, by their names.
fn maps(model: &Model) -> Vec<(String, Linear)> {
    let mut maps = Vec::new();
    // What hears of them makes no error.
    let _ = model.clone().visit_maps(&mut |name, map| {
        maps.push((name.to_string(), map.clone()));
        Ok(())
    });
    maps
}

/// The parameters of `model` with its adapters merged into the matrices that they change, each when it is its turn: those of the
/// model without adapters.
pub(crate) fn merged(model: &Model) -> Vec<Stored> {
    let mut factors = BTreeMap::new();
    let mut plain = Vec::new();
    for parameter in model.parameters() {
        match is_factor(&parameter.name) {
            true => drop(factors.insert(parameter.name.clone(), matrix(&parameter))),
            false => plain.push(parameter),
        }
    }
    let scales: BTreeMap<String, f64> =
        maps(model).into_iter().filter_map(|(name, map)| Some((name, map.scale()?))).collect();
    let merge = |parameter: Parameter| {
        let map = parameter.name.strip_suffix(".weight").unwrap_or_default();
        let [a, b] = FACTORS.map(|factor| factors.get(&format!("{map}{factor}")).cloned());
        let (Some(scale), Some(a), Some(b)) = (scales.get(map).copied(), a, b) else { return parameter.into() };
        let Parameter { name, shape, values } = parameter;
        let sum = move || values.clone().cast(FloatDType::F32) + flat(b.clone().matmul(a.clone()).mul_scalar(scale));
        Stored { name, shape, values: Box::new(sum) }
    };
    plain.into_iter().map(merge).collect()
}

fn is_factor(name: &str) -> bool {
    FACTORS.iter().any(|factor| name.ends_with(factor))
}

fn matrix(parameter: &Parameter) -> Tensor<2> {
    parameter.values.clone().reshape([parameter.shape[0], parameter.shape[1]])
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
