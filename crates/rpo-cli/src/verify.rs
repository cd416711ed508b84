//! `rpo verify`: every objective on a problem whose optimum is known exactly.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use rpo::burn::module::Module;
use rpo::burn::tensor::Device;
use rpo::feedback::Split;
use rpo::finite::{FiniteProblem, Responses, Table};
use rpo::objective::{
    DroConfig, GroupCentredConfig, KtoConfig, ObjectiveConfig, Partition, QrpoConfig, RpoConfig, SftConfig, SftRows,
    Transform,
};
use rpo::optim::OptimizerConfig;
use rpo::score::LogProb;
use rpo::statistics::{Interval, geometric_interval, mean_interval};
use rpo::t5::{RandomWeights, T5};
use rpo::train::{Event, Observer, TrainConfig, fit};
use serde::Serialize;

use crate::progress;
use crate::report::{Axes, Column, Page, Series, print_table, show};

/// See on an exactly solvable problem how near each objective comes to the optimum: `rpo verify`
///
/// 36 prompts with 27 possible responses, so that the best policy for a reward under a KL penalty is a sum. Every objective
/// starts from the same model with the same budget; learning rates are chosen for each from the same few, on a problem of
/// their own. Writes a report and all figures as JSON.
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
}

/// The learning rates that each objective may choose from.
const LEARNING_RATES: [f64; 4] = [3e-4, 1e-3, 3e-3, 1e-2];
/// The seed of the problem on which they choose under each condition; the others count from 1.
const TUNING_SEED: u64 = 1000;

/// What the objectives are given.
#[derive(Clone, Debug)]
struct Condition {
    label: &'static str,
    tau: f64,
    responses: Responses,
    noise: f64,
}

/// The condition that the others vary.
const BASE: Condition = Condition { label: "4", tau: 1.0, responses: Responses::Each(4), noise: 0.0 };

fn conditions() -> Vec<Condition> {
    let each = |label, n| Condition { label, responses: Responses::Each(n), ..BASE };
    vec![
        each("1", 1),
        each("2", 2),
        BASE,
        each("8", 8),
        Condition { label: "unequal", responses: Responses::Unequal(4), ..BASE },
        Condition { label: "all", responses: Responses::All, ..BASE },
        Condition { label: "noisy", noise: 1.0, ..BASE },
        Condition { label: "tau 0.1", tau: 0.1, ..BASE },
        Condition { label: "tau 0.3", tau: 0.3, ..BASE },
        Condition { label: "tau 5", tau: 5.0, ..BASE },
    ]
}

/// The objectives at this temperature, on sums of log-probabilities and rewards as they are.
fn objectives(tau: f64) -> Vec<(&'static str, ObjectiveConfig)> {
    let (log_prob, standardize_rewards) = (LogProb::Sum, false);
    let rpo = |partition| {
        ObjectiveConfig::Rpo(RpoConfig { tau, log_prob, partition, standardize_rewards, ..RpoConfig::default() })
    };
    let qrpo = QrpoConfig { beta: tau, log_prob, transform: Transform::Normal, ..QrpoConfig::default() };
    vec![
        ("sft best", ObjectiveConfig::Sft(SftConfig { rows: SftRows::Best, log_prob })),
        ("rpo sum", rpo(Partition::Sum)),
        ("rpo mean", rpo(Partition::Mean)),
        ("rpo sampled", rpo(Partition::Sampled)),
        ("rpo batch-mean", rpo(Partition::BatchMean)),
        ("dro", ObjectiveConfig::Dro(DroConfig { tau, log_prob, standardize_rewards, ..DroConfig::default() })),
        ("kto", ObjectiveConfig::Kto(KtoConfig { beta: tau, log_prob, ..KtoConfig::default() })),
        ("qrpo normal", ObjectiveConfig::Qrpo(qrpo)),
        ("group-centred", ObjectiveConfig::GroupCentred(GroupCentredConfig { tau, log_prob, standardize_rewards })),
    ]
}

/// A policy measured exactly.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measure {
    /// `KL(pi || pi*)`: what it misses of the optimum, in units of tau.
    kl_to_optimum: f64,
    /// `KL(pi || pi_ref)`.
    kl_to_reference: f64,
    /// Expected reward.
    reward: f64,
    /// Share of the model's probability on the responses of the problem.
    mass: f64,
}

/// A problem with the model that everything starts from.
struct Setting {
    problem: FiniteProblem,
    start: T5,
    reference: Table,
    seed: u64,
}

