//! Each model's answers: made here, or read from a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::evaluate::Entrant;
use rpo::feedback::{Source, read_outputs};
use rpo::model::checkpoint::Checkpoint;
use rpo::world::World;

use super::arguments::{Arguments, Named};
use super::prompts::Prompts;
use crate::generate::{self, Begun, OutputFlags};
use crate::world::once_any;

/// A model with its answers.
pub struct Answered {
    /// They.
    pub entrant: Entrant,
    /// Directory, hub id or file, as given.
    pub place: String,
    /// Where the answers are.
    pub file: PathBuf,
    /// Hash of the weights, where it is known.
    pub fingerprint: Option<String>,
}

/// Checks, before any model answers, that all models and files of answers are there, and that the files answer the prompts.
pub fn check(arguments: &Arguments, prompts: &Prompts) -> Result<()> {
    for named in &arguments.models {
        Checkpoint::find(&named.place).with_context(|| format!("--model {}", named.name))?;
    }
    arguments.answers.iter().try_for_each(|named| read(named, PathBuf::from(&named.place), prompts).map(drop))
}

/// Lets every model answer that has not, and reads all answers: equally many to each prompt by each model; of the baseline first.
pub fn all(arguments: &Arguments, prompts: &Prompts, world: &dyn World) -> Result<Vec<Answered>> {
    let dir = arguments.out.join("answers");
    let questions = arguments.out.join("prompts.jsonl");
    once_any(world, || {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot write {}", dir.display()))?;
        if arguments.models.is_empty() { Ok(()) } else { prompts.write(&questions) }
    })?;
    let mut all = Vec::new();
    for named in &arguments.models {
        let file = dir.join(format!("{}.jsonl", named.name));
        tracing::info!("answers of {}", named.name);
        generate::run(&asked(arguments, named, &questions, &file), world).with_context(|| named.name.clone())?;
        all.push(read(named, file, prompts)?);
    }
    for named in &arguments.answers {
        all.push(read(named, PathBuf::from(&named.place), prompts)?);
    }
    let draws = |answered: &Answered| answered.entrant.draws.len();
    let fewest = all.iter().map(draws).min().unwrap_or(0);
    for answered in &mut all {
        let own = draws(answered);
        if own > fewest {
            let name = &answered.entrant.name;
            tracing::warn!(
                "{name}: the first {fewest} of its {own} answers to each prompt are used, as many as all models have"
            );
            answered.entrant.draws.truncate(fewest);
        }
    }
    // What is said of two models is said as the first has it.
    all[..=arguments.baseline()?].rotate_right(1);
    match fewest {
        0 => bail!("no model to evaluate"),
        _ => Ok(all),
    }
}

fn read(named: &Named, file: PathBuf, prompts: &Prompts) -> Result<Answered> {
    let given = read_outputs(&Source::from(vec![file.display().to_string()]), None, None)?;
    let entrant = Entrant::of(&named.name, given, &prompts.texts).with_context(|| file.display().to_string())?;
    if entrant.surplus > 0 {
        let (name, n, draws) = (&entrant.name, entrant.surplus, entrant.draws.len());
        tracing::warn!("{name}: {n} of its answers are left aside, since some prompt has {draws} alone");
    }
    let fingerprint = Begun::read(&file).ok().flatten().map(|begun| begun.model_fingerprint);
    Ok(Answered { entrant, place: named.place.clone(), file, fingerprint })
}

/// How `rpo generate` is asked for a model's answers.
fn asked(arguments: &Arguments, named: &Named, questions: &Path, file: &Path) -> generate::Arguments {
    generate::Arguments {
        model: named.place.clone(),
        prompts: Vec::new(),
        input: Some(vec![questions.display().to_string()]),
        prompt_column: "prompt".into(),
        id_column: None,
        format: None,
        talk: false,
        system: None,
        strict: false,
        // In order, since the number of a draw is its place among the answers to a prompt.
        out: OutputFlags { output: Some(file.into()), resume: true, json: false, in_order: true, shard: None },
        how: arguments.how.clone(),
    }
}
