//! What people see while they wait: bars on a terminal; where there is none, as in a log, a line every few seconds.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};
use rpo::Result;
use rpo::train::{BadStep, Event, Means, Observer, StepReport};

use crate::messages::quiet;

/// Time between two lines of a log.
const EVERY: Duration = Duration::from_secs(5);

/// A counter of things whose number is unknown.
pub fn counter(what: &'static str) -> ProgressBar {
    let target = target(Log::Stderr);
    let bar = ProgressBar::with_draw_target(None, target).with_message(what);
    bar.set_style(style("{spinner} {msg}: {human_pos} ({rate})", "{msg}: {human_pos} ({rate})"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar over `total` things; its lines go to standard error, since what is printed may be the program's answer.
pub fn bar(what: &'static str, total: usize) -> ProgressBar {
    over(what, total, Log::Stderr)
}

/// A bar over `total` answers, whose message says the pace.
pub fn answers(total: usize) -> ProgressBar {
    let bar = bar("answering", total);
    bar.set_style(style("{wide_bar} {human_pos}/{human_len} {msg}", "{human_pos} of {human_len} answers; {msg}"));
    bar
}

/// A bar over `total` questions to a judge, whose message says what is the matter.
pub fn judging(total: usize) -> ProgressBar {
    let bar = bar("judging", total);
    // A server may want to be left alone for long, and people are to see that it is waited for.
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A bar over `total` things that belongs to a run's log, as standard output is.
pub fn pass(what: &'static str, total: usize) -> ProgressBar {
    over(what, total, Log::Stdout)
}

fn over(what: &'static str, total: usize, log: Log) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total as u64), target(log)).with_message(what);
    bar.set_style(style(
        "{msg} {wide_bar} {human_pos}/{human_len} ({rate}, {eta} left)",
        "{msg}: {human_pos} of {human_len} ({rate}, {eta} left)",
    ));
    bar
}

/// A bar over `total` bytes.
pub fn bytes(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), target(Log::Stderr)).with_message(what);
    bar.set_style(style(
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} ({binary_bytes_per_sec}, {eta} left)",
        "{msg}: {binary_bytes} of {binary_total_bytes} ({binary_bytes_per_sec}, {eta} left)",
    ));
    bar
}

/// Work that has no parts.
pub fn busy(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(Log::Stderr)).with_message(what);
    bar.set_style(style("{spinner} {msg} ({elapsed_precise})", "{msg} ({elapsed_precise} so far)"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn on_terminal() -> bool {
    !ProgressDrawTarget::stderr().is_hidden()
}

fn target(log: Log) -> ProgressDrawTarget {
    match on_terminal() {
        _ if quiet() => ProgressDrawTarget::hidden(),
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::term_like_with_hz(Box::new(Lines::new(log, EVERY)), 5),
    }
}

fn style(terminal: &str, log: &str) -> ProgressStyle {
    let template = if on_terminal() { terminal } else { log };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| _ = write!(out, "{}", rate(state.per_sec())))
}

/// A number a second in three digits.
fn rate(each_second: f64) -> String {
    let digits = match each_second {
        n if n >= 100.0 => 0,
        n if n >= 10.0 => 1,
        _ => 2,
    };
    format!("{each_second:.digits$}/s")
}

/// Where lines go.
#[derive(Clone, Copy, Debug)]
enum Log {
    Stdout,
    Stderr,
}

/// A bar's line as plain text, not more often than every so often; it takes the place of a terminal.
#[derive(Debug)]
struct Lines {
    log: Log,
    every: Duration,
    state: Mutex<(String, Instant)>,
}

impl Lines {
    fn new(log: Log, every: Duration) -> Self {
        Self { log, every, state: Mutex::new((String::new(), Instant::now())) }
    }

    /// The line that is due, if any.
    fn due(&self) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = std::mem::take(&mut state.0);
        if line.trim().is_empty() || state.1.elapsed() < self.every {
            return None;
        }
        state.1 = Instant::now();
        Some(line.trim().to_string())
    }
}

impl TermLike for Lines {
    fn width(&self) -> u16 {
        120
    }

    fn move_cursor_up(&self, _n: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _n: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _n: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _n: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> std::io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> std::io::Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> std::io::Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
        Ok(())
    }

    fn flush(&self) -> std::io::Result<()> {
        match (self.due(), self.log) {
            (None, _) => {}
            (Some(line), Log::Stdout) => println!("{line}"),
            (Some(line), Log::Stderr) => eprintln!("{line}"),
        }
        Ok(())
    }
}

/// Shows a training run: a bar with the loss, or in a log a line of it every few seconds, and a line for each validation.
pub struct TrainingProgress {
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    began: Instant,
    /// When the last line was written.
    told: Option<Instant>,
    done: usize,
    steps: usize,
    responses: usize,
    seconds: f64,
}

impl TrainingProgress {
    /// A display that has nothing to show yet.
    pub fn new() -> Self {
        let bar = if quiet() { ProgressBar::hidden() } else { ProgressBar::new(0) };
        bar.set_style(style("step {human_pos}/{human_len} {wide_bar} {msg} ({eta} left)", ""));
        Self { bar, began: Instant::now(), told: None, done: 0, steps: 0, responses: 0, seconds: 0.0 }
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

    /// Prints `text` in a log if the last such line is a while ago.
    fn tell(&mut self, text: impl FnOnce(&Self) -> String) {
        if !quiet() && self.bar.is_hidden() && self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            println!("{}", text(self));
        }
    }

    /// Loss, rate and time left, which counts validations so far too.
    fn step_line(&self, report: &StepReport, took: Duration) -> String {
        let StepReport { step, means, learning_rate, responses, seconds, .. } = report;
        let each = took.as_secs_f64() / step.saturating_sub(self.done).max(1) as f64;
        let left = HumanDuration(Duration::from_secs_f64(each * self.steps.saturating_sub(*step) as f64));
        format!(
            "step {step} of {}: loss {:.4}, learning rate {learning_rate:.2e}, {:.1} responses/s, {left} left",
            self.steps,
            means.loss,
            *responses as f64 / seconds
        )
    }
}

impl Observer for TrainingProgress {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Start { done, steps, .. } => {
                (self.done, self.steps, self.began) = (*done, *steps, Instant::now());
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
                self.tell(|display| display.step_line(report, display.began.elapsed()));
            }
            Event::Milestone { .. } | Event::Samples { .. } => {}
            Event::Saving { step } => self.bar.set_message(format!("saving what was learned in {step} steps")),
            Event::Bad(bad) => {
                let BadStep { step, validation, problem, .. } = bad;
                let what = if *validation { "validation after step" } else { "step" };
                self.line(&format!("{what} {step} is bad: {problem}; it has {}, see bad-steps.jsonl", bad.prompts()));
            }
            Event::Validating { done, total } => {
                self.bar.set_message(format!("validating {done} of {total}"));
                // The first step is told at once, and what comes before it only if it takes long.
                if self.told.is_some() || self.began.elapsed() >= EVERY {
                    self.tell(|_| format!("validating: {done} of {total} held-out responses"));
                }
            }
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
        let said = signs(&Means { loss: 1.0, metrics: metrics.into_iter().map(Into::into).zip(values).collect() });
        assert_eq!(said, "  mass_kept 0.001  tau_b -0.123  log_prob best -123.4 worst -123.4  reward -12.345");
        assert!("step 12345: held-out loss 0.12345".len() + said.len() <= 120);
        assert_eq!(signs(&Means { loss: 1.0, metrics: vec![("mass_kept".into(), 5e20)] }), "  mass_kept 5.0e20");
    }

    #[test]
    fn a_log_gets_the_line_of_a_bar_but_not_too_often() {
        let often = Lines::new(Log::Stderr, Duration::ZERO);
        let draw = |lines: &Lines, text: &str| {
            lines
                .clear_line()
                .and_then(|()| lines.write_str(text))
                .and_then(|()| lines.write_str("   "))
                .expect("text");
            lines.due()
        };
        assert_eq!(draw(&often, "scores: 5 of 9"), Some("scores: 5 of 9".into()));
        assert_eq!(draw(&often, "scores: 6 of 9"), Some("scores: 6 of 9".into()));
        assert_eq!(draw(&often, ""), None, "a bar that was removed");
        let seldom = Lines::new(Log::Stdout, Duration::from_mins(1));
        assert_eq!(draw(&seldom, "scores: 5 of 9"), None);
    }

    #[test]
    fn a_step_tells_loss_rate_and_time_left() {
        let display = TrainingProgress { done: 10, steps: 50, ..TrainingProgress::new() };
        let means = Means { loss: 0.53104, metrics: Vec::new() };
        let report = StepReport {
            step: 20,
            means,
            learning_rate: 9.1e-5,
            grad_norm: 1.0,
            responses: 32,
            tokens: 900,
            seconds: 2.0,
        };
        // Ten steps in 60 s: thirty more in three minutes.
        let said = display.step_line(&report, Duration::from_mins(1));
        assert_eq!(said, "step 20 of 50: loss 0.5310, learning rate 9.10e-5, 16.0 responses/s, 3 minutes left");
    }
}
