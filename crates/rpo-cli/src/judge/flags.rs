//! The flags that name judges and say how they are asked, for every command that has answers judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rpo::device::{self, Subject};
use rpo::evaluate::judge::program::Allowed;
use rpo::evaluate::judge::{
    Endpoint, EndpointSettings, Judge, Kind, Limits, Local, LocalSettings, Program, Store, Stored, Template,
    key_of_environment,
};
use rpo::model::Precision;
use rpo::model::checkpoint::Checkpoint;

use super::Seat;
use crate::place;

/// Who judges, and how it is asked.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Judges")]
pub struct JudgeFlags {
    /// Address of a judge that speaks OpenAI's protocol for chat completions: its server, its /v1, or all of it (may be repeated,
    /// one for each --judge-model). Its key is taken from the environment: RPO_JUDGE_KEY_1 for the first address and so on, else RPO_JUDGE_KEY, else
    /// OPENAI_API_KEY for OpenAI's server or a single one
    #[arg(long, value_name = "URL")]
    judge_url: Vec<String>,
    /// Model at --judge-url that judges; without an address, a model directory or hub id that judges on this machine (may be
    /// repeated)
    #[arg(long, value_name = "NAME|DIR")]
    judge_model: Vec<String>,
    /// Program that judges: it is run for each question, gets a line of JSON (prompt with response, or with first and second;
    /// system and user, the question as the template words it) and prints its verdict (may be repeated)
    #[arg(long, value_name = "COMMAND")]
    judge_command: Vec<String>,
    /// Verdicts that were given before, instead of a judge: what --judge-store has kept (--judge-model chooses among judges), or
    /// JSON Lines of prompt, response and verdict, or of prompt, first, second and verdict (may be repeated)
    #[arg(long, value_name = "FILE")]
    judge_replay: Vec<PathBuf>,
    /// How judges are asked and their verdicts read: short, alpacaeval-like or mtbench-like for pairs, rating for single answers,
    /// or a TOML file [default: short, or rating]
    #[arg(long, value_name = "NAME|FILE")]
    judge_template: Option<String>,
    /// What the judge is called, in the place of its address: replies that were kept under this name serve wherever it runs
    #[arg(long, value_name = "NAME")]
    judge_name: Option<String>,
    /// Where requests and replies are kept as JSON Lines; what is there is not asked again [default: beside the output]
    #[arg(long, value_name = "FILE")]
    judge_store: Option<PathBuf>,
    /// Questions under way together
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parallel)]
    judge_parallel: usize,
    /// How long a judge may take for a reply; one on this machine takes as long as it takes
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = seconds)]
    judge_timeout: f64,
    /// How often a call that failed in passing (429, 5xx, no reply, a broken one) is tried again, after ever longer pauses
    #[arg(long, value_name = "N", default_value_t = 5)]
    judge_retries: usize,
    /// Make at most so many calls to each judge, those that are tried again among them
    #[arg(long, value_name = "N")]
    max_judge_calls: Option<u64>,
    /// Longest reply in tokens [default: the template's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    judge_max_tokens: Option<u32>,
    /// How freely replies are drawn [default: the template's, which is 0 for those built in]
    #[arg(long, value_name = "T", value_parser = temperature)]
    judge_temperature: Option<f64>,
    /// What a million tokens read and a million written cost, for the sum at the end
    #[arg(long, value_name = "READ,WRITTEN", value_parser = price)]
    judge_price: Option<(f64, f64)>,
    /// What computes a judge on this machine
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device::NAMES)]
    judge_device: String,
}

fn parallel(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "it is not between 1 and 1024".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds.filter(|s| *s >= 0.001 && *s <= 86400.0).ok_or_else(|| "it is not between 0.001 and 86400 (a day)".into())
}

fn temperature(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|t| (0.0..=10.0).contains(t)).ok_or_else(|| "it is not between 0 and 10".into())
}

fn price(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    let prices = text.split_once(',').and_then(|(read, written)| Some((number(read)?, number(written)?)));
    prices.ok_or_else(|| "it is two prices, as in 0.15,0.60".into())
}

impl JudgeFlags {
    /// Whether any judge is named.
    pub fn given(&self) -> bool {
        let Self { judge_url, judge_model, judge_command, judge_replay, .. } = self;
        !(judge_url.is_empty() && judge_model.is_empty() && judge_command.is_empty() && judge_replay.is_empty())
    }

    /// Whether the judges compute where they are asked, and may be asked as often as it takes, so that more processes are faster.
    pub fn compute_here(&self) -> bool {
        self.judge_url.is_empty() && self.judge_replay.is_empty() && self.max_judge_calls.is_none()
    }

    /// Where their replies are kept: in `beside` if no flag says where.
    pub fn store<'a>(&'a self, beside: &'a Path) -> &'a Path {
        self.judge_store.as_deref().unwrap_or(beside)
    }

    /// The judges that are named, ready to be asked what is of `kind`; their replies are kept in `beside` if no flag says where.
    pub fn seats(&self, kind: Kind, beside: &Path) -> Result<Vec<Seat>> {
        self.seats_in(kind, &|| {
            let store = Store::open(self.store(beside))?;
            super::shared::take_left(&store)?;
            Ok(store)
        })
    }

