//! What people see while they wait.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rpo::Result;
use rpo::train::{Event, Observer};

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
            Event::Milestone { .. } => {}
            Event::Validating { done, total } => self.bar.set_message(format!("validating {done} of {total}")),
            Event::Validation { step, means, best } => {
                let metrics: Vec<String> = means.metrics.iter().map(|(name, v)| format!("{name} {v:.4}")).collect();
                let mark = if *best { "  (best)" } else { "" };
                self.line(&format!("step {step}: held-out loss {:.5}  {}{mark}", means.loss, metrics.join("  ")));
            }
        }
        Ok(())
    }
}
