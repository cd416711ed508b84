//! The record of a run as TensorBoard events: `events.out.tfevents.*`, a TFRecord file of `Event` protocol buffers.
//!
//! A few message types with a dozen fields in all, so they are encoded by hand rather than by a protocol buffer compiler. The
//! numbers of the fields are those of `event.proto`, `summary.proto`, `tensor.proto` and `types.proto` of TensorFlow.

use std::path::Path;
use std::time::SystemTime;

use super::Reader;
use super::log::Log;
use super::window::Window;
use crate::error::Result;
use crate::store::files::make_dir;
use crate::train::{Event, Means, Observer, StepReport};

/// Writes scalars `train/...` and `validation/...` and texts `sample/...` that TensorBoard shows. Every start of a run makes a new file, as
/// TensorBoard expects; where steps overlap it shows the newer one.
pub struct TensorBoard {
    log: Log,
    window: Window,
    reader: Option<Reader>,
}

impl TensorBoard {
    /// Makes an event file in `dir`, which may be new.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(dir: &Path) -> Result<Self> {
        make_dir(dir)?;
        let log = Log::open(&dir.join(format!("events.out.tfevents.{:.6}.rpo", now())))?;
        let mut board = Self { log, window: Window::new(), reader: None };
        board.record(&[double(1, now()), bytes(3, b"brain.Event:2")].concat());
        Ok(board)
    }

    /// Also writes answers; without a reader they are left out.
    #[must_use]
    pub fn with_answers(self, reader: Reader) -> Self {
        Self { reader: Some(reader), ..self }
    }

    fn scalars(&mut self, step: usize, scalars: &[(String, f64)]) {
        let value =
            |(tag, value): &(String, f64)| bytes(1, &[bytes(1, tag.as_bytes()), float(2, *value as f32)].concat());
        self.summary(step, &scalars.iter().flat_map(value).collect::<Vec<u8>>());
    }

    /// An event with a summary, whose values are encoded already.
    fn summary(&mut self, step: usize, summary: &[u8]) {
        self.record(&[double(1, now()), varint(2, step as u64), bytes(5, summary)].concat());
    }

    /// One TFRecord: length, its checksum, the message, its checksum.
    fn record(&mut self, message: &[u8]) {
        let length = (message.len() as u64).to_le_bytes();
        self.log.add(&[&length[..], &checksum(&length), message, &checksum(message)].concat());
    }

    fn steps(&mut self, report: &StepReport) {
        let mut scalars = named("train", &report.means);
        scalars.push(("train/learning_rate".into(), report.learning_rate));
        scalars.push(("train/grad_norm".into(), report.grad_norm));
        scalars.push(("train/responses_per_second".into(), report.responses as f64 / report.seconds));
        self.scalars(report.step, &scalars);
    }
}

impl Observer for TensorBoard {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Milestone { .. } | Event::Validating { .. } | Event::Bad(_) => {}
            Event::Start { steps, log_every, .. } => self.window.begin(*steps, *log_every),
            Event::Step(report) => {
                if let Some(report) = self.window.add(report) {
                    self.steps(&report);
                }
            }
            Event::Saving { .. } => {
                if let Some(report) = self.window.flush() {
                    self.steps(&report);
                }
                self.log.sync();
            }
            Event::Validation { step, means, .. } => self.scalars(*step, &named("validation", means)),
            Event::Samples { step, prompts, answers } => {
                let Some(reader) = &self.reader else { return Ok(()) };
                let mut summary = Vec::new();
                for (i, (prompt, answer)) in prompts.iter().zip(*answers).enumerate() {
                    let said = format!(
                        "Prompt:\n\n{}\n\nAnswer:\n\n{}\n",
                        verbatim(&reader.prompt(prompt)?),
                        verbatim(&reader.answer(answer)?)
                    );
                    summary.extend(text(&format!("sample/{}", i + 1), &said));
                }
                self.summary(*step, &summary);
            }
        }
        Ok(())
    }
}

