//! A part of the prompts, for one of several programs that share them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Of `of` parts of the prompts the one numbered `part`, from 1; written `3/8`. Its prompts are `part - 1` and every `of`th after
/// it, counted from 0, so that parts are alike where the input is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    pub part: u64,
    pub of: u64,
}

impl Shard {
    /// All prompts.
    pub const WHOLE: Self = Self { part: 1, of: 1 };

    /// Whether the prompt at this place, from 0, is its.
    pub fn has(self, index: u64) -> bool {
        index % self.of == self.part - 1
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Self { part, of }),
            Some((part, of)) => Err(format!("there is no part {part} of {of}; they are counted from 1, as in 3/8")),
            None => Err("it is a part and how many there are, as in 3/8".into()),
        }
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_from_one_and_together_are_the_whole() {
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].map(|text| text.parse().expect("a shard")).to_vec();
        assert!((0..10).all(|index| shards.iter().filter(|shard| shard.has(index)).count() == 1));
        assert!(Shard::WHOLE.has(0) && Shard::WHOLE.has(7));
        for bad in ["0/3", "4/3", "1/0", "3", "a/b", "1/2/3", "-1/3"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
