//! `rpo train`: from settings to a trained model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::builder::{PossibleValue, PossibleValuesParser};
use rpo::checkpoint::Checkpoint;
use rpo::features::PromptFeatures;
use rpo::feedback::{FeedbackSet, ReadSummary, Source, Split, held_out_prompts};
use rpo::metrics::MetricsLog;
use rpo::objective::{Needs, ObjectiveConfig};
use rpo::optim::Optimizer;
use rpo::reference::{ReferenceScores, References};
use rpo::t5::T5;
use rpo::tensorboard::TensorBoard;
use rpo::tokenizer::Tokenizer;
use rpo::train::{BestBy, Observer, Progress, RunDir, Saving, Summary, Trainer, learner};
use toml::Value;

use crate::flags::{Flags, real, text, whole};
use crate::progress::{self, TrainingProgress};
use crate::settings::Settings;
use crate::{advice, device, judge, outcome};

/// Train a model from rated responses: `rpo train rpo --model MODEL --data FILE --out DIR`
///
/// Settings come from --config (TOML) and from flags; flags win, and what was resolved is saved as config.toml in the run's
/// directory beside metrics.jsonl, tensorboard/ and the models best/ and last/. Ctrl-C saves before it stops; --resume goes
/// on.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to minimise
    #[arg(value_parser = objectives())]
    objective: String,
    /// TOML file with any of the settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Train as the authors' script does: tau 5, mean log-probabilities, summed partition, learning rate 1e-4 after 150
    /// steps of warm-up, 32 responses a step, one epoch. For comparison; other flags still win
    #[arg(long)]
    published: bool,
    /// Go on with the run in --out where it stopped
    #[arg(long)]
    resume: bool,
    /// RPO, DRO, group-centred: how strongly the policy is held to the reference: a response whose reward is one standard
    /// deviation higher becomes exp(1/tau) times as likely beside the others [default: 0.1, 1 and 1]
    #[arg(long)]
    tau: Option<f64>,
    /// KTO, QRPO: how strongly the policy is held to the reference [default: 0.1]
    #[arg(long)]
    beta: Option<f64>,
    /// Log-probability of a response: mean or sum over its tokens [default: sum, but mean for SFT]
    #[arg(long, value_name = "mean|sum")]
    log_prob: Option<String>,
    /// RPO: where a prompt's value comes from: fitted (to the data, whatever the responses come from), sum (the paper's: right
    /// if all plausible responses are rated), mean, sampled (for responses drawn from the reference), or batch-mean (what the
    /// published script does) [default: fitted]
    #[arg(long, value_name = "KIND")]
    partition: Option<String>,
    /// RPO, QRPO: what a prompt with one response counts for: global (compared with all the data), drop (nothing) or, for
    /// RPO, sft (plain likelihood) [default: global]
    #[arg(long, value_name = "KIND")]
    single_response: Option<String>,
    /// SFT: which responses to imitate: all, best, or a reward threshold [default: all]
    #[arg(long, value_name = "all|best|NUMBER")]
    rows: Option<String>,
    /// What is best among the validations, the start included: loss, tau-b (how log-ratios rank rated responses), mass
    /// (probability of the rated responses) or reward (needs --judge) [default: loss]
    #[arg(long, value_name = "MEASURE")]
    best_by: Option<String>,
    /// Stop after this many validations in a row without a new best
    #[arg(long, value_name = "N")]
    patience: Option<i64>,
    /// Every N steps, at the start and at the end, write answers to four prompts into metrics.jsonl and TensorBoard
    #[arg(long, value_name = "N")]
    sample_every: Option<i64>,
    /// Program that rates an answer to each of at most 64 held-out prompts at every validation: it gets one JSON object with
    /// prompt and response a line and prints one number a line
    #[arg(long, value_name = "COMMAND")]
    judge: Option<String>,
    #[command(flatten)]
    common: Flags,
}

/// The objectives by name, for the arguments' help.
pub fn objectives() -> PossibleValuesParser {
    PossibleValuesParser::new(ObjectiveConfig::ALL.map(|(name, what)| PossibleValue::new(name).help(what)))
}

