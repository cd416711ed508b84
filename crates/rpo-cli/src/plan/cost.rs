//! What a step takes on several machines, and what memory: plain arithmetic on measured constants.

/// What is to be trained, as far as its cost goes.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Floating-point operations of a step.
    pub operations: f64,
    /// Numbers of the model's weights.
    pub weights: f64,
    /// Bytes of one of them that is not trained.
    pub frozen_bytes: f64,
    /// Numbers that are trained.
    pub trained: f64,
    /// Numbers that the optimizer remembers for each of them.
    pub remembered: f64,
    /// Bytes that a forward pass over a micro-batch leaves for its gradients, with the probabilities of the vocabulary.
    pub activations: f64,
}

/// What a machine does.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Floating-point operations a second of gradients.
    pub operations: f64,
    /// Seconds that the optimizer takes for a number.
    pub update: f64,
    /// Bytes a second at which numbers are copied and added.
    pub memory: f64,
}

/// What joins machines.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Bytes a second that a machine sends, and receives at the same time.
    pub bytes: f64,
    /// Seconds until a message arrives.
    pub latency: f64,
}

/// Bytes of a number in f32.
const F32: f64 = 4.0;
/// Meetings of a step, in which all say how they fared.
const MEETINGS: f64 = 5.0;

/// Seconds of a step in `n` equal parts on as many machines: gradients, the exchange, the update.
pub fn step(job: &Job, machine: &Machine, line: &Line, n: usize) -> [f64; 3] {
    let n = n as f64;
    let others = (n - 1.0) / n;
    // Every machine sends what belongs to the others and receives as much for what is its own; then the new values go the other way.
    let bytes = 2.0 * F32 * job.trained * others;
    // They are read from, written to and added in memory on the way.
    let copies = 4.0 * bytes / machine.memory;
    let waits = if n > 1.0 { line.latency * (MEETINGS * n.log2().ceil() + 2.0) } else { 0.0 };
    let exchange = bytes / line.bytes + copies + waits;
    [job.operations / machine.operations / n, exchange, job.trained * machine.update / n]
}

/// Bytes of the program itself, its tokenizer and the data at hand.
const PROGRAM: f64 = (64 << 20) as f64;

/// Bytes of a process: weights with the program, what the optimizer remembers, and gradients and activations where they are most.
pub fn memory(job: &Job, n: usize) -> [f64; 3] {
    let n = n as f64;
    let weights = (job.weights - job.trained).max(0.0) * job.frozen_bytes + job.trained * F32;
    // The sum of earlier micro-batches lies beside the activations of one, and in the end beside its gradients; where there are others, what
    // is received lies beside what is sent. A process with several parts (--shards above the number of processes) holds a sum for each,
    // which is not counted here.
    let gradients = job.trained * F32;
    let most = (gradients + job.activations).max(2.0 * gradients);
    [PROGRAM + weights, job.trained * F32 * job.remembered / n, most]
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Job =
        Job { operations: 1e12, weights: 1e8, frozen_bytes: 4.0, trained: 1e8, remembered: 2.0, activations: 1e9 };
    const MACHINE: Machine = Machine { operations: 1e11, update: 1e-9, memory: 1e10 };

    #[test]
    fn a_step_by_hand() {
        let line = Line { bytes: 1.25e8, latency: 1e-4 };
        assert_eq!(step(&JOB, &MACHINE, &line, 1), [10.0, 0.0, 0.1]);
        let [gradients, exchange, update] = step(&JOB, &MACHINE, &line, 2);
        assert_eq!([gradients, update], [5.0, 0.05]);
        // 400 MB over a line of 125 MB a second, 1.6 GB through memory, seven waits.
        assert!((exchange - (3.2 + 0.16 + 7e-4)).abs() < 1e-9, "{exchange}");
    }

    #[test]
    fn memory_by_hand() {
        assert_eq!(memory(&JOB, 1), [PROGRAM + 4e8, 8e8, 1.4e9]);
        assert_eq!(memory(&JOB, 4), [PROGRAM + 4e8, 2e8, 1.4e9]);
        assert_eq!(memory(&Job { activations: 1e8, ..JOB }, 1), [PROGRAM + 4e8, 8e8, 8e8]);
        let adapters = Job { trained: 1e6, frozen_bytes: 2.0, ..JOB };
        assert_eq!(memory(&adapters, 1), [PROGRAM + 99e6 * 2.0 + 4e6, 8e6, 4e6 + 1e9]);
    }
}
