//! When a run is saved apart from its validations.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// After how many optimizer steps, or after how much time, a run is saved: `500`, `10m`, `500,10m` for whichever comes first, or
/// `never`, so that only validations save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct SaveEvery {
    steps: Option<usize>,
    time: Option<Duration>,
}

impl SaveEvery {
    /// Never.
    pub const NEVER: Self = Self { steps: None, time: None };

    /// After so many steps.
    pub const fn steps(steps: usize) -> Self {
        Self { steps: Some(steps), time: None }
    }
}

impl Default for SaveEvery {
    /// Ten minutes.
    fn default() -> Self {
        Self { steps: None, time: Some(Duration::from_mins(10)) }
    }
}

/// As it stands in a settings file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Steps(u64),
    Text(String),
}

impl TryFrom<Written> for SaveEvery {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Steps(steps) => steps.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl FromStr for SaveEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem =
            || format!("`{text}` is neither steps (500) nor time (90s, 10m, 2h), nor both (500,10m), nor never");
        if text.trim() == "never" {
            return Ok(Self::NEVER);
        }
        let mut every = Self::NEVER;
        for part in text.split(',').map(str::trim) {
            let digits = part.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let number: u64 = digits.trim().parse().ok().filter(|&n| n > 0).ok_or_else(problem)?;
            let seconds = match &part[digits.len()..] {
                "" if every.steps.is_none() => {
                    every.steps = Some(number as usize);
                    continue;
                }
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => return Err(problem()),
            };
            let time = Duration::from_secs(number.checked_mul(seconds).ok_or_else(problem)?);
            if every.time.replace(time).is_some() {
                return Err(problem());
            }
        }
        Ok(every)
    }
}

impl fmt::Display for SaveEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.map(|time| match time.as_secs() {
            seconds if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
            seconds if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
            seconds => format!("{seconds}s"),
        });
        let parts: Vec<String> = self.steps.map(|steps| steps.to_string()).into_iter().chain(time).collect();
        f.write_str(if parts.is_empty() { "never".into() } else { parts.join(",") }.as_str())
    }
}

impl From<SaveEvery> for String {
    fn from(every: SaveEvery) -> Self {
        every.to_string()
    }
}

impl JsonSchema for SaveEvery {
    fn schema_name() -> Cow<'static, str> {
        "SaveEvery".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Steps (500), time (90s, 10m, 2h), both (500,10m) or never",
            "type": ["string", "integer"],
            "minimum": 1,
        })
    }
}

/// What tells when the next save is due.
pub(super) struct SaveClock {
    every: SaveEvery,
    step: usize,
    saved: Instant,
}

impl SaveClock {
    /// What is there after `step` steps is saved or can be had again.
    pub(super) fn new(every: SaveEvery, step: usize) -> Self {
        Self { every, step, saved: Instant::now() }
    }

    /// Takes note of a save.
    pub(super) fn saved(&mut self, step: usize) {
        (self.step, self.saved) = (step, Instant::now());
    }

    /// Whether there is anything that is not saved.
    pub(super) fn is_stale(&self, step: usize) -> bool {
        step > self.step
    }

    /// Whether what was done up to `step` is to be saved.
    pub(super) fn is_due(&self, step: usize) -> bool {
        let SaveEvery { steps, time } = self.every;
        let done = step.saturating_sub(self.step);
        done > 0 && (steps.is_some_and(|steps| done >= steps) || time.is_some_and(|time| self.saved.elapsed() >= time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for (text, same) in [("500", "500"), ("10m", "10m"), (" 90s , 5 ", "5,90s"), ("120m", "2h"), ("never", "never")]
        {
            let every: SaveEvery = text.parse().expect("valid");
            assert_eq!(every.to_string(), same);
            assert_eq!(same.parse(), Ok(every));
        }
        assert_eq!("5".parse(), Ok(SaveEvery::steps(5)));
        assert_eq!(SaveEvery::default().to_string(), "10m");
        for text in [
            "",
            "0",
            "0m",
            "10",
            "m",
            "10d",
            "1,2",
            "1m,2m",
            "-1",
            "1.5h",
            "99999999999999999999",
            "9999999999999999999h",
        ] {
            assert_eq!(text.parse::<SaveEvery>().is_ok(), text == "10", "{text}");
        }
        assert_eq!(serde_json::from_str::<SaveEvery>("7").expect("a number"), SaveEvery::steps(7));
        assert!(serde_json::from_str::<SaveEvery>("0").is_err() && serde_json::from_str::<SaveEvery>("-3").is_err());
    }

    #[test]
    fn a_save_is_due_by_steps_or_time_and_never_without_work() {
        let mut clock = SaveClock::new(SaveEvery::steps(3), 10);
        assert!(!clock.is_due(12) && clock.is_due(13));
        clock.saved(13);
        assert!(!clock.is_due(15));
        let now = SaveEvery { time: Some(Duration::ZERO), ..SaveEvery::NEVER };
        assert!(SaveClock::new(now, 0).is_due(1) && !SaveClock::new(now, 1).is_due(1));
        assert!(!SaveClock::new(SaveEvery::default(), 0).is_due(1));
        assert!(!SaveClock::new(SaveEvery::NEVER, 0).is_due(1_000_000));
        assert!(SaveClock::new(SaveEvery { steps: Some(1000), ..now }, 0).is_due(1));
    }
}
