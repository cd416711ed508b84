//! `rpo compare`: objectives trained from one start on one data set with equal budgets, and judged alike.

mod arena;
mod arguments;
mod figures;
mod ranks;
mod record;
mod report;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rpo::generate::Decoding;
use rpo::stop::Stop;
use rpo::world::World;

pub use arguments::Arguments;

use crate::interrupt;
use crate::judge::{Judge, ask};
use crate::settings::Settings;
use crate::version::version;
use crate::world::{agree, once_any, together_any};
use arena::Arena;

/// What is compared.
pub struct Comparison {
    /// Heads the report.
    pub title: String,
    /// Introduces it.
    pub introduction: String,
    /// Where report and runs go.
    pub out: PathBuf,
    /// What each objective may do, under its label: one candidate, or several of which it keeps the best.
    pub contestants: Vec<(String, Vec<Candidate>)>,
    /// How answers are made for the judge. Of `k` runs, run `i` draws its answers with this seed plus `i`, and so does the
    /// start, which draws `k` times too.
    pub decoding: Decoding,
    /// Who rates the answers, in words.
    pub judged_by: Option<String>,
    /// Seconds that a program may take to rate a model's answers.
    pub judge_timeout: Option<f64>,
    /// The best reward that there is, if it is known.
    pub best_reward: Option<f64>,
    /// Go on with what is in `out`.
    pub resume: bool,
}

/// The settings of an objective's runs, one for each seed; as many for every candidate of every objective.
pub type Candidate = Vec<Settings>;

/// Runs the command.
pub fn run(arguments: Arguments, world: &dyn World) -> Result<()> {
    let comparison = arguments::resolve(arguments)?;
    let timeout = comparison.judge_timeout;
    let judge =
        comparison.judged_by.as_ref().map(|command| move |answers: &[(String, String)]| ask(command, answers, timeout));
    comparison.run(judge.as_ref().map(|j| j as &Judge<'_>), world, interrupt::stop())
}

impl Comparison {
    /// Trains and judges everything; the report is in `out`.
    ///
    /// # Errors
    /// If a setting is impossible, something is in the way in `out` or, to be gone on with, does not fit; if training or the
    /// judge fails, or `stop` is raised.
    pub fn run(&self, judge: Option<&Judge<'_>>, world: &dyn World, stop: &Stop) -> Result<()> {
        once_any(world, || self.check())?;
        let arena = Arena::open(self, judge, stop)?;
        agree(world, &[("program", version().into()), ("data", arena.split.fingerprint())])?;
        let start = once_any(world, || arena.start())?;
        if world.size() > 1 {
            // Runs know nothing of each other: each rank makes every `n`-th, in a directory that all see. One that is done hears signals
            // as one that saves, since its end would be that of all.
            let _saving = interrupt::saving();
            let own = arena.runs().enumerate().filter(|(i, _)| i % world.size() == world.rank());
            let made = own
                .map(|(_, run)| run)
                .try_for_each(|(label, settings, i)| arena.judged_run(label, settings, i, &start).map(drop));
            together_any(world, made)?;
        }
        once_any(world, || {
            let mut verdicts = vec![arena.verdict_on_start(&start)];
            for (label, candidates) in &arena.contestants {
                verdicts.push(arena.best(label, candidates, &start)?);
            }
            report::write(self, &arena, &start, &verdicts)
        })
    }

    /// The settings of all runs.
    fn all(&self) -> impl Iterator<Item = &Settings> {
        self.contestants.iter().flat_map(|(_, candidates)| candidates.iter().flatten())
    }

    /// Runs of a candidate.
    fn draws(&self) -> usize {
        self.contestants.first().and_then(|(_, candidates)| candidates.first()).map_or(0, Vec::len)
    }

    /// What can be told to be wrong before anything is read.
    fn check(&self) -> Result<()> {
        for settings in self.all() {
            settings.objective.build().with_context(|| settings.out.display().to_string())?;
        }
        let alike = self.contestants.iter().flat_map(|(_, candidates)| candidates).all(|c| c.len() == self.draws());
        if self.draws() == 0 || !alike {
            bail!("every objective needs as many runs as the others, and at least one");
        }
        let begun = self.out.join(record::START).exists();
        if self.resume && !begun {
            bail!("{}: no comparison was begun there; leave out --resume to begin one", self.out.display());
        }
        if !self.resume && begun {
            bail!(
                "{} already exists and holds a comparison: go on with it by --resume, or choose another --out",
                self.out.display()
            );
        }
        if !self.resume && (self.out.join("report.html").exists() || self.all().any(|s| s.out.exists())) {
            return Err(rpo::Error::Exists { path: self.out.clone() }.into());
        }
        Ok(())
    }
}
