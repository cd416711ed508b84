//! LoRA (arXiv 2106.09685): adapters of low rank are trained instead of whole matrices, and go in and out in PEFT's format.
//!
//! A linear map `x W^T` becomes `x (W + scale B A)^T` with `A` of shape `(rank, inputs)` and `B` of shape `(outputs, rank)`.
//! `B` begins at zero, so that an adapted model begins as the model that it adapts, which is therefore its own reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Config, Init, Linear, Model, NamedParameters, Parameter, Weights};
use crate::error::{Error, Result};
use crate::store::files::write_file;
use crate::store::shards::{self, StoredAs};
use crate::store::tensors::TensorFile;

/// PEFT's settings of an adapter.
pub(crate) const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// How PEFT's keys begin.
const PREFIX: &str = "base_model.model.";
const FACTORS: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

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
    /// If `alpha` is no positive number.
    pub fn validate(&self) -> Result<()> {
        match self.alpha {
            Some(alpha) if !(alpha.is_finite() && alpha > 0.0) => {
                Err(Error::Setting { field: "lora.alpha", problem: format!("{alpha} is not positive") })
            }
            _ => Ok(()),
        }
    }

    /// Numbers that adapters of `model` hold.
    pub fn parameters(&self, model: &Model) -> usize {
        let mut sum = 0;
        let count = &mut |name: &str, map: &mut Linear| {
            let [outputs, inputs] = map.shape();
            sum += if self.adapts(name) { self.rank * (inputs + outputs) } else { 0 };
            Ok(())
        };
        // It visits without an error what is not changed.
        let _ = model.clone().visit_maps(count);
        sum
    }

    /// Whether the linear map `name` gets an adapter.
    fn adapts(&self, name: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| is_target(name, target))
    }

    /// `model` with adapters, of which `weights` has the matrices: they alone are trained from now on. The same model where
    /// adapters are off.
    ///
    /// # Errors
    /// If a target names no linear map of the model, and those of `weights`.
    pub fn attach(&self, model: Model, weights: &mut dyn Weights) -> Result<Model> {
        if !self.is_on() {
            return Ok(model);
        }
        let mut model = model.no_grad();
        let scale = self.alpha() / self.rank as f64;
        let mut names = Vec::new();
        model.visit_maps(&mut |name, map| {
            names.push(name.to_string());
            if self.adapts(name) { map.adapt(name, self.rank, scale, weights) } else { Ok(()) }
        })?;
        match self.targets.iter().find(|target| !names.iter().any(|name| is_target(name, target))) {
            None => Ok(model),
            Some(target) => {
                let there: BTreeSet<&str> = names.iter().map(|name| last_part(name)).collect();
                let there = there.into_iter().collect::<Vec<_>>().join(", ");
                let problem = format!("no linear map of this model is called `{target}`; there are {there}");
                Err(Error::Setting { field: "lora.targets", problem })
            }
        }
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
        let adapted: BTreeSet<&str> = of_adapters.iter().filter_map(|p| p.name.strip_suffix(FACTORS[0])).collect();
        let targets: BTreeSet<&str> = adapted.into_iter().map(last_part).collect();
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
            "target_modules": targets,
            "fan_in_fan_out": false,
            "use_rslora": false,
            "use_dora": false,
            "inference_mode": true,
        });
        write_file(&dir.join(CONFIG), format!("{settings:#}\n").as_bytes())?;
        shards::write_single(of_adapters, StoredAs::F32, &dir.join(TENSORS))
    }
}

/// The parameters of `model` with its adapters merged into the matrices that they change: those of the model without adapters.
pub(crate) fn merged(model: &Model) -> Result<Vec<Parameter>> {
    let mut factors = BTreeMap::new();
    let mut plain = Vec::new();
    for parameter in model.parameters() {
        match is_factor(&parameter.name) {
            true => drop(factors.insert(parameter.name.clone(), matrix(&parameter))),
            false => plain.push(parameter),
        }
    }
    let mut scales = BTreeMap::new();
    model.clone().visit_maps(&mut |name, map| {
        scales.extend(map.affine().adapter.map(|adapter| (name.to_string(), adapter.scale)));
        Ok(())
    })?;
    let merge = |parameter: Parameter| {
        let Some(name) = parameter.name.strip_suffix(".weight") else { return parameter };
        let [a, b] = FACTORS.map(|factor| factors.get(&format!("{name}{factor}")));
        match (scales.get(name), a, b) {
            (Some(scale), Some(a), Some(b)) => {
                let values =
                    parameter.values.cast(FloatDType::F32) + flat(b.clone().matmul(a.clone()).mul_scalar(*scale));
                Parameter { values, ..parameter }
            }
            _ => parameter,
        }
    };
    Ok(plain.into_iter().map(merge).collect())
}

