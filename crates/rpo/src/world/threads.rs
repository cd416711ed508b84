//! Ranks that are threads of this process. They share its processors, so nothing becomes faster; what holds here holds for
//! processes.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::World;
use crate::error::{Error, Result};

/// What travels.
enum Parcel {
    Bytes(Vec<u8>),
    Numbers(Vec<f32>),
}

/// A rank: a way to each other rank, and one from each.
struct Rank {
    own: usize,
    to: Vec<Sender<Parcel>>,
    from: Vec<Receiver<Parcel>>,
}

/// What `work` comes to on each of `n` ranks. If one panics, so does this.
pub fn run<T: Send>(n: usize, work: impl Fn(&dyn World) -> T + Sync) -> Vec<T> {
    // ways[a][b] leads from a to b.
    let mut ways: Vec<Vec<_>> = (0..n).map(|_| (0..n).map(|_| Some(channel())).collect()).collect();
    let mut ends: Vec<Vec<Receiver<Parcel>>> = (0..n).map(|_| Vec::new()).collect();
    let mut starts: Vec<Vec<Sender<Parcel>>> = (0..n).map(|_| Vec::new()).collect();
    for (a, row) in ways.iter_mut().enumerate() {
        for (b, way) in row.iter_mut().enumerate() {
            let Some((start, end)) = way.take() else { continue };
            starts[a].push(start);
            ends[b].push(end);
        }
    }
    let work = &work;
    thread::scope(|scope| {
        let ranks: Vec<_> = starts
            .into_iter()
            .zip(ends)
            .enumerate()
            .map(|(rank, (to, from))| scope.spawn(move || work(&Rank { own: rank, to, from })))
            .collect();
        // In order, so that the first panic is the one that is told.
        ranks.into_iter().map(|rank| rank.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

impl Rank {
    fn send(&self, to: usize, parcel: Parcel) -> Result<()> {
        self.to[to].send(parcel).map_err(|_| self.gone(to))
    }

    fn receive(&self, from: usize) -> Result<Parcel> {
        self.from[from].recv().map_err(|_| self.gone(from))
    }

    fn gone(&self, other: usize) -> Error {
        Error::World(format!("rank {other} has ended, and rank {} waits for it", self.own))
    }
}

impl World for Rank {
    fn rank(&self) -> usize {
        self.own
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn place(&self) -> String {
        "a thread".into()
    }

    fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        (0..self.size()).try_for_each(|to| self.send(to, Parcel::Bytes(own.clone())))?;
        let received = (0..self.size()).map(|from| match self.receive(from)? {
            Parcel::Bytes(bytes) => Ok(bytes),
            Parcel::Numbers(_) => Err(Error::World(format!("rank {from} sends numbers out of turn"))),
        });
        received.collect()
    }

    fn exchange(&self, sent: &[(usize, &[f32])], received: Vec<(usize, &mut [f32])>) -> Result<()> {
        sent.iter().try_for_each(|(to, numbers)| self.send(*to, Parcel::Numbers(numbers.to_vec())))?;
        for (from, place) in received {
            match self.receive(from)? {
                Parcel::Numbers(numbers) if numbers.len() == place.len() => place.copy_from_slice(&numbers),
                _ => {
                    return Err(Error::World(format!(
                        "rank {from} sends something else than rank {} expects",
                        self.own
                    )));
                }
            }
        }
        Ok(())
    }
}
