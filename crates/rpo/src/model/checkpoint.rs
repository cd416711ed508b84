//! Hugging Face directories in and out: `config.json`, `model.safetensors` (or shards), tokenizer files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;

use super::lora::{self, Adapter, Lora};
use super::{Config, Init, Model, NamedParameters, RandomWeights, Weights};
use crate::chat::{Chat, ChatTemplate, UseTemplate, Writing};
use crate::error::{Error, Result};
use crate::store::files::{previous, replace_dir, write_file};
use crate::store::hub;
pub use crate::store::shards::StoredAs;
use crate::store::shards::{self, Shards};
use crate::tokenizer::Tokenizer;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";
/// What else belongs to a model and is carried along unchanged.
const COMPANIONS: [&str; 6] =
    [TOKENIZER, TOKENIZER_CONFIG, "chat_template.jinja", "special_tokens_map.json", "spiece.model", GENERATION];

/// A directory that holds a model, or an adapter in PEFT's format beside the model that it changes.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Path or hub id.
    name: String,
    dir: PathBuf,
    /// What the adapter in `dir` changes, if that is what it holds.
    base: Option<Box<Checkpoint>>,
}

impl Checkpoint {
    /// Finds a model by local path or, failing that, by hub id (`google/flan-t5-small`): first in the local hub cache,
    /// then by download.
    ///
    /// # Errors
    /// If there is no such directory and the hub does not give the files; the message says what was tried.
    pub fn find(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if path.is_dir() {
            return Self::open(path);
        }
        let no_model = |problem: String| Error::NoModel { name: name.into(), problem };
        if path.exists() {
            return Err(no_model(what_file(path)));
        }
        // What a program that died between two renames left is found too.
        if previous(path).is_dir() {
            return Self::open(path);
        }
        match is_hub_id(name) {
            true => download(name).map(|dir| Self { name: name.into(), dir, base: None }).map_err(no_model),
            false => Err(no_model("there is no such directory, and it is no hub id (owner/name)".into())),
        }
    }

    /// A model in local directory `dir`, or an adapter whose base model is found.
    ///
    /// # Errors
    /// If it holds neither `config.json` nor `adapter_config.json`, or the base model is not found.
    pub fn open(dir: &Path) -> Result<Self> {
        // A program that died between two renames left the last complete checkpoint beside its place.
        let fallback = previous(dir);
        let dir = if !dir.exists() && fallback.exists() { fallback } else { dir.to_path_buf() };
        let path = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
        let name = path.display().to_string();
        if dir.join(CONFIG).is_file() {
            return Ok(Self { name, dir, base: None });
        }
        if !dir.join(lora::CONFIG).is_file() {
            return Err(Error::NoModel { name: dir.display().to_string(), problem: what_directory(&dir) });
        }
        let base = Adapter::base(&dir)?;
        let beside = dir.join(&base);
        let found = if beside.is_dir() && !Path::new(&base).is_dir() { Self::open(&beside) } else { Self::find(&base) };
        let found = found.map_err(|problem| {
            let what = format!("base_model_name_or_path is `{base}`, the model that the adapter changes: {problem}");
            Error::file(dir.join(lora::CONFIG), what)
        });
        Ok(Self { name, dir, base: Some(Box::new(found?)) })
    }

    /// Its hub id, or the whole path of its directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the model's shape.
    ///
    /// # Errors
    /// See [`Config::read`].
    pub fn config(&self) -> Result<Config> {
        self.base.as_ref().map_or_else(|| Config::read(&self.dir.join(CONFIG)), |base| base.config())
    }

    /// Reads the tokenizer and checks that it fits the model. A decoder-only model's prompts are written as `chat` says.
    ///
    /// # Errors
    /// If it cannot be read, has more tokens than the embedding has rows, or ends sequences with another id, or if all prompts
    /// are to go through a chat template and there is none.
    pub fn tokenizer(&self, chat: Chat) -> Result<Tokenizer> {
        if let Some(base) = self.base_with_tokenizer() {
            return base.tokenizer(chat);
        }
        let (tokenizer, config) = (Tokenizer::load(&self.dir)?, self.config()?);
        check_vocabulary(&tokenizer, &config, &self.dir)?;
        match config {
            Config::T5(_) if chat.template == UseTemplate::Always => {
                Err(no_template("an encoder-decoder model reads plain text"))
            }
            Config::T5(_) => Ok(tokenizer),
            Config::Llama(_) => Ok(tokenizer.decoder_only().written(self.writing(chat)?, &config.ends())),
        }
    }