    /// [`Self::seats`] whose replies are kept in what `open` opens, where judges are of a kind whose replies are.
    pub fn seats_in(&self, kind: Kind, open: &dyn Fn() -> Result<Store>) -> Result<Vec<Seat>> {
        let template = self.template(kind)?;
        let judges = self.judges()?;
        if judges.is_empty() {
            bail!(
                "no judge: name one with --judge-url and --judge-model, --judge-model DIR, --judge-command or --judge-replay"
            );
        }
        let keeps = judges.iter().any(|judge| judge.keeps());
        let store = keeps.then(open).transpose()?.map(Arc::new);
        if let Some(store) = &store {
            let (path, replies, torn) = (store.path(), store.replies(), store.torn());
            if torn > 0 {
                tracing::info!("{}: its last {torn} bytes are no whole reply and were dropped", path.display());
            }
            if replies > 0 {
                tracing::info!("{}: {replies} replies are there; what they answer is not asked again", path.display());
            }
        }
        let limits = Limits {
            parallel: self.judge_parallel,
            retries: self.judge_retries,
            most_calls: self.max_judge_calls,
            ..Limits::default()
        };
        let seat = |judge: Box<dyn Judge>| Seat {
            store: store.clone().filter(|_| judge.keeps()),
            template: template.clone(),
            limits: limits.clone(),
            price: self.judge_price,
            judge,
        };
        Ok(judges.into_iter().map(seat).collect())
    }

    fn template(&self, kind: Kind) -> Result<Template> {
        let mut template = match &self.judge_template {
            Some(name) => Template::named(name).context("--judge-template")?,
            None => Template::default_of(kind)?,
        };
        if template.kind != kind {
            let wanted = match kind {
                Kind::Pairwise => {
                    "pairs are compared here, which it does not do (as short, alpacaeval-like, mtbench-like do)"
                }
                Kind::Pointwise => "single answers are rated here, which it does not do (as rating does)",
            };
            bail!("--judge-template {}: {wanted}", template.name);
        }
        template.max_tokens = self.judge_max_tokens.unwrap_or(template.max_tokens);
        template.temperature = self.judge_temperature.unwrap_or(template.temperature);
        Ok(template)
    }

    fn judges(&self) -> Result<Vec<Box<dyn Judge>>> {
        let mut judges: Vec<Box<dyn Judge>> = Vec::new();
        let endpoints = self.endpoints()?;
        let one = endpoints.iter().all(|(url, _)| *url == endpoints[0].0);
        for (url, model) in endpoints {
            let place = self.judge_url.iter().position(|given| *given == url).map_or(1, |place| place + 1);
            let key = key_of_environment(place, &url, one)?;
            judges.push(Box::new(Endpoint::new(EndpointSettings {
                url,
                model,
                name: self.judge_name.clone(),
                key,
                deadline: Duration::from_secs_f64(self.judge_timeout),
                parallel: self.judge_parallel,
            })?));
        }
        let allowed = Allowed { time: Duration::from_secs_f64(self.judge_timeout), output: 1 << 20 };
        for command in &self.judge_command {
            judges.push(Box::new(Program::new(command, self.judge_name.as_deref(), allowed)));
        }
        let models = if self.judge_url.is_empty() { &self.judge_model[..] } else { &[] };
        match (&self.judge_replay[..], models) {
            ([], models) => {
                for model in models {
                    judges.push(Box::new(self.local(model)?));
                }
            }
            (files, []) => {
                for file in files {
                    judges.push(Box::new(Stored::open(file, None)?));
                }
            }
            ([file], models) => {
                for model in models {
                    judges.push(Box::new(Stored::open(file, Some(model))?));
                }
            }
            _ => bail!("--judge-model: it chooses among the judges of one --judge-replay, and several are given"),
        }
        if self.judge_name.is_some() && judges.len() > 1 {
            bail!("--judge-name: there are {} judges, and one name", judges.len());
        }
        Ok(judges)
    }

    /// Addresses with models.
    fn endpoints(&self) -> Result<Vec<(String, String)>> {
        let (urls, models) = (&self.judge_url, &self.judge_model);
        match (&urls[..], &models[..]) {
            ([], _) => Ok(Vec::new()),
            (_, []) => bail!("--judge-url: which of its models judges? Name it with --judge-model"),
            ([url], models) => Ok(models.iter().map(|model| (url.clone(), model.clone())).collect()),
            (urls, models) if urls.len() == models.len() => {
                Ok(urls.iter().cloned().zip(models.iter().cloned()).collect())
            }
            (urls, models) => {
                bail!("--judge-url: {} addresses for {} models (--judge-model)", urls.len(), models.len())
            }
        }
    }

    fn local(&self, model: &str) -> Result<Local> {
        let load = || {
            place::trust(&self.judge_device, &Subject::of(Checkpoint::find(model)?.config()?))?;
            let settings = LocalSettings {
                model: model.into(),
                name: self.judge_name.clone(),
                device: device::find(&self.judge_device)?,
                precision: Precision::F32,
                rows: self.judge_parallel,
            };
            Ok::<_, anyhow::Error>(Local::load(settings)?)
        };
        load().with_context(|| {
            format!("--judge-model {model}: without --judge-url it is a model directory or hub id that judges on this machine")
        })
    }
}
