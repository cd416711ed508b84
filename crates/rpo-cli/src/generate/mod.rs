//! `rpo generate`: answers to prompts.

mod arguments;
pub mod begun;
mod chat;
pub mod file;
mod output;
mod pace;
mod questions;
mod row;
pub mod shard;
mod together;
mod wanted;

use std::collections::BTreeSet;
use std::io::IsTerminal;

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use rpo::device::{self, Subject};
use rpo::feedback::{Asked, prompts_fingerprint};
use rpo::generate::{Engine, Finish, Request, Said, Texts};
use rpo::model::checkpoint::Checkpoint;
use rpo::tokenizer::Tokenizer;
use rpo::world::World;

pub use arguments::{AnsweringFlags, Arguments, OutputFlags};
pub use begun::Begun;
use file::AnswerFile;
use output::{Output, To, print};
use pace::Pace;
use questions::Question;
use row::{Form, Key};
use shard::Shard;
use wanted::Wanted;

use crate::{interrupt, place, progress};

/// Runs the command, as one of the processes of `world`.
pub fn run(arguments: &Arguments, world: &dyn World) -> Result<()> {
    match world.size() {
        1 => run_alone(arguments),
        _ => together::run(arguments, world),
    }
}

fn run_alone(arguments: &Arguments) -> Result<()> {
    arguments.check()?;
    let checkpoint = Checkpoint::find(&arguments.model)?;
    if arguments.talk {
        return chat::run(arguments, &checkpoint);
    }
    if let Some(path) = &arguments.out.output {
        if path.exists() && !arguments.out.resume {
            bail!("{} already exists; go on with it (--resume), name a new file or remove it", path.display());
        }
        crate::flags::check_directory(path)?;
    }
    // A template that asks for the day is told the one on which the run began.
    let then = arguments.out.output.as_deref().filter(|path| path.exists()).map(Begun::read).transpose()?.flatten();
    let chat = arguments.how.chat.chat_on(then.and_then(|then| then.chat_date));
    let tokenizer = checkpoint.tokenizer(chat)?;
    let wanted = Wanted::of(arguments, &checkpoint, &tokenizer)?;
    let asked = questions::read(arguments)?;
    let begun = Begun {
        version: env!("CARGO_PKG_VERSION").into(),
        model: checkpoint.name().into(),
        model_fingerprint: String::new(),
        weights: arguments.how.weights,
        tokenizer_fingerprint: tokenizer.fingerprint().to_hex().to_string(),
        prompts: asked.len() as u64,
        prompts_fingerprint: prompts_fingerprint(&asked),
        shard: arguments.out.shard.unwrap_or(Shard::WHOLE),
        answers: wanted.kept,
        drawn: wanted.drawn,
        decoding: wanted.decoding.clone(),
        stop: wanted.stops.clone(),
        max_prompt_tokens: arguments.how.max_prompt_tokens,
        truncate_prompts: arguments.how.truncate_prompts,
        chat_template: chat.template,
        chat_date: chat.date.filter(|_| checkpoint.asks_for_the_day(chat.template).unwrap_or(false)),
        in_order: arguments.out.in_order,
    };
    let named = asked.iter().any(|Asked { id, .. }| id.is_some());
    let form = Form { named, several: wanted.kept > 1, seed: wanted.decoding.seed };
    let mut questions = questions::encode(asked, arguments, &tokenizer)?;
    warn_of_long_texts(&questions, &wanted, &checkpoint)?;
    let (texts, model_fingerprint) = texts(&checkpoint, &tokenizer, &wanted, arguments)?;
    questions.iter().try_for_each(|question| texts.check(&wanted.request(question), wanted.kept))?;

    let (to, done) = open(arguments, &Begun { model_fingerprint, ..begun }, questions.len())?;
    let all = questions.len() * wanted.kept;
    if !done.is_empty() {
        tracing::info!("{} of {all} answers are there already", done.len());
    }
    let kept = wanted.kept;
    let keys = |index: u64| (0..kept).map(move |answer| (index, answer)).filter(|key| !done.contains(key));
    questions.retain(|question| keys(question.index).next().is_some());
    let ordered = arguments.out.in_order || arguments.out.output.is_none();
    let expected = ordered.then(|| questions.iter().flat_map(|question| keys(question.index)).collect());
    let output = Output::new(to, form, expected);
    answer(texts, &questions, &wanted, &done, all - done.len(), output)
}

