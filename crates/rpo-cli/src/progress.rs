//! What people see while they wait.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rpo::Result;
use rpo::train::{Event, Means, Observer};

/// A counter of things whose number is unknown.
pub fn counter(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.set_style(style("{spinner} {msg}: {human_pos} ({per_sec})"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar over `total` things.
pub fn bar(what: &'static str, total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64).with_message(what);
    bar.set_style(style("{msg} {wide_bar} {human_pos}/{human_len} ({per_sec}, {eta} left)"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Shows a training run: a bar with the loss, and a line for each validation.
pub struct TrainingProgress {
    bar: ProgressBar,
    responses: usize,
    seconds: f64,
}

impl TrainingProgress {
    /// A display that has nothing to show yet.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        bar.set_style(style("step {human_pos}/{human_len} {wide_bar} {msg} ({eta} left)"));
        Self { bar, responses: 0, seconds: 0.0 }
    }

    /// Removes the bar; the last line says how fast it went.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
        if self.seconds > 0.0 {
            let rate = self.responses as f64 / self.seconds;
            println!("trained on {} responses in {:.1} s of steps: {rate:.1} a second", self.responses, self.seconds);
        }
    }

    /// Prints above the bar, or plainly where there is no terminal.
    fn line(&self, text: &str) {
        if self.bar.is_hidden() { println!("{text}") } else { self.bar.println(text) }
    }
}

impl Observer for TrainingProgress {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Start { done, steps } => {
                self.bar.set_length(*steps as u64);
                self.bar.set_position(*done as u64);
                self.bar.reset_eta();
            }
            Event::Step(report) => {
                self.responses += report.responses;
                self.seconds += report.seconds;
                let rate = report.responses as f64 / report.seconds;
                self.bar.set_position(report.step as u64);
                self.bar.set_message(format!("loss {:.4}, {rate:.1} responses/s", report.means.loss));
            }
            Event::Milestone { .. } | Event::Samples { .. } => {}
            Event::Validating { done, total } => self.bar.set_message(format!("validating {done} of {total}")),
            Event::Validation { step, means, best } => {
                let mark = match (best, means.loss.is_finite()) {
                    (true, _) => "  (best)",
                    (false, true) => "",
                    (false, false) => "  (not finite, never best)",
                };
                self.line(&format!("step {step}: held-out loss {:.5}{}{mark}", means.loss, signs(means)));
            }
        }
        Ok(())
    }
}

/// The few metrics that tell harm, short enough for a line; all of them are in metrics.jsonl.
fn signs(means: &Means) -> String {
    let metric = |name| means.metric(name);
    let mut said = Vec::new();
    said.extend(metric("mass_kept").map(|mass| match mass < 1e4 {
        true => format!("mass_kept {mass:.3}"),
        false => format!("mass_kept {mass:.1e}"),
    }));
    said.extend(metric("tau_b").map(|tau| format!("tau_b {tau:.3}")));
    let ends = metric("log_prob_best").zip(metric("log_prob_worst"));
    said.extend(ends.map(|(best, worst)| format!("log_prob best {best:.1} worst {worst:.1}")));
    said.extend(metric("reward").map(|reward| format!("reward {reward:.3}")));
    said.iter().map(|part| format!("  {part}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signs_of_harm_fit_a_line() {
        let metrics = ["mass_kept", "tau_b", "log_prob_best", "log_prob_worst", "kl_estimate", "reward"];
        let values = [0.001, -0.123, -123.4, -123.4, 1.0, -12.345];
        let said = signs(&Means { loss: 1.0, metrics: metrics.into_iter().zip(values).collect() });
        assert_eq!(said, "  mass_kept 0.001  tau_b -0.123  log_prob best -123.4 worst -123.4  reward -12.345");
        assert!("step 12345: held-out loss 0.12345".len() + said.len() <= 120);
        assert_eq!(signs(&Means { loss: 1.0, metrics: vec![("mass_kept", 5e20)] }), "  mass_kept 5.0e20");
    }
}
