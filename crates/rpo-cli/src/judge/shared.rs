//! Judges that compute where they are asked, shared by processes that were started together: each asks its part of the questions and
//! keeps the replies beside the store, and the first takes them in. When it then goes through all questions, none is left to ask.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::evaluate::judge::{Kind, Store, Tally};
use rpo::world::World;

use super::{JudgeFlags, Seat};
use crate::world::{once_any, together_any};

/// What stands before a process's number in the name of its store.
const PART: &str = "part-";

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
    let part = |rank: usize| store.with_added_extension(format!("{PART}{}-of-{}", rank + 1, world.size()));
    let first = seats.as_ref().and_then(|seats| seats.iter().find_map(|seat| seat.store.clone()));
    let own = || -> Result<u64> {
        let mut opened = Vec::new();
        let seats = match seats {
            Some(seats) => seats,
            None => {
                opened.extend(flags.seats_in(kind, &|| Ok(Store::open_part(&part(world.rank()), store)?))?);
                &mut opened
            }
        };
        seats.iter_mut().try_fold(0, |calls, seat| {
            seat.limits.part = Some((world.rank(), world.size()));
            let tally = hear(seat)?;
            seat.limits.part = None;
            Ok(calls + tally.calls)
        })
    };
    let calls = together_any(world, own()).with_context(|| {
        format!("replies so far are kept beside {}, and the same command with --resume goes on", store.display())
    })?;
    once_any(world, || {
        tracing::info!("{} calls to judges by {} processes", calls.iter().sum::<u64>(), world.size());
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
    let begins = path.file_name().map(|name| format!("{}.{PART}", name.display())).unwrap_or_default();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_part = |path: &PathBuf| path.file_name().is_some_and(|name| name.display().to_string().starts_with(&begins));
    beside.filter(is_part).try_for_each(|part| take(store, &part))
}

fn take(store: &Store, part: &Path) -> Result<()> {
    store.take(part)?;
    std::fs::remove_file(part).with_context(|| format!("cannot remove {}", part.display()))
}
