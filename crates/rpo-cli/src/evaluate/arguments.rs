//! The arguments of `rpo evaluate`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::generate::AnsweringFlags;
use crate::judge::JudgeFlags;

/// Compare models by their answers to the same prompts: `rpo evaluate --model start=DIR --model rpo=DIR --prompts FILE --out DIR`
///
/// Lets each model answer (or reads the answers that anybody's files hold), measures the answers by automatic metrics, has them
/// judged in pairs and both orders, and leaves tables with intervals: evaluation.json (for `rpo card`), metrics.csv, wins.csv,
/// evaluation.md and report.html, which needs no network. answers/NAME.jsonl has what each model said. Nothing is trained.
///
/// What was answered or judged is kept: the same command with --resume goes on where it was stopped, and asks no judge a
/// question twice.
#[derive(clap::Args)]
#[command(mut_arg("preset", |arg| arg.default_value("published")), after_help = "\
Examples:
  rpo evaluate --model start=google/flan-t5-small --model rpo=runs/rpo/best --prompts held_out.jsonl --out eval
  rpo evaluate --model sft/best --model rpo/best --prompts data.jsonl --references data.jsonl --metrics bleu,rouge-l --out eval
  rpo evaluate --outputs a=a.jsonl --outputs b=b.jsonl --judge-url http://localhost:8000/v1 --judge-model mistral --out eval")]
pub struct Arguments {
    /// A model to answer: directory or hub id, after NAME= if it is to be called so (may be repeated)
    #[arg(long = "model", value_name = "[NAME=]DIR|ID", required_unless_present = "output_files")]
    pub models: Vec<Named>,
    /// Answers that are there already, one a record with the text of its prompt (may be repeated)
    #[arg(long = "outputs", id = "output_files", value_name = "[NAME=]FILE")]
    pub answers: Vec<Named>,
    /// Prompts: one a line, or a column of any file that `rpo generate --input` reads; equal ones count once [default: those of
    /// the first --outputs]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub prompts: Option<Vec<String>>,
    /// Column of the prompts
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    pub prompt_column: String,
    /// What good answers are: rated or unrated responses to the prompts, of the rated ones those with the highest reward
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub references: Option<Vec<String>>,
    /// The first so many prompts alone
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// New directory for everything
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on with what is in --out
    #[arg(long)]
    pub resume: bool,
    /// The model whose wins are shown first and that the others' metrics are compared with [default: the first]
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    #[command(flatten)]
    pub metrics: MetricFlags,
    #[command(flatten)]
    pub judges: JudgeFlags,
    /// Which models are judged in pairs
    #[arg(long, help_heading = "Judges", value_enum, default_value_t = Pairs::All)]
    pub pairs: Pairs,
    #[command(flatten)]
    pub how: AnsweringFlags,
}

/// What is measured without asking anybody.
#[derive(clap::Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricFlags {
    /// Metrics by name, such as bleu,chrf++,rouge-l,meteor,distinct-2,length-words; an unknown name lists them all [default:
    /// length-words,distinct-2,self-repetition-4, and with --references bleu,chrf,rouge-1,rouge-2,rouge-l]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub metrics: Option<Vec<String>>,
    /// Directory of WordNet's dictionary, for meteor [default: where Debian's wordnet-base has it]
    #[arg(long, value_name = "DIR")]
    pub wordnet: Option<PathBuf>,
    /// Linear model over words, for abusive-words
    #[arg(long, value_name = "FILE")]
    pub abusive_words: Option<PathBuf>,
    /// Directory of the model whose tokens length-tokens counts
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// BERTScore by this encoder (BERT or RoBERTa): directory or hub id
    #[arg(long, value_name = "DIR|ID")]
    pub bertscore: Option<String>,
    /// After which of its layers tokens are compared [default: the one that bert-score knows as the best]
    #[arg(long, value_name = "N", requires = "bertscore")]
    pub bertscore_layer: Option<usize>,
    /// Weigh tokens by how rare they are among the references
    #[arg(long, requires = "bertscore")]
    pub bertscore_idf: bool,
    /// Rescale by bert-score's file of baselines for this encoder
    #[arg(long, value_name = "FILE", requires = "bertscore")]
    pub bertscore_baseline: Option<PathBuf>,
    /// Toxicity by this classifier, such as s-nlp/roberta_toxicity_classifier: directory or hub id
    #[arg(long, value_name = "DIR|ID")]
    pub toxicity: Option<String>,
    /// Which of its labels is toxic [default: the one called so]
    #[arg(long, value_name = "NAME", requires = "toxicity")]
    pub toxicity_label: Option<String>,
    /// How far each --model has moved from this one, on its own answers: mean log-ratio, which for plain sampling estimates
    /// KL(model || reference)
    #[arg(long, value_name = "DIR|ID")]
    pub reference_model: Option<String>,
    /// Rated responses: rank correlation of each --model's log-ratio to --reference-model with the reward
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "reference_model")]
    pub rated: Option<Vec<String>>,
}

