//! `rpo compare`: objectives trained from one start on one data set with equal budgets, and judged alike.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use rpo::checkpoint::Checkpoint;
use rpo::feedback::{FeedbackSet, Split};
use rpo::objective::ObjectiveConfig;
use rpo::sample::{Decoding, Processors, generate};
use rpo::score::score_set;
use rpo::statistics::{Interval, bootstrap, kendall_tau_b, mean, mean_interval, spearman, win_rate};
use rpo::tokenizer::Tokenizer;
use rpo::train::{Event, Observer};
use serde::Serialize;
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::flags::Flags;
use crate::judge::{Judge, ask};
use crate::report::{Axes, Column, Page, Series, print_table, show};
use crate::settings::{Settings, merge, set};
use crate::train::{prepare, stop_on_interrupt, train};
use crate::{device, progress};

/// Train several objectives alike and judge them: `rpo compare --model MODEL --data FILE --out DIR`
///
/// Every objective starts from the same model, sees the same data in the same order for the same number of steps, and is
/// judged on the same held-out prompts: by how its log-ratio to the start ranks their rated responses, and, with --judge, by the
/// reward of its own answers. --config may define objectives of its own, as tables [objectives.LABEL] with name = "rpo" and
/// so on. Writes report.html, compare.json, and the run of every objective and seed.
#[derive(clap::Args)]
pub struct Arguments {
    /// Objectives by name, or by label if the TOML file defines them [default: the file's, or sft,rpo,dro,kto]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    objectives: Vec<String>,
    /// TOML file with any of the settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Learning rates to try with every objective; each keeps the one that does best on one half of the held-out prompts,
    /// and all are judged on the other half [default: --learning-rate alone, judged on all of them]
    #[arg(long, value_delimiter = ',', value_name = "RATES")]
    learning_rates: Vec<f64>,
    /// Runs of each objective, counting up from --seed
    #[arg(long, default_value_t = 1)]
    seeds: u32,
    /// Program that rates answers: it gets one JSON object with prompt and response a line and prints one number a line
    #[arg(long, value_name = "COMMAND")]
    judge: Option<String>,
    /// Longest answer to be judged, in tokens
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    #[command(flatten)]
    common: Flags,
}

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
    /// How answers are made for the judge.
    pub decoding: Decoding,
}

