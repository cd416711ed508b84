//! From flags, a preset and the model's own settings to what is wanted of the decoder.

use anyhow::{Context, Result, bail};
use rpo::batch::Start;
use rpo::generate::{Decoding, Processors, StoredDecoding};
use rpo::model::checkpoint::Checkpoint;
use rpo::tokenizer::Tokenizer;

use super::arguments::{Arguments, DecodingFlags, Preset};
use super::note;

/// What is wanted of each prompt's answers.
pub struct Wanted {
    /// How they are decoded.
    pub decoding: Decoding,
    /// How many are drawn or searched for.
    pub drawn: usize,
    /// How many of them are given.
    pub kept: usize,
    /// Texts before which an answer ends.
    pub stops: Vec<String>,
}

impl Wanted {
    /// Where answers are cut.
    pub fn limit(&self) -> String {
        match self.decoding.max_length {
            Some(length) => {
                format!("cut at the length of {length} tokens that the model's settings have (--max-new-tokens)")
            }
            None => format!("cut at {} tokens (--max-new-tokens)", self.decoding.max_new_tokens),
        }
    }

    /// What the arguments want of the model.
    pub fn of(arguments: &Arguments, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Self> {
        let flags = &arguments.how.decoding;
        let (mut decoding, own_stops) = decoding(flags, checkpoint)?;
        let (kept, drawn) = (flags.answers, flags.best_of.unwrap_or(flags.answers));
        match (decoding.num_beams, decoding.sample) {
            (1, false) if drawn > 1 => {
                let flag = if flags.best_of.is_some() { "--best-of" } else { "-n" };
                bail!(
                    "{flag} {drawn}: all answers would be alike; draw them (--sample) or search for them (--num-beams)"
                )
            }
            (2.., _) if flags.best_of.is_some() => {
                bail!("--best-of: answers are drawn for it, and a beam search draws none; add --sample")
            }
            (beams @ 2.., _) if kept > beams => {
                bail!("-n {kept}: a search with {beams} beams gives at most {beams} answers (--num-beams)")
            }
            (beams @ 2.., _) if !(flags.stop.is_empty() && own_stops.is_empty()) => {
                let whose = if flags.stop.is_empty() { "generation_config.json: stop_strings" } else { "--stop" };
                bail!(
                    "{whose}: a search with {beams} beams compares whole answers, which no text ends in between; follow one \
                     (--num-beams 1)"
                )
            }
            _ => {}
        }
        shape(flags, &decoding.ends(&checkpoint.config()?.ends()), tokenizer, &mut decoding.processors)?;
        let mut stops = Vec::new();
        for stop in own_stops.iter().chain(&flags.stop) {
            warn_of_unknown_token("--stop", stop, tokenizer);
            // What texts do not show ends an answer as a token.
            if let Some(id) = tokenizer.special_id(stop) {
                decoding.end_ids = decoding.ends(&checkpoint.config()?.ends());
                decoding.end_ids.push(id);
            } else if let Some(unknown) = tokenizer.unwritable(stop)? {
                bail!("--stop `{stop}`: no answer has it, for the model's tokenizer has no `{unknown}`");
            } else {
                stops.push(stop.clone());
            }
        }
        Ok(Self { decoding, drawn, kept, stops })
    }
}

/// Sets what is said of single tokens and texts.
fn shape(flags: &DecodingFlags, ends: &[u32], tokenizer: &Tokenizer, processors: &mut Processors) -> Result<()> {
    let spellings = |flag: &str, text: &str| tokenizer.spellings(text).with_context(|| format!("{flag} `{text}`"));
    for text in &flags.ban {
        warn_of_unknown_token("--ban", text, tokenizer);
        let banned = spellings("--ban", text)?;
        if banned.iter().any(|ids| matches!(ids[..], [id] if ends.contains(&id))) {
            bail!("--ban `{text}`: it ends answers, which --min-new-tokens puts off");
        }
        processors.bad_words_ids.extend(banned);
    }
    for (text, bias) in &flags.logit_bias {
        warn_of_unknown_token("--logit-bias", text, tokenizer);
        let biased = spellings("--logit-bias", text)?;
        processors.sequence_bias.extend(biased.into_iter().map(|ids| (ids, *bias)));
    }
    Ok(())
}

/// Says that `text`, which is written as special tokens are, is none of the model's.
fn warn_of_unknown_token(flag: &str, text: &str, tokenizer: &Tokenizer) {
    let written_as_a_token = text.len() > 2 && text.starts_with('<') && text.ends_with('>');
    if written_as_a_token && !text.contains(char::is_whitespace) && tokenizer.token_id(text).is_none() {
        tracing::warn!("{flag} `{text}`: the model has no such token; it is looked for as plain text");
    }
}

/// The settings of the preset with the flags in their places, and the texts that end answers by the model's own settings; says
/// what was taken from those.
fn decoding(flags: &DecodingFlags, checkpoint: &Checkpoint) -> Result<(Decoding, Vec<String>)> {
    let mut stops = Vec::new();
    let base = match flags.preset {
        Preset::Model => match StoredDecoding::read(checkpoint.dir(), &Decoding::default())? {
            Some(stored) => {
                let mut taken = stored.taken;
                taken.extend(stored.stop.iter().map(|stop| format!("stop-strings `{stop}`")));
                if !taken.is_empty() {
                    note(&format!("as the model's generation_config.json says: {}", taken.join(", ")));
                }
                let mut unsupported = stored.unsupported;
                // An encoder-decoder model begins with what its config.json names; others have no such token.
                if let (Start::Token(own), Some(id)) = (checkpoint.config()?.start(), stored.decoder_start)
                    && own != id
                {
                    unsupported
                        .push(format!("decoder_start_token_id {id} (answers begin with {own}, as config.json says)"));
                }
                stops = stored.stop;
                if !unsupported.is_empty() {
                    let named = unsupported.join(", ");
                    tracing::warn!("generation_config.json asks for what is not supported: {named}");
                }
                stored.decoding
            }
            None => Decoding::default(),
        },
        Preset::Published => Decoding::published(),
        Preset::Plain => Decoding::default(),
    };
    let mut d = Decoding { seed: flags.seed, ..base };
    d.sample = (d.sample || flags.sample) && !flags.greedy;
    match flags.num_beams {
        Some(beams) => d.num_beams = beams,
        // The beams of a preset are no wish against the flag.
        None if flags.sample || flags.greedy => d.num_beams = 1,
        None => {}
    }
    let set = |place: &mut usize, value: Option<usize>| value.into_iter().for_each(|value| *place = value);
    let set_real = |place: &mut f32, value: Option<f32>| value.into_iter().for_each(|value| *place = value);
    set(&mut d.max_new_tokens, flags.max_new_tokens);
    set(&mut d.min_new_tokens, flags.min_new_tokens);
    // A number of new tokens wins over a length that the preset has.
    d.max_length = d.max_length.filter(|_| flags.max_new_tokens.is_none());
    d.min_length = d.min_length.filter(|_| flags.min_new_tokens.is_none());
    set_real(&mut d.length_penalty, flags.length_penalty);
    flags.early_stopping.into_iter().for_each(|when| d.early_stopping = when);
    let drawn = [
        ("--temperature", flags.temperature.is_some()),
        ("--top-k", flags.top_k.is_some()),
        ("--top-p", flags.top_p.is_some()),
        ("--min-p", flags.min_p.is_some()),
    ];
    if let Some((flag, _)) = drawn.into_iter().find(|(_, given)| *given && !d.sample) {
        bail!("{flag} shapes what is drawn from, and nothing is drawn; add --sample");
    }
    let p = &mut d.processors;
    set_real(&mut p.temperature, flags.temperature);
    set(&mut p.top_k, flags.top_k);
    set_real(&mut p.top_p, flags.top_p);
    set_real(&mut p.min_p, flags.min_p);
    set_real(&mut p.repetition_penalty, flags.repetition_penalty);
    set(&mut p.no_repeat_ngram_size, flags.no_repeat_ngram_size);
    d.validate()?;
    Ok((d, stops))
}
