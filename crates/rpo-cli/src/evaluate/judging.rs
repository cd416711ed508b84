//! Judges: every pair of answers in both orders, by each judge that is named.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, bail};
use rpo::evaluate::evaluation::JudgeFound;
use rpo::evaluate::judge::{Judged, Kind, Pairwise, pairwise, questions};
use rpo::evaluate::preference::judged;
use rpo::world::World;

use super::answers::Answered;
use super::arguments::{Arguments, Pairs};
use super::prompts::Prompts;
use crate::interrupt;
use crate::judge::{self, Seat};

/// Judges, ready to be asked.
pub struct Judges(Vec<Seat>);

/// What a judge said.
pub struct Heard {
    /// Short, for tables.
    name: String,
    /// What it is and where.
    kind: String,
    template: String,
    /// By prompt, draw and models.
    pub pairs: Vec<Pairwise>,
    /// Pairs that lack a reply.
    incomplete: usize,
}

impl Judges {
    /// Those that the arguments name; their replies are kept in --out.
    pub fn of(arguments: &Arguments) -> Result<Self> {
        if !arguments.judges.given() {
            return Ok(Self(Vec::new()));
        }
        if arguments.names().len() < 2 {
            bail!("judges compare two models at least, and there is one; name another (--model, --outputs)");
        }
        let seats = arguments.judges.seats(Kind::Pairwise, &store(arguments))?;
        let names: BTreeSet<&str> = seats.iter().map(|seat| seat.judge.name()).collect();
        if names.len() < seats.len() {
            bail!("two judges are the same; name each once");
        }
        Ok(Self(seats))
    }

    /// Has all pairs judged; the baseline is the first model.
    pub fn hear(&self, pairs: Pairs, prompts: &Prompts, answered: &[Answered]) -> Result<Vec<Heard>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let (answers, wanted) = compared(pairs, answered);
        let names: Vec<&str> = self.0.iter().map(|seat| seat.judge.name()).collect();
        let heard = self.0.iter().map(|seat| hear(seat, short(seat.judge.name(), &names), prompts, &answers, &wanted));
        heard.collect()
    }
}

/// Lets all ranks of `world` ask judges that compute where they are asked; the first has the `judges`.
pub fn hear_together(
    arguments: &Arguments,
    prompts: &Prompts,
    answered: &[Answered],
    judges: Option<&mut Judges>,
    world: &dyn World,
) -> Result<()> {
    if !arguments.judges.given() {
        return Ok(());
    }
    let hear = |seat: &Seat| {
        let (answers, wanted) = compared(arguments.pairs, answered);
        Ok(ask(seat, prompts, &answers, &wanted)?.tally)
    };
    let seats = judges.map(|judges| &mut judges.0[..]);
    judge::hear_together(world, &arguments.judges, (Kind::Pairwise, &store(arguments)), seats, &hear)
}

/// Where replies are kept.
fn store(arguments: &Arguments) -> PathBuf {
    arguments.out.join("judgements.jsonl")
}

/// The answers by model, draw and prompt, and which models are compared.
fn compared(pairs: Pairs, answered: &[Answered]) -> (Vec<Vec<Vec<String>>>, Vec<[usize; 2]>) {
    let answers: Vec<Vec<Vec<String>>> = answered.iter().map(|model| model.entrant.draws.clone()).collect();
    let all = (0..answers.len()).flat_map(|b| (0..b).map(move |a| [a, b]));
    let mut wanted: Vec<[usize; 2]> = all.filter(|two| pairs == Pairs::All || two.contains(&0)).collect();
    wanted.sort_unstable();
    (answers, wanted)
}

/// A judge's name without its address, unless two would be called alike then.
fn short<'a>(name: &'a str, all: &[&str]) -> &'a str {
    fn model(name: &str) -> &str {
        name.split_once(" at http").map_or(name, |(model, _)| model).trim_matches('`')
    }
    match all.iter().filter(|other| model(other) == model(name)).count() {
        1 => model(name),
        _ => name,
    }
}

fn hear(
    seat: &Seat,
    name: &str,
    prompts: &Prompts,
    answers: &[Vec<Vec<String>>],
    pairs: &[[usize; 2]],
) -> Result<Heard> {
    tracing::info!("{name}: {} questions, every pair in both orders", questions(answers, pairs));
    let found = ask(seat, prompts, answers, pairs).map_err(|problem| seat.ended(&problem))?;
    seat.summary(&found.tally).iter().for_each(|said| tracing::info!("{name}: {said}"));
    seat.warnings(&found.tally).iter().for_each(|said| tracing::warn!("{name}: {said}"));
    if found.incomplete > 0 {
        tracing::warn!("{name}: {} pairs lack a reply and count nowhere", found.incomplete);
    }
    let (kind, whole) = (seat.judge.kind(), seat.judge.name());
    let kind = if whole == name { kind.to_string() } else { format!("{kind}, {whole}") };
    Ok(Heard {
        name: name.into(),
        kind,
        template: seat.template.name.clone(),
        pairs: found.pairs,
        incomplete: found.incomplete,
    })
}

/// Asks a judge its part of the questions.
fn ask(seat: &Seat, prompts: &Prompts, answers: &[Vec<Vec<String>>], pairs: &[[usize; 2]]) -> rpo::Result<Judged> {
    // What comes is kept at once; a call under way may end before the program does.
    let saving = interrupt::saving();
    let (bar, show) = seat.bar(questions(answers, pairs));
    let found = pairwise(&seat.court(), &prompts.texts, answers, pairs, &mut |tally| show(tally));
    bar.finish_and_clear();
    drop(saving);
    found
}

impl Heard {
    /// What its judgements of so many models say.
    pub fn found(&self, models: usize) -> JudgeFound {
        JudgeFound {
            name: self.name.clone(),
            kind: self.kind.clone(),
            template: self.template.clone(),
            incomplete: self.incomplete,
            judged: judged(&self.pairs, models, 1),
        }
    }
}
