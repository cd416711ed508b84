//! The record of a run as `metrics.jsonl`: one JSON object a line, written as it happens.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Reader;
use super::log::Log;
use super::window::Window;
use crate::error::{Error, Result};
use crate::store::files::fill_file;
use crate::train::{BadStep, Event, Means, Observer, Progress, StepReport};

/// What bad steps were made of, beside the record.
const BAD_STEPS: &str = "bad-steps.jsonl";

/// Appends to `metrics.jsonl`, and to `bad-steps.jsonl` beside it what was in steps whose numbers are not finite. What cannot be
/// written is left out, which is told; training goes on.
///
/// A training line has `split: "train"`, `step`, `loss`, the objective's metrics, those of [`crate::diagnostics`] over the
/// step's responses, `learning_rate`, `grad_norm`, `responses`, `tokens` and `seconds`; a validation line
/// `split: "validation"`, `step`, `loss`, the metrics over the validation responses (all of them, also those that the
/// objective leaves out), and `reward` where a judge rates the policy's answers; a line with `split: "sample"` has `step`,
/// `prompt` and `answer`. In long runs a training line tells several steps together (`log-every`): `step` is the last of them,
/// `grad_norm` the largest, `responses`, `tokens` and `seconds` are sums and the rest are means over the responses. Numbers that are not finite are `null`, and what is not defined is left out: what compares with the
/// start is missing on the training lines of objectives that need no reference scores, such as SFT.
pub struct MetricsLog {
    bad_steps: PathBuf,
    log: Log,
    window: Window,
    reader: Option<Reader>,
}

impl MetricsLog {
    /// Opens or creates the file. Lines that a run which goes on from `progress` will write again are dropped.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, progress: &Progress) -> Result<Self> {
        let bad_steps = path.with_file_name(BAD_STEPS);
        for path in [path, &bad_steps] {
            if path.exists() {
                keep_lines(path, |line| is_done(line, progress))?;
            }
        }
        Ok(Self { bad_steps, log: Log::open(path)?, window: Window::new(), reader: None })
    }

    /// Also writes answers; without a reader they are left out.
    #[must_use]
    pub fn with_answers(self, reader: Reader) -> Self {
        Self { reader: Some(reader), ..self }
    }

    fn write_means(&mut self, mut line: Map<String, Value>, means: &Means) {
        line.insert("loss".into(), json!(means.loss));
        line.extend(means.metrics.iter().map(|(name, value)| (name.to_string(), json!(value))));
        self.write(&Value::Object(line));
    }

    fn write(&mut self, line: &Value) {
        self.log.add(format!("{line}\n").as_bytes());
    }

    fn write_steps(&mut self, report: &StepReport) {
        let line = json!({
            "split": "train", "step": report.step, "learning_rate": report.learning_rate,
            "grad_norm": report.grad_norm, "responses": report.responses, "tokens": report.tokens,
            "seconds": report.seconds,
        });
        self.write_means(object(line), &report.means);
    }

    /// Adds a line for each response of a bad step.
    fn write_bad(&self, bad: &BadStep) -> Result<()> {
        let mut log = Log::open(&self.bad_steps)?;
        for suspect in &bad.responses {
            let mut line = json!({
                "split": if bad.validation { "validation" } else { "train" }, "step": bad.step, "problem": bad.problem,
                "row": suspect.row + 1, "reward": suspect.reward, "log_prob": suspect.log_prob,
            });
            match &self.reader {
                Some(reader) => {
                    line["prompt"] = reader.prompt(&suspect.prompt)?.into();
                    line["response"] = reader.answer(&suspect.response)?.into();
                }
                None => {
                    line["prompt_ids"] = json!(suspect.prompt);
                    line["response_ids"] = json!(suspect.response);
                }
            }
            log.add(format!("{line}\n").as_bytes());
        }
        Ok(())
    }
}

/// Leaves of a file the lines that are to be kept, without holding it in memory.
fn keep_lines(path: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    let read = |e| Error::read(path, e);
    let mut lines = BufReader::new(File::open(path).map_err(read)?);
    fill_file(path, |file| {
        let mut kept = std::io::BufWriter::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(read)? == 0 {
                break;
            }
            let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            if text.is_some_and(&keep) {
                kept.write_all(&line).map_err(|e| Error::write(path, e))?;
            }
        }
        kept.flush().map_err(|e| Error::write(path, e))
    })
}

/// Whether a line was written before what `progress` still has to do.
fn is_done(line: &str, progress: &Progress) -> bool {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
    let pending = match line["split"].as_str() {
        Some("validation") => progress.pending.validation,
        Some("sample") => progress.pending.samples,
        _ => false,
    };
    let step = progress.step as u64;
    line["step"].as_u64().is_some_and(|of_line| of_line < step || of_line == step && !pending)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl Observer for MetricsLog {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Milestone { .. } | Event::Validating { .. } => {}
            Event::Start { steps, log_every, .. } => self.window.begin(*steps, *log_every),
            Event::Step(report) => {
                if let Some(report) = self.window.add(report) {
                    self.write_steps(&report);
                }
            }
            // What was done before it is not done again.
            Event::Saving { .. } => {
                if let Some(report) = self.window.flush() {
                    self.write_steps(&report);
                }
                self.log.sync();
            }
            Event::Bad(bad) => self.write_bad(bad)?,
            Event::Validation { step, means, .. } => {
                self.write_means(object(json!({"split": "validation", "step": step})), means);
            }
            Event::Samples { step, prompts, answers } => {
                let Some(reader) = self.reader.clone() else { return Ok(()) };
                for (prompt, answer) in prompts.iter().zip(*answers) {
                    let (prompt, answer) = (reader.prompt(prompt)?, reader.answer(answer)?);
                    self.write(&json!({"split": "sample", "step": step, "prompt": prompt, "answer": answer}));
                }
            }
        }
        Ok(())
    }
}
