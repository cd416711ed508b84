//! Hugging Face directories in and out: `config.json`, `model.safetensors` (or shards), tokenizer files; and adapters in PEFT's
//! format beside the model that they change.

mod companions;
mod find;
mod names;
mod save;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use companions::Companions;
use find::{HubId, download, is_model, what_directory, what_file};
use names::{CONFIG, TOKENIZER, TOKENIZER_CONFIG};
pub use save::{init, save, save_adapter};
pub(crate) use save::{write_adapter, write_whole};

use super::packed::{Hashed, PackedModel, Precision, fingerprint};
use super::peft::{self, Adapter};
use super::{Config, Init, Model, Weights};
use crate::chat::{Chat, ChatTemplate, UseTemplate, Writing};
use crate::error::{Error, Result};
use crate::store::checksums::{self, Holds};
use crate::store::files::previous;
pub use crate::store::shards::StoredAs;
use crate::store::shards::{self, Shards};
use crate::store::within;
use crate::tokenizer::Tokenizer;

/// Adapters of which one changes the other, at most.
const DEEPEST: usize = 8;

/// A directory that holds a model, or an adapter in PEFT's format beside the model that it changes.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Path or hub id.
    name: String,
    /// The commit of a model that comes from the hub.
    commit: Option<String>,
    dir: PathBuf,
    /// What the adapter in `dir` changes, if that is what it holds.
    base: Option<Box<Checkpoint>>,
    /// The small files in `dir`, as they were when it was opened.
    companions: Arc<Companions>,
}

impl Checkpoint {
    /// Finds a model by local path or, failing that, by hub id (`google/flan-t5-small`, or `google/flan-t5-small@REVISION` for another
    /// branch, tag or commit than `main`): first in the local hub cache, then by download.
    ///
    /// # Errors
    /// If there is no such directory and the hub does not give the files; the message says what was tried.
    pub fn find(name: &str) -> Result<Self> {
        Self::find_within(name, DEEPEST)
    }

