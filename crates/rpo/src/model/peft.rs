//! PEFT's format of adapters, as they are read: a directory with settings and the matrices of each adapted map.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use rpo_ops::dither;
use serde_json::{Map, Value};

use super::{Init, Model, NamedParameters, Weights};
use crate::error::{Error, Result};
use crate::host::{host, vector};
use crate::store::tensors::{TensorFile, bad_number};
use crate::store::within;

/// Settings of an adapter.
pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const TENSORS: &str = "adapter_model.safetensors";
/// How keys begin.
pub(super) const PREFIX: &str = "base_model.model.";
/// How the keys of an adapter's two matrices go on after the name of the map.
pub(super) const FACTORS: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// Whether a linear map is meant by `target`, as PEFT has it.
pub(super) fn is_target(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

pub(super) fn flat(x: Tensor<2>) -> Tensor<1> {
    let n = x.shape().num_elements();
    x.reshape([n])
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
    /// If the settings cannot be read, name none, or are of a kind that is not supported; the message names the setting.
    pub(crate) fn base(dir: &Path) -> Result<String> {
        let base = settings(dir)?;
        supported(&base).map_err(|problem| Error::file(dir.join(CONFIG), problem))?;
        let base = base.get("base_model_name_or_path").and_then(Value::as_str).filter(|base| !base.is_empty());
        let missing =
            || Error::file(dir.join(CONFIG), "base_model_name_or_path, the model that it changes, is missing");
        base.map(str::to_string).ok_or_else(missing)
    }

    /// Opens the adapter in `dir`.
    ///
    /// # Errors
    /// If it cannot be read or holds nothing.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let settings = settings(dir)?;
        let path = dir.join(TENSORS);
        if !within::is_there(&path) && dir.join("adapter_model.bin").is_file() {
            let problem =
                format!("no {TENSORS}; it has an adapter_model.bin, which must be converted to safetensors first");
            return Err(Error::file(dir, problem));
        }
        let file = TensorFile::open(&path)?;
        let left: BTreeSet<String> = file.names().into_iter().collect();
        match left.is_empty() {
            true => Err(Error::file(path, "it holds no tensor: an adapter that changes nothing")),
            false => Ok(Self { dir: dir.into(), settings, file, left }),
        }
    }

    /// `model` with the adapter merged into it.
    ///
    /// # Errors
    /// If a tensor belongs to no matrix of the model, or has a shape that does not fit it; the message names it.
    pub(crate) fn merge(mut self, model: Model) -> Result<Model> {
        let mut problem = None;
        let model = model.map_parameters(|name, shape, values| {
            let changed = self.change(name, shape, &values.device()).and_then(|change| match change {
                None => Ok(values.clone()),
                Some(change) => sum(&values, change, shape),
            });
            changed.unwrap_or_else(|e| {
                problem.get_or_insert(e);
                values
            })
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
        if rank == 0 {
            return Err(Error::file(self.dir.join(TENSORS), format!("tensor `{a}` is of rank 0")));
        }
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
            if let Some((place, bad)) = bad_number(&values, &shape) {
                return Err(Error::file(
                    &path,
                    format!("tensor `{key}` holds {bad} at {place}: the adapter is broken"),
                ));
            }
            Ok(Tensor::from_data(TensorData::new(values, shape), device))
        };
        let change = flat(read(&b, [outputs, rank])?.matmul(read(&a, [rank, inputs])?).mul_scalar(scale));
        // Finite factors may have a product that is not.
        match bad_number(&host(change.clone())?, shape) {
            None => Ok(Some(change)),
            Some((place, bad)) => {
                let problem = format!("what it adds to `{name}` is {bad} at {place}: the adapter is broken");
                Err(Error::file(self.dir.join(TENSORS), problem))
            }
        }
    }

    /// By what the product of the matrices of `map` is multiplied.
    fn scale(&self, map: &str, rank: usize) -> Result<f64> {
        let bad = |problem: String| Error::file(self.dir.join(CONFIG), problem);
        let of_pattern = self.settings.get("alpha_pattern").and_then(Value::as_object).into_iter().flatten();
        let named: Vec<(&String, &Value)> = of_pattern.filter(|(key, _)| is_target(map, key)).collect();
        if let Some((other, _)) = named.iter().find(|(_, alpha)| *alpha != named[0].1) {
            return Err(bad(format!("`{map}` has two values in alpha_pattern, of `{}` and `{other}`", named[0].0)));
        }
        let alpha = named.first().map(|(_, alpha)| *alpha).or_else(|| self.settings.get("lora_alpha"));
        let alpha = alpha.and_then(Value::as_f64).ok_or_else(|| bad("lora_alpha is missing or no number".into()))?;
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

/// The weights changed, in the format that they are held in. Those of a base in f32 were rounded when they were loaded, and are so again.
fn sum(weights: &Tensor<1>, change: Tensor<1>, shape: &[usize]) -> Result<Tensor<1>> {
    let sum = weights.clone().cast(FloatDType::F32) + change;
    if weights.dtype() == DType::F32 {
        return Ok(sum);
    }
    let mut sum = host(sum)?;
    dither::round_to_bf16(&mut sum, shape[1]);
    Ok(vector(sum, &weights.device()).cast(FloatDType::BF16))
}

fn settings(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join(CONFIG);
    let text = within::text(&path, within::SETTINGS)?;
    serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("not a JSON object: {e}")))
}

/// What an adapter is beside a sum of two products, if it is.
fn supported(settings: &Map<String, Value>) -> std::result::Result<(), String> {
    let kind = settings.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    if kind != "LORA" {
        return Err(format!("peft_type is `{kind}`; only LORA is supported"));
    }
    let on = |name: &&str| settings.get(*name).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
    let other = [
        "use_dora",
        "fan_in_fan_out",
        "lora_bias",
        "use_qalora",
        "layer_replication",
        "megatron_config",
        "alora_invocation_tokens",
        "revision",
    ];
    if let Some(name) = other.iter().find(|name| on(name)) {
        return Err(format!("{name} is {}, which is not supported", settings[*name]));
    }
    if settings.get("use_rslora").is_some_and(|value| !matches!(value, Value::Null | Value::Bool(_))) {
        return Err(format!("use_rslora is {}, neither true nor false", settings["use_rslora"]));
    }
    if settings.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        return Err(format!(
            "bias is {}, but biases that are trained beside adapters are not supported",
            settings["bias"]
        ));
    }
    // They are regular expressions, of which names are the plain kind.
    let plain = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    let patterns = settings.get("alpha_pattern").and_then(Value::as_object).into_iter().flatten();
    if let Some((key, _)) = patterns.into_iter().find(|(key, _)| !plain(key)) {
        return Err(format!("alpha_pattern has `{key}`, but only names of maps are supported there, no expressions"));
    }
    match settings.get("init_lora_weights").and_then(Value::as_str) {
        Some(start) if start.starts_with("pissa") || ["olora", "corda", "loftq"].contains(&start) => Err(format!(
            "init_lora_weights is `{start}`, which also changes the base model; save the adapter as a LoRA for the unchanged \
             one (PEFT: save_pretrained(..., path_initial_model_for_weight_conversion=...))"
        )),
        _ => Ok(()),
    }
}
