//! What a run came to, in plain words: where the better model is, and whether there is one.

use rpo::train::{BestBy, Progress, Summary};

use crate::settings::Settings;

/// Says how the run of `settings` ended and which of its models to use.
pub fn report(settings: &Settings, summary: &Summary) {
    lines(settings, summary).iter().for_each(|line| println!("{line}"));
}

fn lines(settings: &Settings, summary: &Summary) -> Vec<String> {
    let Summary { progress, interrupted, ran_out_of_patience } = summary;
    let out = settings.out.display();
    let mut said = Vec::new();
    if let (Some(first), Some(last)) = (progress.first_validation, progress.last_validation) {
        said.push(format!("held-out loss: {first:.5} before, {last:.5} after {} steps", progress.step));
        if !last.is_finite() {
            said.push("the last validation is not finite: the policy has diverged, lower the learning rate".into());
        }
    }
    if *ran_out_of_patience {
        let waited = progress.waited;
        said.push(format!("stopped after step {}: no new best in {waited} validations (--patience)", progress.step));
    }
    let better = progress.best.filter(|(_, step)| *step > 0);
    if progress.last_validation.is_some() {
        said.push(verdict(settings, progress));
    }
    said.push(format!("last: {out}/last"));
    said.push(match better {
        _ if *interrupted => "interrupted; go on with the same command and --resume".into(),
        Some(_) => format!("try it: rpo generate --model {out}/best \"your prompt\""),
        None if progress.last_validation.is_some() => format!("use the start: {}", settings.model),
        None => format!("try it: rpo generate --model {out}/last \"your prompt\""),
    });
    said
}

/// Which validation was the best.
fn verdict(settings: &Settings, progress: &Progress) -> String {
    let by = name(progress.best_by);
    let out = settings.out.display();
    let start = progress.start.map_or_else(|| "not finite".into(), |value| format!("{value:.5}"));
    match progress.best {
        Some((value, 0)) => format!(
            "no step was better than the start by {by} ({value:.5}): there is no {out}/best, and {out}/last is no \
             improvement by this measure"
        ),
        Some((value, step)) => format!("best by {by}: {value:.5} at step {step} (start {start}), in {out}/best"),
        None => format!("no validation had a finite {by}, the start among them: there is no {out}/best"),
    }
}

fn name(by: BestBy) -> &'static str {
    if by == BestBy::Loss { "held-out loss" } else { by.metric() }
}