    /// A model in local directory `dir`, or an adapter whose base model is found.
    ///
    /// # Errors
    /// If it holds neither `config.json` nor `adapter_config.json`, or the base model is not found.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_within(dir, DEEPEST, None)
    }

    /// An adapter may change what `depth` others change.
    fn find_within(name: &str, depth: usize) -> Result<Self> {
        let path = Path::new(name);
        if path.is_dir() {
            return Self::open_within(path, depth, None);
        }
        let no_model = |problem: String| Error::NoModel { name: name.into(), problem };
        if path.exists() {
            return Err(no_model(what_file(path)));
        }
        // What a program that died between two renames left is found too.
        if previous(path).is_dir() {
            return Self::open_within(path, depth, None);
        }
        match HubId::of(name) {
            Some(id) => Self::of_hub(id, depth),
            None => Err(no_model("there is no such directory, and it is no hub id (owner/name)".into())),
        }
    }

    fn of_hub(id: HubId<'_>, depth: usize) -> Result<Self> {
        let no_model = |problem: String| Error::NoModel { name: id.id.into(), problem };
        let (dir, commit) = download(id, &[&[TOKENIZER]]).map_err(no_model)?;
        Self::open_within(&dir, depth, Some((id.id, &commit)))
    }

    /// What is in `dir`, which is a snapshot of the hub's if `hub` says of which repository and commit.
    fn open_within(dir: &Path, depth: usize, hub: Option<(&str, &str)>) -> Result<Self> {
        // A program that died between two renames left the last complete checkpoint beside its place.
        let fallback = previous(dir);
        let dir = if !dir.exists() && fallback.exists() { fallback } else { dir.to_path_buf() };
        let path = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
        let name = hub.map_or_else(|| path.display().to_string(), |(id, _)| id.to_string());
        let commit = hub.map(|(_, commit)| commit.to_string());
        let adapter = dir.join(peft::CONFIG);
        let has = |name: &str| within::is_there(&dir.join(name));
        let whole = |name, dir: PathBuf| {
            let companions = Arc::new(Companions::read(&dir)?);
            Ok(Self { name, commit: commit.clone(), dir, base: None, companions })
        };
        match (has(CONFIG), has(peft::CONFIG)) {
            (true, true) if [shards::SINGLE, shards::INDEX].iter().any(|name| has(name)) => {
                tracing::warn!(
                    "{}: it holds a whole model, which is used, and an adapter, which is not",
                    dir.display()
                );
                return whole(name, dir);
            }
            (true, false) => return whole(name, dir),
            (_, true) => {}
            (false, false) => {
                return Err(Error::NoModel { name: dir.display().to_string(), problem: what_directory(&dir) });
            }
        }
        let base = Adapter::base(&dir)?;
        let bad = |problem: String| {
            let what = format!("base_model_name_or_path is `{base}`, the model that the adapter changes: {problem}");
            Error::file(&adapter, what)
        };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(bad(format!("it is the last of {DEEPEST} adapters that change each other; is it a circle?")));
        };
        let beside = dir.join(&base);
        let found = match hub {
            // What comes from elsewhere names no place on this machine.
            Some(_) => match HubId::of(&base) {
                Some(id) => Self::of_hub(id, depth),
                None => return Err(bad("an adapter from the hub must name a model on the hub (owner/name)".into())),
            },
            None if beside.is_dir() && !Path::new(&base).is_dir() => Self::open_within(&beside, depth, None),
            None => Self::find_within(&base, depth),
        };
        let found = found.map_err(|problem| match problem {
            Error::NoModel { .. } => bad(problem.to_string()),
            other => other,
        })?;
        let companions = Arc::new(Companions::read(&dir)?);
        Ok(Self { name, commit, dir, base: Some(Box::new(found)), companions })
    }

    /// Whether `dir` looks like the directory of a model or of an adapter.
    pub fn is_at(dir: &Path) -> bool {
        is_model(dir)
    }

    /// Whether it is an adapter, which is merged into its base model when it is loaded.
    pub fn is_adapter(&self) -> bool {
        self.base.is_some()
    }

    /// Its hub id, or the whole path of its directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of a model of the hub with the commit that its files are of, by which it is found again as it is now; none for a
    /// directory.
    pub fn pinned(&self) -> Option<String> {
        self.commit.as_ref().map(|commit| format!("{}@{commit}", self.name))
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
        self.base.as_ref().map_or_else(|| Config::of_model(&self.dir.join(CONFIG)), |base| base.config())
    }

    /// Reads the tokenizer and checks that it fits the model. A decoder-only model's prompts are written as `chat` says.
    ///
    /// # Errors
    /// If it cannot be read, has more tokens than the embedding has rows, or ends sequences with another id, or if all prompts
    /// are to go through a chat template and there is none.
    pub fn tokenizer(&self, chat: Chat) -> Result<Tokenizer> {
        let owner = self.with_tokenizer();
        let (tokenizer, config) = (Tokenizer::load(&owner.dir)?, owner.config()?);
        check_vocabulary(&tokenizer, &config, &owner.dir)?;
        match config {
            Config::T5(_) if chat.template == UseTemplate::Always => {
                Err(no_template("an encoder-decoder model reads plain text"))
            }
            Config::T5(_) => Ok(tokenizer),
            Config::Llama(_) => Ok(tokenizer.decoder_only().written(owner.writing(chat)?, &config.ends())),
        }
    }

    /// Whose tokenizer is used: the adapter's, if it has one of its own, or that of what it changes.
    fn with_tokenizer(&self) -> &Self {
        match &self.base {
            Some(base) if !self.companions.has(TOKENIZER) => base.with_tokenizer(),
            _ => self,
        }
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
        let asks =
            || ChatTemplate::find(&self.with_tokenizer().dir, None).is_some_and(|template| template.asks_for_the_day());
        Ok(matches!(self.config()?, Config::Llama(_)) && template != UseTemplate::Never && asks())
    }

    /// Loads the model, an adapter merged into what it changes. A stored head that differs from the embedding is used, whatever
    /// `tie_word_embeddings` says: so does transformers 5, which writes `true` for models with a head of their own.
    ///
    /// # Errors
    /// If a tensor is missing, unexpected, of another shape or type, or cut short, or a file is not what its checksum says; the
    /// message names it.
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

    /// [`Self::load`] of what was compared with its checksums already.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub(crate) fn load_verified(&self, device: &Device) -> Result<Model> {
        self.read(false, |config, weights| Model::new(config, weights, device))
    }

    fn load_as(&self, device: &Device, rounded: bool) -> Result<Model> {
        self.verify()?;
        if let Some(base) = &self.base {
            return Adapter::open(&self.dir)?.merge(base.load_as(device, rounded)?);
        }
        self.read(rounded, |config, weights| Model::new(config, weights, device))
    }

    /// Loads the model packed for decoding, tensor by tensor, so that no more than one is held twice; with its configuration and
    /// a hash of its weights, which does not depend on `precision`.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn packed(&self, precision: Precision) -> Result<(PackedModel, Config, String)> {
        if self.is_adapter() {
            let model = self.load(&Device::flex())?;
            return Ok((PackedModel::of(&model, precision)?, model.config(), fingerprint(&model)?));
        }
        self.verify()?;
        self.read(false, |config, weights| {
            let mut weights = Hashed::new(weights);
            let model = PackedModel::new(config, &mut weights, precision)?;
            Ok((model, config.clone(), weights.fingerprint(config)))
        })
    }

    /// Compares what a model is made of with its checksums, where this program saved it.
    fn verify(&self) -> Result<()> {
        checksums::verify(&self.dir, Holds::Model, |name| !name.contains('/'))
    }

    /// What `build` makes of the stored weights, all of which it must take.
    fn read<M>(&self, rounded: bool, build: impl FnOnce(&Config, &mut dyn Weights) -> Result<M>) -> Result<M> {
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
        let model = build(&config, &mut weights)?;
        let tied = config.tied_head().map(|(head, _)| head);
        shards.check_all_taken(|name| config.redundant().contains(&name) || tied == Some(name))?;
        Ok(model)
    }
}

