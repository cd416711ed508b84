//! Ranks that are processes which MPI has started, on one machine or many.

use std::time::{Duration, Instant};

use mpi::datatype::PartitionMut;
use mpi::environment::{Universe, processor_name};
use mpi::point_to_point::{Destination, Source};
use mpi::request::multiple_scope;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use mpi::{Count, Threading};

use super::World;
use crate::error::{Error, Result};

/// Most numbers of one message: its length is a signed 32-bit integer.
const MESSAGE: usize = 1 << 28;
/// So long a rank waits for the others without leaving its processor.
const BRIEFLY: Duration = Duration::from_millis(2);
/// So long a rank that fails waits for the others to fail too, so that what is wrong with all is told once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The processes of an MPI program. It lives as long as the program computes.
pub struct Processes {
    all: SimpleCommunicator,
    /// Where failures are told, whatever the others wait for.
    failing: SimpleCommunicator,
    _universe: Universe,
}

impl Processes {
    /// Joins the processes that were started together; once in a program, from its main thread.
    ///
    /// # Errors
    /// If MPI cannot begin.
    pub fn join() -> Result<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Error::World("MPI was begun before".into()))?;
        let all = universe.world();
        let failing = all.duplicate();
        Ok(Self { all, failing, _universe: universe })
    }

    /// Waits until all ranks are here, at first without leaving the processor, which others may need if it lasts.
    fn meet(&self) {
        let began = Instant::now();
        let mut request = self.all.immediate_barrier();
        while let Err(waiting) = request.test() {
            request = waiting;
            if began.elapsed() > BRIEFLY {
                std::thread::sleep(BRIEFLY / 10);
            }
        }
    }

    /// To be called where this rank has failed, or was stopped, and leaves. Whether it is to say so: where all leave, the first speaks
    /// for them; where this one alone does, it ends the others.
    pub fn leave(&self) -> Leave {
        let began = Instant::now();
        let mut request = self.failing.immediate_barrier();
        let arrived = loop {
            match request.test() {
                Ok(_) => break true,
                Err(waiting) if began.elapsed() < PATIENCE => {
                    request = waiting;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(waiting) => {
                    // The program ends before it could be waited for.
                    std::mem::forget(waiting);
                    break false;
                }
            }
        };
        match (arrived, self.rank()) {
            (true, 0) => Leave::Speaking,
            (true, _) => Leave::Silent,
            (false, _) => Leave::Alone,
        }
    }

    /// Ends all processes at once.
    pub fn abort(&self, status: u8) -> ! {
        self.all.abort(i32::from(status))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Otherwise this would wait for the others, who wait for this one.
        if std::thread::panicking() {
            self.all.abort(101);
        }
    }
}

/// How a rank leaves that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// All leave, and this one speaks for them.
    Speaking,
    /// All leave, and another one speaks.
    Silent,
    /// The others go on and are to be ended.
    Alone,
}

impl World for Processes {
    fn rank(&self) -> usize {
        self.all.rank() as usize
    }

    fn size(&self) -> usize {
        self.all.size() as usize
    }

    fn place(&self) -> String {
        format!(
            "process {} on {}",
            std::process::id(),
            processor_name().unwrap_or_else(|_| "an unnamed machine".into())
        )
    }

    fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.meet();
        let too_long = || Error::World("what ranks have to say is longer than two gigabytes".into());
        let length = Count::try_from(own.len()).map_err(|_| too_long())?;
        let mut lengths = vec![0; self.size()];
        self.all.all_gather_into(&length, &mut lengths[..]);
        let mut begin: Count = 0;
        let mut begins = Vec::with_capacity(lengths.len());
        for &length in &lengths {
            begins.push(begin);
            begin = begin.checked_add(length).ok_or_else(too_long)?;
        }
        let mut all = vec![0u8; begin as usize];
        {
            let mut parts = PartitionMut::new(&mut all[..], &lengths[..], &begins[..]);
            self.all.all_gather_varcount_into(&own[..], &mut parts);
        }
        let part = |(&begin, &length): (&Count, &Count)| all[begin as usize..(begin + length) as usize].to_vec();
        Ok(begins.iter().zip(&lengths).map(part).collect())
    }

    fn exchange(&self, sent: &[(usize, &[f32])], received: Vec<(usize, &mut [f32])>) -> Result<()> {
        let messages = |n: usize| n.div_ceil(MESSAGE);
        let count = sent.iter().map(|(_, numbers)| messages(numbers.len())).sum::<usize>()
            + received.iter().map(|(_, place)| messages(place.len())).sum::<usize>();
        multiple_scope(count, |scope, requests| {
            for (from, place) in received {
                let process = self.all.process_at_rank(from as i32);
                for part in place.chunks_mut(MESSAGE) {
                    requests.add(process.immediate_receive_into(scope, part));
                }
            }
            for (to, numbers) in sent {
                let process = self.all.process_at_rank(*to as i32);
                for part in numbers.chunks(MESSAGE) {
                    requests.add(process.immediate_send(scope, part));
                }
            }
            let mut done = Vec::with_capacity(count);
            requests.wait_all(&mut done);
        });
        Ok(())
    }
}
