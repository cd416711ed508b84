//! Processes that work on one thing together, each of which is called a rank. What travels between them is small (losses, wishes,
//! failures) or numbers in bulk (gradients, weights); data never do. It knows nothing of models.
//!
//! A process by itself is a world of one ([`Alone`]) and takes the same path. MPI (cargo feature `mpi`) joins processes and machines;
//! [`threads::run`] joins threads of this process, for tests and measurements.

pub mod launcher;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod threads;

use std::ops::Range;
use std::panic::Location;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// How ranks reach each other. Every method is called by all ranks, in the same order.
pub trait World {
    /// This rank, below [`Self::size`].
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// What people call the place of this rank: its machine, and perhaps more.
    fn place(&self) -> String;

    /// What every rank gives, by rank.
    ///
    /// # Errors
    /// If a rank cannot be reached.
    fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Sends numbers to other ranks and receives numbers from them, all at the same time. What one rank sends to another is received
    /// there in the order in which it was sent, by places of the same lengths.
    ///
    /// # Errors
    /// If a rank cannot be reached.
    fn exchange(&self, sent: &[(usize, &[f32])], received: Vec<(usize, &mut [f32])>) -> Result<()>;
}

/// A process by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl World for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn place(&self) -> String {
        "this process".into()
    }

    fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own])
    }

    fn exchange(&self, _: &[(usize, &[f32])], _: Vec<(usize, &mut [f32])>) -> Result<()> {
        Ok(())
    }
}

impl dyn World + '_ {
    /// What came of the same work on every rank, by rank. Where it failed on one, it has failed on all: each gets the same error.
    ///
    /// # Errors
    /// The first rank's that failed, with its number and place, but for a setting, which mostly is wrong on all: that rank gets its
    /// error as it is. [`Error::Stopped`] if nothing failed and somebody stopped.
    #[track_caller]
    pub fn together<T: Serialize + DeserializeOwned>(&self, own: Result<T>) -> Result<Vec<T>> {
        if self.size() == 1 {
            return Ok(vec![own?]);
        }
        let mut setting = None;
        let told = match own {
            Ok(value) => Told::Done(value),
            Err(Error::Stopped) => Told::Stopped,
            Err(Error::World(problem)) => Told::Failed(self.place(), problem),
            Err(problem) => {
                let said = problem.to_string();
                setting = Some(problem).filter(|problem| matches!(problem, Error::Setting { .. }));
                Told::Failed(self.place(), said)
            }
        };
        // Where in the program a rank is: they must not take one thing for another.
        let here = Location::caller().to_string();
        let unreadable = |e: postcard::Error| Error::World(format!("what a rank said cannot be read: {e}"));
        let all = self.all_gather(postcard::to_stdvec(&(&here, &told)).map_err(unreadable)?)?;
        let read = |(rank, bytes): (usize, &Vec<u8>)| -> Result<Told<T>> {
            let (there, told) = postcard::take_from_bytes::<String>(bytes).map_err(unreadable)?;
            match there == here {
                true => postcard::from_bytes(told).map_err(unreadable),
                false => Err(Error::World(format!(
                    "rank {rank} is at {there} and rank {} at {here}: a fault of this program, please report it",
                    self.rank()
                ))),
            }
        };
        let told: Vec<Told<T>> = all.iter().enumerate().map(read).collect::<Result<_>>()?;
        let mut stopped = false;
        let mut done = Vec::with_capacity(told.len());
        for (rank, told) in told.into_iter().enumerate() {
            match told {
                Told::Done(value) => done.push(value),
                Told::Stopped => stopped = true,
                Told::Failed(place, problem) => {
                    let own = setting.filter(|_| rank == self.rank());
                    return Err(own.unwrap_or(Error::Rank { rank, place, problem }));
                }
            }
        }
        if stopped { Err(Error::Stopped) } else { Ok(done) }
    }

    /// What came of this rank's work, if none has failed.
    ///
    /// # Errors
    /// Those of `together`.
    #[track_caller]
    pub fn agreed<T>(&self, own: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return own;
        }
        let told = match &own {
            Ok(_) => Ok(()),
            Err(Error::Stopped) => Err(Error::Stopped),
            Err(Error::Setting { field, problem }) => Err(Error::Setting { field, problem: problem.clone() }),
            Err(problem) => Err(Error::World(problem.to_string())),
        };
        self.together(told)?;
        own
    }

    /// What `work` comes to on the first rank, which alone does it, on all ranks.
    ///
    /// # Errors
    /// Those of `work`, on all ranks.
    #[track_caller]
    pub fn once<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let own = if self.leads() { work().map(Some) } else { Ok(None) };
        let lost = || Error::World("the first rank said nothing".into());
        self.together(own)?.into_iter().next().flatten().ok_or_else(lost)
    }

    /// Whether this is the first rank, which alone writes and speaks.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// This rank's share of `n` things in order: contiguous, and as many as others have or one more.
    pub fn share(&self, n: usize) -> Range<usize> {
        share(n, self.rank(), self.size())
    }
}

