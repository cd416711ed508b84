//! The prompts that are to be answered, as the model reads them.

use anyhow::{Context, Result, bail};
use rpo::chat::Prompt;
use rpo::feedback::{Asked, Source, read_prompts};
use rpo::tokenizer::Tokenizer;
use serde_json::Value;

use super::arguments::Arguments;
use super::shard::Shard;
use crate::remarks::plain_beside_template;

/// A prompt that is to be answered.
pub struct Question {
    /// Its place among all prompts, from 0.
    pub index: u64,
    /// What its record calls it.
    pub id: Option<Value>,
    /// It as people read it.
    pub text: String,
    /// It as the model reads it.
    pub ids: Vec<u32>,
}

/// All prompts of all parts.
pub fn read(arguments: &Arguments) -> Result<Vec<Asked>> {
    match &arguments.input {
        Some(input) => {
            let (column, ids) = (&arguments.prompt_column, arguments.id_column.as_deref());
            Ok(read_prompts(&Source::from(input.clone()), column, ids, arguments.format)?)
        }
        None => {
            let place = String::new;
            let asked =
                arguments.prompts.iter().map(|text| Asked { prompt: text.as_str().into(), id: None, place: place() });
            Ok(asked.collect())
        }
    }
}

/// Those of this part, with the model's ids; says how many were cut.
pub fn encode(asked: Vec<Asked>, arguments: &Arguments, tokenizer: &Tokenizer) -> Result<Vec<Question>> {
    let shard = arguments.out.shard.unwrap_or(Shard::WHOLE);
    let limit = arguments.how.max_prompt_tokens;
    let mut questions = Vec::new();
    let (mut cut, mut plain) = (0, 0);
    for (i, Asked { prompt, id, place }) in asked.into_iter().enumerate() {
        if !shard.has(i as u64) {
            continue;
        }
        let name = || match place.is_empty() {
            true => format!("prompt {}", i + 1),
            false => format!("prompt {} ({place})", i + 1),
        };
        if prompt.is_blank() {
            bail!("{} is empty", name());
        }
        let encoded = tokenizer.ask(&prompt, limit, arguments.how.truncate_prompts).with_context(name)?;
        if arguments.strict && encoded.truncated() {
            let length = encoded.length;
            bail!("{} has {length} tokens, and a prompt may have {limit} (--max-prompt-tokens)", name());
        }
        cut += usize::from(encoded.truncated());
        plain += usize::from(!encoded.templated);
        let text = match prompt {
            Prompt::Text(text) => text,
            turns @ Prompt::Turns(_) => turns.to_string(),
        };
        questions.push(Question { index: i as u64, id, text, ids: encoded.ids });
    }
    let of = questions.len();
    if cut > 0 {
        tracing::warn!("{cut} of {of} prompts were cut at {limit} tokens (--max-prompt-tokens)");
    }
    if plain > 0 && tokenizer.writing().has_template() {
        tracing::warn!("{}", plain_beside_template(plain, of));
    }
    Ok(questions)
}
