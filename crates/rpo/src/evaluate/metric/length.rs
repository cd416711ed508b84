//! How long responses are, and how long beside references or another model's responses. Judges like long answers and means of
//! log-probabilities short ones, so that lengths belong beside both.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;

use super::tokens::words;
use super::{About, Case, Measured, Metric};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What lengths are counted in.
#[derive(Clone)]
pub enum Unit {
    /// Unicode's code points.
    Characters,
    /// Words by the boundaries of Unicode's annex 29.
    Words,
    /// A model's tokens, without what ends texts.
    Tokens(Arc<Tokenizer>),
}

impl Unit {
    /// The length of a text.
    fn of(&self, text: &str) -> Result<f64> {
        Ok(match self {
            Self::Characters => text.chars().count(),
            Self::Words => words(text).count(),
            Self::Tokens(tokenizer) => tokenizer.response(text, usize::MAX)?.length - 1,
        } as f64)
    }

    fn tokenization(&self) -> String {
        match self {
            Self::Characters => "Unicode code points".into(),
            Self::Words => "words by the boundaries of Unicode's annex 29".into(),
            Self::Tokens(tokenizer) => {
                format!("the model's tokenizer, of {} tokens, without what ends texts", tokenizer.vocab_size())
            }
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Characters => "characters",
            Self::Words => "words",
            Self::Tokens(_) => "tokens",
        })
    }
}

/// The length of responses.
#[derive(Clone)]
pub struct Length {
    /// What it is counted in.
    pub unit: Unit,
}

impl Metric for Length {
    fn about(&self) -> About {
        About {
            name: format!("length-{}", self.unit),
            version: "length of the response".into(),
            tokenization: self.unit.tokenization(),
            unit: format!("{}, mean over responses", self.unit),
            higher_is_better: None,
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        let lengths =
            cases.par_iter().map(|case| self.unit.of(&case.response).map(Some)).collect::<Result<Vec<_>>>()?;
        Ok(Measured::of_values(lengths))
    }
}

/// What responses are as long as.
#[derive(Clone, Debug)]
pub enum Beside {
    /// The references; the mean length of several.
    References,
    /// Another model's responses to the same prompts, in the same order.
    Model {
        /// Its name.
        name: String,
        /// Its responses.
        responses: Vec<String>,
    },
}

/// The length of all responses by that of others.
#[derive(Clone)]
pub struct LengthRatio {
    /// What lengths are counted in.
    pub unit: Unit,
    /// What they are compared with.
    pub beside: Beside,
}

impl Metric for LengthRatio {
    fn about(&self) -> About {
        let (name, others) = match &self.beside {
            Beside::References => {
                (format!("length-ratio-{}", self.unit), "the references (the mean of several)".into())
            }
            Beside::Model { name, .. } => {
                (format!("length-ratio-{}-to-{name}", self.unit), format!("the responses of {name}"))
            }
        };
        About {
            name,
            version: format!("length of the responses by that of {others}"),
            tokenization: self.unit.tokenization(),
            unit: format!("{} by {0}, of all responses together; 1 where they are as long", self.unit),
            higher_is_better: None,
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        if let Beside::Model { name, responses } = &self.beside
            && responses.len() != cases.len()
        {
            let problem = format!("{name} has {} responses, but there are {} cases", responses.len(), cases.len());
            return Err(Error::Data(problem));
        }
        let statistics = cases.par_iter().enumerate().map(|(i, case)| {
            let others = match &self.beside {
                Beside::References => &case.references[..],
                Beside::Model { responses, .. } => &responses[i..=i],
            };
            let mut length = 0.0;
            for other in others {
                length += self.unit.of(other)? / others.len() as f64;
            }
            let ours = self.unit.of(&case.response)?;
            Ok((!others.is_empty()).then(|| vec![ours, length]))
        });
        let statistics = statistics.collect::<Result<Vec<_>>>()?;
        Ok(Measured::of_sums(statistics, |sum| (sum[1] > 0.0).then(|| sum[0] / sum[1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::word_level;

    #[test]
    fn lengths_and_ratios() {
        let case = |response: &str, references: &[&str]| Case {
            response: response.into(),
            references: references.iter().map(ToString::to_string).collect(),
            ..Case::default()
        };
        let cases = [case("grün, 我们", &["a b", "a b c d"]), case("x", &["y z"]), case("alone", &[])];
        let length = |unit| Length { unit }.measure(&cases).expect("measured").each();
        assert_eq!(length(Unit::Characters), [Some(8.0), Some(1.0), Some(5.0)]);
        assert_eq!(length(Unit::Words), [Some(3.0), Some(1.0), Some(1.0)]);
        let tokenizer = Tokenizer::parse(&word_level(&["x"])).expect("a tokenizer");
        assert_eq!(length(Unit::Tokens(Arc::new(tokenizer)))[1], Some(1.0));

        let ratio = LengthRatio { unit: Unit::Words, beside: Beside::References }.measure(&cases).expect("measured");
        assert_eq!((ratio.of(0..3), ratio.each()), (Some(0.8), vec![Some(1.0), Some(0.5), None]));
        let other = |responses: &[&str]| LengthRatio {
            unit: Unit::Words,
            beside: Beside::Model {
                name: "sft".into(),
                responses: responses.iter().map(ToString::to_string).collect(),
            },
        };
        assert_eq!(other(&["a", "b", "c d e"]).measure(&cases).expect("measured").of(0..3), Some(1.0));
        assert_eq!(other(&[]).about().name, "length-ratio-words-to-sft");
        assert!(other(&["a"]).measure(&cases).expect_err("too few").to_string().contains("sft has 1 responses"));
    }
}