/// Part `i` of `n` things in order that are cut into `parts`.
pub(crate) fn share(n: usize, i: usize, parts: usize) -> Range<usize> {
    n * i / parts..n * (i + 1) / parts
}

/// What a rank says of its work.
#[derive(Serialize, serde::Deserialize)]
enum Told<T> {
    Done(T),
    Stopped,
    /// Where, and what.
    Failed(String, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_one_rank_is_that_of_all_and_names_it() {
        let said = threads::run(3, |world| {
            let own = if world.rank() == 1 { Err(Error::Data("no rewards".into())) } else { Ok(world.rank()) };
            let failed = world.together(own).expect_err("failed").to_string();
            let stopped = world.together(if world.rank() == 2 { Err(Error::Stopped) } else { Ok(()) });
            assert!(matches!(stopped, Err(Error::Stopped)));
            assert_eq!(world.together(Ok(f64::NAN.to_bits())).expect("done"), [f64::NAN.to_bits(); 3]);
            let alone = world.once(|| Ok(world.rank())).expect("done");
            (failed, alone)
        });
        for (failed, alone) in said {
            assert!(failed.contains("rank 1") && failed.contains("no rewards"), "{failed}");
            assert_eq!(alone, 0);
        }
        let said = threads::run(3, |world| {
            let own =
                if world.rank() == 0 { Ok(()) } else { Err(Error::Setting { field: "epochs", problem: "0".into() }) };
            world.agreed(own).expect_err("no epochs")
        });
        assert!(matches!(said[0], Error::Rank { rank: 1, .. }), "{said:?}");
        assert!(matches!(said[1], Error::Setting { field: "epochs", .. }), "{said:?}");
    }

    #[test]
    fn ranks_that_are_at_different_places_are_told_so() {
        let said = threads::run(2, |world| {
            let met = if world.rank() == 0 { world.together(Ok(1u8)) } else { world.together(Ok(2u8)) };
            met.expect_err("elsewhere").to_string()
        });
        assert!(
            said.iter().all(|said| said.contains("world/mod.rs") && said.contains("a fault of this program")),
            "{said:?}"
        );
    }

    #[test]
    fn numbers_arrive_in_the_order_in_which_they_were_sent() {
        let found = threads::run(3, |world| {
            let (rank, n) = (world.rank(), world.size());
            let own: Vec<Vec<f32>> = (0..n).map(|to| vec![(10 * rank + to) as f32; to + 1]).collect();
            let more = [rank as f32];
            let others = || (0..n).filter(|&other| other != rank);
            let sent: Vec<(usize, &[f32])> =
                others().flat_map(|to| [(to, own[to].as_slice()), (to, &more[..])]).collect();
            let mut places: Vec<[Vec<f32>; 2]> = (0..n).map(|_| [vec![0.0; rank + 1], vec![0.0]]).collect();
            let received = places.iter_mut().enumerate().filter(|(from, _)| *from != rank);
            let received = received.flat_map(|(from, [a, b])| [(from, a.as_mut_slice()), (from, b.as_mut_slice())]);
            world.exchange(&sent, received.collect()).expect("exchanged");
            for from in others() {
                assert_eq!(places[from], [vec![(10 * from + rank) as f32; rank + 1], vec![from as f32]]);
            }
            world.share(7)
        });
        assert_eq!(found, [0..2, 2..4, 4..7]);
    }
}
