//! Data sets of the Hugging Face hub: their files, by way of its local cache.

use std::path::{Path, PathBuf};

use super::super::records::is_data;
use super::choose::{choose, listed, naturally};
use super::list;
use crate::store::hub::{self, Cache, Hub, Kind, Repo};

/// What a name says of a data set.
#[derive(Debug, PartialEq)]
pub(super) struct DataSet {
    /// `owner/name`.
    id: String,
    revision: Option<String>,
    /// A file, directory or pattern in it.
    path: Option<String>,
}

/// A revision of a data set, as far as it is known here.
struct Found {
    commit: String,
    /// All its files; of the cache, those that it holds.
    names: Vec<String>,
    is_cached: bool,
}

impl DataSet {
    /// The data set that `name` is the id or the address of; `None` if it looks like a path.
    pub fn of(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("hf://datasets/") {
            return Self::parse(rest);
        }
        if let Some(rest) = name.strip_prefix("https://huggingface.co/datasets/") {
            return Self::of_page(rest);
        }
        let is_path = name.starts_with(['.', '/', '~']) || name.matches('/').count() != 1 || is_file(name);
        if is_path { None } else { Self::parse(name) }
    }

    /// `owner/name@revision/path`, of which the last two may be missing.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (owner, name) = (parts.next()?, parts.next()?);
        let (name, revision) = match name.split_once('@') {
            // Branches with slashes in their names are written so: refs%2Fconvert%2Fparquet.
            Some((name, revision)) => (name, Some(revision.replace("%2F", "/").replace("%2f", "/"))),
            None => (name, None),
        };
        let legal = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let path = parts.next().map(|p| p.trim_matches('/').to_string()).filter(|p| !p.is_empty());
        (legal(owner) && legal(name)).then(|| Self { id: format!("{owner}/{name}"), revision, path })
    }

    /// `owner/name/tree/revision/path`, as in the address of a page.
    fn of_page(text: &str) -> Option<Self> {
        let text = text.split(['?', '#']).next()?;
        let parts: Vec<&str> = text.splitn(5, '/').collect();
        match parts.as_slice() {
            [owner, name, "tree" | "blob" | "resolve" | "raw", revision, path @ ..] => {
                Self::parse(&[&[*owner, &format!("{name}@{revision}")], path].concat().join("/"))
            }
            [owner, name, ..] => Self::parse(&format!("{owner}/{name}")),
            _ => None,
        }
    }

    /// The files to train on, downloaded.
    ///
    /// # Errors
    /// If neither the hub nor its cache has the data set, or it is not clear which of its files to read.
    pub fn files(&self) -> Result<Vec<PathBuf>, String> {
        let found = self.find()?;
        let (names, said) = self.choose(&found.names)?;
        let Self { id, .. } = self;
        let said = said.unwrap_or_else(|| format!("reading {}", listed(&names)));
        let origin = if found.is_cached { " in the local cache, which need not hold all of it" } else { "" };
        tracing::info!("{id} at revision {}{origin}: {said}", found.commit);
        let (repo, cache) = (self.repo(), Cache::of(&self.repo()));
        let cached: Vec<PathBuf> = names.iter().filter_map(|name| cache.file(&found.commit, name)).collect();
        if cached.len() == names.len() {
            return Ok(cached);
        }
        let hub = Hub::of_environment();
        let get = |name: &String| match cache.file(&found.commit, name) {
            Some(path) => Ok(path),
            None => {
                tracing::info!("downloading {name}");
                hub.get(&repo, &found.commit, name).map_err(|e| format!("the hub did not give `{name}`: {e}"))
            }
        };
        let files = names.iter().map(get).collect::<Result<_, _>>()?;
        hub::check_cached(&cached)?;
        // So that the data set is found offline under the revision by which it was named.
        if let Err(problem) = cache.keep_commit(&found.commit) {
            tracing::warn!("the hub's local cache did not take the revision of {id}: {problem}");
        }
        Ok(files)
    }

    /// The name of the data set with the commit that its revision is now.
    ///
    /// # Errors
    /// As [`DataSet::files`].
    pub fn pinned(&self) -> Result<String, String> {
        let commit = self.find()?.commit;
        Ok(match &self.path {
            Some(path) => format!("hf://datasets/{}@{commit}/{path}", self.id),
            None => format!("{}@{commit}", self.id),
        })
    }

    fn repo(&self) -> Repo {
        Repo::new(Kind::DataSet, &self.id, self.revision.as_deref())
    }

    /// Asks the hub; where that is not allowed or fails, its cache.
    fn find(&self) -> Result<Found, String> {
        if hub::is_offline() || hub::is_set("HF_DATASETS_OFFLINE") {
            return self.cached().ok_or_else(|| {
                "no such file or directory here, and as HF_HUB_OFFLINE is set, the hub is not asked for a data set of this \
                 name; its local cache has none"
                    .into()
            });
        }
        match Hub::of_environment().list(&self.repo()) {
            Ok(listing) => Ok(Found { commit: listing.commit, names: listing.names, is_cached: false }),
            Err(e) => match self.cached() {
                Some(found) => {
                    tracing::warn!("the hub cannot be asked for {} ({e}); what its local cache holds is read", self.id);
                    Ok(found)
                }
                None => Err(format!(
                    "no such file or directory here, and the hub did not give a data set of this name ({e}). If it is \
                     private or must be asked for, set HF_TOKEN"
                )),
            },
        }
    }

    /// The data set in the local cache, by the revision's name or as a commit.
    fn cached(&self) -> Option<Found> {
        let cache = Cache::of(&self.repo());
        let commit = cache.commit()?;
        let names = list(&cache.snapshot(&commit)).ok()?;
        (!names.is_empty()).then_some(Found { commit, names, is_cached: true })
    }

    /// The names to read among `names`.
    fn choose(&self, names: &[String]) -> Result<(Vec<String>, Option<String>), String> {
        let Some(path) = &self.path else {
            let say_how = |problem| format!("{problem}. Files of it are named so: hf://datasets/{}/PATH", self.id);
            return choose(names).map(|choice| (choice.files, choice.said)).map_err(say_how);
        };
        let pattern = glob::Pattern::new(path).map_err(|e| format!("not a pattern of file names: {e}"))?;
        let by_parts = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let mut matching: Vec<String> =
            names.iter().filter(|name| *name == path || pattern.matches_with(name, by_parts)).cloned().collect();
        matching.sort_by(|a, b| naturally(a, b));
        let below: Vec<String> =
            names.iter().filter_map(|name| name.strip_prefix(path)?.strip_prefix('/').map(Into::into)).collect();
        match (matching.is_empty(), below.is_empty()) {
            (false, _) => Ok((matching, None)),
            (true, true) => Err(format!("the data set has no file `{path}`")),
            (true, false) => {
                let choice = choose(&below)?;
                Ok((choice.files.iter().map(|name| format!("{path}/{name}")).collect(), choice.said))
            }
        }
    }
}