/// The settings of an objective's runs, one for each seed.
pub type Candidate = Vec<Settings>;

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { objectives, config, learning_rates, seeds, judge, max_new_tokens, common } = arguments;
    if seeds == 0 {
        bail!("--seeds 0: at least one run of each objective is needed");
    }
    let mut table = merge(config.as_deref(), common.settings([])?)?;
    let defined = match table.remove("objectives") {
        Some(Value::Table(defined)) => defined,
        Some(other) => bail!("`objectives` must be tables such as [objectives.mine], found {other}"),
        None => Table::new(),
    };
    let labels: Vec<String> = match (objectives.is_empty(), defined.is_empty()) {
        (false, _) => objectives,
        (true, false) => defined.keys().cloned().collect(),
        (true, true) => ["sft", "rpo", "dro", "kto"].map(str::to_string).into(),
    };
    let mut out = None;
    let mut contestants = Vec::new();
    for label in labels {
        let objective = match defined.get(&label) {
            Some(objective) => objective.clone(),
            None if ObjectiveConfig::named(&label).is_some() => {
                Value::Table(Table::from_iter([("name".to_string(), Value::String(label.clone()))]))
            }
            None => {
                let known: Vec<&str> = ObjectiveConfig::ALL.iter().map(|(name, _)| *name).collect();
                bail!("no objective `{label}`; there are {}, and those defined in --config", known.join(", "))
            }
        };
        let mut base = table.clone();
        set(&mut base, "objective", objective);
        let base = Settings::from_table(base, config.as_deref())?;
        out = Some(base.out.clone());
        let run = |rate: f64, i: u32| {
            let mut settings = base.clone();
            settings.train.optimizer.learning_rate = rate;
            settings.train.seed += u64::from(i);
            let rate = if learning_rates.len() > 1 { format!("-{rate}") } else { String::new() };
            settings.out = base.out.join(format!("{label}{rate}-{}", settings.train.seed));
            settings
        };
        let given = [base.train.optimizer.learning_rate];
        let rates = if learning_rates.is_empty() { &given[..] } else { &learning_rates };
        let candidates = rates.iter().map(|&rate| (0..seeds).map(|i| run(rate, i)).collect()).collect();
        contestants.push((label, candidates));
    }
    let Some(out) = out else { bail!("no objective to compare") };
    let published =
        Processors { repetition_penalty: 1.2, no_repeat_ngram_size: 3, temperature: 0.7, top_k: 50, top_p: 0.95 };
    let comparison = Comparison {
        title: "Objectives compared".into(),
        introduction: String::new(),
        out,
        contestants,
        decoding: Decoding { sample: true, max_new_tokens, processors: published, ..Decoding::default() },
    };
    let judge = judge.map(|command| move |answers: &[(String, String)]| ask(&command, answers));
    let stop = stop_on_interrupt()?;
    comparison.run(judge.as_ref().map(|j| j as &Judge<'_>), &stop)
}

/// Scores the held-out responses on the way, and keeps what is needed to rank them.
struct Ranks<'a> {
    held_out: &'a FeedbackSet,
    /// Place in `held_out` of each row of the data.
    places: HashMap<usize, usize>,
    budget: usize,
    /// `log p(y|x)` under the start, by place: the same for every run.
    start: &'a OnceCell<Vec<f64>>,
    /// Log-ratios to the start, now.
    log_ratios: Vec<f64>,
    curve: Vec<(f64, f64)>,
}

impl<'a> Ranks<'a> {
    fn new(held_out: &'a FeedbackSet, budget: usize, start: &'a OnceCell<Vec<f64>>) -> Self {
        let places = held_out.iter().enumerate().map(|(place, r)| (r.row, place)).collect();
        Self { held_out, places, budget, start, log_ratios: Vec::new(), curve: Vec::new() }
    }
}

impl Observer for Ranks<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        let Event::Milestone { step, policy } = event else { return Ok(()) };
        let scores = || {
            let mut sums = vec![0.0; self.places.len()];
            for (row, sum) in score_set(policy, self.held_out, self.budget, &mut |_| ()) {
                sums[self.places[&row]] = f64::from(sum);
            }
            sums
        };
        let start = self.start.get_or_init(scores);
        let sums = if *step == 0 { start.clone() } else { scores() };
        self.log_ratios = sums.iter().zip(start).map(|(now, start)| now - *start).collect();
        let taus: Vec<f64> = within_prompts(self.held_out, &self.log_ratios).into_iter().flatten().collect();
        // At the start all log-ratios are zero and rank nothing.
        self.curve.push((*step as f64, mean(&taus).unwrap_or(0.0)));
        Ok(())
    }
}

/// Kendall's tau-b of scores with rewards within each prompt; `None` where either side is constant.
fn within_prompts(data: &FeedbackSet, scores: &[f64]) -> Vec<Option<f64>> {
    let mut first = 0;
    let of_prompt = data.groups.iter().map(|group| {
        let rewards: Vec<f64> = group.responses.iter().map(|r| r.reward).collect();
        let tau = kendall_tau_b(&scores[first..first + rewards.len()], &rewards);
        first += rewards.len();
        tau
    });
    of_prompt.collect()
}

