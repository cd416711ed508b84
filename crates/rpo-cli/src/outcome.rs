//! What a run came to, in plain words: where the better model is, and whether there is one.

use rpo::train::{BestBy, Progress, Summary};

use crate::settings::Settings;

/// Says how the run of `settings` ended and which of its models to use; `templated`: prompts went through its chat template.
pub fn report(settings: &Settings, templated: bool, summary: &Summary) {
    lines(settings, templated, summary).iter().for_each(|line| println!("{line}"));
}

fn lines(settings: &Settings, templated: bool, summary: &Summary) -> Vec<String> {
    let Summary { progress, interrupted, ran_out_of_patience } = summary;
    let out = settings.out.display();
    let better = progress.best.is_some_and(|(_, step)| step > 0);
    let mut said = Vec::new();
    match (progress.first_validation, progress.last_validation) {
        (Some(first), Some(last)) if better || progress.waited > 0 => {
            // What was last looked at, which a run that was stopped has left behind.
            let at = progress.validated_at.unwrap_or(progress.step);
            let since = match progress.step - at.min(progress.step) {
                0 => String::new(),
                n => format!(", not validated in the {n} steps since"),
            };
            said.push(format!("held-out loss: {first:.5} before, {last:.5} after {at} steps{since}"));
            if !last.is_finite() {
                said.push("the last validation is not finite: the policy has diverged; lower the learning rate".into());
            }
            if *ran_out_of_patience {
                let (step, waited) = (progress.step, progress.waited);
                said.push(format!("stopped after step {step}: no new best in {waited} validations (--patience)"));
            }
            said.push(verdict(settings, progress));
        }
        (Some(first), _) => said.push(format!("held-out loss: {first:.5} before; not validated since")),
        (None, _) => {}
    }
    if progress.skipped > 0 {
        let n = progress.skipped;
        said.push(format!(
            "{n} of {} steps were bad, and nothing was learned from them: see {out}/bad-steps.jsonl",
            progress.step
        ));
    }
    said.push(format!("last: {out}/last"));
    let chat = if templated { " --chat-template always" } else { "" };
    said.push(match better {
        _ if *interrupted => format!("interrupted; go on with: rpo train --resume {out}"),
        true => format!("try it: rpo generate --model {out}/best{chat} \"your prompt\""),
        false if progress.waited > 0 => format!("use the start: {}", settings.model),
        false => format!("try it: rpo generate --model {out}/last{chat} \"your prompt\""),
    });
    said
}

/// Which validation was the best.
fn verdict(settings: &Settings, progress: &Progress) -> String {
    let by = name(progress.best_by);
    let out = settings.out.display();
    let start = match progress.start {
        // The start counts as 0 there, but nobody measured that.
        Some(_) if progress.best_by == BestBy::TauB => "ranks nothing".into(),
        Some(value) => format!("{value:.5}"),
        None => "not finite".into(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Origin;

    fn said(progress: Progress, interrupted: bool) -> String {
        let settings = "model = \"m\"\ndata = \"d\"\nout = \"o\"\n[objective]\nname = \"rpo\"\n".parse();
        let settings = Settings::from_table(settings.expect("TOML"), Origin::default()).expect("valid");
        lines(&settings, false, &Summary { progress, interrupted, ran_out_of_patience: false }).join("\n")
    }

    #[test]
    fn what_is_recommended_is_what_was_better() {
        let validated = Progress {
            step: 9,
            first_validation: Some(2.0),
            last_validation: Some(1.5),
            start: Some(2.0),
            ..Progress::default()
        };
        let better = said(Progress { best: Some((1.0, 6)), waited: 1, ..validated.clone() }, false);
        assert!(better.contains("best by held-out loss: 1.00000 at step 6 (start 2.00000), in o/best"), "{better}");
        assert!(better.ends_with("try it: rpo generate --model o/best \"your prompt\""), "{better}");
        let stopped = Progress { best: Some((1.0, 6)), validated_at: Some(6), waited: 1, ..validated.clone() };
        let told = said(stopped.clone(), true);
        assert!(told.contains("1.50000 after 6 steps, not validated in the 3 steps since"), "{told}");
        assert!(told.ends_with("go on with: rpo train --resume o"), "{told}");
        let ranks = said(Progress { best_by: BestBy::TauB, start: Some(0.0), ..stopped }, false);
        assert!(ranks.contains("best by tau_b: 1.00000 at step 6 (start ranks nothing)"), "{ranks}");
        let worse = said(Progress { best: Some((2.0, 0)), waited: 3, ..validated.clone() }, false);
        assert!(worse.contains("no step was better") && worse.ends_with("use the start: m"), "{worse}");
        let early = Progress { best: Some((2.0, 0)), last_validation: Some(2.0), ..validated.clone() };
        let ended = said(early.clone(), false);
        assert!(ended.ends_with("--model o/last \"your prompt\""), "nothing was judged worse: {ended}");
        let early = said(early, true);
        assert!(early.contains("not validated since") && !early.contains("better"), "{early}");
        let diverged = Progress { waited: 3, last_validation: Some(f64::NAN), start: None, ..validated };
        let diverged = said(diverged, false);
        assert!(diverged.contains("diverged") && diverged.contains("no validation had a finite"), "{diverged}");
        let blind = said(Progress { step: 9, ..Progress::default() }, false);
        assert!(blind.ends_with("--model o/last \"your prompt\""), "{blind}");
    }
}
