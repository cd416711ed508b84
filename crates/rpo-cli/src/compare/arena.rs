//! Where contestants are trained and judged: what they all share, and what is found of each. It writes no report.

use anyhow::{Context, Result, bail};
use rpo::device::{self, Subject};
use rpo::evaluate::{Estimate, log_probs, mean_of_rows, mean_tau, of, pooled_spearman};
use rpo::feedback::{Split, held_out_prompts};
use rpo::generate::{Decoding, Engine, Request, Said, Texts};
use rpo::model::Model;
use rpo::model::checkpoint::Checkpoint;
use rpo::stop::Stop;
use rpo::store::text_of;
use rpo::tokenizer::Tokenizer;
use rpo::train::{METRICS, RunDir};
use rpo::world::Alone;
use serde::Serialize;
use serde_json::Value as Json;

use super::arguments::how_to_go_on;
use super::ranks::Ranks;
use super::record::{self, Basis, Draw, JUDGED, Judged, Point, START, SavedModel, Start};
use super::{Candidate, Comparison};
use crate::judge::Judge;
use crate::settings::Settings;
use crate::train::{prepare, train};
use crate::{place, progress};

/// What all contestants share.
pub struct Arena<'a> {
    comparison: &'a Comparison,
    /// Objectives by label, with the steps of their runs and the day that a chat template is told settled.
    pub contestants: Vec<(String, Vec<Candidate>)>,
    /// Judged on the held-out part.
    pub split: Split,
    tokenizer: Tokenizer,
    /// The held-out prompts' texts, as the user wrote them.
    pub prompts: Vec<String>,
    /// On which of them candidates are chosen.
    pub choosing: Vec<usize>,
    /// On which of them the chosen ones are judged.
    pub judging: Vec<usize>,
    judge: Option<&'a Judge<'a>>,
    stop: &'a Stop,
}

/// What was found of one objective, or of the start.
#[derive(Default, Serialize)]
pub struct Verdict {
    /// The objective's.
    pub label: String,
    /// Which model of each run was judged.
    pub judged: Vec<SavedModel>,
    /// Rank correlation of log-ratio and reward within prompts, mean over the prompts; bootstrap over prompts.
    pub tau_b: Option<Estimate>,
    /// The same with the log-ratio per token.
    pub tau_b_per_token: Option<Estimate>,
    /// Rank correlation over all judged responses; bootstrap over prompts.
    pub spearman: Option<Estimate>,
    /// Mean reward of the judged prompts, each the mean of its draws.
    pub reward: Option<Estimate>,
    /// Share of the judged prompts whose reward, mean of its draws, is more than the start's; ties count half.
    pub wins_against_start: Option<Estimate>,
    /// Learning rate, the chosen one of several.
    pub learning_rate: Option<f64>,
    /// What the learning rate was chosen by.
    pub tried: Vec<Tried>,
    /// Wall time of optimizer steps, mean over the runs.
    pub seconds: Option<f64>,
    /// Runs, and draws of an answer to each prompt.
    pub runs: usize,
    /// Rewards by held-out prompt, mean over the draws.
    pub rewards: Vec<f64>,
    /// Answers to held-out prompts, of the first draw.
    pub answers: Vec<String>,
    /// Tau-b over the judged prompts by step, of the first run.
    pub curve: Vec<Point>,
    /// All draws, in their order.
    #[serde(skip)]
    pub draws: Vec<Draw>,
    /// Those of the first run; none for the start.
    #[serde(skip)]
    pub settings: Option<Settings>,
}

/// A learning rate and what it is worth on the prompts set aside for choosing.
#[derive(Serialize)]
pub struct Tried {
    /// The learning rate.
    pub learning_rate: f64,
    /// Mean reward with a judge, else mean tau-b of the summed log-ratios.
    pub worth: Option<Estimate>,
}

