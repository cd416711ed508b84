//! From arguments to what is compared: which objectives, and to which of them a setting of `objective` applies.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::generate::Decoding;
use rpo::objective::ObjectiveConfig;
use rpo::train::BestBy;
use toml::{Table, Value};

use super::{Candidate, Comparison};
use crate::flags::Flags;
use crate::judge::check_timeout;
use crate::settings::{Given, Origin, Settings, merge, set};

/// Train several objectives alike and judge them: `rpo compare --model MODEL --data FILE --out DIR`
///
/// Every objective starts from the same model, sees the same data in the same order for the same number of steps, and is
/// judged on the same held-out prompts: by how its log-ratio to the start ranks their rated responses, and, with --judge, by the
/// reward of its own answers. --config may define objectives of its own, as tables [objectives.LABEL] with name = "rpo" and
/// so on. --set objective.NAME=VALUE and a table [objective] apply to every compared objective that has such a setting;
/// [objectives.LABEL] wins over [objective], and the command line over both. Writes report.html, compare.json, and the run of
/// every objective and seed. After a stop, the same command with --resume goes on.
#[derive(clap::Args)]
#[command(
    allow_negative_numbers = true,
    next_help_heading = "Comparison",
    after_help = "\
Examples:
  rpo compare --model DIR --data ratings.jsonl --out runs/compare --objectives sft,rpo,dro,kto
  rpo compare --model DIR --data ratings.jsonl --out runs/rates --objectives rpo,kto --learning-rates 3e-5,1e-4,3e-4"
)]
pub struct Arguments {
    /// Objectives by name, or by label if the TOML file defines them [default: the file's, or sft,rpo,dro,kto]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    objectives: Vec<String>,
    /// TOML file with any of the settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with the comparison in --out where it stopped: what is judged is not trained again
    #[arg(long)]
    resume: bool,
    /// Learning rates to try with every objective; each keeps the one that does best on one half of the held-out prompts,
    /// and all are judged on the other half [default: --learning-rate alone, judged on all of them]
    #[arg(long, value_delimiter = ',', value_name = "RATES")]
    learning_rates: Vec<f64>,
    /// Runs of each objective, counting up from --seed; each, and as many of the start, draws answers of its own
    #[arg(long, default_value_t = 1)]
    seeds: u32,
    /// Program that rates answers: it gets one JSON object with prompt and response a line and prints one number a line
    #[arg(long, value_name = "COMMAND")]
    pub judge: Option<String>,
    /// Seconds that the judge may take for the answers of one model, after which it is ended with all that it has started [default:
    /// ten minutes, and one for each answer]
    #[arg(long, value_name = "SECONDS")]
    judge_timeout: Option<f64>,
    /// Longest answer to be judged, in tokens
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    #[command(flatten)]
    common: Flags,
}

/// What the arguments compare.
pub fn resolve(arguments: Arguments) -> Result<Comparison> {
    let Arguments {
        objectives,
        config,
        resume,
        learning_rates: rates,
        seeds,
        judge,
        judge_timeout,
        max_new_tokens,
        common,
    } = arguments;
    check_timeout(judge_timeout)?;
    if seeds == 0 {
        bail!("--seeds 0: at least one run of each objective is needed");
    }
    if let Some(twice) = repeated(&rates) {
        bail!("--learning-rates: {twice} is there twice");
    }
    let mut given = Table::new();
    let flags = common.settings([])?;
    let origin = Origin { file: config.as_deref(), given: &flags };
    let mut table = merge(Origin { given: &[], ..origin })?;
    for Given { name, value, by } in flags.iter().cloned() {
        if name == "train.optimizer.learning-rate" && !rates.is_empty() {
            bail!("--learning-rates says which learning rates are tried; leave out {by}");
        }
        let of_objectives = matches!(name.split('.').next(), Some("objective" | "objectives"));
        set(if of_objectives { &mut given } else { &mut table }, &name, value);
    }
    let contestants = named(objectives, &Written::take(&mut table)?, &Written::take(&mut given)?)?;
    let contestants = contestants
        .into_iter()
        .map(|(label, objective)| {
            let mut base = table.clone();
            base.insert("objective".into(), Value::Table(objective));
            let base = Settings::from_table(base, origin).with_context(|| label.clone())?;
            refuse_unequal(&base)?;
            let candidates = candidates(&label, &base, &rates, seeds);
            Ok((base.out, (label, candidates)))
        })
        .collect::<Result<Vec<_>>>()?;
    let (outs, contestants): (Vec<PathBuf>, Vec<_>) = contestants.into_iter().unzip();
    Ok(Comparison {
        title: "Objectives compared".into(),
        introduction: String::new(),
        out: outs.into_iter().next().context("no objective to compare")?,
        contestants,
        decoding: Decoding { max_new_tokens, ..Decoding::published() },
        judged_by: judge,
        judge_timeout,
        best_reward: None,
        resume,
    })
}