    /// The model that an adapter changes, if the adapter has no tokenizer of its own.
    fn base_with_tokenizer(&self) -> Option<&Self> {
        self.base.as_deref().filter(|_| !self.dir.join(TOKENIZER).is_file())
    }

    /// How prompts are written for a decoder-only model.
    fn writing(&self, chat: Chat) -> Result<Writing> {
        let texts = match chat.template {
            UseTemplate::Never => return Ok(Writing::Plain),
            UseTemplate::Auto => false,
            UseTemplate::Always => true,
        };
        match ChatTemplate::find(&self.dir, chat.date) {
            Some(template) => Ok(Writing::Template { template: Arc::new(template), texts }),
            None if texts => Err(no_template(&format!(
                "{} has none (no chat_template.jinja, no chat_template in {TOKENIZER_CONFIG}); put one there",
                self.dir.display()
            ))),
            None => Ok(Writing::NoTemplate(self.dir.clone())),
        }
    }

    /// Whether prompts that are written as `template` says may go through a chat template that asks what day it is.
    ///
    /// # Errors
    /// See [`Config::read`].
    pub fn asks_for_the_day(&self, template: UseTemplate) -> Result<bool> {
        if let Some(base) = self.base_with_tokenizer() {
            return base.asks_for_the_day(template);
        }
        let asks = || ChatTemplate::find(&self.dir, None).is_some_and(|template| template.asks_for_the_day());
        Ok(matches!(self.config()?, Config::Llama(_)) && template != UseTemplate::Never && asks())
    }

    /// Loads the model, an adapter merged into what it changes. A stored head that differs from the embedding is used, whatever
    /// `tie_word_embeddings` says: so does transformers 5, which writes `true` for models with a head of their own.
    ///
    /// # Errors
    /// If a tensor is missing, unexpected, of another shape or type, or cut short; the message names it.
    pub fn load(&self, device: &Device) -> Result<Model> {
        self.load_as(device, false)
    }

    /// [`Self::load`] with all matrices rounded to bfloat16 and held so: half the memory, for a model that is frozen, as one
    /// with adapters is.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn load_rounded(&self, device: &Device) -> Result<Model> {
        self.load_as(device, true)
    }

    fn load_as(&self, device: &Device, rounded: bool) -> Result<Model> {
        if let Some(base) = &self.base {
            return Adapter::open(&self.dir)?.merge(base.load_as(device, rounded)?);
        }
        let mut config = self.config()?;
        let mut shards = Shards::open(&self.dir)?;
        if let Some((head, embeddings)) = config.tied_head()
            && differ(&mut shards, head, embeddings, &[config.vocab_size(), config.d_model()])?
        {
            tracing::warn!(
                "{}: tie_word_embeddings is true, but {head} differs from the embedding; it is used, as by transformers 5",
                self.dir.display()
            );
            config = config.with_own_head();
        }
        let mut weights = StoredWeights { config: &config, shards: &mut shards, rounded };
        let model = Model::new(&config, &mut weights, device)?;
        let tied = config.tied_head().map(|(head, _)| head);
        shards.check_all_taken(|name| config.redundant().contains(&name) || tied == Some(name))?;
        Ok(model)
    }

    /// Copies tokenizer and generation settings of this model into `dir`.
    ///
    /// # Errors
    /// If a file cannot be copied.
    fn copy_companions(&self, dir: &Path) -> Result<()> {
        self.base.as_ref().map_or(Ok(()), |base| base.copy_companions(dir))?;
        for name in COMPANIONS {
            let (from, to) = (self.dir.join(name), dir.join(name));
            if from.is_file() {
                let bytes = fs::read(&from).map_err(|e| Error::read(&from, e))?;
                let bytes = if name == TOKENIZER_CONFIG { readable_by_all(bytes) } else { bytes };
                write_file(&to, &bytes)?;
            }
        }
        Ok(())
    }
}