/// Whether a name ends as those of files do.
fn is_file(name: &str) -> bool {
    const OTHERS: [&str; 12] =
        [".txt", ".gz", ".zst", ".zip", ".xlsx", ".xls", ".ods", ".db", ".xml", ".html", ".pkl", ".pt"];
    is_data(Path::new(name)) || OTHERS.iter().any(|end| name.to_ascii_lowercase().ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(id: &str, revision: Option<&str>, path: Option<&str>) -> DataSet {
        DataSet { id: id.into(), revision: revision.map(Into::into), path: path.map(Into::into) }
    }

    #[test]
    fn ids_addresses_and_paths_are_told_apart() {
        assert_eq!(DataSet::of("a/b-1.5"), Some(set("a/b-1.5", None, None)));
        assert_eq!(DataSet::of("a/b@v1"), Some(set("a/b", Some("v1"), None)));
        let convert = "hf://datasets/a/b@refs%2Fconvert%2Fparquet/default/*.parquet";
        assert_eq!(DataSet::of(convert), Some(set("a/b", Some("refs/convert/parquet"), Some("default/*.parquet"))));
        let page = "https://huggingface.co/datasets/a/b/resolve/main/data/x.csv?download=true";
        assert_eq!(DataSet::of(page), Some(set("a/b", Some("main"), Some("data/x.csv"))));
        assert_eq!(DataSet::of("https://huggingface.co/datasets/a/b/viewer"), Some(set("a/b", None, None)));
        for path in ["a/b.jsonl", "a/b.csv.gz", "./a/b", "/a/b", "a", "a/b/c", "a/b.xlsx", "a/b c", "a/*"] {
            assert_eq!(DataSet::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_in_a_data_set_is_a_file_a_pattern_or_a_directory() {
        let names = ["a/train.csv", "a/test.csv", "b/c/x.csv"].map(String::from);
        let chosen = |path: &str| DataSet::of(&format!("hf://datasets/o/n/{path}")).expect("id").choose(&names);
        assert_eq!(chosen("a/test.csv").expect("file").0, ["a/test.csv"]);
        assert_eq!(chosen("a/*.csv").expect("pattern").0, ["a/test.csv", "a/train.csv"]);
        assert_eq!(chosen("a").expect("directory").0, ["a/train.csv"]);
        let both = ["data/train_a.csv", "data/train_b.csv", "data/train_xy.csv"].map(String::from);
        let problem = DataSet::of("o/n").expect("id").choose(&both).expect_err("two sets");
        assert!(problem.contains("several sets") && problem.contains("hf://datasets/o/n/PATH"), "{problem}");
        assert!(chosen("*.csv").expect_err("not across directories").contains("no file `*.csv`"));
    }
}
