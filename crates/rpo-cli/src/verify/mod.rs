//! `rpo verify`: every objective on problems whose optimum is known exactly. Here is the flow: problems, learning rates,
//! runs, report.

mod charts;
mod found;
mod measure;
mod problem;
mod report;
mod search;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use rpo::evaluate::finite::Lengths;
use rpo::world::World;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::version::version;
use crate::world::{agree, once_any, together_any};
use crate::{place, progress};
use measure::{Measure, Run, Setting, Start};
use problem::{Condition, Entrant, choose, conditions, objectives};
use search::{Choice, FEWEST, walk};

/// See on exactly solvable problems how near each objective comes to the optimum: `rpo verify`
///
/// 36 prompts with 27 possible responses (39 where their lengths differ), so that the best policy for a reward under a KL
/// penalty is a sum. Every objective starts from the same model with the same budget; each chooses its learning rate under
/// each condition, on a problem of its own. The distance to the optimum is the KL from the policy, conditioned on the
/// possible responses, plus the surprise of having to condition: -ln of the probability that it gives to them. Writes a
/// report and all figures as JSON. Processes that mpirun or srun starts together share the runs.
#[derive(clap::Args)]
pub struct Arguments {
    /// New directory for the report
    #[arg(long, value_name = "DIR", default_value = "runs/verify")]
    out: PathBuf,
    /// Problems, each with its own rewards, start and draws; intervals are over these
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Optimizer steps of 32 responses for every objective; the start is made by half as many again
    #[arg(long, default_value_t = 400)]
    steps: usize,
    /// Only these conditions, by the names of the report's columns, as in `--only "4,tau 0.1"` [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CONDITIONS")]
    only: Vec<String>,
    /// Only these objectives, by the names of the report's rows, as in `--objectives "dro,rpo sampled"` [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    objectives: Vec<String>,
}

/// The seed of the problems on which learning rates are chosen; the others count from 1.
const TUNING_SEED: u64 = 1000;

/// An objective under a condition.
struct Cell {
    entrant: Entrant,
    condition: Condition,
}

/// What the search for a cell's learning rate found.
#[derive(Serialize, Deserialize)]
struct Tuned {
    choice: Choice,
    /// The last run; where all rates failed, it says why.
    last: Option<Run>,
}

/// The runs of one objective under one condition.
#[derive(Serialize)]
struct Outcome {
    objective: &'static str,
    condition: &'static str,
    /// `None` where the objective is not defined on the data or diverges at every rate.
    learning_rate: Option<f64>,
    /// Whether the grid of learning rates ends at the chosen one.
    at_edge: bool,
    /// Rates that were tried on the tuning problem with their distance at the end; `null` for a run without end.
    tried: Vec<(f64, Option<f64>)>,
    /// By problem; the last run on the tuning problem where no learning rate came to its end.
    runs: Vec<Run>,
}

/// Runs the command.
pub fn run(arguments: &Arguments, world: &dyn World) -> Result<()> {
    let Arguments { out, seeds, steps, only, objectives: named } = arguments;
    once_any(world, || match out.exists() {
        true => bail!("{} already exists; remove it or choose another place with --out", out.display()),
        false => Ok(()),
    })?;
    if *seeds < 2 {
        bail!("--seeds {seeds}: an interval needs at least two");
    }
    if *steps == 0 {
        bail!("--steps 0: nothing would be learned");
    }
    let conditions = choose("--only", "condition", conditions(), |c| c.label, only)?;
    let cells = cells(&conditions, named)?;
    let asked = format!("{seeds} seeds, {steps} steps, only {only:?}, objectives {named:?}");
    agree(world, &[("program", version().into()), ("arguments", asked)])?;
    let settings = settings(world, &conditions, *seeds, *steps)?;
    let tuned = in_parallel(world, ("learning rates", FEWEST), &cells, |cell, bar| {
        choose_rate(cell, tuning(&settings, cell)?, *steps, bar)
    })?;
    let outcomes = outcomes(world, &cells, tuned, &settings, *steps)?;
    once_any(world, || report::write(out, *seeds, *steps, &conditions, &settings, &outcomes))
}

/// The objectives of these names, or all, under each condition in which they take part.
fn cells(conditions: &[Condition], names: &[String]) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for condition in conditions {
        let entrants = choose("--objectives", "objective", objectives(condition.tau), |e| e.name, names)?;
        let taking_part = entrants.into_iter().filter(|e| e.takes_part(condition));
        cells.extend(taking_part.map(|entrant| Cell { entrant, condition: *condition }));
    }
    if cells.is_empty() {
        bail!("--objectives: means of log-probabilities take part only under `lengths`, which --only leaves out");
    }
    Ok(cells)
}