/// That prompts cannot go through a chat template.
fn no_template(why: &str) -> Error {
    Error::Setting { field: "chat-template", problem: format!("always: {why}, or leave the setting out") }
}

/// Checks that `tokenizer` and `config` are made for each other.
///
/// # Errors
/// What does not fit, naming `dir`.
pub fn check_vocabulary(tokenizer: &Tokenizer, config: &Config, dir: &Path) -> Result<()> {
    let problem = if tokenizer.vocab_size() > config.vocab_size() {
        format!(
            "the tokenizer has {} tokens but the model's embedding only {} rows (vocab_size); they are not made for each other",
            tokenizer.vocab_size(),
            config.vocab_size()
        )
    } else if !config.ends().contains(&tokenizer.eos_id()) {
        format!(
            "the tokenizer ends sequences with id {} but the model's eos_token_id is {}; they are not made for each other",
            tokenizer.eos_id(),
            config.ends().iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
        )
    } else {
        return Ok(());
    };
    Err(Error::File { path: dir.join(CONFIG), problem })
}

/// Makes a fresh model: weights decided by `seed`, tokenizer copied from `tokenizer`.
///
/// # Errors
/// If `out` exists, tokenizer and configuration do not fit, or writing fails.
pub fn init(config: &Config, tokenizer: &Path, seed: u64, stored_as: StoredAs, out: &Path) -> Result<usize> {
    if out.exists() {
        return Err(Error::Exists { path: out.into() });
    }
    let source =
        if tokenizer.is_dir() { tokenizer.to_path_buf() } else { tokenizer.parent().unwrap_or(tokenizer).into() };
    check_vocabulary(&Tokenizer::load(tokenizer)?, config, tokenizer)?;
    let model = Model::new(config, &mut RandomWeights::new(seed), &Device::flex())?;
    replace_dir(out, |dir| {
        Checkpoint { name: String::new(), dir: source, base: None }.copy_companions(dir)?;
        if tokenizer.is_file() {
            let json = fs::read(tokenizer).map_err(|e| Error::read(tokenizer, e))?;
            write_file(&dir.join(TOKENIZER), &json)?;
        }
        write_model(&model, stored_as, dir)
    })?;
    Ok(model.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum())
}

/// Saves `model`, adapters merged, as a Hugging Face directory at `out`, with the tokenizer files of the model it came from; what stood
/// there before stays until the new one is complete. `more` may add files.
///
/// # Errors
/// If writing fails; then `out` is as it was.
pub fn save(
    model: &Model,
    origin: &Checkpoint,
    stored_as: StoredAs,
    out: &Path,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    replace_dir(out, |dir| {
        origin.copy_companions(dir)?;
        write_model(model, stored_as, dir)?;
        more(dir)
    })
}

fn write_model(model: &Model, stored_as: StoredAs, dir: &Path) -> Result<()> {
    let dtype = match stored_as {
        StoredAs::F32 => "float32",
        StoredAs::Bf16 => "bfloat16",
        StoredAs::F16 => "float16",
    };
    write_file(&dir.join(CONFIG), model.config().to_json(dtype).as_bytes())?;
    // transformers 5 looks for the special tokens here alone.
    if !dir.join(GENERATION).exists() {
        write_file(&dir.join(GENERATION), model.config().generation_json().as_bytes())?;
    }
    shards::write(lora::merged(model)?, stored_as, dir)
}

/// Saves the adapters of `model` as a directory at `out` that PEFT reads, with the tokenizer files of the model that they
/// change; otherwise as [`save`].
///
/// # Errors
/// If writing fails; then `out` is as it was.
pub fn save_adapter(
    model: &Model,
    lora: &Lora,
    origin: &Checkpoint,
    out: &Path,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    replace_dir(out, |dir| {
        origin.copy_companions(dir)?;
        lora.write(model, origin.name(), dir)?;
        more(dir)
    })
}

/// Whether a tensor `name` is stored that differs from the first of `others` that is.
fn differ(shards: &mut Shards, name: &str, others: &[&str], shape: &[usize]) -> Result<bool> {
    let Some(values) = shards.read(name, shape)? else { return Ok(false) };
    for other in others {
        if let Some(other) = shards.read(other, shape)? {
            return Ok(values != other);
        }
    }
    Ok(true)
}