/// Refuses settings that would end runs unequally early, or choose `best/` by what is judged.
fn refuse_unequal(settings: &Settings) -> Result<()> {
    let refused = [
        ("train.patience", settings.train.patience.is_some()),
        ("train.best-by", settings.train.best_by != BestBy::Loss),
        ("judge", settings.judge.is_some()),
    ];
    match refused.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => bail!(
            "{name}: contestants train for equal steps, and their best step is that of the lowest loss of their own; leave it \
             out (answers are rated with --judge)"
        ),
    }
}

/// A candidate for each learning rate, with a run for each seed.
fn candidates(label: &str, base: &Settings, rates: &[f64], seeds: u32) -> Vec<Candidate> {
    let run = |rate: f64, i: u32| {
        let mut settings = base.clone();
        settings.train.optimizer.learning_rate = rate;
        settings.train.seed += u64::from(i);
        let rate = if rates.len() > 1 { format!("-{rate}") } else { String::new() };
        settings.out = base.out.join(format!("{label}{rate}-{}", settings.train.seed));
        settings
    };
    let given = [base.train.optimizer.learning_rate];
    let rates = if rates.is_empty() { &given[..] } else { rates };
    rates.iter().map(|&rate| (0..seeds).map(|i| run(rate, i)).collect()).collect()
}

/// The first value that stands twice in a list.
fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)).map(|(_, value)| value)
}

/// What a file or the command line says of objectives.
#[derive(Default)]
struct Written {
    /// `objective`: for all that have such a setting, or for those of its `name`.
    shared: Table,
    /// `objectives`: by label.
    labelled: Table,
}

impl Written {
    /// Takes it out of `table`.
    fn take(table: &mut Table) -> Result<Self> {
        let mut take = |name: &str, example: &str| match table.remove(name) {
            Some(Value::Table(found)) => Ok(found),
            Some(other) => bail!("`{name}` must be a table such as {example}, found {other}"),
            None => Ok(Table::new()),
        };
        let (shared, labelled) = (take("objective", "[objective]")?, take("objectives", "[objectives.mine]")?);
        match labelled.iter().find(|(_, value)| !value.is_table()) {
            Some((label, other)) => bail!("`objectives.{label}` must be a table, found {other}"),
            None => Ok(Self { shared, labelled }),
        }
    }

    fn of(&self, label: &str) -> Option<&Table> {
        self.labelled.get(label).and_then(Value::as_table)
    }
}

/// The table of each compared objective under its label: defaults, then the file's `[objective]`, then the file's table of
/// that label, then the command line's `objective.…`, then its `objectives.LABEL.…`. Says to which a shared setting applies.
fn named(labels: Vec<String>, file: &Written, given: &Written) -> Result<Vec<(String, Table)>> {
    let labels = match (labels.is_empty(), file.labelled.is_empty()) {
        (false, _) => labels,
        (true, false) => file.labelled.keys().cloned().collect(),
        (true, true) => ["sft", "rpo", "dro", "kto"].map(str::to_string).into(),
    };
    if let Some(twice) = repeated(&labels) {
        bail!("--objectives: `{twice}` is there twice; give one of them another label, as a table [objectives.LABEL]");
    }
    if let Some(label) = given.labelled.keys().find(|label| !labels.contains(label)) {
        bail!("objectives.{label}: `{label}` is not compared; there are {}", labels.join(", "));
    }
    if given.shared.contains_key("name") {
        bail!("objective.name: name the objectives to compare with --objectives");
    }
    let mut all = Vec::new();
    for label in labels {
        let defined = file.of(&label);
        let name = defined.and_then(|table| table.get("name")).and_then(Value::as_str).unwrap_or(&label).to_string();
        if label == "start" || ObjectiveConfig::named(&name).is_none() {
            let known: Vec<&str> = ObjectiveConfig::ALL.iter().map(|(name, _)| *name).collect();
            bail!("no objective `{name}`; there are {}, and those defined in --config", known.join(", "));
        }
        all.push((label, Table::from_iter([("name".to_string(), Value::String(name))])));
    }
    let of_name = file.shared.get("name").cloned();
    share(&mut all, &file.shared, of_name.as_ref(), "[objective] ", |label, setting| {
        [file.of(label), given.of(label)].into_iter().flatten().chain([&given.shared]).any(|t| t.contains_key(setting))
    })?;
    for (label, table) in &mut all {
        table.extend(file.of(label).cloned().unwrap_or_default());
    }
    share(&mut all, &given.shared, None, "objective.", |label, setting| {
        given.of(label).is_some_and(|table| table.contains_key(setting))
    })?;
    for (label, table) in &mut all {
        table.extend(given.of(label).cloned().unwrap_or_default());
    }
    Ok(all)
}

