//! Verdicts that were given before, by anybody, in the place of a judge.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::store::{Line, question_hash};
use super::{Case, Fault, Judge, Question, Reply, Template, Until};
use crate::error::{Error, Result};
use crate::store::within;

/// Most bytes of a file of verdicts.
const MOST: u64 = 1 << 30;

/// Replays a file of verdicts: lines of a [`super::Store`], which are found by the question in the words of the template, or lines
/// with `prompt`, `first`, `second` and `verdict`, or `prompt`, `response` and `verdict`, which are found by their texts. A verdict
/// is a text as a judge would reply it, or a number.
pub struct Stored {
    name: String,
    by_question: HashMap<String, String>,
    by_case: HashMap<Case, String>,
}

/// A line by anybody.
#[derive(Deserialize)]
struct Given {
    prompt: String,
    first: Option<String>,
    second: Option<String>,
    response: Option<String>,
    verdict: Value,
}

impl Stored {
    /// Reads a file. Of the judges in it, `judge` chooses: by its whole name, or by that of its model.
    ///
    /// # Errors
    /// If it cannot be read, a line is no verdict (which), one question has two, or there are several judges and none is chosen.
    pub fn open(path: &Path, judge: Option<&str>) -> Result<Self> {
        let text = within::given_text(path, MOST)?;
        let (mut by_question, mut by_case, mut judges) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        for (i, line) in text.lines().enumerate() {
            let row = |problem: String| Error::Row { path: path.into(), place: format!("line {}", i + 1), problem };
            if line.trim().is_empty() {
                continue;
            }
            if let Ok(kept) = serde_json::from_str::<Line>(line) {
                let is_chosen = judge.is_none_or(|judge| {
                    kept.judge == judge || kept.judge.strip_prefix(judge).is_some_and(|rest| rest.starts_with(" at "))
                });
                let (question, name) = (kept.question.clone(), kept.judge.clone());
                if let Some(said) = kept.said() {
                    judges.insert(name);
                    // The last one counts, as the store has it.
                    is_chosen.then(|| by_question.insert(question, said));
                }
                continue;
            }
            let (case, verdict) = given(line).map_err(row)?;
            match by_case.insert(case, verdict.clone()) {
                Some(other) if other != verdict => {
                    return Err(row(format!("`{verdict}` for what has the verdict `{other}` above; remove one")));
                }
                _ => {}
            }
        }
        let listed = || judges.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        if judge.is_none() && judges.len() > 1 {
            let problem = format!("it holds replies of several judges; choose one (--judge-model): {}", listed());
            return Err(Error::file(path, problem));
        }
        if by_question.is_empty() && by_case.is_empty() {
            let there = if judges.is_empty() { String::new() } else { format!("; there are replies of {}", listed()) };
            return Err(Error::file(path, format!("no verdict in it{there}")));
        }
        let whose = judges.iter().find(|_| judge.is_none()).map(String::as_str).or(judge);
        let name =
            whose.map_or_else(|| format!("verdicts in {}", path.display()), |whose| format!("{whose}, replayed"));
        Ok(Self { name, by_question, by_case })
    }
}

/// A case and its verdict.
fn given(line: &str) -> std::result::Result<(Case, String), String> {
    let Given { prompt, first, second, response, verdict } =
        serde_json::from_str(line).map_err(|e| format!("it is no verdict with the case that it is about: {e}"))?;
    let case = match (first, second, response) {
        (Some(first), Some(second), None) => Case::Pair { prompt, first, second },
        (None, None, Some(response)) => Case::Single { prompt, response },
        _ => return Err("`prompt` goes with `first` and `second`, or with `response`".into()),
    };
    match verdict {
        Value::String(text) => Ok((case, text)),
        Value::Number(number) => Ok((case, number.to_string())),
        other => Err(format!("`verdict` is {other}, not a text or a number")),
    }
}

impl Judge for Stored {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "stored verdicts"
    }

    fn request(&self, question: &Question, _: &Template) -> Value {
        question_hash(question.system.as_deref(), &question.user).into()
    }

    fn ask(&self, question: &Question, _: &Template, _: Until<'_>) -> std::result::Result<Reply, Fault> {
        let hash = question_hash(question.system.as_deref(), &question.user);
        let said = self.by_question.get(&hash).or_else(|| self.by_case.get(&question.case));
        match said {
            Some(text) => Ok(Reply { raw: text.clone(), text: text.clone(), ..Reply::default() }),
            None => Err(Fault::Absent("no verdict on it is stored".into())),
        }
    }

    fn keeps(&self) -> bool {
        false
    }
}