impl Setting {
    /// A start that imitates the problem's crowd.
    fn new(seed: u64, steps: usize) -> Result<Self> {
        let problem = FiniteProblem::new(seed);
        let device = Device::flex().autodiff();
        let fresh = T5::new(&FiniteProblem::config(), &mut RandomWeights::new(seed), &device)?;
        let data = Split { train: problem.behaviour(40, seed), ..Split::default() };
        let start =
            fit(&ObjectiveConfig::Sft(SftConfig::default()), &fresh, data, &budget(steps, 3e-3, seed), &mut [])?;
        let (reference, _) = problem.table(&start.valid());
        Ok(Self { problem, start, reference, seed })
    }

    fn measure(&self, policy: &T5, tau: f64) -> Measure {
        let (table, mass) = self.problem.table(policy);
        Measure {
            kl_to_optimum: table.kl(&self.problem.optimum(&self.reference, tau)),
            kl_to_reference: table.kl(&self.reference),
            reward: self.problem.expected_reward(&table),
            mass,
        }
    }

    /// Trains by one objective as `config` says; measures before it and wherever validation is due.
    fn train(&self, objective: &ObjectiveConfig, condition: &Condition, config: &TrainConfig) -> Result<Vec<Measure>> {
        let train = self.problem.feedback(&self.reference, condition.responses, condition.noise, self.seed);
        let data = Split { train, ..Split::default() };
        let mut path = Path { setting: self, tau: condition.tau, measures: Vec::new() };
        match fit(objective, &self.start, data, config, &mut [&mut path]) {
            // Too large a learning rate, or an objective that is not defined on single responses.
            Err(rpo::Error::Step { .. } | rpo::Error::Data(_)) => Ok(Vec::new()),
            result => result.map(|_| path.measures).map_err(anyhow::Error::from),
        }
    }
}

fn budget(steps: usize, learning_rate: f64, seed: u64) -> TrainConfig {
    let optimizer = OptimizerConfig { learning_rate, weight_decay: 0.0, ..OptimizerConfig::default() };
    TrainConfig { max_steps: Some(steps), batch_size: 32, seed, optimizer, ..TrainConfig::default() }
}

/// Measures the policy on its way.
struct Path<'a> {
    setting: &'a Setting,
    tau: f64,
    measures: Vec<Measure>,
}

impl Observer for Path<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Milestone { policy, .. } = event {
            self.measures.push(self.setting.measure(policy, self.tau));
        }
        Ok(())
    }
}

/// The runs of one objective under one condition.
#[derive(Serialize)]
struct Outcome {
    objective: &'static str,
    condition: &'static str,
    learning_rate: f64,
    /// By seed, from start to end; empty where the objective is not defined on the data or lost its loss.
    paths: Vec<Vec<Measure>>,
}

impl Outcome {
    /// Over the problems, if every run came to its end.
    fn at_end(&self, quantity: Quantity) -> Option<Interval> {
        let ends: Option<Vec<f64>> = self.paths.iter().map(|path| path.last().map(quantity.value)).collect();
        ends.map(|ends| (quantity.interval)(&ends))
    }
}

/// What is reported of measures.
#[derive(Clone, Copy)]
struct Quantity {
    title: &'static str,
    value: fn(&Measure) -> f64,
    interval: fn(&[f64]) -> Interval,
}