/// Gives each setting of `shared` to the objectives that have one of its name, if `of_name` is given only to those called
/// so, and says which they are, less those for which it is `overruled`.
///
/// # Errors
/// If no compared objective has the setting.
fn share(
    all: &mut [(String, Table)],
    shared: &Table,
    of_name: Option<&Value>,
    place: &str,
    overruled: impl Fn(&str, &str) -> bool,
) -> Result<()> {
    for (setting, value) in shared.iter().filter(|(setting, _)| *setting != "name") {
        let (mut given, mut ruled, mut without) = (Vec::new(), Vec::new(), Vec::new());
        for (label, table) in all.iter_mut() {
            let name = table.get("name").and_then(Value::as_str).unwrap_or_default();
            if !has(name, setting) || of_name.is_some_and(|only| only.as_str() != Some(name)) {
                without.push(label.as_str());
                continue;
            }
            table.insert(setting.clone(), value.clone());
            if overruled(label, setting) { &mut ruled } else { &mut given }.push(label.as_str());
        }
        let wanted = of_name.map_or_else(String::new, |name| format!(" of name {name}"));
        if given.is_empty() && ruled.is_empty() {
            bail!(
                "{place}{setting}: no compared objective{wanted} has this setting (compared are {}); it would change nothing",
                without.join(", ")
            );
        }
        let list = |labels: &[&str]| if labels.is_empty() { "none".into() } else { labels.join(", ") };
        let some = |before: &str, labels: &[&str]| match labels {
            [] => String::new(),
            labels => format!("; {before} {}", labels.join(", ")),
        };
        let (ruled, without) = (some("set more closely for", &ruled), some("not to", &without));
        println!("{place}{setting} = {value}: applied to {}{ruled}{without}", list(&given));
    }
    Ok(())
}

/// Whether the objective of this name has this setting.
fn has(name: &str, setting: &str) -> bool {
    let defaults = ObjectiveConfig::named(name).and_then(|objective| serde_json::to_value(objective).ok());
    defaults.is_some_and(|defaults| defaults.get(setting).is_some())
}

/// How a comparison is taken up again, for messages.
pub fn how_to_go_on(out: &Path) -> String {
    format!("{}: go on with the same command and --resume", out.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Written {
        Written::take(&mut text.parse::<Table>().expect("TOML")).expect("tables")
    }

    fn tables(labels: &[&str], file: &str, given: &str) -> Result<Vec<(String, Table)>> {
        named(labels.iter().map(|l| (*l).to_string()).collect(), &written(file), &written(given))
    }

    #[test]
    fn shared_settings_reach_those_that_have_them_and_the_closer_one_wins() {
        let file = "[objective]\ntau = 2.0\nlog-prob = \"sum\"\n[objectives.mine]\nname = \"rpo\"\ntau = 3.0\n";
        let got = tables(&["sft", "mine", "dro", "rpo"], file, "").expect("valid");
        let tau = |all: &[(String, Table)]| -> Vec<Option<f64>> {
            all.iter().map(|(_, t)| t.get("tau").and_then(Value::as_float)).collect()
        };
        assert_eq!(tau(&got), [None, Some(3.0), Some(2.0), Some(2.0)]);
        assert!(got.iter().all(|(_, table)| table["log-prob"].as_str() == Some("sum")));

        let over = "[objective]\ntau = 4.0\n[objectives.rpo]\ntau = 5.0\n";
        let got = tables(&["sft", "mine", "dro", "rpo"], file, over).expect("valid");
        assert_eq!(tau(&got), [None, Some(4.0), Some(4.0), Some(5.0)], "the command line wins, its label most");

        // A table [objective] with a name, as a training run's file has, is of that objective alone.
        let got = tables(&["rpo", "dro"], "[objective]\nname = \"dro\"\ntau = 2.0\n", "").expect("valid");
        assert_eq!(tau(&got), [None, Some(2.0)]);
        // A label that is a name needs no name.
        let got = tables(&[], "[objectives.rpo]\ntau = 7.0\n", "").expect("valid");
        assert_eq!(got[0].1["name"].as_str(), Some("rpo"));
    }

    #[test]
    fn what_would_change_nothing_is_refused() {
        for (labels, file, given, said) in [
            (
                &["sft", "kto"][..],
                "",
                "[objective]\ntau = 1.0\n",
                "objective.tau: no compared objective has this setting",
            ),
            (
                &["sft"],
                "[objective]\nname = \"rpo\"\ntau = 1.0\n",
                "",
                "[objective] tau: no compared objective of name",
            ),
            (&["sft"], "", "[objective]\nname = \"rpo\"\n", "--objectives"),
            (&["sft"], "", "[objectives.rpo]\ntau = 1.0\n", "`rpo` is not compared; there are sft"),
            (&["sft", "sft"], "", "", "`sft` is there twice"),
            (&["ppo"], "", "", "no objective `ppo`"),
        ] {
            let complaint = tables(labels, file, given).expect_err(said).to_string();
            assert!(complaint.contains(said), "{complaint}");
        }
        let taken = |text: &str| Written::take(&mut text.parse::<Table>().expect("TOML")).err().map(|e| e.to_string());
        assert!(taken("objective = 1").is_some_and(|said| said.contains("[objective]")));
        assert!(taken("[objectives]\nmine = 1").is_some_and(|said| said.contains("objectives.mine")));
    }
}