/// Says which answers may reach beyond the texts that the model is made for.
fn warn_of_long_texts(questions: &[Question], wanted: &Wanted, checkpoint: &Checkpoint) -> Result<()> {
    let Some(context) = checkpoint.config()?.context() else { return Ok(()) };
    let longest = |question: &Question| {
        let prompt = question.ids.len();
        wanted.decoding.max_length.map_or(prompt + wanted.decoding.max_new_tokens, |length| length.max(prompt))
    };
    let beyond = questions.iter().filter(|question| longest(question) > context).count();
    if beyond > 0 {
        tracing::warn!(
            "{beyond} of {} prompts with their answers may have more than the {context} tokens that the model is made for, beyond \
             which it loses its thread; ask for less (--max-new-tokens, --max-prompt-tokens)",
            questions.len()
        );
    }
    Ok(())
}

/// Where answers go, and those that are there already.
fn open(arguments: &Arguments, begun: &Begun, questions: usize) -> Result<(To, BTreeSet<Key>)> {
    let none = BTreeSet::new();
    let one_each = arguments.how.decoding.answers == 1 && arguments.how.decoding.best_of.is_none();
    Ok(match &arguments.out.output {
        Some(path) if arguments.out.resume => {
            let (file, done) = AnswerFile::resume(path, begun)?;
            (To::File(file), done)
        }
        Some(path) => (To::File(AnswerFile::create(path, begun)?), none),
        None if arguments.out.json => (To::Json, none),
        None if questions == 1 && one_each => (To::Stream, none),
        None => (To::Texts { several_prompts: questions > 1 }, none),
    })
}

/// What answers, as the arguments say, and a hash of its weights.
fn texts<'a>(
    checkpoint: &Checkpoint,
    tokenizer: &'a Tokenizer,
    wanted: &Wanted,
    arguments: &Arguments,
) -> Result<(Texts<'a>, String)> {
    let device = device::find(&arguments.how.device)?;
    place::trust(&arguments.how.device, &Subject::of(checkpoint.config()?))?;
    let (engine, fingerprint) =
        Engine::load(checkpoint, &device, arguments.how.weights.into(), arguments.how.batch_size)?;
    Ok((Texts::new(engine, tokenizer, &wanted.stops)?, fingerprint))
}

impl Wanted {
    fn request(&self, question: &Question) -> Request {
        let (prompt, decoding) = (question.ids.clone(), self.decoding.clone());
        Request { prompt, decoding, index: question.index, answers: self.drawn }
    }
}

/// Answers all questions but for what is `done`, which leaves so many answers.
fn answer(
    texts: Texts<'_>,
    questions: &[Question],
    wanted: &Wanted,
    done: &BTreeSet<Key>,
    left: usize,
    mut output: Output,
) -> Result<()> {
    let mut texts = if output.streams() { texts.streaming() } else { texts };
    // What is written to a file is whole at any moment: the step at hand ends before the program does.
    let _saving = output.how_to_go_on().is_some().then(interrupt::saving);
    let bar = if output.streams() { ProgressBar::hidden() } else { progress::answers(left) };
    let mut pace = Pace::new(left as f64 * (wanted.drawn as f64 / wanted.kept as f64));
    let (mut cut, mut next) = (0, questions.iter());
    loop {
        // A few wait, so that whoever leaves makes room for one that is there.
        while texts.waiting() < READY
            && let Some(question) = next.next()
        {
            texts.add(wanted.request(question), wanted.kept)?;
        }
        if texts.idle() {
            break;
        }
        if interrupt::stop().requested() {
            bar.finish_and_clear();
            bail!("stopped; {}", output.how_to_go_on().unwrap_or_default());
        }
        for said in texts.step()? {
            match said {
                Said::Piece { text, .. } => print(&text)?,
                Said::Answer(answer) if done.contains(&(answer.index, answer.answer)) => {}
                Said::Answer(answer) => {
                    cut += usize::from(answer.finish == Finish::Length);
                    let place = questions.partition_point(|question| question.index < answer.index);
                    output.answer(&questions[place], &answer, &bar)?;
                    pace.over(answer.tokens);
                    bar.inc(1);
                }
            }
        }
        bar.set_message(pace.said(texts.tokens()));
    }
    bar.finish_and_clear();
    let told: fn(&str) = if output.how_to_go_on().is_some() { |said| tracing::info!("{said}") } else { note };
    output.close()?;
    if left > 0 {
        let (made, limit) = (pace.summary(left, texts.tokens()), wanted.limit());
        told(&match cut {
            0 => made,
            cut => format!("{made}; {cut} of {left} answers were {limit}"),
        });
    }
    Ok(())
}

/// So many requests wait beside those that are worked on, at most.
const READY: usize = 64;

/// Tells people; programs, which have no terminal, with --verbose alone: they have the finish_reason of JSON Lines.
fn note(said: &str) {
    match std::io::stderr().is_terminal() {
        true => tracing::info!("{said}"),
        false => tracing::debug!("{said}"),
    }
}
