//! `rpo train`: from settings to a trained model.

mod data;
mod dry_run;
mod header;
mod passes;
mod resume;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};
use rpo::device::{self, Subject};
use rpo::feedback::{FeedbackSet, Source, Split, held_out_prompts};
use rpo::model::Model;
use rpo::model::checkpoint::{Checkpoint, StoredAs};
use rpo::objective::ObjectiveConfig;
use rpo::stop::Stop;
use rpo::store::files::write_file;
use rpo::tokenizer::Tokenizer;
use rpo::train::record::{MetricsLog, Reader, TensorBoard};
use rpo::train::{
    BestBy, Judge, METRICS, Observer, RunDir, SETTINGS, Saving, State, Summary, TENSORBOARD, Task, Trainer,
    shown_prompts,
};
use rpo::world::World;
use toml::Value;

use self::data::Data;
use self::resume::BegunWith;
use crate::flags::{Flags, real, text, whole};
use crate::progress::{self, TrainingProgress};
use crate::settings::{Given, Origin, Settings, merge};
use crate::version::version;
use crate::world::{SETTINGS_OF_RUN, agree, once_any, together_any};
use crate::{advice, interrupt, judge, outcome, place};

/// Train a model from rated responses: `rpo train rpo --model MODEL --data FILE --out DIR`
///
/// Settings come from --config (TOML) and from flags; flags win, and what was resolved is saved as config.toml in the run's
/// directory beside metrics.jsonl, tensorboard/ and the models best/ and last/. The run is saved before its first step, at each
/// validation and every ten minutes (--save-every), durably and with checksums. Ctrl-C saves before it stops, after the
/// micro-batch at hand, and ends with status 130 (143 after SIGTERM); --resume goes on after that, and after a crash.
#[derive(clap::Args)]
#[command(
    allow_negative_numbers = true,
    next_help_heading = "Method",
    after_help = "\
Examples:
  rpo train rpo --model google/flan-t5-small --data ratings.jsonl --out runs/first --dry-run
  rpo train kto --model google/flan-t5-small --data thumbs.csv --out runs/kto --set objective.threshold=0.5
  rpo train --resume runs/first --epochs 2"
)]
pub struct Arguments {
    /// What to minimise
    #[arg(value_parser = objectives(), required_unless_present = "resume", help_heading = "Arguments")]
    objective: Option<String>,
    /// TOML file with any of the settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Train as the authors' script does: tau 5, mean log-probabilities, summed partition, learning rate 1e-4 after 150
    /// steps of warm-up, 32 responses a step, one epoch. For comparison; other flags still win
    #[arg(long)]
    published: bool,
    /// Go on with the run in DIR (or in --out) where it was last saved, as it was begun: only --max-steps, --epochs, --device, how
    /// it is saved and where things lie may change. `rpo train --resume DIR` is enough
    #[arg(long, value_name = "DIR")]
    #[allow(clippy::option_option)] // Not given, given without a directory, given with one.
    resume: Option<Option<PathBuf>>,
    /// Say what the run would be, how long it would take and how much memory, from a few measured micro-batches; trains nothing
    /// and makes no --out
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// RPO, DRO, group-centred: how strongly the policy is held to the reference: a response whose reward is one standard
    /// deviation higher becomes exp(1/tau) times as likely beside the others [default: 0.1, 1 and 1]
    #[arg(long)]
    tau: Option<f64>,
    /// KTO, QRPO: how strongly the policy is held to the reference [default: 0.1]
    #[arg(long)]
    beta: Option<f64>,
    /// Log-probability of a response: mean or sum over its tokens [default: sum, but mean for SFT]
    #[arg(long, value_name = "KIND", value_parser = ["mean", "sum"])]
    log_prob: Option<String>,
    /// RPO: where a prompt's value comes from: fitted (to the data, whatever the responses come from), sum (the paper's: right
    /// if all plausible responses are rated), mean, sampled (for responses drawn from the reference), or batch-mean (what the
    /// published script does) [default: fitted]
    #[arg(long, value_name = "KIND", value_parser = ["fitted", "sum", "mean", "sampled", "batch-mean"])]
    partition: Option<String>,
    /// RPO, QRPO: what a prompt with one response counts for: global (compared with all the data), drop (nothing) or, for
    /// RPO, sft (plain likelihood) [default: global]
    #[arg(long, value_name = "KIND", value_parser = ["global", "drop", "sft"])]
    single_response: Option<String>,
    /// SFT: which responses to imitate: all, best, or a reward threshold [default: all]
    #[arg(long, value_name = "all|best|NUMBER")]
    rows: Option<String>,
    /// What is best among the validations, the start included: loss, tau-b (how log-ratios rank rated responses), mass
    /// (probability of the rated responses) or reward (needs --judge) [default: loss]
    #[arg(long, value_name = "MEASURE", value_parser = ["loss", "tau-b", "mass", "reward"])]
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
    /// Seconds that the judge may take at a validation, after which it is ended with all that it has started [default: ten minutes,
    /// and one for each answer]
    #[arg(long, value_name = "SECONDS")]
    judge_timeout: Option<f64>,
    #[command(flatten)]
    common: Flags,
}