/// What was found of one objective, or of the start.
#[derive(Default, Serialize)]
struct Verdict {
    label: String,
    /// Rank correlation of log-ratio and reward within prompts, mean over the prompts; bootstrap over prompts.
    tau_b: Option<Interval>,
    /// The same with the log-ratio per token.
    tau_b_per_token: Option<Interval>,
    /// Rank correlation over all held-out responses; bootstrap over prompts.
    spearman: Option<Interval>,
    /// Mean reward of an answer to each held-out prompt.
    reward: Option<Interval>,
    /// Share of the prompts whose answer is better than the start's, ties counting half.
    wins_against_start: Option<Interval>,
    /// Learning rate, the chosen one of several.
    learning_rate: Option<f64>,
    /// Wall time of optimizer steps, mean over the seeds.
    seconds: Option<f64>,
    /// Rewards by held-out prompt, mean over the seeds.
    rewards: Vec<f64>,
    /// Answers to held-out prompts, of the first seed.
    answers: Vec<String>,
    /// Tau-b over all held-out prompts by step, of the first seed.
    curve: Vec<(f64, f64)>,
    /// Directory of the first seed's run.
    #[serde(skip)]
    run: PathBuf,
}

impl Comparison {
    /// Trains and judges everything; the report is in `out`.
    pub fn run(&self, judge: Option<&Judge<'_>>, stop: &AtomicBool) -> Result<()> {
        let all = || self.contestants.iter().flat_map(|(_, candidates)| candidates.iter().flatten());
        let Some(first) = all().next() else { bail!("no objective to compare") };
        for settings in all() {
            settings.objective.build().with_context(|| settings.out.display().to_string())?;
        }
        if self.out.join("report.html").exists() || all().any(|s| s.out.exists()) {
            return Err(rpo::Error::Exists { path: self.out.clone() }.into());
        }
        let split = prepare(first, false)?;
        if split.validation.groups.is_empty() {
            bail!("validation-fraction: without held-out prompts there is nothing to compare on");
        }
        let checkpoint = Checkpoint::find(&first.model)?;
        let tokenizer = checkpoint.tokenizer()?;
        let prompts = split
            .validation
            .groups
            .iter()
            .map(|g| Ok(tokenizer.decode(&g.prompt)?))
            .collect::<Result<Vec<String>>>()?;

        let halves = self.contestants.iter().any(|(_, candidates)| candidates.len() > 1);
        let (choosing, judging) = match halves {
            true => (0..prompts.len()).partition(|i| i % 2 == 0),
            false => (Vec::new(), (0..prompts.len()).collect()),
        };
        if judging.is_empty() {
            bail!("validation-fraction: two held-out prompts at least are needed to choose learning rates and judge");
        }
        let arena = Arena {
            decoding: &self.decoding,
            split,
            tokenizer,
            prompts,
            choosing,
            judging,
            judge,
            stop,
            start_scores: OnceCell::new(),
        };
        let mut verdicts = vec![arena.start(first)?];
        for (label, candidates) in &self.contestants {
            let verdict = arena.best(label, candidates, &verdicts[0])?;
            verdicts.push(verdict);
        }
        self.report(&arena, &verdicts)
    }