/// Whether a linear map is meant by `target`, as PEFT has it.
fn is_target(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_factor(name: &str) -> bool {
    FACTORS.iter().any(|factor| name.ends_with(factor))
}

fn matrix(parameter: &Parameter) -> Tensor<2> {
    parameter.values.clone().reshape([parameter.shape[0], parameter.shape[1]])
}

fn flat(x: Tensor<2>) -> Tensor<1> {
    let n = x.shape().num_elements();
    x.reshape([n])
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// An adapter in PEFT's format.
pub(crate) struct Adapter {
    dir: PathBuf,
    settings: Map<String, Value>,
    file: TensorFile,
    /// Tensors that were not used yet.
    left: BTreeSet<String>,
}

impl Adapter {
    /// The model that the adapter in `dir` changes: a hub id or a path.
    ///
    /// # Errors
    /// If the settings cannot be read or name none.
    pub(crate) fn base(dir: &Path) -> Result<String> {
        let base = settings(dir)?;
        let base = base.get("base_model_name_or_path").and_then(Value::as_str).filter(|base| !base.is_empty());
        let missing =
            || Error::file(dir.join(CONFIG), "base_model_name_or_path, the model that it changes, is missing");
        base.map(str::to_string).ok_or_else(missing)
    }

    /// Opens the adapter in `dir`.
    ///
    /// # Errors
    /// If it cannot be read or is of a kind that is not supported; the message names the setting.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let settings = settings(dir)?;
        supported(&settings).map_err(|problem| Error::file(dir.join(CONFIG), problem))?;
        let path = dir.join(TENSORS);
        if !path.is_file() && dir.join("adapter_model.bin").is_file() {
            let problem =
                format!("no {TENSORS}; it has an adapter_model.bin, which must be converted to safetensors first");
            return Err(Error::file(dir, problem));
        }
        let file = TensorFile::open(&path)?;
        let left = file.names().into_iter().collect();
        Ok(Self { dir: dir.into(), settings, file, left })
    }

    /// `model` with the adapter merged into it.
    ///
    /// # Errors
    /// If a tensor belongs to no matrix of the model, or has a shape that does not fit it; the message names it.
    pub(crate) fn merge(mut self, model: Model) -> Result<Model> {
        let mut problem = None;
        let model = model.map_parameters(|name, shape, values| match self.change(name, shape, &values.device()) {
            Ok(None) => values,
            Ok(Some(change)) => {
                let held = values.dtype();
                (values.cast(FloatDType::F32) + change).cast(held)
            }
            Err(e) => {
                problem.get_or_insert(e);
                values
            }
        });
        problem.map_or(Ok(()), Err)?;
        match self.left.first() {
            None => Ok(model),
            Some(first) => Err(Error::file(
                self.dir.join(TENSORS),
                format!(
                    "{} tensors change nothing that the base model has, the first being `{first}`: the adapter belongs to \
                     another model, or does more than change linear maps",
                    self.left.len()
                ),
            )),
        }
    }

    /// What is added to the matrix `name` of this shape, if it is adapted.
    fn change(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Option<Tensor<1>>> {
        let (Some(map), &[outputs, inputs]) = (name.strip_suffix(".weight"), shape) else { return Ok(None) };
        let [a, b] = FACTORS.map(|factor| format!("{PREFIX}{map}{factor}"));
        let Some(found) = self.file.shape(&a) else { return Ok(None) };
        let rank = found.first().copied().unwrap_or_default();
        let scale = self.scale(map, rank)?;
        let mut read = |key: &str, shape: [usize; 2]| -> Result<Tensor<2>> {
            self.left.remove(key);
            let path = self.dir.join(TENSORS);
            let found = self.file.shape(key).ok_or_else(|| Error::file(&path, format!("tensor `{key}` is missing")))?;
            if found != shape {
                let problem = format!(
                    "tensor `{key}` has shape {found:?}, but {shape:?} would fit `{name}` of the base model, which is \
                     {outputs} by {inputs}: the adapter belongs to another model"
                );
                return Err(Error::file(&path, problem));
            }
            let values = self.file.read(key, &shape)?.unwrap_or_default();
            Ok(Tensor::from_data(TensorData::new(values, shape), device))
        };
        let (a, b) = (read(&a, [rank, inputs])?, read(&b, [outputs, rank])?);
        Ok(Some(flat(b.matmul(a).mul_scalar(scale))))
    }

    /// By what the product of the matrices of `map` is multiplied.
    fn scale(&self, map: &str, rank: usize) -> Result<f64> {
        let of_pattern = self.settings.get("alpha_pattern").and_then(Value::as_object).into_iter().flatten();
        let mut named = of_pattern.filter(|(key, _)| is_target(map, key));
        let alpha = named.next().map(|(_, alpha)| alpha).or_else(|| self.settings.get("lora_alpha"));
        let missing = || Error::file(self.dir.join(CONFIG), "lora_alpha is missing or no number");
        let alpha = alpha.and_then(Value::as_f64).ok_or_else(missing)?;
        let stabilised = self.settings.get("use_rslora").and_then(Value::as_bool).unwrap_or_default();
        Ok(if stabilised { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 })
    }
}

impl Weights for Adapter {
    /// The matrices of an adapter by their names in an adapted model.
    fn get(&mut self, name: &str, shape: &[usize], _: Init) -> Result<Vec<f32>> {
        let missing = || Error::file(self.dir.join(TENSORS), format!("tensor `{PREFIX}{name}` is missing"));
        self.file.read(&format!("{PREFIX}{name}"), shape)?.ok_or_else(missing)
    }
}

fn settings(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|e| Error::read(&path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("not a JSON object: {e}")))
}

/// What an adapter is beside a sum of two products, if it is.
fn supported(settings: &Map<String, Value>) -> std::result::Result<(), String> {
    let kind = settings.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    if kind != "LORA" {
        return Err(format!("peft_type is `{kind}`; only LORA is supported"));
    }
    let on = |name: &&str| settings.get(*name).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
    let other = ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "layer_replication", "megatron_config"];
    if let Some(name) = other.iter().find(|name| on(name)) {
        return Err(format!("{name} is {}, which is not supported", settings[*name]));
    }
    match settings.get("init_lora_weights").and_then(Value::as_str) {
        Some(start) if start.starts_with("pissa") || ["olora", "corda", "loftq"].contains(&start) => Err(format!(
            "init_lora_weights is `{start}`, which also changes the base model; save the adapter as a LoRA for the unchanged \
             one (PEFT: save_pretrained(..., path_initial_model_for_weight_conversion=...))"
        )),
        _ => Ok(()),
    }
}
