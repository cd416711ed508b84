//! Answers by several processes that were started together: each answers its part of the prompts into a file of its own, and the first
//! puts the files together. They need a directory that all of them see.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rpo::world::World;

use super::shard::Shard;
use super::{Arguments, Begun, OutputFlags, run_alone};
use crate::merge;
use crate::world::{once_any, together_any};

/// Runs the command on all ranks of `world`.
pub fn run(arguments: &Arguments, world: &dyn World) -> Result<()> {
    let Some(out) = &arguments.out.output else {
        bail!("{} processes were started together, and they answer into a file: name it (--output FILE)", world.size())
    };
    let done = once_any(world, || {
        if out.exists() {
            return match arguments.out.resume {
                true => Ok(true),
                false => bail!("{} already exists; name a new file or remove it", out.display()),
            };
        }
        refuse_other_parts(out, world.size())?;
        Ok(false)
    })?;
    if done {
        // The parts were put together: nothing is left but to say so, and to look whether it is what is asked for.
        return once_any(world, || run_alone(arguments));
    }
    let part = part(out, world.rank(), world.size());
    let shard = Shard { part: world.rank() as u64 + 1, of: world.size() as u64 };
    let own = OutputFlags { output: Some(part), shard: Some(shard), ..arguments.out.clone() };
    together_any(world, run_alone(&Arguments { out: own, ..arguments.clone() }))?;
    once_any(world, || {
        let parts: Vec<PathBuf> = (0..world.size()).map(|rank| self::part(out, rank, world.size())).collect();
        if let Some(missing) = parts.iter().find(|part| !part.exists()) {
            bail!(
                "{} is not here: the processes do not see one directory; bring the parts together and use `rpo merge {} …`",
                missing.display(),
                out.display()
            );
        }
        merge::together(out, &parts)?;
        parts.iter().flat_map(|part| [part.clone(), Begun::beside(part)]).try_for_each(|path| {
            std::fs::remove_file(&path).map_err(|e| anyhow::anyhow!("cannot remove {}: {e}", path.display()))
        })
    })
}

/// Where a rank's answers go.
fn part(out: &Path, rank: usize, ranks: usize) -> PathBuf {
    out.with_added_extension(format!("part-{}-of-{ranks}", rank + 1))
}

/// Refuses to begin where another number of processes has left parts.
fn refuse_other_parts(out: &Path, ranks: usize) -> Result<()> {
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let begins = out.file_name().map(|name| format!("{}.part-", name.display())).unwrap_or_default();
    let own = format!("-of-{ranks}");
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let part = name.strip_suffix(".run.json").unwrap_or(&name);
        let of_others = part.strip_prefix(&begins).is_some_and(|rest| !rest.ends_with(&own));
        if of_others {
            bail!(
                "{} is of a run by another number of processes; go on with as many, or remove it to begin anew",
                entry.path().display()
            );
        }
    }
    Ok(())
}