/// The objectives by name, for the arguments' help.
pub fn objectives() -> PossibleValuesParser {
    PossibleValuesParser::new(ObjectiveConfig::ALL.map(|(name, what)| PossibleValue::new(name).help(what)))
}

impl Arguments {
    /// `--resume rpo` is the objective behind a --resume without a directory, unless there is such a directory.
    fn settle(&mut self) {
        if self.objective.is_none()
            && let Some(Some(word)) = &self.resume
            && let Some(name) = word.to_str().filter(|name| ObjectiveConfig::named(name).is_some() && !word.is_dir())
        {
            (self.objective, self.resume) = (Some(name.to_string()), Some(None));
        }
    }

    /// The given flags as settings.
    fn flags(self) -> Result<Vec<Given>> {
        let rows = self.rows.map(|rows| match rows.parse::<f64>() {
            Ok(threshold) => Value::Table(toml::Table::from_iter([("above".to_string(), Value::Float(threshold))])),
            Err(_) => Value::String(rows),
        });
        self.common.settings([
            ("published", self.published.then_some(Value::Boolean(true))),
            ("objective.name", text(self.objective)),
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
            ("judge-timeout", real(self.judge_timeout)),
        ])
    }
}

/// Runs the command.
pub fn run(mut arguments: Arguments, world: &dyn World) -> Result<()> {
    arguments.settle();
    let (file, resume, dry_run) = (arguments.config.clone(), arguments.resume.clone(), arguments.dry_run);
    let flags = arguments.flags()?;
    let origin = Origin { file: file.as_deref(), given: &flags };
    let mut settings = match &resume {
        None => Settings::resolve(origin)?,
        Some(dir) => {
            // Others need not have the run's directory.
            let known = once_any(world, || {
                let dir = run_to_resume(dir.as_deref(), origin)?;
                resume::settings(&dir, origin)?.to_toml()
            })?;
            Settings::from_table(known.parse()?, Origin { file: None, given: &[] })?
        }
    };
    let resume = resume.is_some();
    let prepared = prepare(&mut settings, resume, world);
    let data = prepared.map_err(|problem| origin.explain(problem)).or_else(|problem| {
        // What was changed may be the reason, and is what to say.
        if resume {
            once_any(world, || resume::refuse(&settings.out, &resume::changed_settings(&settings)?))?;
        }
        Err(problem)
    })?;
    if !resume {
        advice::tell(&settings, &data.split)?;
    }
    if dry_run {
        return once_any(world, || dry_run::report(&settings, data.split, world.size()));
    }
    let summary = train(&settings, data.split, resume, world, interrupt::stop(), &mut [])?;
    outcome::report(&settings, data.templated, &summary);
    Ok(())
}

/// The directory of the run to go on with: the one that --resume names, or the one of --out or of the file.
fn run_to_resume(named: Option<&Path>, origin: Origin<'_>) -> Result<PathBuf> {
    let given = merge(origin)?;
    let out = given.get("out").and_then(Value::as_str).map(PathBuf::from);
    match (named, out) {
        (Some(named), Some(out)) if origin.given.iter().any(|given| given.name == "out") && out != named => bail!(
            "--resume {} and --out {} name different runs: a run goes on in its own directory; leave --out out",
            named.display(),
            out.display()
        ),
        (Some(named), _) => Ok(named.into()),
        (None, Some(out)) => Ok(out),
        (None, None) => bail!("--resume: which run? Name its directory: rpo train --resume DIR"),
    }
}

