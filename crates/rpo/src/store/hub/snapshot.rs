//! The files of a repository at one commit: those that the cache has, and the others from the hub. All are of the same commit, and those
//! that were in the cache are checked against their hashes when others are brought beside them.

use std::path::PathBuf;

use super::download::{Hub, Listing, check_cached};
use super::hashes::is_hash;
use super::{Cache, Repo, is_offline};

/// A repository of which files are taken one by one.
pub(crate) struct Snapshot {
    repo: Repo,
    cache: Cache,
    hub: Hub,
    /// The commit that the cache knows, or the hub told.
    commit: Option<String>,
    /// What the hub told, if it was asked.
    listing: Option<Result<Listing, String>>,
    /// What the cache had.
    cached: Vec<PathBuf>,
    /// Whether anything was brought.
    brought: bool,
}

impl Snapshot {
    /// The repository at the commit that the cache has for its revision, or else at the one that the hub has.
    pub(crate) fn of(repo: Repo) -> Self {
        let cache = Cache::of(&repo);
        let commit = cache.commit();
        Self { repo, cache, hub: Hub::of_environment(), commit, listing: None, cached: Vec::new(), brought: false }
    }

    /// The file `name`.
    ///
    /// # Errors
    /// If the cache does not have it and the hub may not be asked or does not give it.
    pub(crate) fn get(&mut self, name: &str) -> Result<PathBuf, String> {
        if let Some(path) = self.commit.as_ref().and_then(|commit| self.cache.file(commit, name)) {
            self.cached.push(path.clone());
            return Ok(path);
        }
        if is_offline() {
            return Err(format!("HF_HUB_OFFLINE is set and `{name}` is not in the local hub cache"));
        }
        let refused = |problem: &str| format!("no such directory here, and the hub did not give `{name}`: {problem}");
        let listing = self.listing().map_err(|problem| refused(&problem))?;
        if !listing.names.iter().any(|there| there == name) {
            return Err(refused("there is none"));
        }
        let commit = listing.commit.clone();
        tracing::info!("downloading {name} of {} at revision {commit}", self.repo.id);
        let path = self.hub.get(&self.repo, &commit, name).map_err(|problem| refused(&problem))?;
        (self.commit, self.brought) = (Some(commit), true);
        Ok(path)
    }

    /// Whether the hub was asked and has a file `name`.
    pub(crate) fn lists(&self, name: &str) -> bool {
        matches!(&self.listing, Some(Ok(listing)) if listing.names.iter().any(|there| there == name))
    }

    /// Brings those of `names` that there are, if the hub was asked for anything: what another program has put into the cache is taken
    /// for complete.
    ///
    /// # Errors
    /// If the hub has one and does not give it.
    pub(crate) fn complete(&mut self, names: &[&str]) -> Result<(), String> {
        let there: Vec<&str> = names.iter().copied().filter(|name| self.lists(name)).collect();
        there.into_iter().try_for_each(|name| self.get(name).map(drop))
    }

    /// The directory of the files, and the commit that they are of.
    ///
    /// # Errors
    /// If nothing was taken, or what the cache had is damaged.
    pub(crate) fn finish(self) -> Result<(PathBuf, String), String> {
        let commit = self.commit.ok_or("nothing of it is in the local hub cache")?;
        if self.brought {
            check_cached(&self.cached)?;
            if let Err(problem) = self.cache.keep_commit(&commit) {
                tracing::warn!("the hub's local cache did not take the revision of {}: {problem}", self.repo.id);
            }
        }
        Ok((self.cache.snapshot(&commit), commit))
    }

    /// What the hub tells, which is asked once: of the commit that the cache has, if it has one.
    fn listing(&mut self) -> Result<&Listing, String> {
        let known = self.commit.as_deref().filter(|commit| is_hash(commit));
        let repo = known.map_or_else(|| self.repo.clone(), |commit| self.repo.at(commit));
        let listing = self.listing.get_or_insert_with(|| self.hub.list(&repo));
        listing.as_ref().map_err(Clone::clone)
    }
}