impl Arguments {
    /// The given flags as settings.
    fn flags(self) -> Result<Vec<(String, Value)>> {
        let rows = self.rows.map(|rows| match rows.parse::<f64>() {
            Ok(threshold) => Value::Table(toml::Table::from_iter([("above".to_string(), Value::Float(threshold))])),
            Err(_) => Value::String(rows),
        });
        self.common.settings([
            ("published", self.published.then_some(Value::Boolean(true))),
            ("objective.name", Some(Value::String(self.objective))),
            ("objective.tau", real(self.tau)),
            ("objective.beta", real(self.beta)),
            ("objective.log-prob", text(self.log_prob)),
            ("objective.partition", text(self.partition)),
            ("objective.single-response", text(self.single_response)),
            ("objective.rows", rows),
            ("train.best-by", text(self.best_by)),
            ("train.patience", whole(self.patience)),
            ("train.sample-every", whole(self.sample_every)),
            ("judge", text(self.judge)),
        ])
    }
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<()> {
    let (file, resume) = (arguments.config.clone(), arguments.resume);
    let settings = Settings::resolve(file.as_deref(), arguments.flags()?)?;
    let stop = stop_on_interrupt()?;
    let data = prepare(&settings, resume)?;
    if !resume {
        advice::tell(&settings, &data)?;
    }
    let summary = train(&settings, data, resume, &stop, &mut [])?;
    outcome::report(&settings, &summary);
    Ok(())
}

/// Reads the data of `settings`; what is wrong with the settings is told before anything is read or written.
pub fn prepare(settings: &Settings, resume: bool) -> Result<Split> {
    settings.objective.build()?;
    settings.train.validate()?;
    if settings.train.best_by == BestBy::Reward && settings.judge.is_none() {
        let problem = "`reward` needs a program that rates answers (--judge COMMAND)".into();
        return Err(rpo::Error::Setting { field: "best-by", problem }.into());
    }
    device::find(&settings.device)?;
    let origin = Checkpoint::find(&settings.model)?;
    let split = read_data(settings, &origin.tokenizer()?)?;
    if settings.judge.is_some() && split.validation.groups.is_empty() {
        let problem = "there are no held-out prompts whose answers it could rate; raise `validation-fraction`".into();
        return Err(rpo::Error::Setting { field: "judge", problem }.into());
    }
    match !resume && settings.out.exists() {
        true => Err(rpo::Error::Exists { path: settings.out.clone() }.into()),
        false => Ok(split),
    }
}

/// Trains as `settings` say on data that [`prepare`] gave, or goes on with the run in `settings.out`; `stop` ends it early.
pub fn train(
    settings: &Settings,
    split: Split,
    resume: bool,
    stop: &AtomicBool,
    observers: &mut [&mut dyn Observer],
) -> Result<Summary> {
    let mut objective = settings.objective.build()?;
    let device = device::find(&settings.device)?;
    let origin = Checkpoint::find(&settings.model)?;
    let needs = objective.needs();
    settings.train.check(needs, &split)?;
    let model = origin.load(&device.clone().autodiff())?;
    let mismatched = if needs.mismatched { Some(split.mismatched(settings.train.seed)?) } else { None };
    let references = references(settings, needs, &model, &split, mismatched.as_ref())?;
    for (name, value) in objective.prepare(&split, &references)?.facts {
        println!("{name}: {}", (value * 1e6).round() / 1e6);
    }
    // Made only now, so that unusable data leave no directory in the way of the next attempt.
    let run = if resume { RunDir::open(&settings.out)? } else { RunDir::create(&settings.out)? };
    let (learner, optimizer, progress) = match resume {
        true => run.resume(&settings.train, objective.as_mut(), &device.autodiff())?,
        false => {
            let optimizer = Optimizer::new(settings.train.optimizer.clone())?;
            (learner(model, needs, settings.train.seed)?, optimizer, Progress::default())
        }
    };
    if resume {
        println!("going on after step {}", progress.step);
    }
    save_settings(settings, &run.path("config.toml"))?;
    let tokenizer = origin.tokenizer()?;
    let mut log = MetricsLog::open(&run.path("metrics.jsonl"), progress.step)?.with_answers(tokenizer.clone());
    let mut tensorboard = TensorBoard::create(&run.path("tensorboard"))?.with_answers(tokenizer.clone());
    let judge = match &settings.judge {
        Some(command) => {
            let ids = split.validation.groups.iter().map(|g| g.prompt.clone());
            let prompts = ids.zip(held_out_prompts(&settings.data, &settings.columns, &split)?).collect();
            Some(judge::of_tokens(command, &tokenizer, prompts))
        }
        None => None,
    };
    let mut display = TrainingProgress::new();
    let trainer = Trainer {
        objective: objective.as_mut(),
        data: split,
        mismatched,
        references: &references,
        config: &settings.train,
        saving: Some(Saving { run: &run, origin: &origin }),
        judge: judge.as_ref().map(|judge| judge as &rpo::train::Judge<'_>),
        stop,
    };
    let mut all: Vec<&mut dyn Observer> = vec![&mut log, &mut tensorboard, &mut display];
    for observer in observers {
        all.push(&mut **observer);
    }
    let (_, summary) = trainer.run(learner, optimizer, progress, &mut all)?;
    display.finish();
    Ok(summary)
}

fn read_data(settings: &Settings, tokenizer: &Tokenizer) -> Result<Split> {
    let bar = progress::counter("rated responses read");
    let mut count = |rows: usize| bar.set_position(rows as u64);
    let (data, summary) =
        FeedbackSet::read(&settings.data, &settings.columns, tokenizer, settings.limits(), &mut count)?;
    bar.finish_and_clear();
    describe(&settings.data, &summary);
    let split = data.split(settings.validation_fraction, settings.split_seed)?;
    println!(
        "{} responses of {} prompts to train on, {} of {} to validate",
        split.train.responses(),
        split.train.groups.len(),
        split.validation.responses(),
        split.validation.groups.len()
    );
    Ok(split)
}

fn describe(source: &Source, summary: &ReadSummary) {
    let &ReadSummary { rows, prompts, duplicates, single_responses, tokens, .. } = summary;
    println!("{source}: {rows} rated responses of {prompts} prompts, {tokens} tokens");
    summary.notes.iter().for_each(|note| println!("  {note}"));
    let share = |n: usize, of: usize| 100.0 * n as f64 / of as f64;
    let remarks = [
        (duplicates, format!("{duplicates} repeat another response and were merged into it")),
        (single_responses, format!("{single_responses} prompts have a single response")),
        (
            summary.unknown_tokens,
            format!(
                "{:.2} % of the tokens are <unk>: the tokenizer does not know them",
                share(summary.unknown_tokens, tokens)
            ),
        ),
        (
            summary.truncated_prompts,
            format!("{:.1} % of the prompts are cut (--max-prompt-tokens)", share(summary.truncated_prompts, prompts)),
        ),
        (
            summary.truncated_responses,
            format!(
                "{:.1} % of the responses are cut (--max-response-tokens)",
                share(summary.truncated_responses, rows)
            ),
        ),
    ];
    remarks.iter().filter(|(n, _)| *n > 0).for_each(|(_, remark)| println!("  {remark}"));
}

/// What the objective, or a look at the held-out responses, needs of the reference, which `model` still is.
fn references(
    settings: &Settings,
    needs: Needs,
    model: &T5,
    split: &Split,
    mismatched: Option<&Split>,
) -> Result<References> {
    use rpo::burn::module::Module;

    let reference = model.valid();
    let scores = |split: &Split, what: &'static str| -> Result<ReferenceScores> {
        let bar = progress::bar(what, split.train.responses() + split.validation.responses());
        let mut count = |done: usize| bar.set_position(done as u64);
        let budget = settings.train.micro_batch_tokens.max(1);
        let cache = settings.cache.join("reference");
        let (scores, cached) = ReferenceScores::cached(&reference, split, budget, &cache, &mut count)?;
        bar.finish_and_clear();
        let how = if cached { "taken from the cache in" } else { "computed and cached in" };
        println!("{what}: {how} {}", settings.cache.display());
        Ok(scores)
    };
    let matched = match (needs.reference, split.validation.groups.is_empty()) {
        (true, _) => Some(scores(split, "reference scores")?),
        // To show what becomes of the held-out responses.
        (false, false) => {
            let held_out = Split { validation: split.validation.clone(), ..Split::default() };
            Some(scores(&held_out, "reference scores of the held-out responses")?)
        }
        (false, true) => None,
    };
    let mismatched = mismatched.map(|m| scores(m, "reference scores of mismatched pairs")).transpose()?;
    let features =
        (needs.features && split.mostly_single()).then(|| features(settings, &reference, split)).transpose()?;
    Ok(References { matched, mismatched, features })
}

/// What the reference's encoder says of the prompts.
fn features(settings: &Settings, reference: &T5, split: &Split) -> Result<PromptFeatures> {
    let bar = progress::bar("features of prompts", split.train.groups.len() + split.validation.groups.len());
    let mut count = |done: usize| bar.set_position(done as u64);
    let (budget, cache) = (settings.train.micro_batch_tokens.max(1), settings.cache.join("reference"));
    let (features, cached) = PromptFeatures::cached(reference, split, budget, &cache, &mut count)?;
    bar.finish_and_clear();
    let how = if cached { "taken from the cache" } else { "computed and cached" };
    println!("features of prompts: {how}");
    Ok(features)
}

fn save_settings(settings: &Settings, path: &Path) -> Result<()> {
    std::fs::write(path, settings.to_toml()?).with_context(|| format!("cannot write {}", path.display()))
}

/// A flag that Ctrl-C raises; a second Ctrl-C ends the program at once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("saving before stopping; press Ctrl-C again to stop at once");
    })?;
    Ok(stop)
}