/// A checkpoint's weights, under whichever of a tensor's names it is stored.
struct StoredWeights<'a> {
    config: &'a Config,
    shards: &'a mut Shards,
    rounded: bool,
}

impl Weights for StoredWeights<'_> {
    fn get(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Vec<f32>> {
        let names: Vec<&str> = std::iter::once(name).chain(self.config.aliases(name).iter().copied()).collect();
        self.shards.take(&names, shape)
    }

    fn rounded(&self) -> bool {
        self.rounded
    }
}

/// Whether `name` can be meant for a model on the hub: `owner/name` or `name`, and nothing of a path about it.
fn is_hub_id(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named = parts.iter().all(|part| !part.is_empty() && part.chars().all(allowed));
    // `runs/first` beside a directory `runs` is a mistyped path.
    let beside = parts.len() == 2 && Path::new(parts[0]).is_dir();
    parts.len() <= 2 && named && !name.starts_with('.') && !beside
}

/// Why a file is no model directory, and what to do.
fn what_file(path: &Path) -> String {
    match path.extension().and_then(|e| e.to_str()) {
        Some("gguf") => "a GGUF file; a Hugging Face directory with safetensors is needed".into(),
        Some("safetensors" | "bin" | "json") => "a file; name the directory that it lies in".into(),
        _ => "a file, not a model directory".into(),
    }
}

/// Whether a directory looks like that of a model or of an adapter.
fn is_model(dir: &Path) -> bool {
    [CONFIG, lora::CONFIG].iter().any(|name| dir.join(name).is_file())
}

/// Why a directory without `config.json` is no model, and what to do.
fn what_directory(dir: &Path) -> String {
    if !dir.exists() {
        return "there is no such directory".into();
    }
    if let Some(run) = ["best", "last"].map(|n| dir.join(n)).into_iter().find(|d| is_model(d)) {
        return format!("this is the directory of a training run; its model is {}", run.display());
    }
    let holds = |extension: &str| {
        fs::read_dir(dir).into_iter().flatten().flatten().any(|e| e.path().extension().is_some_and(|x| x == extension))
    };
    match (holds("gguf"), holds("onnx"), holds("safetensors")) {
        (true, ..) => {
            format!("it holds GGUF files and no {CONFIG}; a Hugging Face directory with safetensors is needed")
        }
        (_, true, _) => format!("it holds an ONNX export and no {CONFIG}; use the model that was exported"),
        (.., true) => format!("it holds weights but no {CONFIG}; copy that from the model that they belong to"),
        _ => format!("it holds no {CONFIG}"),
    }
}

/// A `tokenizer_config.json` that transformers 4 and 5 both read: 5 writes class names and lists that stop 4.
fn readable_by_all(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut settings)) = serde_json::from_slice(&bytes) else { return bytes };
    let mut changed = Vec::new();
    if settings.get("tokenizer_class").and_then(|c| c.as_str()) == Some("TokenizersBackend") {
        settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        changed.push("tokenizer_class");
    }
    if settings.get("extra_special_tokens").is_some_and(serde_json::Value::is_array)
        && let Some(tokens) = settings.remove("extra_special_tokens")
    {
        settings.insert("additional_special_tokens".into(), tokens);
        changed.push("extra_special_tokens");
    }
    match (changed.is_empty(), serde_json::to_vec_pretty(&settings)) {
        (false, Ok(written)) => {
            tracing::debug!(
                "{TOKENIZER_CONFIG}: {} written so that transformers 4 reads it too",
                changed.join(" and ")
            );
            written
        }
        _ => bytes,
    }
}

