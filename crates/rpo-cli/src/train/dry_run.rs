//! `rpo train --dry-run`: what a run would be and cost, from a few of its own micro-batches. It leaves nothing behind.

use std::time::Duration;

use anyhow::Result;
use indicatif::{HumanBytes, HumanDuration};
use rpo::feedback::Split;
use rpo::model::checkpoint::Checkpoint;
use rpo::reference::{ReferenceScores, References};
use rpo::train::{Costs, State, Task, Trainer};
use rpo::world::Alone;

use super::header;
use super::passes::cache;
use crate::settings::Settings;
use crate::{interrupt, progress};

/// Prints the settings of a run on `split`, its steps, and estimates of its time and memory.
pub fn report(settings: &Settings, split: Split, processes: usize) -> Result<()> {
    let bar = progress::busy("measuring a few micro-batches");
    let model = super::load(settings, &Checkpoint::find(&settings.model)?)?;
    // Tokens that passes have to score.
    let mut missing = 0;
    let task = Task::new(&settings.objective, split, settings.train.seed, |passes| {
        let cache = cache(settings, &model)?;
        let scored = passes.matched.as_deref().into_iter().chain(passes.mismatched);
        let unknown = scored.filter(|split| !ReferenceScores::are_cached(split, &cache));
        missing = unknown.map(|split| split.train.tokens() + split.validation.tokens()).sum();
        Ok::<_, anyhow::Error>(References::zeros(passes.all))
    })?;
    let header = header::lines(settings, &model, &task, processes);
    let state = State::begin(model, &task, &settings.train)?;
    let trainer =
        Trainer { task, config: &settings.train, saving: None, judge: None, stop: interrupt::stop(), world: &Alone };
    let costs = trainer.measure(state)?;
    bar.finish_and_clear();

    println!("settings as resolved:\n\n{}", settings.to_toml()?);
    header.iter().for_each(|line| println!("{line}"));
    estimates(&costs, missing).iter().for_each(|line| println!("{line}"));
    println!("{}", memory(peak_memory(), settings.device == "cpu"));
    if processes > 1 {
        println!("measured by one process; `rpo plan` says what {processes} of them take");
    }
    println!("dry run: nothing was written to {}", settings.out.display());
    Ok(())
}

/// The parts of the time and their sum; `missing` tokens are to be scored by the reference.
fn estimates(costs: &Costs, missing: usize) -> Vec<String> {
    let Costs { steps, step_tokens, step_seconds, validations, validation_seconds, token_seconds, .. } = *costs;
    let reference = missing as f64 * token_seconds;
    let (training, validating) = (steps as f64 * step_seconds, validations as f64 * validation_seconds);
    let time = |seconds: f64| match seconds < 10.0 {
        true => format!("{seconds:.1} seconds"),
        false => HumanDuration(Duration::from_secs_f64(seconds)).to_string(),
    };
    let pass = match missing {
        0 => "the reference's scores: cached, or not needed".to_string(),
        tokens => format!("the reference's scores: {tokens} tokens, {}", time(reference)),
    };
    vec![
        pass,
        format!(
            "steps: {steps} of {step_tokens:.0} tokens in the mean, {} each: {}",
            time(step_seconds),
            time(training)
        ),
        format!(
            "validations: {validations} of {} each: {} (without what a judge takes)",
            time(validation_seconds),
            time(validating)
        ),
        format!(
            "estimated time: {} (from {} measured micro-batches; whatever else the machine does comes on top)",
            time(reference + training + validating),
            costs.measured
        ),
    ]
}

/// The most main memory that this process has held so far, in bytes, where the system says so.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn memory(peak: Option<u64>, on_cpu: bool) -> String {
    let device = if on_cpu { "" } else { "; the memory of the device is not measured" };
    match peak {
        Some(bytes) => format!(
            "estimated peak memory: {} (what this process held at most, with the largest micro-batch that was found, its \
             gradients and the optimizer's state{device})",
            HumanBytes(bytes)
        ),
        None => format!("estimated peak memory: unknown, since this system does not say what a process holds{device}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_sum_of_its_parts() {
        let costs = Costs {
            steps: 100,
            step_tokens: 800.0,
            update_seconds: 0.1,
            step_seconds: 2.0,
            validations: 10,
            validation_seconds: 4.0,
            token_seconds: 0.001,
            largest: 900,
            measured: 3,
        };
        let said = estimates(&costs, 60_000);
        assert_eq!(said[0], "the reference's scores: 60000 tokens, 60 seconds");
        assert_eq!(said[1], "steps: 100 of 800 tokens in the mean, 2.0 seconds each: 3 minutes");
        // 60 + 200 + 40 seconds.
        assert!(said[3].starts_with("estimated time: 5 minutes (from 3 measured"), "{}", said[3]);
        assert!(estimates(&costs, 0)[0].contains("cached"));
        assert!(memory(Some(3 << 30), true).contains("3.00 GiB") && memory(None, false).contains("unknown"));
    }
}