/// Reads the data of `settings`, in which it settles the day that a chat template is told; what is wrong with the settings is told
/// before anything is read or written, and what is wrong with the data before anything is computed.
pub fn prepare(settings: &mut Settings, resume: bool, world: &dyn World) -> Result<Data> {
    if !resume {
        world.once(|| RunDir::check_new(&settings.out))?;
        if world.size() > 1 {
            settings.train.shards.get_or_insert(world.size());
        }
    }
    world.agreed(settings.train.validate().and_then(|()| settings.train.check_shared(world.size())))?;
    // One part is none, however it was said.
    settings.train.shards = settings.train.shards.filter(|&shards| shards != 1);
    if world.size() > 1 {
        // What is downloaded is downloaded once on a machine.
        once_any(world, || Ok(Checkpoint::find(&settings.model).map(|_| ())?))?;
    }
    let (data, told) = match prepare_alone(settings) {
        Ok(data) => (Some(data), Ok(())),
        Err(problem) => (None, Err(problem)),
    };
    together_any(world, told)?;
    let Some(data) = data else { bail!("nothing was read") };
    let common = Settings { cache: PathBuf::new(), ..settings.clone() };
    agree(
        world,
        &[("program", version().into()), (SETTINGS_OF_RUN, common.to_toml()?), ("data", data.split.fingerprint())],
    )?;
    Ok(data)
}

/// [`prepare`] by one process.
fn prepare_alone(settings: &mut Settings) -> Result<Data> {
    check(settings)?;
    let device = place::find(&settings.device, settings.precision, settings.columns.strict)?;
    let origin = Checkpoint::find(&settings.model)?;
    // What is saved says what was computed in.
    settings.precision = settings.precision.on(&device, origin.config()?.d_model()).into();
    if settings.train.lora.is_on() && origin.is_adapter() {
        let problem = format!(
            "{} is an adapter, and an adapter of an adapter is none that PEFT could load; start from the merged model, which is \
             best/ of the run that made it",
            settings.model
        );
        return Err(rpo::Error::Setting { field: "lora.rank", problem }.into());
    }
    // A model of the hub stays the one that it is now.
    if let Some(pinned) = origin.pinned() {
        settings.model = pinned;
    }
    settings.settle_day(&origin)?;
    let data = data::read(settings, &origin.tokenizer(settings.chat())?)?;
    let split = &data.split;
    let start = origin.config()?.start();
    [&split.train, &split.validation].into_iter().try_for_each(|set| start.check(set))?;
    if settings.judge.is_some() && split.validation.groups.is_empty() {
        let problem = "there are no held-out prompts whose answers it could rate; raise `validation-fraction`".into();
        return Err(rpo::Error::Setting { field: "judge", problem }.into());
    }
    Task::check(&settings.objective, split, &settings.train)?;
    Ok(data)
}

/// What is wrong with the settings alone.
fn check(settings: &Settings) -> Result<()> {
    let refuse = |field, problem: &str| Err(rpo::Error::Setting { field, problem: problem.into() }.into());
    settings.objective.build()?;
    settings.train.validate()?;
    settings.limits().check()?;
    judge::check_timeout(settings.judge_timeout)?;
    match settings.train.best_by == BestBy::Reward && settings.judge.is_none() {
        true => refuse("best-by", "`reward` needs a program that rates answers (--judge COMMAND)"),
        false => Ok(()),
    }
}