/// Directory of the hub's snapshot, with all the files a model needs.
fn download(id: &str) -> std::result::Result<PathBuf, String> {
    let cache = hub::cache().model(id.to_string());
    let api = if hub::is_offline() { None } else { Some(hub::api()?.model(id.to_string())) };
    let get = |file: &str| -> std::result::Result<PathBuf, String> {
        if let Some(path) = cache.get(file) {
            return Ok(path);
        }
        let Some(api) = &api else {
            return Err(format!("HF_HUB_OFFLINE is set and `{file}` is not in the local hub cache"));
        };
        tracing::info!("downloading {file} of {id}");
        api.get(file).map_err(|e| format!("no such directory here, and the hub did not give `{file}`: {e}"))
    };
    let config = get(CONFIG)?;
    get(TOKENIZER)?;
    if get(shards::SINGLE).is_err() {
        let index = get(shards::INDEX)?;
        for shard in shards::names(&index).map_err(|e| e.to_string())? {
            get(&shard)?;
        }
    }
    for name in COMPANIONS {
        // These may be absent from a repository that is complete without them.
        let _ = get(name);
    }
    config.parent().map(Path::to_path_buf).ok_or_else(|| "the hub cache has no directory".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::host;
    use crate::model::Parameter;
    use crate::store::shards::{INDEX, SINGLE, write_shards};

    fn config() -> Config {
        let text = r#"{"model_type":"t5","vocab_size":16,"d_model":4,"d_kv":3,"d_ff":8,"num_layers":1,"num_heads":2,
                       "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;
        Config::parse(text).expect("valid")
    }

    fn model() -> Model {
        Model::new(&config(), &mut RandomWeights::new(3), &Device::flex()).expect("random weights have every tensor")
    }

    fn write(dir: &Path, stored_as: StoredAs, shard_bytes: usize) {
        fs::write(dir.join(CONFIG), config().to_json("float32")).expect("write");
        write_shards(model().parameters(), stored_as, shard_bytes, dir).expect("write");
    }

    fn values(model: &Model) -> Vec<(String, Vec<f32>)> {
        let read = |p: Parameter| (p.name, p.values.into_data().try_to_vec().expect("f32"));
        model.parameters().into_iter().map(read).collect()
    }

    #[test]
    fn one_file_and_shards_give_back_the_same_bits() {
        for shard_bytes in [usize::MAX, 300] {
            let dir = tempfile::tempdir().expect("temporary directory");
            write(dir.path(), StoredAs::F32, shard_bytes);
            assert_eq!(dir.path().join(INDEX).exists(), shard_bytes == 300);
            let loaded = Checkpoint::open(dir.path()).expect("open").load(&Device::flex()).expect("load");
            assert_eq!(values(&loaded), values(&model()));
        }
    }

    #[test]
    fn half_precision_is_read_back_within_its_precision() {
        for (stored_as, tolerance) in [(StoredAs::Bf16, 1.0 / 256.0), (StoredAs::F16, 1.0 / 2048.0)] {
            let dir = tempfile::tempdir().expect("temporary directory");
            write(dir.path(), stored_as, usize::MAX);
            let loaded = Checkpoint::open(dir.path()).expect("open").load(&Device::flex()).expect("load");
            for ((name, got), (_, want)) in values(&loaded).into_iter().zip(values(&model())) {
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() <= tolerance * want.abs() + 1e-6, "{name}: {got} for {want}");
                }
            }
        }
    }

    /// What is said when the file is damaged by `damage`.
    fn complaint(damage: impl FnOnce(&Path)) -> String {
        let dir = tempfile::tempdir().expect("temporary directory");
        write(dir.path(), StoredAs::F32, usize::MAX);
        damage(dir.path());
        match Checkpoint::open(dir.path()).and_then(|c| c.load(&Device::flex())) {
            Ok(_) => panic!("a damaged checkpoint was loaded"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn damaged_checkpoints_name_file_and_tensor() {
        let cut = complaint(|dir| {
            let path = dir.join(SINGLE);
            let bytes = fs::read(&path).expect("read");
            fs::write(&path, &bytes[..bytes.len() - 10]).expect("write");
        });
        assert!(cut.contains(SINGLE) && cut.contains("cut short: tensor `"), "{cut}");

        let header = complaint(|dir| fs::write(dir.join(SINGLE), b"short").expect("write"));
        assert!(header.contains("not a safetensors file"), "{header}");

        let shape = complaint(|dir| {
            let other = config().to_json("float32").replace("\"d_ff\": 8", "\"d_ff\": 9");
            fs::write(dir.join(CONFIG), other).expect("write");
        });
        assert!(shape.contains("wi_0.weight") && shape.contains("[8, 4]") && shape.contains("[9, 4]"), "{shape}");

        let missing = complaint(|dir| {
            let other = config().to_json("float32").replace("\"num_layers\": 1", "\"num_layers\": 2");
            fs::write(dir.join(CONFIG), other).expect("write");
        });
        assert!(missing.contains("encoder.block.1") && missing.contains("missing"), "{missing}");

        let unexpected = complaint(|dir| {
            let other =
                config().to_json("float32").replace("\"num_heads\": 2", "\"num_decoder_layers\": 1, \"num_heads\": 2");
            fs::write(dir.join(CONFIG), other).expect("write");
            let mut parameters = model().parameters();
            let mut extra = parameters[0].clone();
            extra.name = "adapter.weight".into();
            parameters.push(extra);
            write_shards(parameters, StoredAs::F32, usize::MAX, dir).expect("write");
        });
        assert!(unexpected.contains("adapter.weight"), "{unexpected}");

        let none = complaint(|dir| fs::remove_file(dir.join(SINGLE)).expect("remove"));
        assert!(none.contains("no model.safetensors"), "{none}");
    }

    #[test]
    fn a_stored_head_that_differs_from_the_embedding_is_used() {
        let dir = tempfile::tempdir().expect("temporary directory");
        write(dir.path(), StoredAs::F32, usize::MAX);
        let load = || Checkpoint::open(dir.path()).expect("directory").load(&Device::flex()).expect("loads");
        let head = |model: &Model| host(model.head()).expect("numbers");
        let own = head(&load());
        // As transformers 5 writes it: tied, not scaled, with the head in the file.
        let tied =
            config().to_json("float32").replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
        fs::write(dir.path().join(CONFIG), &tied).expect("write");
        let loaded = load();
        assert_eq!(head(&loaded), own);
        let Config::T5(found) = loaded.config() else { panic!("a T5") };
        assert!(!found.tie_word_embeddings && !found.scale_decoder_outputs);

        // A copy of the embedding is none of its own.
        let mut parameters = model().parameters();
        let shared = parameters.iter().find(|p| p.name == "shared.weight").expect("embedding").values.clone();
        parameters.iter_mut().filter(|p| p.name == "lm_head.weight").for_each(|p| p.values = shared.clone());
        write_shards(parameters, StoredAs::F32, usize::MAX, dir.path()).expect("write");
        let Config::T5(found) = load().config() else { panic!("a T5") };
        assert!(found.tie_word_embeddings);
    }

    #[test]
    fn settings_of_a_tokenizer_are_written_for_all_versions_of_transformers() {
        let new =
            br#"{"tokenizer_class":"TokenizersBackend","extra_special_tokens":["<extra_id_0>"],"eos_token":"</s>"}"#;
        let written: serde_json::Value = serde_json::from_slice(&readable_by_all(new.to_vec())).expect("JSON");
        assert_eq!(written["tokenizer_class"], "PreTrainedTokenizerFast");
        assert_eq!(written["additional_special_tokens"][0], "<extra_id_0>");
        assert!(written.get("extra_special_tokens").is_none() && written["eos_token"] == "</s>");
        let old = br#"{"tokenizer_class": "T5Tokenizer"}"#.to_vec();
        assert_eq!(readable_by_all(old.clone()), old);
    }

    #[test]
    fn what_is_no_model_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let best = dir.path().join("best");
        fs::create_dir(&best).expect("create");
        write(&best, StoredAs::F32, usize::MAX);
        let said = Checkpoint::open(dir.path()).expect_err("a run is no model").to_string();
        assert!(said.contains("training run") && said.contains("best"), "{said}");
        let weights = best.join(SINGLE);
        let said = Checkpoint::find(&weights.display().to_string()).expect_err("a file").to_string();
        assert!(said.contains("name the directory"), "{said}");
        for (name, hub) in
            [("google/flan-t5-small", true), ("t5-small", true), ("./t5", false), ("/a", false), ("a/b/c", false)]
        {
            assert_eq!(is_hub_id(name), hub, "{name}");
        }
        let said = Checkpoint::find("no/such/place").expect_err("no such place").to_string();
        assert!(said.contains("no such directory"), "{said}");
    }
}