/// Positive, and problems differ by factors.
const DISTANCE: Quantity = Quantity {
    title: "KL(pi || pi*), geometric mean; less is better",
    value: |m| m.kl_to_optimum,
    interval: geometric_interval,
};
const REWARD: Quantity = Quantity { title: "Expected reward, mean", value: |m| m.reward, interval: mean_interval };

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { out, seeds, steps } = arguments;
    if out.exists() {
        bail!("{} already exists; remove it or choose another place with --out", out.display());
    }
    if *seeds < 2 {
        bail!("--seeds {seeds}: an interval needs at least two");
    }
    let bar = progress::bar("problems", *seeds as usize + 1);
    let settings = in_parallel(&(1..=*seeds).chain([TUNING_SEED]).collect::<Vec<_>>(), &bar, |seed| {
        Setting::new(*seed, steps * 3 / 2)
    })?;
    let (settings, tuning) = settings.split_at(*seeds as usize);

    let conditions = conditions();
    let names: Vec<&str> = objectives(BASE.tau).iter().map(|(name, _)| *name).collect();
    let pairs: Vec<(usize, usize)> =
        (0..conditions.len()).flat_map(|c| (0..names.len()).map(move |o| (c, o))).collect();
    let train = |(c, o): (usize, usize), setting: &Setting, config: &TrainConfig| {
        setting.train(&objectives(conditions[c].tau)[o].1, &conditions[c], config)
    };

    let trials = pairs.iter().flat_map(|pair| LEARNING_RATES.map(|rate| (*pair, rate))).collect::<Vec<_>>();
    let bar = progress::bar("choosing learning rates", trials.len());
    let distances = in_parallel(&trials, &bar, |&(pair, rate)| {
        let config = TrainConfig { validate_every: Some(*steps), ..budget(*steps, rate, TUNING_SEED) };
        Ok(train(pair, &tuning[0], &config)?.last().map_or(f64::INFINITY, |m| m.kl_to_optimum))
    })?;
    let best = |distances: &[f64]| {
        let nearest = distances.iter().zip(LEARNING_RATES).min_by(|a, b| a.0.total_cmp(b.0));
        nearest.map_or(LEARNING_RATES[0], |(_, rate)| rate)
    };
    let chosen: Vec<f64> = distances.chunks(LEARNING_RATES.len()).map(best).collect();

    let runs = pairs.iter().zip(&chosen).flat_map(|(pair, rate)| settings.iter().map(|s| (*pair, s, *rate)));
    let runs: Vec<_> = runs.collect();
    let bar = progress::bar("runs", runs.len());
    let paths =
        in_parallel(&runs, &bar, |&(pair, setting, rate)| train(pair, setting, &budget(*steps, rate, setting.seed)))?;
    let outcomes: Vec<Outcome> = pairs
        .iter()
        .zip(chosen)
        .zip(paths.chunks(settings.len()))
        .map(|((&(c, o), learning_rate), paths)| Outcome {
            objective: names[o],
            condition: conditions[c].label,
            learning_rate,
            paths: paths.to_vec(),
        })
        .collect();
    report(arguments, settings, &conditions, &outcomes)
}

