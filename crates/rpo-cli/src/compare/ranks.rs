//! How a run's log-ratios rank held-out responses as training goes on, kept in its directory so that the curve survives a stop.

use std::path::{Path, PathBuf};

use rpo::Error;
use rpo::evaluate::{log_probs, tau_of_prompts};
use rpo::feedback::FeedbackSet;
use rpo::stop::Stop;
use rpo::store::files::write_file;
use rpo::store::text_of;
use rpo::train::{Event, Observer};

use super::record::{Point, RANKS};

/// Scores the held-out responses wherever validation is due, and remembers how the judged ones are ranked.
pub struct Ranks<'a> {
    held_out: &'a FeedbackSet,
    judging: &'a [usize],
    budget: usize,
    /// `log p(y|x)` under the start.
    start: &'a [f64],
    stop: &'a Stop,
    path: PathBuf,
    /// Points so far.
    pub curve: Vec<Point>,
}

impl<'a> Ranks<'a> {
    /// Watches the run in `dir`; `start` is of the responses of `held_out`, of whose prompts `judging` make the curve.
    pub fn new(
        held_out: &'a FeedbackSet,
        judging: &'a [usize],
        start: &'a [f64],
        budget: usize,
        dir: &Path,
        stop: &'a Stop,
    ) -> Self {
        Self { held_out, judging, budget, start, stop, path: dir.join(RANKS), curve: Vec::new() }
    }

    /// The points of an earlier session up to the step from which it goes on.
    fn recall(&mut self, done: usize) -> rpo::Result<()> {
        if done == 0 || !self.path.exists() {
            return Ok(());
        }
        self.curve = serde_json::from_str(&text_of(&self.path)?)
            .map_err(|e| Error::Data(format!("{}: not written by this version: {e}", self.path.display())))?;
        self.curve.retain(|point| point.step <= done);
        Ok(())
    }
}

impl Observer for Ranks<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        match event {
            Event::Start { done, .. } => self.recall(*done),
            Event::Milestone { step, policy } => {
                // The start's log-ratios are zero and rank nothing.
                let (tau_b, n) = match step {
                    0 => (None, 0),
                    _ => {
                        let now = log_probs(policy, self.held_out, self.budget, self.stop)?;
                        let ratios: Vec<f64> = now.iter().zip(self.start).map(|(now, start)| now - start).collect();
                        tau_of_prompts(self.held_out, &ratios, self.judging)
                    }
                };
                // A validation that was stopped is done again.
                self.curve.retain(|point| point.step < *step);
                self.curve.push(Point { step: *step, tau_b, n });
                write_file(&self.path, serde_json::to_string(&self.curve).unwrap_or_default().as_bytes())
            }
            _ => Ok(()),
        }
    }
}
