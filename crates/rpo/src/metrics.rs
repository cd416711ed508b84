//! The record of a run as `metrics.jsonl`: one JSON object a line, written as it happens.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files::write_file;
use crate::train::{Event, Means, Observer};

/// Appends to `metrics.jsonl`.
///
/// A training line has `split: "train"`, `step`, `loss`, the objective's metrics, `learning_rate`, `grad_norm`,
/// `responses`, `tokens` and `seconds`; a validation line `split: "validation"`, `step`, `loss` and the metrics. Numbers
/// that are not finite are `null`.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens or creates the file. Lines after `step` are dropped: a run that goes on from there will write them again.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, step: usize) -> Result<Self> {
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
            let kept: String =
                text.lines().filter(|l| step_of(l).is_some_and(|s| s <= step)).map(|l| format!("{l}\n")).collect();
            write_file(path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::write(path, e))?;
        Ok(Self { path: path.into(), file })
    }

    fn write(&mut self, mut line: Map<String, Value>, means: &Means) -> Result<()> {
        line.insert("loss".into(), json!(means.loss));
        line.extend(means.metrics.iter().map(|(name, value)| ((*name).to_string(), json!(value))));
        let text = format!("{}\n", Value::Object(line));
        self.file.write_all(text.as_bytes()).map_err(|e| Error::write(&self.path, e))
    }
}

fn step_of(line: &str) -> Option<usize> {
    serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64().map(|s| s as usize)
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
                self.write(object(line), &report.means)
            }
            Event::Validation { step, means, .. } => {
                self.write(object(json!({"split": "validation", "step": step})), means)
            }
        }
    }
}