/// Which models are judged in pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pairs {
    /// Every two
    All,
    /// Each with the baseline
    Baseline,
}

/// A place under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called in tables.
    pub name: String,
    /// Directory, hub id or file.
    pub place: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) => (name.trim().to_string(), place),
            None => (usual_name(text), text),
        };
        let unfit = |c: char| c == '/' || c == '\\' || c.is_control();
        match () {
            () if place.is_empty() => Err("there is nothing behind the =".into()),
            () if name.is_empty() || name.len() > 100 || name.starts_with('.') || name.contains(unfit) => {
                Err(format!("`{name}` is no name for a column and a file; write NAME=PLACE with a plain name"))
            }
            () => Ok(Self { name, place: place.into() }),
        }
    }
}

/// A run's name for its best/, else the last part of a place.
fn usual_name(place: &str) -> String {
    let path = Path::new(place);
    let part = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    match part(path).as_deref() {
        Some("best" | "last") => path.parent().and_then(part),
        name => name.map(str::to_string),
    }
    .unwrap_or_default()
}

impl Arguments {
    /// All names, of models first.
    pub fn names(&self) -> Vec<&str> {
        self.models.iter().chain(&self.answers).map(|named| named.name.as_str()).collect()
    }

    /// The number of the baseline.
    pub fn baseline(&self) -> Result<usize> {
        let Some(wanted) = &self.baseline else { return Ok(0) };
        match self.names().iter().position(|name| name == wanted) {
            Some(number) => Ok(number),
            None => bail!("--baseline {wanted}: there are {}", self.names().join(", ")),
        }
    }

    /// Checks what can be checked before anything is read.
    pub fn check(&self) -> Result<()> {
        let names = self.names();
        if let Some((i, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            let which = if i < self.models.len() { "--model" } else { "--outputs" };
            bail!("{which} {name}: two are called so; name them apart (NAME=PLACE)");
        }
        if self.prompts.is_none() && self.answers.is_empty() {
            bail!("--prompts: models need prompts to answer; name a file of them");
        }
        if self.limit == Some(0) {
            bail!("--limit 0: at least one prompt is needed");
        }
        if self.metrics.reference_model.is_some() && self.models.is_empty() {
            bail!("--reference-model: answers of files have no log-probabilities; name models (--model)");
        }
        self.baseline()?;
        let begun = self.out.join(super::BEGUN);
        match (self.resume, begun.exists(), self.out.exists()) {
            (true, false, true) => bail!("{}: no evaluation was begun there", self.out.display()),
            (false, true, _) => {
                bail!("{} holds an evaluation: go on with it by --resume, or choose another --out", self.out.display())
            }
            (false, false, true) => Err(rpo::Error::Exists { path: self.out.clone() }.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_called_as_they_are_said_to_be_or_as_runs_are() {
        let named = |text: &str| text.parse::<Named>().map(|named| (named.name, named.place));
        let pair = |name: &str, place: &str| Ok((name.to_string(), place.to_string()));
        assert_eq!(named("rpo=runs/a/best"), pair("rpo", "runs/a/best"));
        assert_eq!(named("runs/a/best"), pair("a", "runs/a/best"));
        assert_eq!(named("google/flan-t5-small"), pair("flan-t5-small", "google/flan-t5-small"));
        assert_eq!(named("answers/gpt.jsonl"), pair("gpt", "answers/gpt.jsonl"));
        for wrong in ["a=", "=b", "a/b=c", "..=x"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