/// The directory of another kind of model, by local path or hub id; of `vocabularies` one is enough.
///
/// # Errors
/// If there is none; the message says what was tried.
pub(super) fn directory(name: &str, vocabularies: &[&[&str]]) -> Result<PathBuf> {
    let path = Path::new(name);
    let no_model = |problem: String| Error::NoModel { name: name.into(), problem };
    match (path.is_dir(), path.exists()) {
        (true, _) if path.join(CONFIG).is_file() => Ok(path.to_path_buf()),
        (true, _) => Err(no_model(what_directory(path))),
        (false, true) => Err(no_model(what_file(path))),
        (false, false) => match HubId::of(name) {
            Some(id) => download(id, vocabularies).map(|(dir, _)| dir).map_err(no_model),
            None => Err(no_model("there is no such directory, and it is no hub id (owner/name)".into())),
        },
    }
}

/// That prompts cannot go through a chat template; `why` goes on from "and".
fn no_template(why: &str) -> Error {
    let problem = format!("`always` needs a chat template, and {why}; without one, leave the setting out");
    Error::Setting { field: "chat-template", problem }
}

/// Checks that `tokenizer` and `config` are made for each other.
///
/// # Errors
/// What does not fit, naming `dir`.
pub fn check_vocabulary(tokenizer: &Tokenizer, config: &Config, dir: &Path) -> Result<()> {
    let problem = if tokenizer.largest_id() as usize >= config.vocab_size() {
        format!(
            "the tokenizer has a token of id {} but the model's embedding only {} rows (vocab_size); they are not made for each \
             other",
            tokenizer.largest_id(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::host;
    use crate::model::{NamedParameters, Parameter, RandomWeights};
    use crate::store::shards::{INDEX, SINGLE, Stored, write_shards};

    fn config() -> Config {
        let text = r#"{"model_type":"t5","vocab_size":16,"d_model":4,"d_kv":3,"d_ff":8,"num_layers":1,"num_heads":2,
                       "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;
        Config::parse(text).expect("valid")
    }

    fn model() -> Model {
        Model::new(&config(), &mut RandomWeights::new(3), &Device::flex()).expect("random weights have every tensor")
    }

    fn stored(parameters: Vec<Parameter>) -> Vec<Stored> {
        parameters.into_iter().map(Stored::from).collect()
    }

    fn write(dir: &Path, stored_as: StoredAs, shard_bytes: usize) {
        fs::write(dir.join(CONFIG), config().to_json("float32")).expect("write");
        write_shards(stored(model().parameters()), stored_as, shard_bytes, dir).expect("write");
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
        for (stored_as, tolerance) in [(StoredAs::Bf16, 1.0 / 128.0), (StoredAs::F16, 1.0 / 1024.0)] {
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
            write_shards(stored(parameters), StoredAs::F32, usize::MAX, dir).expect("write");
        });
        assert!(unexpected.contains("adapter.weight"), "{unexpected}");

        let none = complaint(|dir| fs::remove_file(dir.join(SINGLE)).expect("remove"));
        assert!(none.contains("no model.safetensors"), "{none}");
    }

    #[test]
    fn what_is_saved_has_a_tokenizer_whatever_became_of_the_directory_that_it_came_from() {
        let (dir, out) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        write(dir.path(), StoredAs::F32, usize::MAX);
        let files = [(TOKENIZER, "{}"), ("chat_template.jinja", "{{ messages }}"), ("generation_config.json", "{ }")];
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).expect("write"));
        let origin = Checkpoint::open(dir.path()).expect("a model");
        drop(dir);
        let saved = out.path().join("saved");
        save(&model(), &origin, StoredAs::F32, &saved, |_| Ok(())).expect("saved");
        for (name, text) in files {
            assert_eq!(fs::read_to_string(saved.join(name)).expect("there"), text, "{name}");
        }
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
        write_shards(stored(parameters), StoredAs::F32, usize::MAX, dir.path()).expect("write");
        let Config::T5(found) = load().config() else { panic!("a T5") };
        assert!(found.tie_word_embeddings);
    }
}