    fn report(&self, arena: &Arena<'_>, verdicts: &[Verdict]) -> Result<()> {
        let Arena { prompts, choosing, judging, .. } = arena;
        let judged = verdicts.iter().any(|v| v.reward.is_some());
        let mut page = Page::new(&self.title, &self.introduction);
        let seeds = self.contestants.first().and_then(|(_, candidates)| candidates.first()).map_or(0, Vec::len);
        page.paragraph(&format!(
            "{} held-out prompts; {seeds} {} of each objective from the same start on the same data. tau-b is Kendall's \
             rank correlation between a policy's log-ratio to the start and the reward of a prompt's rated responses, mean \
             over these prompts. Intervals of 95 %, over prompts.{}{}",
            judging.len(),
            if seeds == 1 { "run" } else { "runs" },
            if judged { " Reward and wins are of one drawn answer to each of them; ties are half a win." } else { "" },
            match choosing.len() {
                0 => String::new(),
                n => format!(
                    " Each objective chose its learning rate among the same ones by {} on {n} other held-out prompts.",
                    if judged { "mean reward" } else { "tau-b" }
                ),
            }
        ));
        let mut columns = vec![Column::Text("objective")];
        if judged {
            columns.extend([Column::Number("mean reward"), Column::Number("wins against start")]);
        }
        columns.extend(["tau-b", "tau-b per token", "Spearman", "learning rate", "seconds"].map(Column::Number));
        let cell = |interval: Option<Interval>, digits| interval.map_or_else(|| "-".into(), |i| show(i, digits));
        let rows: Vec<Vec<String>> = verdicts
            .iter()
            .map(|v| {
                let mut row = vec![v.label.clone()];
                if judged {
                    row.extend([cell(v.reward, 2), cell(v.wins_against_start, 2)]);
                }
                row.extend([v.tau_b, v.tau_b_per_token, v.spearman].map(|i| cell(i, 3)));
                row.push(v.learning_rate.map_or_else(|| "-".into(), |rate| rate.to_string()));
                row.push(v.seconds.map_or_else(|| "-".into(), |s| format!("{s:.1}")));
                row
            })
            .collect();
        println!("\n== Held-out prompts ==");
        print_table(&columns, &rows);
        page.table(&columns, &rows);

        if judged {
            page.heading("Who beats whom");
            page.paragraph(
                "Share of the held-out prompts on which the answer of the row is better than that of the column.",
            );
            let (columns, rows) = duels(verdicts, judging);
            page.table(&columns, &rows);
        }
        page.heading("Ranking held-out responses, as training goes on");
        let lines: Vec<Series> = verdicts[1..].iter().map(|v| Series::line(v.label.clone(), v.curve.clone())).collect();
        page.chart("tau-b by step", &Axes::linear("optimizer step", "held-out tau-b"), &lines);
        for Verdict { label, run, .. } in &verdicts[1..] {
            page.heading(&format!("Loss of {label}"));
            let log = run.join("metrics.jsonl");
            let text = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
            let lines = [("training", "train"), ("held out", "validation")]
                .map(|(label, split)| Series::line(label, losses(&text, split)));
            page.chart(&format!("loss of {label}"), &Axes::linear("optimizer step", "loss"), &lines);
        }
        if judged {
            page.heading("Answers");
            let mut columns = vec![Column::Text("prompt"), Column::Text("model"), Column::Text("answer")];
            columns.push(Column::Number("reward"));
            let rows: Vec<Vec<String>> = judging
                .iter()
                .take(8)
                .flat_map(|&i| {
                    verdicts.iter().enumerate().map(move |(k, v)| {
                        let prompt = if k == 0 { prompts[i].clone() } else { String::new() };
                        vec![prompt, v.label.clone(), v.answers[i].clone(), format!("{:.2}", v.rewards[i])]
                    })
                })
                .collect();
            page.table(&columns, &rows);
        }
        let path = self.out.join("compare.json");
        let json = serde_json::json!({ "held_out_prompts": prompts.len(), "judged_on": judging, "seeds": seeds, "models": verdicts });
        std::fs::write(&path, serde_json::to_string_pretty(&json)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let path = self.out.join("report.html");
        page.write(&path)?;
        println!("\nreport: {}", path.display());
        Ok(())
    }
}

/// As many steps for every objective as passes over all responses take, however many of them it uses.
fn with_equal_steps(settings: &Settings, split: &Split) -> Settings {
    let mut settings = settings.clone();
    let all = split.train.responses().div_ceil(settings.train.batch_size);
    settings.train.max_steps.get_or_insert(settings.train.epochs * all);
    settings
}

/// What all contestants share.
struct Arena<'a> {
    decoding: &'a Decoding,
    split: Split,
    tokenizer: Tokenizer,
    /// The held-out prompts' texts.
    prompts: Vec<String>,
    /// On which of them candidates are chosen.
    choosing: Vec<usize>,
    /// On which of them the chosen ones are judged.
    judging: Vec<usize>,
    judge: Option<&'a Judge<'a>>,
    stop: &'a AtomicBool,
    /// See [`Ranks::start`].
    start_scores: OnceCell<Vec<f64>>,
}