/// Loss and metrics by the names that TensorBoard shows.
fn named(split: &str, means: &Means) -> Vec<(String, f64)> {
    let metrics = means.metrics.iter().map(|(name, value)| (name.as_ref(), *value));
    let all = std::iter::once(("loss", means.loss)).chain(metrics);
    all.map(|(name, value)| (format!("{split}/{name}"), value)).collect()
}

/// A value of a summary for TensorBoard's text plugin: `Summary.Value` with tag (1), tensor (8) and metadata (9). The tensor
/// has `dtype = DT_STRING` (1: 7), a shape (2) of one dimension (2) of size (1) 1, and the text (8); the metadata the plugin's
/// name (1: 1) and `data_class = DATA_CLASS_TENSOR` (4: 2).
fn text(tag: &str, text: &str) -> Vec<u8> {
    let shape = bytes(2, &varint(1, 1));
    let tensor = [varint(1, 7), bytes(2, &shape), bytes(8, text.as_bytes())].concat();
    let metadata = [bytes(1, &bytes(1, b"text")), varint(4, 2)].concat();
    bytes(1, &[bytes(1, tag.as_bytes()), bytes(8, &tensor), bytes(9, &metadata)].concat())
}

/// As a block of Markdown that is shown as it is.
fn verbatim(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// TFRecord's checksum: CRC-32C, rotated and offset.
fn checksum(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn varint(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint_bytes(value)].concat()
}

fn varint_bytes(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [&[field << 3 | 1][..], &value.to_le_bytes()].concat()
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], varint_bytes(value.len() as u64), value.to_vec()].concat()
}

fn float(field: u8, value: f32) -> Vec<u8> {
    [&[field << 3 | 5][..], &value.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_by_hand() {
        // From the encoding's definition: 300 is 0xAC 0x02.
        assert_eq!(varint(2, 300), [0x10, 0xac, 0x02]);
        assert_eq!(bytes(1, b"ab"), [0x0a, 2, b'a', b'b']);
        assert_eq!(float(2, 1.0), [0x15, 0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn texts_by_hand() {
        let tensor = [&[0x08, 7, 0x12, 4, 0x12, 2, 0x08, 1, 0x42, 2][..], b"hi"].concat();
        let metadata = [&[0x0a, 6, 0x0a, 4][..], b"text", &[0x20, 2]].concat();
        let value = [&[0x0a, 1, b't', 0x42, 12][..], &tensor, &[0x4a, 10], &metadata].concat();
        assert_eq!(text("t", "hi"), [&[0x0a, 29][..], &value].concat());
        assert_eq!(verbatim("a # b\nc"), "    a # b\n    c");
    }

    #[test]
    fn records_frame_their_messages() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut log = TensorBoard::create(dir.path()).expect("created");
        let means = Means { loss: 1.5, metrics: vec![("log_ratio".into(), 0.25)] };
        log.observe(&Event::Validation { step: 7, means: &means, best: true }).expect("written");
        let file = std::fs::read_dir(dir.path()).expect("listing").next().expect("a file").expect("entry");
        let mut rest = &std::fs::read(file.path()).expect("read")[..];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().expect("8 bytes")) as usize;
            assert_eq!(rest[8..12], checksum(&rest[..8]));
            messages.push(&rest[12..12 + length]);
            assert_eq!(rest[12 + length..16 + length], checksum(messages[messages.len() - 1]));
            rest = &rest[16 + length..];
        }
        assert_eq!(messages.len(), 2);
        assert!(messages[0].ends_with(b"brain.Event:2"));
        let says = |part: &[u8]| messages[1].windows(part.len()).any(|w| w == part);
        assert!(says(b"validation/loss\x15\0\0\xc0\x3f") && says(b"validation/log_ratio\x15\0\0\x80\x3e"));
    }
}