/// Trains as `settings` say on data that [`prepare`] gave, or goes on with the run in `settings.out`; `stop` ends it early.
pub fn train(
    settings: &Settings,
    split: Split,
    resume: bool,
    world: &dyn World,
    stop: &Stop,
    observers: &mut [&mut dyn Observer],
) -> Result<Summary> {
    let origin = Checkpoint::find(&settings.model)?;
    let model = load(settings, &origin)?;
    let loading = progress::busy("hashing the model");
    let begun_with = BegunWith::of(&split, &model)?;
    loading.finish_and_clear();
    agree(world, &[("model", begun_with.reference_fingerprint.clone())])?;
    if resume {
        once_any(world, || {
            resume::check(settings, &begun_with)?;
            resume::lengthened(settings)?.iter().for_each(|note| println!("note: {note}"));
            Ok(())
        })?;
    }
    let seed = settings.train.seed;
    let mut task =
        Task::new(&settings.objective, split, seed, |passes| passes::references(settings, passes, &model, world))?;
    for (name, value) in &task.facts {
        println!("{name}: {}", (value * 1e6).round() / 1e6);
    }
    header::lines(settings, &model, &task, world.size()).iter().for_each(|line| println!("{line}"));
    let reader = reader(settings, &task.data, origin.tokenizer(settings.chat())?)?;
    let judge =
        settings.judge.as_deref().map(|command| judge::of_tokens(command, settings.judge_timeout, reader.clone()));
    let _saving = interrupt::saving();
    let judge = judge.as_ref().map(|judge| judge as &Judge<'_>);
    let begin = || -> rpo::Result<(Option<RunDir>, State)> {
        if resume && world.leads() {
            let run = RunDir::open(&settings.out)?;
            let state = run.resume(&settings.train, &mut task, model)?;
            return Ok((Some(run), state));
        }
        // Made only now, so that unusable data leave no directory in the way of the next attempt.
        let state = State::begin(model, &task, &settings.train)?;
        Ok((world.leads().then(|| RunDir::create(&settings.out)).transpose()?, state))
    };
    let (run, state) = world.agreed(begin())?;
    let Some(run) = run else {
        let trainer = Trainer { task, config: &settings.train, saving: None, judge, stop, world };
        return Ok(trainer.run(state, &mut [])?.1);
    };
    if resume {
        println!("going on after step {}", state.progress.step);
    }
    // The settings come last: where they are, a run has begun.
    begun_with.write(&run)?;
    save_settings(settings, &run.path(SETTINGS))?;
    let mut log = MetricsLog::open(&run.path(METRICS), &state.progress)?.with_answers(reader.clone());
    let mut tensorboard = TensorBoard::create(&run.path(TENSORBOARD))?.with_answers(reader);
    let mut display = TrainingProgress::new();
    let saving = Some(Saving { run: &run, origin: &origin });
    let trainer = Trainer { task, config: &settings.train, saving, judge, stop, world };
    let mut all: Vec<&mut dyn Observer> = vec![&mut log, &mut tensorboard, &mut display];
    for observer in observers {
        all.push(&mut **observer);
    }
    let (_, summary) = trainer.run(state, &mut all)?;
    display.finish();
    Ok(summary)
}

/// The model to start from, ready for training; one that is only adapted is held in the format in which it will be stored.
fn load(settings: &Settings, origin: &Checkpoint) -> Result<Model> {
    let device = device::find(&settings.device)?;
    let config = origin.config()?;
    let compute = settings.precision.on(&device, config.d_model());
    let train = &settings.train;
    let rounded = train.lora.is_on() && train.store == StoredAs::Bf16;
    let subject = Subject::of(config).with_compute(compute);
    place::trust(&settings.device, &if train.lora.is_on() { subject.with_adapters(rounded) } else { subject })?;
    let loading = progress::busy("loading the model");
    let model = match rounded {
        true => origin.load_rounded(&device.autodiff())?,
        false => origin.load(&device.autodiff())?,
    };
    loading.finish_and_clear();
    let model = model.with_compute(compute);
    train.lora.check(&model)?;
    Ok(model)
}

/// What turns token ids into what people and judges read: held-out prompts for a judge as the user wrote them, and those that
/// are shown where a chat template wrote what the model reads.
fn reader(settings: &Settings, split: &Split, tokenizer: Tokenizer) -> Result<Reader> {
    let own = |source: &Source, set: &FeedbackSet| {
        let texts = held_out_prompts(source, &settings.columns, &tokenizer, settings.limits(), set)?;
        Ok::<_, rpo::Error>(set.groups.iter().map(|group| group.prompt.clone()).zip(texts).collect::<Vec<_>>())
    };
    let known = if settings.judge.is_some() {
        own(settings.held_out_source(), &split.validation)?
    } else if settings.train.sample_every.is_some() && tokenizer.writing().has_template() {
        let source = if split.validation.groups.is_empty() { &settings.data } else { settings.held_out_source() };
        own(source, &shown_prompts(split))?
    } else {
        Vec::new()
    };
    Ok(Reader::new(tokenizer).with_prompts(known))
}

/// Leaves the settings as resolved, with the revisions of data sets that come from the hub.
fn save_settings(settings: &Settings, path: &Path) -> Result<()> {
    let validation_data = settings.validation_data.as_ref().map(Source::pinned).transpose()?;
    let settings = Settings { data: settings.data.pinned()?, validation_data, ..settings.clone() };
    Ok(write_file(path, settings.to_toml()?.as_bytes())?)
}
