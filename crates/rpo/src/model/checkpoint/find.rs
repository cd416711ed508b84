//! Where a model is: a directory, or the hub; and why something is none.

use std::fs;
use std::path::{Path, PathBuf};

use super::names::{COMPANIONS, CONFIG};
use crate::model::peft;
use crate::store::{hub, shards};

/// Whether `name` can be meant for a model on the hub: `owner/name` or `name`, and nothing of a path about it.
pub(super) fn is_hub_id(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named = parts.iter().all(|part| !part.is_empty() && part.chars().all(allowed));
    // `runs/first` beside a directory `runs` is a mistyped path.
    let beside = parts.len() == 2 && Path::new(parts[0]).is_dir();
    parts.len() <= 2 && named && !name.starts_with('.') && !beside
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

/// Directory of the hub's snapshot, with all the files a model needs, those of the first of `vocabularies` that there is among them.
pub(super) fn download(id: &str, vocabularies: &[&[&str]]) -> std::result::Result<PathBuf, String> {
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
    let config = match get(CONFIG) {
        Ok(config) => {
            let all = |names: &&[&str]| names.iter().try_for_each(|name| get(name).map(drop));
            if let Some((first, others)) = vocabularies.split_first() {
                all(first).or_else(|problem| others.iter().find_map(|names| all(names).ok()).ok_or(problem))?;
            }
            if get(shards::SINGLE).is_err() {
                let index = get(shards::INDEX).map_err(|problem| format!("{problem}. {}", shards::CONVERT))?;
                for shard in shards::names(&index).map_err(|e| e.to_string())? {
                    get(&shard)?;
                }
            }
            config
        }
        Err(problem) => {
            // An adapter has no configuration of its own.
            let config = get(peft::CONFIG).map_err(|_| problem)?;
            get(peft::TENSORS)?;
            config
        }
    };
    for name in COMPANIONS {
        // These may be absent from a repository that is complete without them.
        let _ = get(name);
    }
    config.parent().map(Path::to_path_buf).ok_or_else(|| "the hub cache has no directory".into())
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
        for (name, hub) in
            [("google/flan-t5-small", true), ("t5-small", true), ("./t5", false), ("/a", false), ("a/b/c", false)]
        {
            assert_eq!(is_hub_id(name), hub, "{name}");
        }
        assert!(what_directory(Path::new("no/such/place")).contains("no such directory"));
    }
}