/// The problems that these conditions need, with their starts.
fn settings(world: &dyn World, conditions: &[Condition], seeds: u64, steps: usize) -> Result<Vec<Setting>> {
    let wanted = [Lengths::Equal, Lengths::Unequal].into_iter().filter(|l| conditions.iter().any(|c| c.lengths == *l));
    let wanted: Vec<(Lengths, u64)> =
        wanted.flat_map(|l| (1..=seeds).chain([TUNING_SEED]).map(move |seed| (l, seed))).collect();
    let starts = in_parallel(world, ("problems", 1), &wanted, |(lengths, seed), bar| {
        let start = Start::new(*lengths, *seed, steps * 3 / 2);
        bar.inc(1);
        start
    })?;
    wanted.iter().zip(&starts).map(|((lengths, seed), start)| Setting::new(*lengths, *seed, start)).collect()
}

/// The problems on which this condition is judged.
fn judged<'a>(settings: &'a [Setting], condition: &Condition) -> impl Iterator<Item = &'a Setting> + use<'a> {
    let lengths = condition.lengths;
    settings.iter().filter(move |s| s.lengths == lengths && s.seed != TUNING_SEED)
}

/// The problem on which an objective chooses its learning rate.
fn tuning<'a>(settings: &'a [Setting], cell: &Cell) -> Result<&'a Setting> {
    let found = settings.iter().find(|s| s.lengths == cell.condition.lengths && s.seed == TUNING_SEED);
    found.ok_or_else(|| anyhow::anyhow!("no problem to choose a learning rate on for `{}`", cell.condition.label))
}

/// The learning rate by the distance to the optimum at the end. How many runs it takes is known only
/// afterwards: those beyond the fewest are added to the bar as they come.
fn choose_rate(cell: &Cell, setting: &Setting, steps: usize, bar: &ProgressBar) -> Result<Tuned> {
    let (mut last, mut tried) = (None, 0);
    let choice = walk(|rate| {
        tried += 1;
        if tried > FEWEST {
            bar.inc_length(1);
        }
        let run = setting.train(&cell.entrant.objective, &cell.condition, steps, rate, steps)?;
        bar.inc(1);
        let distance = run.end().map_or(f64::INFINITY, |m| m.distance);
        last = Some(run);
        anyhow::Ok(distance)
    })?;
    Ok(Tuned { choice, last })
}

/// Trains every objective at its rate on all the problems.
fn outcomes(
    world: &dyn World,
    cells: &[Cell],
    tuned: Vec<Tuned>,
    settings: &[Setting],
    steps: usize,
) -> Result<Vec<Outcome>> {
    let mut due = Vec::new();
    for (i, (cell, Tuned { choice, .. })) in cells.iter().zip(&tuned).enumerate() {
        if choice.distance.is_finite() {
            due.extend(judged(settings, &cell.condition).map(|setting| (i, setting, choice.rate)));
        }
    }
    let runs = in_parallel(world, ("runs", 1), &due, |&(i, setting, rate), bar| {
        let Cell { entrant, condition } = &cells[i];
        let run = setting.train(&entrant.objective, condition, steps, rate, steps.div_ceil(10));
        bar.inc(1);
        run
    })?;
    let mut by_cell: Vec<Vec<Run>> = cells.iter().map(|_| Vec::new()).collect();
    due.iter().zip(runs).for_each(|((i, ..), run)| by_cell[*i].push(run));
    Ok(cells.iter().zip(tuned).zip(by_cell).map(|((cell, tuned), runs)| Outcome::new(cell, tuned, runs)).collect())
}

impl Outcome {
    fn new(cell: &Cell, tuned: Tuned, runs: Vec<Run>) -> Self {
        let Tuned { choice, last } = tuned;
        let worked = choice.distance.is_finite();
        Self {
            objective: cell.entrant.name,
            condition: cell.condition.label,
            learning_rate: worked.then_some(choice.rate),
            at_edge: choice.at_edge,
            tried: choice.tried.into_iter().map(|(rate, d)| (rate, d.is_finite().then_some(d))).collect(),
            runs: if worked { runs } else { last.into_iter().collect() },
        }
    }
}

/// Applies `work` to each of `items`: every rank of `world` to every n-th, on as many threads as there are processors. Results come in
/// the items' order, on all ranks. A bar over so many things an item is `called` so.
fn in_parallel<T: Sync, R: Send + Serialize + DeserializeOwned>(
    world: &dyn World,
    (called, each): (&'static str, usize),
    items: &[T],
    work: impl Fn(&T, &ProgressBar) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let own: Vec<&T> = items.iter().skip(world.rank()).step_by(world.size()).collect();
    let bar = progress::bar(called, own.len() * each);
    let done = on_threads(&own, |item| work(item, &bar));
    bar.finish_and_clear();
    let mut by_rank: Vec<_> = together_any(world, done)?.into_iter().map(Vec::into_iter).collect();
    let ranks = by_rank.len();
    Ok((0..items.len()).filter_map(|i| by_rank[i % ranks].next()).collect())
}

/// Applies `work` to each of `items` on as many threads as there are processors; results come in the items' order.
fn on_threads<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<R>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..place::threads() {
            scope.spawn(|| {
                while let Some((i, item)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    items.get(i).map(|item| (i, item))
                } {
                    let result = work(item);
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}
