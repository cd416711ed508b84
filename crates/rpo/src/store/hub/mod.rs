//! The Hugging Face hub and its local cache: whether the hub may be asked, with whose token, and how files come from it. What the hub
//! says is a stranger's word: names, hashes and revisions are checked before they become parts of paths, and contents against their
//! hashes.

mod cache;
mod download;
mod hashes;
mod snapshot;

use std::path::PathBuf;

pub(crate) use cache::Cache;
pub(crate) use download::{Hub, check_cached};
pub(crate) use snapshot::Snapshot;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A model or an adapter.
    Model,
    /// A data set.
    DataSet,
}

impl Kind {
    /// How the hub and its cache call them.
    fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::DataSet => "datasets",
        }
    }
}

/// A repository at a revision.
#[derive(Clone, Debug)]
pub(crate) struct Repo {
    kind: Kind,
    id: String,
    revision: String,
}

impl Repo {
    /// The repository `id`, `owner/name` or `name`, at a branch, tag or commit; `main` if none is named.
    pub(crate) fn new(kind: Kind, id: &str, revision: Option<&str>) -> Self {
        Self { kind, id: id.into(), revision: revision.unwrap_or("main").into() }
    }

    /// The same repository at another revision.
    pub(crate) fn at(&self, revision: &str) -> Self {
        Self { revision: revision.into(), ..self.clone() }
    }

    /// Where its files are on the hub.
    fn path(&self) -> String {
        match self.kind {
            Kind::Model => self.id.clone(),
            Kind::DataSet => format!("datasets/{}", self.id),
        }
    }
}

/// Whether a branch, tag or commit may be called so: what Git allows of it, and nothing that leads out of a directory.
pub(crate) fn is_revision(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(legal);
    name.len() <= 200 && name.split('/').all(part)
}

/// Whether `name` is that of a file of a repository, as a path below its root that stays there.
fn is_path_below(name: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    let legal = |c: char| !c.is_control() && c != '\\' && !(cfg!(windows) && c == ':');
    name.len() <= 1000 && name.split('/').all(part) && name.chars().all(legal)
}

/// Whether `HF_HUB_OFFLINE` forbids to ask the hub.
pub(crate) fn is_offline() -> bool {
    is_set("HF_HUB_OFFLINE")
}

/// Whether a variable of the environment is set to something else than 0.
pub(crate) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value != "0")
}

/// Where the hub is: `HF_ENDPOINT`, or huggingface.co.
pub(crate) fn endpoint() -> String {
    let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.trim().is_empty());
    endpoint.as_deref().unwrap_or("https://huggingface.co").trim().trim_end_matches('/').to_string()
}

/// The token of `HF_TOKEN` or of a login.
pub(crate) fn token() -> Option<String> {
    std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()).or_else(cache::token)
}

/// A file of a model that lies in the hub's local cache.
pub fn cached(model: &str, file: &str) -> Option<PathBuf> {
    let (id, revision) = model.split_once('@').map_or((model, None), |(id, revision)| (id, Some(revision)));
    let cache = Cache::of(&Repo::new(Kind::Model, id, revision));
    cache.file(&cache.commit()?, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_and_paths_stay_where_they_belong() {
        for good in ["main", "refs/pr/1", "v1.0", "0123abcd", "feature/a-b_c", "v1+2"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "/", "a//b", "..", "a/../b", ".git", "a b", "a\\b", "/etc", "a\n", "a?b", "a#b", "a%2e"] {
            assert!(!is_revision(bad), "{bad:?}");
        }
        for good in ["a", ".gitattributes", "data/train-00000.parquet", "data/ä ö.csv", "a..b"] {
            assert!(is_path_below(good), "{good}");
        }
        for bad in ["", "/a", "../a", "a/../../b", "a//b", "a/", "a/.", "a\\..\\b", "a\0", "a\nb", &"x".repeat(1001)] {
            assert!(!is_path_below(bad), "{bad:?}");
        }
    }
}