impl<'a> Arena<'a> {
    /// Reads the data and settles what all runs have in common; checks what can be checked before anything is trained.
    pub fn open(comparison: &'a Comparison, judge: Option<&'a Judge<'a>>, stop: &'a Stop) -> Result<Self> {
        let mut first = comparison.all().next().context("no objective to compare")?.clone();
        if comparison.resume && first.chat_date.is_none() {
            first.chat_date = record::read::<Start>(&comparison.out.join(START))?.basis.chat_date;
        }
        let split = prepare(&mut first, true, &Alone)?.split;
        if split.validation.groups.is_empty() {
            bail!("validation-fraction: without held-out prompts there is nothing to compare on");
        }
        let tokenizer = Checkpoint::find(&first.model)?.tokenizer(first.chat())?;
        let prompts =
            held_out_prompts(first.held_out_source(), &first.columns, &tokenizer, first.limits(), &split.validation)?;
        let halves = comparison.contestants.iter().any(|(_, candidates)| candidates.len() > 1);
        let (choosing, judging) = match halves {
            true => (0..prompts.len()).partition(|i| i % 2 == 0),
            false => (Vec::new(), (0..prompts.len()).collect()),
        };
        if judging.is_empty() {
            bail!("validation-fraction: two held-out prompts at least are needed to choose learning rates and judge");
        }
        let mut contestants = comparison.contestants.clone();
        for settings in contestants.iter_mut().flat_map(|(_, candidates)| candidates).flatten() {
            with_equal_steps(settings, &split);
            settings.chat_date = first.chat_date;
            settings.precision = first.precision;
            settings.model.clone_from(&first.model);
            settings.train.check(settings.objective.build()?.needs(), &split)?;
            record::check_settings(settings)?;
        }
        Ok(Self { comparison, contestants, split, tokenizer, prompts, choosing, judging, judge, stop })
    }

    /// What the start's log-probabilities and answers are, found in an earlier session or now.
    pub fn start(&self) -> Result<Start> {
        let Comparison { out, decoding, judged_by, resume, .. } = self.comparison;
        let all = self.contestants.iter().flat_map(|(_, candidates)| candidates.iter().flatten());
        let settings = all.into_iter().next().context("no objective to compare")?;
        let model = load(&Checkpoint::find(&settings.model)?, settings)?;
        let now = Start {
            basis: Basis {
                data_fingerprint: self.split.fingerprint(),
                chooses_learning_rates: !self.choosing.is_empty(),
                judge: self.judge.and_then(|_| judged_by.clone()),
                decoding: decoding.clone(),
                chat_date: settings.chat_date,
            },
            log_probs: self.log_probs(&model, settings)?,
            draws: Vec::new(),
        };
        let path = out.join(START);
        let mut start = match resume {
            true => {
                let begun: Start = record::read(&path)?;
                begun.basis.check(&now.basis, out)?;
                begun.check(&now.log_probs, &settings.model, out)?;
                begun
            }
            false => now,
        };
        let known = start.draws.len();
        for i in known..self.comparison.draws() {
            start.draws.extend(self.draw(&model, i)?);
        }
        if !resume || start.draws.len() > known {
            std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
            record::write(&path, &start)?;
        }
        start.draws.truncate(self.comparison.draws());
        Ok(start)
    }

    /// The start's rewards; it ranks nothing.
    pub fn verdict_on_start(&self, start: &Start) -> Verdict {
        let rewards = mean_rewards(&start.draws);
        let reward = self.judge.and_then(|_| Estimate::mean(&of(&rewards, &self.judging)));
        let answers = start.draws.first().map(|draw| draw.answers.clone()).unwrap_or_default();
        let draws = start.draws.clone();
        Verdict { label: "start".into(), reward, rewards, answers, runs: draws.len(), draws, ..Verdict::default() }
    }

    /// The verdict on the candidate that does best on the prompts set aside for that.
    pub fn best(&self, label: &str, candidates: &[Candidate], start: &Start) -> Result<Verdict> {
        let mut best: Option<(f64, &Candidate, Vec<Judged>)> = None;
        let mut tried = Vec::new();
        for candidate in candidates {
            let runs = candidate
                .iter()
                .enumerate()
                .map(|(i, settings)| self.judged_run(label, settings, i, start))
                .collect::<Result<Vec<Judged>>>()?;
            let worth = match self.judge {
                Some(_) => Estimate::mean(&of(&mean_rewards(runs.iter().flat_map(|r| &r.draw)), &self.choosing)),
                None => mean_tau(&self.split.validation, &log_ratios(&runs), &self.choosing),
            };
            let learning_rate = candidate.first().map_or(0.0, |s| s.train.optimizer.learning_rate);
            tried.push(Tried { learning_rate, worth });
            let worth = worth.map_or(f64::NEG_INFINITY, |e| e.interval.mean);
            if best.as_ref().is_none_or(|(most, ..)| worth > *most) {
                best = Some((worth, candidate, runs));
            }
        }
        let (_, candidate, runs) = best.with_context(|| format!("{label}: there is nothing to train"))?;
        let tried = if candidates.len() > 1 { tried } else { Vec::new() };
        Ok(Verdict { label: label.into(), tried, ..self.verdict(candidate, runs, start) })
    }

