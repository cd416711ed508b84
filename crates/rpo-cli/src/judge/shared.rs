//! Judges that compute where they are asked, shared by processes that were started together: each asks its part of the questions and
//! keeps the replies beside the store, and the first takes them in. When it then goes through all questions, those alone are left to ask
//! that got no reply.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rpo::evaluate::judge::{Kind, Store, Tally};
use rpo::world::World;

use super::{JudgeFlags, Seat};
use crate::world::{once_any, together_any};

/// Lets each rank of `world` `hear` its part of the questions. The first has the `seats` that [`JudgeFlags::seats`] gives.
///
/// # Errors
/// If a judge cannot be asked, or the ranks do not see one directory.
pub fn hear_together(
    world: &dyn World,
    flags: &JudgeFlags,
    (kind, beside): (Kind, &Path),
    seats: Option<&mut [Seat]>,
    hear: &dyn Fn(&Seat) -> Result<Tally>,
) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    if !flags.compute_here() {
        tracing::info!("the first of {} processes asks the judges, which compute elsewhere", world.size());
        return Ok(());
    }
    let store = flags.store(beside);
    let part = |rank: usize| store.with_added_extension(format!("part-{}-of-{}", rank + 1, world.size()));
    let first = seats.as_ref().and_then(|seats| seats.iter().find_map(|seat| seat.store.clone()));
    let mut own = Vec::new();
    let opened = match seats {
        Some(seats) => Ok(seats),
        None => flags.seats_in(kind, &|| Ok(Store::open_part(&part(world.rank()), store)?)).map(|opened| {
            own = opened;
            &mut own[..]
        }),
    };
    // All have their judges before any is asked.
    let (seats, opened) = match opened {
        Ok(seats) => (seats, Ok(())),
        Err(problem) => (&mut [][..], Err(problem)),
    };
    together_any(world, opened)?;
    // A rank that fails now leaves at once, which ends the others. What came is kept.
    let mut usage = [0; 3];
    for seat in seats {
        seat.limits.part = Some((world.rank(), world.size()));
        let tally = hear(seat).with_context(|| {
            format!("replies so far are kept beside {}, and the same command with --resume goes on", store.display())
        })?;
        seat.limits.part = None;
        let more = [tally.calls, tally.usage.input, tally.usage.output];
        usage.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    drop(own);
    let all = together_any(world, Ok(usage))?;
    once_any(world, || {
        let [calls, read, written] = std::array::from_fn(|i| all.iter().map(|usage| usage[i]).sum::<u64>());
        let tokens =
            if read + written > 0 { format!("; tokens: {read} read, {written} written") } else { String::new() };
        tracing::info!("{} processes made {calls} calls to judges{tokens}", world.size());
        let Some(first) = &first else { return Ok(()) };
        (1..world.size()).map(part).try_for_each(|part| match part.exists() {
            true => take(first, &part),
            false => bail!("{} is not here: the processes do not see one directory", part.display()),
        })
    })
}

/// Takes in what processes kept beside `store` that ended before it was taken in.
pub fn take_left(store: &Store) -> Result<()> {
    let path = store.path();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    beside.filter(|beside| is_part(beside, path)).try_for_each(|part| take(store, &part))
}

/// Whether `path` is called as the store of a process beside `store` is: `STORE.part-2-of-4`.
fn is_part(path: &Path, store: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.display().to_string());
    let numbers = || {
        let rest = name(path)?.strip_prefix(&name(store)?)?.strip_prefix(".part-")?.to_string();
        let (part, of) = rest.split_once("-of-")?;
        Some((part.parse().ok()?, of.parse().ok()?))
    };
    numbers().is_some_and(|(part, of): (usize, usize)| (2..=of).contains(&part))
}

fn take(store: &Store, part: &Path) -> Result<()> {
    store.take(part)?;
    std::fs::remove_file(part).with_context(|| format!("cannot remove {}", part.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_processes_are_known_by_their_names() {
        let is = |name: &str| is_part(Path::new(name), Path::new("a/b.jsonl"));
        assert!(is("a/b.jsonl.part-2-of-4") && is("a/b.jsonl.part-4-of-4"));
        for other in [
            "b.jsonl.part-1-of-4",
            "b.jsonl.part-5-of-4",
            "b.jsonl.part-aa",
            "b.jsonl.part-1",
            "b.jsonl",
            "c.part-2-of-4",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