impl Arena<'_> {
    fn start(&self, settings: &Settings) -> Result<Verdict> {
        let (answers, rewards) = self.answer(&settings.model, settings)?;
        let reward = self.judge.map(|_| mean_interval(&of(&rewards, &self.judging)));
        Ok(Verdict { label: "start".into(), reward, rewards, answers, ..Verdict::default() })
    }

    /// The verdict on the candidate that does best on the prompts set aside for that.
    fn best(&self, label: &str, candidates: &[Candidate], start: &Verdict) -> Result<Verdict> {
        let mut best: Option<(f64, Verdict)> = None;
        for candidate in candidates {
            let (log_ratios, verdict) = self.train(label, candidate)?;
            let worth = match self.judge {
                Some(_) => of(&verdict.rewards, &self.choosing).iter().sum(),
                None => mean_tau(&self.split.validation, &log_ratios, &self.choosing).map_or(-1.0, |i| i.mean),
            };
            if best.as_ref().is_none_or(|(most, _)| worth > *most) {
                best = Some((worth, self.judged(verdict, &log_ratios, start)));
            }
        }
        best.map(|(_, verdict)| verdict).with_context(|| format!("{label}: there is nothing to train"))
    }

    /// Trains a candidate; gives its log-ratios by seed, and what its answers are worth.
    fn train(&self, label: &str, candidate: &Candidate) -> Result<(Vec<Vec<f64>>, Verdict)> {
        let held_out = &self.split.validation;
        let seeds = candidate.len() as f64;
        let rewards = vec![0.0; if self.judge.is_some() { self.prompts.len() } else { 0 }];
        let mut verdict = Verdict { label: label.into(), rewards, ..Verdict::default() };
        let mut log_ratios = Vec::new();
        let mut clock = Clock(0.0);
        for settings in candidate {
            let settings = with_equal_steps(settings, &self.split);
            let rate = settings.train.optimizer.learning_rate;
            println!("\n== {label}, learning rate {rate}, seed {} ==", settings.train.seed);
            let mut ranks = Ranks::new(held_out, settings.train.micro_batch_tokens, &self.start_scores);
            train(&settings, self.split.clone(), false, self.stop, &mut [&mut ranks, &mut clock])?;
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped; the last run is in {}", settings.out.display());
            }
            let (answers, rated) = self.answer(&settings.out.join("last").display().to_string(), &settings)?;
            verdict.rewards.iter_mut().zip(rated).for_each(|(mean, r)| *mean += r / seeds);
            if log_ratios.is_empty() {
                verdict =
                    Verdict { answers, curve: ranks.curve, run: settings.out, learning_rate: Some(rate), ..verdict };
            }
            log_ratios.push(ranks.log_ratios);
        }
        verdict.seconds = Some(clock.0 / seeds);
        Ok((log_ratios, verdict))
    }

    /// Completes a verdict by what is judged.
    fn judged(&self, mut verdict: Verdict, log_ratios: &[Vec<f64>], start: &Verdict) -> Verdict {
        let held_out = &self.split.validation;
        let tokens: Vec<f64> = held_out.iter().map(|r| r.ids.len() as f64).collect();
        let per_token = |sums: &Vec<f64>| sums.iter().zip(&tokens).map(|(sum, n)| sum / n).collect();
        let per_token: Vec<Vec<f64>> = log_ratios.iter().map(per_token).collect();
        verdict.tau_b = mean_tau(held_out, log_ratios, &self.judging);
        verdict.tau_b_per_token = mean_tau(held_out, &per_token, &self.judging);
        verdict.spearman = pooled_spearman(held_out, log_ratios, &self.judging);
        if self.judge.is_some() {
            let rewards = of(&verdict.rewards, &self.judging);
            verdict.reward = Some(mean_interval(&rewards));
            verdict.wins_against_start = Some(win_rate(&rewards, &of(&start.rewards, &self.judging)));
        }
        verdict
    }

    /// One answer of a model to each held-out prompt, with its reward; nothing without a judge.
    fn answer(&self, model: &str, settings: &Settings) -> Result<(Vec<String>, Vec<f64>)> {
        const TOGETHER: usize = 32;
        let Some(judge) = self.judge else { return Ok(Default::default()) };
        let model = Checkpoint::find(model)?.load(&device::find(&settings.device)?)?;
        let ids: Vec<Vec<u32>> = self.split.validation.groups.iter().map(|g| g.prompt.clone()).collect();
        let bar = progress::bar("answering", ids.len());
        let mut answers = Vec::new();
        for (i, batch) in ids.chunks(TOGETHER).enumerate() {
            for answer in generate(&model, batch, i * TOGETHER, self.decoding) {
                answers.push(self.tokenizer.decode(&answer)?);
            }
            bar.set_position(answers.len() as u64);
        }
        bar.finish_and_clear();
        let pairs: Vec<(String, String)> = self.prompts.iter().cloned().zip(answers.iter().cloned()).collect();
        let rewards = judge(&pairs)?;
        Ok((answers, rewards))
    }
}