    /// What is judged of a candidate's runs.
    fn verdict(&self, candidate: &Candidate, runs: Vec<Judged>, start: &Start) -> Verdict {
        let held_out = &self.split.validation;
        let sums = log_ratios(&runs);
        let tokens: Vec<f64> = held_out.iter().map(|r| r.ids.len() as f64).collect();
        let per_token = |sums: &&[f64]| sums.iter().zip(&tokens).map(|(sum, n)| sum / n).collect();
        let per_token: Vec<Vec<f64>> = sums.iter().map(per_token).collect();
        let per_token: Vec<&[f64]> = per_token.iter().map(Vec::as_slice).collect();
        let rewards = mean_rewards(runs.iter().flat_map(|r| &r.draw));
        let (mut reward, mut wins) = (None, None);
        if self.judge.is_some() {
            let ours = of(&rewards, &self.judging);
            reward = Estimate::mean(&ours);
            wins = Estimate::wins(&ours, &of(&mean_rewards(&start.draws), &self.judging));
        }
        let mut verdict = Verdict {
            judged: runs.iter().map(|r| r.model.clone()).collect(),
            tau_b: mean_tau(held_out, &sums, &self.judging),
            tau_b_per_token: mean_tau(held_out, &per_token, &self.judging),
            spearman: pooled_spearman(held_out, &sums, &self.judging),
            reward,
            wins_against_start: wins,
            learning_rate: candidate.first().map(|s| s.train.optimizer.learning_rate),
            seconds: rpo::statistics::mean(&runs.iter().map(|r| r.seconds).collect::<Vec<f64>>()),
            runs: runs.len(),
            rewards,
            settings: candidate.first().cloned(),
            curve: runs.first().map(|run| run.curve.clone()).unwrap_or_default(),
            draws: runs.into_iter().filter_map(|run| run.draw).collect(),
            ..Verdict::default()
        };
        verdict.answers = verdict.draws.first().map(|draw| draw.answers.clone()).unwrap_or_default();
        verdict
    }

    /// All runs: label, settings, and which run of its candidate it is.
    pub fn runs(&self) -> impl Iterator<Item = (&str, &Settings, usize)> {
        self.contestants.iter().flat_map(|(label, candidates)| {
            candidates.iter().flat_map(move |candidate| {
                candidate.iter().enumerate().map(move |(i, settings)| (label.as_str(), settings, i))
            })
        })
    }

    /// Trains and judges run `i` of a candidate, or takes up what is there of it.
    pub fn judged_run(&self, label: &str, settings: &Settings, i: usize, start: &Start) -> Result<Judged> {
        let (rate, seed) = (settings.train.optimizer.learning_rate, settings.train.seed);
        println!("\n== {label}, learning rate {rate}, seed {seed} ==");
        let path = settings.out.join(JUDGED);
        if path.exists() {
            println!("trained and judged before");
            return record::read(&path);
        }
        self.go_on()?;
        let held_out = &self.split.validation;
        let budget = settings.train.micro_batch_tokens;
        let mut ranks = Ranks::new(held_out, &self.judging, &start.log_probs, budget, &settings.out, self.stop);
        let resume = RunDir::check_begun(&settings.out).is_ok();
        let summary = train(settings, self.trained_on(), resume, &Alone, self.stop, &mut [&mut ranks])?;
        self.go_on()?;
        // What a user would deploy: the lowest held-out loss, where any step was better than the start. Where none was, a
        // user would keep the start; `last` then shows what the objective did to it.
        let (model, checkpoint) = match (summary.progress.best, Checkpoint::open(&settings.out.join("best"))) {
            (Some((_, step)), Ok(best)) => (SavedModel { name: "best".into(), step }, best),
            _ => {
                let model = SavedModel { name: "last".into(), step: summary.progress.step };
                (model, Checkpoint::open(&settings.out.join("last"))?)
            }
        };
        let policy = load(&checkpoint, settings)?;
        let now = self.log_probs(&policy, settings)?;
        let judged = Judged {
            model,
            log_ratios: now.iter().zip(&start.log_probs).map(|(now, start)| now - start).collect(),
            curve: ranks.curve,
            seconds: seconds(settings)?,
            draw: self.draw(&policy, i)?,
        };
        record::write(&path, &judged)?;
        Ok(judged)
    }

