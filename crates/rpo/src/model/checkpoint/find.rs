//! Where a model is: a directory, or the hub; and why something is none.

use std::fs;
use std::path::{Path, PathBuf};

use super::names::{COMPANIONS, CONFIG};
use crate::model::peft;
use crate::store::hub::{self, Kind, Repo, Snapshot};
use crate::store::shards;

/// The name of a model on the hub, `owner/name` or `name`, and the revision that may follow it behind an `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HubId<'a> {
    pub(super) id: &'a str,
    pub(super) revision: Option<&'a str>,
}

impl<'a> HubId<'a> {
    /// What `name` is on the hub; none if there is something of a path about it.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (id, revision) = name.split_once('@').map_or((name, None), |(id, revision)| (id, Some(revision)));
        let parts: Vec<&str> = id.split('/').collect();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let named = parts.iter().all(|part| !part.is_empty() && part.chars().all(allowed));
        // `runs/first` beside a directory `runs` is a mistyped path.
        let beside = parts.len() == 2 && Path::new(parts[0]).is_dir();
        let is_id = parts.len() <= 2 && named && !id.starts_with('.') && !beside;
        (is_id && revision.is_none_or(hub::is_revision)).then_some(Self { id, revision })
    }
}

/// Why a file is no model directory, and what to do.
pub(super) fn what_file(path: &Path) -> String {
    match path.extension().and_then(|e| e.to_str()) {
        Some("gguf") => "a GGUF file; a Hugging Face directory with safetensors is needed".into(),
        Some("safetensors" | "bin" | "json") => "a file; name the directory that it lies in".into(),
        _ => "a file, not a model directory".into(),
    }
}

/// Whether a directory looks like that of a model or of an adapter.
pub(super) fn is_model(dir: &Path) -> bool {
    [CONFIG, peft::CONFIG].iter().any(|name| dir.join(name).is_file())
}

/// Why a directory without `config.json` is no model, and what to do.
pub(super) fn what_directory(dir: &Path) -> String {
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

/// A model from the hub: the directory of a snapshot with all the files that it needs, those of the first of `vocabularies` that there
/// is among them; and the commit that they are of.
///
/// # Errors
/// If neither the local cache nor the hub has them; what was tried.
pub(super) fn download(
    HubId { id, revision }: HubId<'_>,
    vocabularies: &[&[&str]],
) -> std::result::Result<(PathBuf, String), String> {
    let mut files = Snapshot::of(Repo::new(Kind::Model, id, revision));
    match files.get(CONFIG) {
        Ok(_) => {
            let mut all = |names: &&[&str]| names.iter().try_for_each(|name| files.get(name).map(drop));
            if let Some((first, others)) = vocabularies.split_first() {
                all(first).or_else(|problem| others.iter().find_map(|names| all(names).ok()).ok_or(problem))?;
            }
            if let Err(problem) = files.get(shards::SINGLE) {
                if files.lists(shards::SINGLE) {
                    return Err(problem);
                }
                let index = files.get(shards::INDEX).map_err(|problem| format!("{problem}. {}", shards::CONVERT))?;
                for shard in shards::names(&index).map_err(|e| e.to_string())? {
                    files.get(&shard)?;
                }
            }
        }
        Err(problem) => {
            // An adapter has no configuration of its own.
            files.get(peft::CONFIG).map_err(|_| problem)?;
            files.get(peft::TENSORS)?;
        }
    }
    files.complete(&COMPANIONS)?;
    files.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_told_with_a_hint() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let best = dir.path().join("best");
        fs::create_dir(&best).expect("create");
        assert_eq!(what_directory(dir.path()), format!("it holds no {CONFIG}"));
        fs::write(best.join(CONFIG), "{}").expect("write");
        let said = what_directory(dir.path());
        assert!(said.contains("training run") && said.contains("best"), "{said}");
        assert!(what_file(&best.join("model.safetensors")).contains("name the directory"));
        for (name, hub) in [
            ("google/flan-t5-small", true),
            ("t5-small", true),
            ("google/flan-t5-small@v1.0", true),
            ("google/flan-t5-small@refs/pr/1", true),
            ("google/flan-t5-small@../x", false),
            ("google/flan-t5-small@", false),
            ("./t5", false),
            ("/a", false),
            ("a/b/c", false),
        ] {
            assert_eq!(HubId::of(name).is_some(), hub, "{name}");
        }
        assert!(what_directory(Path::new("no/such/place")).contains("no such directory"));
    }
}