/// The values at these places.
fn of(values: &[f64], places: &[usize]) -> Vec<f64> {
    places.iter().map(|&i| values[i]).collect()
}

/// Adds up the time of optimizer steps.
struct Clock(f64);

impl Observer for Clock {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Step(report) = event {
            self.0 += report.seconds;
        }
        Ok(())
    }
}

/// Mean tau-b within these prompts, seeds averaged for each prompt, with the bootstrap over prompts.
fn mean_tau(held_out: &FeedbackSet, by_seed: &[Vec<f64>], prompts: &[usize]) -> Option<Interval> {
    let taus: Vec<Vec<Option<f64>>> = by_seed.iter().map(|scores| within_prompts(held_out, scores)).collect();
    let over_seeds = |&i: &usize| mean(&taus.iter().filter_map(|seed| seed[i]).collect::<Vec<f64>>());
    let defined: Vec<f64> = prompts.iter().filter_map(over_seeds).collect();
    bootstrap(defined.len(), 1, |rows| mean(&of(&defined, rows)))
}

/// Spearman's correlation over all responses of the drawn prompts, mean over the seeds.
fn pooled_spearman(held_out: &FeedbackSet, by_seed: &[Vec<f64>], prompts: &[usize]) -> Option<Interval> {
    let all: Vec<f64> = held_out.iter().map(|r| r.reward).collect();
    let mut ranges = Vec::new();
    let mut first = 0;
    for group in &held_out.groups {
        ranges.push(first..first + group.responses.len());
        first += group.responses.len();
    }
    bootstrap(prompts.len(), 1, |drawn| {
        let places: Vec<usize> = drawn.iter().flat_map(|&i| ranges[prompts[i]].clone()).collect();
        let rewards = of(&all, &places);
        let each = by_seed.iter().map(|scores| spearman(&of(scores, &places), &rewards));
        let each: Option<Vec<f64>> = each.collect();
        each.and_then(|values| mean(&values))
    })
}

/// Win rates of every model against every other.
fn duels<'a>(verdicts: &'a [Verdict], prompts: &[usize]) -> (Vec<Column<'a>>, Vec<Vec<String>>) {
    let columns = std::iter::once(Column::Text("")).chain(verdicts.iter().map(|v| Column::Number(&v.label)));
    let against = |a: &Verdict, b: &Verdict| match a.label == b.label {
        true => "-".to_string(),
        false => show(win_rate(&of(&a.rewards, prompts), &of(&b.rewards, prompts)), 2),
    };
    let row = |a: &Verdict| std::iter::once(a.label.clone()).chain(verdicts.iter().map(|b| against(a, b))).collect();
    (columns.collect(), verdicts.iter().map(row).collect())
}

/// Points (step, loss) of one split of a metrics.jsonl.
fn losses(log: &str, split: &str) -> Vec<(f64, f64)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    lines.filter(|v| v["split"] == split).filter_map(|v| Some((v["step"].as_f64()?, v["loss"].as_f64()?))).collect()
}
