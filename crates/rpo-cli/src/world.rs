//! The processes that this program runs as: one, or those that were started together (`mpirun -n 4 rpo train …`).

use anyhow::{Result, bail};
use rpo::world::launcher::{Launched, launched};
use rpo::world::{Alone, World};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::settings::unlike;

fn told() -> Option<Launched> {
    launched(|name| std::env::var(name).ok())
}

/// Says what each of the processes that were started together would say before they are joined, and then end: the first says it, and
/// the others let it.
pub fn say_once(say: impl FnOnce()) {
    match told().and_then(|launched| launched.rank).is_some_and(|rank| rank > 0) {
        // Once one has ended, launchers end the rest.
        true => std::thread::sleep(std::time::Duration::from_secs(1)),
        false => say(),
    }
}

/// What a command does where several processes were started together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// They do it together.
    Together,
    /// Any number of processes may do it beside each other.
    Apart,
    /// One does it.
    One,
}

/// The processes of this program.
pub enum Joined {
    /// It is by itself.
    Alone(Alone),
    /// MPI joins it with others.
    #[cfg(feature = "mpi")]
    Mpi(rpo::world::mpi::Processes),
}

impl Joined {
    /// Joins the processes that were started together for `command`.
    ///
    /// # Errors
    /// If they would not work together: then each would do the whole work, and write over what the others wrote.
    pub fn join(command: &str, work: Work) -> Result<Self> {
        let Some(Launched { by, size: n, .. }) = told() else { return Ok(Self::Alone(Alone)) };
        match work {
            Work::Together => together(by, n),
            Work::Apart => Ok(Self::Alone(Alone)),
            Work::One => bail!(
                "{by} started {n} processes of `rpo {command}`, each of which would do the same and write over the others; start it \
                 once"
            ),
        }
    }

    /// Them.
    pub fn world(&self) -> &dyn World {
        match self {
            Self::Alone(alone) => alone,
            #[cfg(feature = "mpi")]
            Self::Mpi(processes) => processes,
        }
    }

    /// Whether this process is to say that it has failed. Where it alone has, all the others are ended after that, with `status`.
    pub fn failed(&self, status: u8, say: impl FnOnce(&str)) {
        #[cfg(not(feature = "mpi"))]
        let _ = status;
        match self {
            Self::Alone(_) => say(""),
            #[cfg(feature = "mpi")]
            Self::Mpi(processes) => {
                use rpo::world::mpi::Leave;
                match processes.leave() {
                    Leave::Speaking => say(""),
                    Leave::Silent => {}
                    Leave::Alone => {
                        say(&format!("rank {} ({}): ", processes.rank(), processes.place()));
                        processes.abort(status)
                    }
                }
            }
        }
    }
}

#[cfg(feature = "mpi")]
fn together(by: &str, n: usize) -> Result<Joined> {
    let processes = rpo::world::mpi::Processes::join()?;
    match processes.size() {
        found if found == n => Ok(Joined::Mpi(processes)),
        found => bail!(
            "{by} started {n} processes, and the MPI library of this program finds {found}: launcher and library are not of the same \
             MPI; start it with the mpirun of the library that it was built with (with Slurm: srun --mpi=pmix)"
        ),
    }
}

#[cfg(not(feature = "mpi"))]
fn together(by: &str, n: usize) -> Result<Joined> {
    bail!(
        "{by} started {n} processes, and this program was built without MPI, so that each would do all of the work in the same place; \
         build it with `cargo build --release --features mpi` (README, \"Several machines\"), or start it once"
    )
}

/// Lets other ranks than the first say nothing on standard output.
///
/// # Errors
/// If the system has no place for what is not to be read.
pub fn hush(world: &dyn World) -> Result<()> {
    #[cfg(unix)]
    if !world.leads() {
        rustix::stdio::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    }
    #[cfg(not(unix))]
    let _ = world;
    Ok(())
}

/// Refuses standard input among `files` that each of several ranks would read.
///
/// # Errors
/// If it is among them.
pub fn refuse_standard_input(world: &dyn World, files: &[String]) -> Result<()> {
    if world.size() > 1 && files.iter().any(|file| file == "-") {
        bail!("{} processes were started together, and standard input goes to one of them: name a file", world.size());
    }
    Ok(())
}

/// [`World::together`](rpo::world::World) of work with any error.
///
/// # Errors
/// The first rank's that failed.
#[track_caller]
pub fn together_any<T: Serialize + DeserializeOwned>(world: &dyn World, own: Result<T>) -> Result<Vec<T>> {
    match world.size() {
        1 => Ok(vec![own?]),
        _ => Ok(world.together(own.map_err(plain))?),
    }
}

/// `World::once` of work with any error.
///
/// # Errors
/// Those of `work`, on all ranks.
#[track_caller]
pub fn once_any<T: Serialize + DeserializeOwned>(world: &dyn World, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match world.size() {
        1 => work(),
        _ => Ok(world.once(|| work().map_err(plain))?),
    }
}

fn plain(problem: anyhow::Error) -> rpo::Error {
    problem.downcast().unwrap_or_else(|problem| rpo::Error::Data(format!("{problem:#}")))
}

/// What the fact is called that is a run's settings, as TOML.
pub const SETTINGS_OF_RUN: &str = "settings";

/// Checks that all ranks are about to do the same: `facts` are what decides it, by name.
///
/// # Errors
/// Names the first rank on which something differs from the first rank's, and what.
#[track_caller]
pub fn agree(world: &dyn World, facts: &[(&str, String)]) -> Result<()> {
    let own: Vec<String> = facts.iter().map(|(_, value)| value.clone()).collect();
    let all = world.together(Ok((world.place(), own)))?;
    let Some((_, first)) = all.first() else { return Ok(()) };
    for (rank, (place, own)) in all.iter().enumerate().skip(1) {
        let mut said = Vec::new();
        for ((name, _), (first, own)) in
            facts.iter().zip(first.iter().zip(own)).filter(|(_, (first, own))| first != own)
        {
            let tables = first.parse::<Table>().and_then(|first| Ok((first, own.parse::<Table>()?)));
            match tables {
                Ok((first, own)) if *name == SETTINGS_OF_RUN => said.extend(unlike(&first, &own, "on rank 0", "there")),
                _ => said.push(format!("{name}: {first} on rank 0, {own} there")),
            }
        }
        if !said.is_empty() {
            bail!(
                "rank {rank} ({place}) was started for something else than rank 0, and all must have the same program, settings, data \
                 and model: {}",
                said.join("; ")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rpo::world::threads;

    use super::*;

    #[test]
    fn what_differs_is_named_with_its_rank() {
        let said = threads::run(3, |world| {
            let data = if world.rank() == 2 { "b" } else { "a" };
            agree(world, &[("version", "1".into()), ("data", data.into())]).map_err(|e| e.to_string())
        });
        for said in said {
            let said = said.expect_err("another's data");
            assert!(said.contains("rank 2") && said.contains("data: a on rank 0, b there"), "{said}");
            assert!(!said.contains("version"), "{said}");
        }
    }
}
