//! The record of a run as `metrics.jsonl`: one JSON object a line, written as it happens.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Reader;
use crate::error::{Error, Result};
use crate::store::files::write_file;
use crate::train::{Event, Means, Observer, Progress};

/// Appends to `metrics.jsonl`.
///
/// A training line has `split: "train"`, `step`, `loss`, the objective's metrics, those of [`crate::diagnostics`] over the
/// step's responses, `learning_rate`, `grad_norm`, `responses`, `tokens` and `seconds`; a validation line
/// `split: "validation"`, `step`, `loss`, the metrics over the validation responses (all of them, also those that the
/// objective leaves out), and `reward` where a judge rates the policy's answers; a line with `split: "sample"` has `step`,
/// `prompt` and `answer`. Numbers that are not finite are `null`, and what is not defined is left out: what compares with the
/// start is missing on the training lines of objectives that need no reference scores, such as SFT.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    reader: Option<Reader>,
}

impl MetricsLog {
    /// Opens or creates the file. Lines that a run which goes on from `progress` will write again are dropped.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, progress: &Progress) -> Result<Self> {
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
            let kept: String =
                text.lines().filter(|line| is_done(line, progress)).map(|line| format!("{line}\n")).collect();
            write_file(path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::write(path, e))?;
        Ok(Self { path: path.into(), file, reader: None })
    }

    /// Also writes answers; without a reader they are left out.
    #[must_use]
    pub fn with_answers(self, reader: Reader) -> Self {
        Self { reader: Some(reader), ..self }
    }

    fn write_means(&mut self, mut line: Map<String, Value>, means: &Means) -> Result<()> {
        line.insert("loss".into(), json!(means.loss));
        line.extend(means.metrics.iter().map(|(name, value)| ((*name).to_string(), json!(value))));
        self.write(&Value::Object(line))
    }

    fn write(&mut self, line: &Value) -> Result<()> {
        let text = format!("{line}\n");
        self.file.write_all(text.as_bytes()).map_err(|e| Error::write(&self.path, e))
    }
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
            Event::Start { .. } | Event::Milestone { .. } | Event::Validating { .. } => Ok(()),
            Event::Step(report) => {
                let line = json!({
                    "split": "train", "step": report.step, "learning_rate": report.learning_rate,
                    "grad_norm": report.grad_norm, "responses": report.responses, "tokens": report.tokens,
                    "seconds": report.seconds,
                });
                self.write_means(object(line), &report.means)
            }
            Event::Validation { step, means, .. } => {
                self.write_means(object(json!({"split": "validation", "step": step})), means)
            }
            Event::Samples { step, prompts, answers } => {
                let Some(reader) = self.reader.clone() else { return Ok(()) };
                for (prompt, answer) in prompts.iter().zip(*answers) {
                    let (prompt, answer) = (reader.prompt(prompt)?, reader.answer(answer)?);
                    self.write(&json!({"split": "sample", "step": step, "prompt": prompt, "answer": answer}))?;
                }
                Ok(())
            }
        }
    }
}