    /// What runs see: `best/` is chosen on the prompts set aside for choosing, if there are any.
    fn trained_on(&self) -> Split {
        match self.choosing.is_empty() {
            true => self.split.clone(),
            false => self.split.with_held_out(&self.choosing),
        }
    }

    /// # Errors
    /// If the user has stopped the program.
    fn go_on(&self) -> Result<()> {
        match self.stop.requested() {
            true => bail!("stopped; {}", how_to_go_on(&self.comparison.out)),
            false => Ok(()),
        }
    }

    fn log_probs(&self, model: &Model, settings: &Settings) -> Result<Vec<f64>> {
        let found = log_probs(model, &self.split.validation, settings.train.micro_batch_tokens, self.stop)?;
        match found.iter().all(|p| p.is_finite()) {
            true => Ok(found),
            false => bail!("{}: log-probabilities that are not finite; it cannot be judged", settings.out.display()),
        }
    }

    /// Draw `i` of an answer of a model to each held-out prompt, with its reward; none without a judge.
    fn draw(&self, model: &Model, i: usize) -> Result<Option<Draw>> {
        const TOGETHER: usize = 32;
        let Some(judge) = self.judge else { return Ok(None) };
        let decoding =
            Decoding { seed: self.comparison.decoding.seed.wrapping_add(i as u64), ..self.comparison.decoding.clone() };
        let ids: Vec<Vec<u32>> = self.split.validation.groups.iter().map(|g| g.prompt.clone()).collect();
        let bar = progress::bar("answering", ids.len());
        let mut texts = Texts::new(Engine::new(model, TOGETHER)?, &self.tokenizer, &[])?;
        let mut answers = vec![String::new(); ids.len()];
        for (index, prompt) in (0..).zip(ids) {
            texts.add(Request { prompt, decoding: decoding.clone(), index, answers: 1 }, 1)?;
        }
        while !texts.idle() {
            self.go_on()?;
            for said in texts.step()? {
                if let Said::Answer(answer) = said {
                    answers[answer.index as usize] = answer.text;
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        let pairs: Vec<(String, String)> = self.prompts.iter().cloned().zip(answers.iter().cloned()).collect();
        let rewards = judge(&pairs)?;
        Ok(Some(Draw { answers, rewards }))
    }
}

/// As many steps for every objective as passes over all responses take, however many of them it uses.
fn with_equal_steps(settings: &mut Settings, split: &Split) {
    let all = split.train.responses().div_ceil(settings.train.batch_size.max(1));
    settings.train.max_steps.get_or_insert(settings.train.epochs * all);
}

fn load(checkpoint: &Checkpoint, settings: &Settings) -> Result<Model> {
    let device = device::find(&settings.device)?;
    let config = checkpoint.config()?;
    let compute = settings.precision.on(&device, config.d_model());
    place::trust(&settings.device, &Subject::of(config).with_compute(compute))?;
    Ok(checkpoint.load(&device)?.with_compute(compute))
}

/// The mean reward of each prompt over the draws; empty without draws.
fn mean_rewards<'a>(draws: impl IntoIterator<Item = &'a Draw>) -> Vec<f64> {
    mean_of_rows(&draws.into_iter().map(|draw| draw.rewards.as_slice()).collect::<Vec<_>>())
}

fn log_ratios(runs: &[Judged]) -> Vec<&[f64]> {
    runs.iter().map(|run| run.log_ratios.as_slice()).collect()
}

/// Wall time of a run's optimizer steps, all sessions together.
fn seconds(settings: &Settings) -> Result<f64> {
    let path = settings.out.join(METRICS);
    let log = text_of(&path)?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    Ok(lines.filter_map(|line| line["seconds"].as_f64()).sum())
}