/// Applies `work` to each of `items` on as many threads as there are processors; results come in the items' order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    bar: &indicatif::ProgressBar,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<R>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, item)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    items.get(i).map(|item| (i, item))
                } {
                    let result = work(item);
                    bar.inc(1);
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

const INTRODUCTION: &str = "36 prompts, 27 possible responses each, a T5 of its own for every problem that first imitates a \
    crowd. Rated responses are drawn from that start, which is also the reference. KL(pi || pi*) is the distance to the \
    exact optimum of reward under a KL penalty of tau, in nats: tau times it is what a policy misses of the best \
    possible value. Reward has mean 0 and standard deviation 1 over all pairs. With 95 % intervals over the problems.";

fn report(arguments: &Arguments, settings: &[Setting], conditions: &[Condition], outcomes: &[Outcome]) -> Result<()> {
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let json = serde_json::json!({ "seeds": arguments.seeds, "steps": arguments.steps, "outcomes": outcomes });
    let path = out.join("verify.json");
    std::fs::write(&path, serde_json::to_string(&json)?).with_context(|| format!("cannot write {}", path.display()))?;

    let mut page = Page::new("Objectives on a problem with a known optimum", INTRODUCTION);
    let base = || outcomes.iter().filter(|o| o.condition == BASE.label);
    page.paragraph(&format!(
        "{} problems, {} optimizer steps of 32 responses. Each objective chose its learning rate under each condition \
         from {LEARNING_RATES:?}, on a problem of their own.",
        arguments.seeds, arguments.steps
    ));
    let (by_number, by_other): (Vec<&Condition>, Vec<&Condition>) =
        conditions.iter().partition(|c| c.tau == BASE.tau && c.noise == 0.0);
    for quantity in [DISTANCE, REWARD] {
        for (what, group) in
            [("by responses per prompt, tau 1", &by_number), ("noisy rewards and other tau", &by_other)]
        {
            let columns: Vec<Column> = std::iter::once(Column::Text("objective"))
                .chain(group.iter().map(|c| Column::Number(c.label)))
                .collect();
            let rows = table(settings, group, outcomes, quantity);
            let heading = format!("{}, {what}", quantity.title);
            println!("{heading}");
            print_table(&columns, &rows);
            println!();
            page.heading(&heading);
            page.table(&columns, &rows);
        }
    }

    page.heading("The way to the optimum");
    page.paragraph("Expected reward against KL(pi || pi_ref) as training goes on, at 4 responses per prompt and tau 1, beside what is possible at best.");
    let frontier = Series::line("best possible", frontier(settings));
    let paths = base().map(|o| Series::line(o.objective, mean_path(o)));
    let axes = Axes::linear("KL(pi || pi_ref)", "expected reward");
    page.chart("reward against KL", &axes, &paths.chain([frontier]).collect::<Vec<_>>());

    let number = |c: &&Condition| match c.responses {
        Responses::Each(n) if c.tau == BASE.tau && c.noise == 0.0 => Some(n as f64),
        _ => None,
    };
    let tau = |c: &&Condition| (c.responses == BASE.responses && c.noise == 0.0).then_some(c.tau);
    page.heading("Distance to the optimum by responses per prompt");
    let axes = Axes { x: "responses per prompt", y: "KL(pi || pi*)", log_x: true, log_y: true };
    page.chart("distance by responses per prompt", &axes, &distances(conditions, outcomes, number));
    page.heading("Distance to the optimum by tau");
    let axes = Axes { x: "tau", y: "KL(pi || pi*)", log_x: true, log_y: true };
    page.chart("distance by tau", &axes, &distances(conditions, outcomes, tau));

    let path = out.join("report.html");
    page.write(&path)?;
    println!("report: {}", path.display());
    println!("all figures: {}", out.join("verify.json").display());
    Ok(())
}

/// A row for the start and one for each objective.
fn table(
    settings: &[Setting],
    conditions: &[&Condition],
    outcomes: &[Outcome],
    quantity: Quantity,
) -> Vec<Vec<String>> {
    let start = |c: &&Condition| {
        let values: Vec<f64> = settings.iter().map(|s| (quantity.value)(&s.measure(&s.start.valid(), c.tau))).collect();
        show((quantity.interval)(&values), 2)
    };
    let mut rows = vec![std::iter::once("start".to_string()).chain(conditions.iter().map(start)).collect()];
    for (name, _) in objectives(BASE.tau) {
        let cell = |c: &&Condition| {
            let found = outcomes.iter().find(|o| o.objective == name && o.condition == c.label);
            found.and_then(|o| o.at_end(quantity)).map_or_else(|| "undefined".to_string(), |i| show(i, 2))
        };
        rows.push(std::iter::once(name.to_string()).chain(conditions.iter().map(cell)).collect());
    }
    rows
}

/// `(KL to the reference, reward)` of the optimum as tau falls, mean over the problems.
fn frontier(settings: &[Setting]) -> Vec<(f64, f64)> {
    let n = settings.len() as f64;
    let point = |i: i32| {
        let tau = 10f64.powf(1.5 - f64::from(i) / 16.0);
        let each = settings.iter().map(|s| {
            let best = s.problem.optimum(&s.reference, tau);
            (best.kl(&s.reference) / n, s.problem.expected_reward(&best) / n)
        });
        each.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    (0..40).map(point).collect()
}

/// `(KL to the reference, reward)` along training, mean over the problems.
fn mean_path(outcome: &Outcome) -> Vec<(f64, f64)> {
    let shortest = outcome.paths.iter().map(Vec::len).min().unwrap_or(0);
    let n = outcome.paths.len() as f64;
    let mean = |i: usize, value: fn(&Measure) -> f64| outcome.paths.iter().map(|p| value(&p[i])).sum::<f64>() / n;
    (0..shortest).map(|i| (mean(i, |m| m.kl_to_reference), mean(i, |m| m.reward))).collect()
}

/// The distance to the optimum of each objective over the conditions to which `place` gives a place.
fn distances(
    conditions: &[Condition],
    outcomes: &[Outcome],
    place: impl Fn(&&Condition) -> Option<f64>,
) -> Vec<Series> {
    let mut placed: Vec<(f64, &Condition)> = conditions.iter().filter_map(|c| place(&c).map(|x| (x, c))).collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let series = |(name, _): (&'static str, ObjectiveConfig)| {
        let at = |c: &Condition| outcomes.iter().find(|o| o.objective == name && o.condition == c.label);
        let found = placed.iter().filter_map(|(x, c)| at(c)?.at_end(DISTANCE).map(|i| (*x, i)));
        let (points, intervals) = found.map(|(x, i)| ((x, i.mean), (i.low, i.high))).unzip();
        Series { label: name.into(), points, intervals }
    };
    objectives(BASE.tau).into_iter().map(series).collect()
}
