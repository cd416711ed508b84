//! `rpo evaluate`: models compared by their answers to the same prompts.

mod answers;
mod arguments;
mod judging;
mod likelihoods;
mod measure;
mod prompts;
mod report;
mod tables;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rpo::evaluate::evaluation::{self, Evaluated, Evaluation, Provenance};
use rpo::evaluate::preference::agreements;
use rpo::generate::Decoding;
use rpo::store::files::write_file;
use rpo::store::text_of;
use rpo::world::World;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use arguments::Arguments;

use crate::generate::Begun as Answers;
use crate::report::{command_line, print_table};
use crate::settings::today;
use crate::version::version;
use crate::world::{agree, once_any};
use answers::Answered;
use prompts::Prompts;

/// What an evaluation was begun with, in its directory.
const BEGUN: &str = "evaluate.json";

/// What decides whether an evaluation goes on or would mix what is not alike.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Begun {
    prompts_fingerprint: String,
    models: Vec<(String, String)>,
}

/// Runs the command, as one of the processes of `world`: all of them answer and ask judges that compute where they are asked; the first
/// measures, and asks the other judges.
pub fn run(arguments: &Arguments, world: &dyn World) -> Result<()> {
    arguments.check()?;
    let prompts = Prompts::read(arguments)?;
    answers::check(arguments, &prompts)?;
    measure::check(arguments, &prompts)?;
    agree(world, &[("program", version().into()), ("prompts", prompts.fingerprint.clone())])?;
    // The first rank's.
    let mut judges = None;
    once_any(world, || {
        let is_new = !arguments.out.exists();
        begin(arguments, &prompts)?;
        let found = judging::Judges::of(arguments);
        if found.is_err() && is_new {
            // Nothing was done yet, and the mended command is to begin where this one did.
            std::fs::remove_dir_all(&arguments.out).ok();
        }
        judges = Some(found?);
        Ok(())
    })?;
    let answered = answers::all(arguments, &prompts, world)?;
    judging::hear_together(arguments, &prompts, &answered, judges.as_mut(), world)?;
    once_any(world, || judges.map_or(Ok(()), |judges| report_on(arguments, &prompts, &answered, &judges)))
}

/// Measures the answers and lets judges compare them; the report is in `--out`.
fn report_on(arguments: &Arguments, prompts: &Prompts, answered: &[Answered], judges: &judging::Judges) -> Result<()> {
    let metrics = measure::all(arguments, prompts, answered)?;
    let heard = judges.hear(arguments.pairs, prompts, answered)?;
    let judgements: Vec<_> = heard.iter().map(|heard| heard.pairs.clone()).collect();
    let agreements = (judgements.len() > 1).then(|| {
        let judgements: Vec<&[_]> = judgements.iter().map(Vec::as_slice).collect();
        agreements(&judgements, 1)
    });
    let evaluation = Evaluation {
        models: answered.iter().map(evaluated).collect(),
        prompts: evaluation::Prompts {
            source: prompts.source.clone(),
            number: prompts.texts.len(),
            seeds: answered[0].entrant.draws.len(),
            fingerprint: Some(prompts.fingerprint.clone()),
        },
        decoding: decoding(answered),
        metrics: metrics.iter().map(measure::Metric::found).collect(),
        judges: heard.iter().map(|heard| heard.found(answered.len())).collect(),
        agreements,
        provenance: Provenance { version: version().into(), date: today().to_string(), command: command_line() },
    };
    let out = &arguments.out;
    evaluation.write(&out.join("evaluation.json"))?;
    tables::write_csv(&evaluation, out)?;
    let tables = tables::all(&evaluation);
    let markdown: String = tables.iter().map(tables::Table::markdown).collect();
    write_file(&out.join("evaluation.md"), format!("# Evaluation\n\n{markdown}").as_bytes())?;
    let page = out.join("report.html");
    let found = report::Found {
        evaluation: &evaluation,
        tables: &tables,
        prompts,
        answered,
        metrics: &metrics,
        judgements: &judgements,
    };
    found.write(&page)?;
    for table in &tables {
        println!("\n== {} ==", table.title);
        print_table(&table.heads(), &table.rows);
    }
    for judge in evaluation.judges.iter().filter(|judge| !judge.judged.verdict.is_sound()) {
        println!("\n\u{2020} {}: {}", judge.name, judge.judged.verdict.says());
    }
    println!("\nreport: {}\nfigures: {}", page.display(), out.join("evaluation.json").display());
    Ok(())
}

fn evaluated(answered: &Answered) -> Evaluated {
    Evaluated {
        name: answered.entrant.name.clone(),
        path: Some(answered.place.clone()),
        fingerprint: answered.fingerprint.clone(),
    }
}

/// How answers were made, otherwise than plainly: where all models agree, else by model.
fn decoding(answered: &[Answered]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for answered in answered {
        let Some(begun) = Answers::read(&answered.file).ok().flatten() else { continue };
        let settings = begun.decoding.differences(&Decoding::default());
        let settings = settings.into_iter().map(|(name, value)| (name, Value::String(value)));
        all.insert(answered.entrant.name.clone(), Value::Object(settings.collect()));
    }
    let first = all.values().next().cloned();
    match first {
        Some(Value::Object(fields)) if all.values().all(|other| Some(other) == first.as_ref()) => {
            fields.into_iter().collect()
        }
        _ => all,
    }
}

/// Makes the directory of an evaluation, or checks that the one that is there is of the same models and prompts.
fn begin(arguments: &Arguments, prompts: &Prompts) -> Result<()> {
    let path = arguments.out.join(BEGUN);
    let named = arguments.models.iter().chain(&arguments.answers);
    let mut now = Begun {
        prompts_fingerprint: prompts.fingerprint.clone(),
        models: named.map(|named| (named.name.clone(), named.place.clone())).collect(),
    };
    if path.exists() {
        let then = read(&path)?;
        if then.prompts_fingerprint != now.prompts_fingerprint {
            bail!("{}: it was begun with other prompts; choose another --out", arguments.out.display());
        }
        // More models may join; those that are there must stay what they were.
        for (name, place) in &then.models {
            match now.models.iter().find(|(n, _)| n == name) {
                Some((_, other)) if other != place => {
                    bail!(
                        "{}: {name} was {place} then and is {other} now; choose another --out",
                        arguments.out.display()
                    );
                }
                Some(_) => {}
                // Left out this time, its answers stay.
                None => now.models.push((name.clone(), place.clone())),
            }
        }
    }
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot write {}", arguments.out.display()))?;
    Ok(write_file(&path, serde_json::to_string_pretty(&now)?.as_bytes())?)
}

fn read(path: &Path) -> Result<Begun> {
    let text = text_of(path)?;
    serde_json::from_str(&text).with_context(|| format!("{}: not written by this version", path.display()))
}
