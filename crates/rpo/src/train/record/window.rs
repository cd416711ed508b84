//! Several steps told as one, so that the record of a long run stays of a size that people and programs can read.

use crate::train::{Means, StepReport};

/// Puts the reports of so many steps together.
pub(super) struct Window {
    every: usize,
    steps: usize,
    gathered: Option<StepReport>,
}

impl Window {
    /// Every step is told.
    pub(super) fn new() -> Self {
        Self { every: 1, steps: 0, gathered: None }
    }

    /// From now on, of a run of `steps` steps, those up to each multiple of `every` and to the last are told together.
    pub(super) fn begin(&mut self, steps: usize, every: usize) {
        (self.steps, self.every) = (steps, every);
    }

    /// What is to be told after a step, if anything.
    pub(super) fn add(&mut self, report: &StepReport) -> Option<StepReport> {
        self.gathered = Some(match self.gathered.take() {
            None => report.clone(),
            Some(gathered) => together(gathered, report),
        });
        let due = report.step.is_multiple_of(self.every) || report.step == self.steps;
        if due { self.flush() } else { None }
    }

    /// What was not told yet.
    pub(super) fn flush(&mut self) -> Option<StepReport> {
        self.gathered.take()
    }
}

/// Sums of responses, tokens and seconds, means of what is a mean over responses, the largest norm, and the last rate.
fn together(a: StepReport, b: &StepReport) -> StepReport {
    let share = b.responses as f64 / (a.responses + b.responses).max(1) as f64;
    let mean = |a: f64, b: f64| a + (b - a) * share;
    let mut metrics = a.means.metrics;
    for (name, value) in &b.means.metrics {
        match metrics.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = mean(*known, *value),
            None => metrics.push((name.clone(), *value)),
        }
    }
    StepReport {
        step: b.step,
        means: Means { loss: mean(a.means.loss, b.means.loss), metrics },
        learning_rate: b.learning_rate,
        grad_norm: a.grad_norm.max(b.grad_norm),
        responses: a.responses + b.responses,
        tokens: a.tokens + b.tokens,
        seconds: a.seconds + b.seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_together_and_none_is_left_out() {
        let report = |step: usize, responses| StepReport {
            step,
            means: Means { loss: step as f64, metrics: vec![("log_ratio".into(), 2.0 * step as f64)] },
            learning_rate: 0.1 * step as f64,
            grad_norm: if step == 4 { 9.0 } else { 1.0 },
            responses,
            tokens: 10,
            seconds: 0.5,
        };
        let mut window = Window::new();
        assert_eq!(window.add(&report(1, 4)).expect("each").step, 1);
        window.begin(8, 3);
        assert!(window.add(&report(2, 4)).is_none());
        let told = window.add(&report(3, 4)).expect("due");
        assert_eq!((told.step, told.means.loss, told.responses), (3, 2.5, 8));
        assert!(window.add(&report(4, 1)).is_none() && window.add(&report(5, 3)).is_none());
        let told = window.flush().expect("two steps");
        assert_eq!((told.step, told.means.loss, told.means.metrics[0].1), (5, 4.75, 9.5));
        assert_eq!((told.grad_norm, told.tokens, told.seconds, told.learning_rate), (9.0, 20, 1.0, 0.5));
        assert!(window.flush().is_none() && window.add(&report(7, 1)).is_none());
        assert_eq!(window.add(&report(8, 1)).expect("the last").means.loss, 7.5);
    }
}
