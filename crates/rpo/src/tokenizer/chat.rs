//! Prompts and answers of conversations: written plainly or by the model's chat template, then encoded and, where they are too
//! long, cut within what people said and not within what the template writes around it.

use super::{Cut, Encoded, Tokenizer, is_blank};
use crate::chat::{ChatTemplate, Prompt, Turn, Writing};
use crate::error::{Error, Result};

impl Tokenizer {
    /// The same tokenizer for a model whose prompts are written by `writing` and that stops at `ends`.
    ///
    /// Behind a prompt of the template an answer ends as the template ends it, if the model stops there, and else as any text.
    #[must_use]
    pub fn written(mut self, writing: Writing, ends: &[u32]) -> Self {
        // Without a template the key of messages that are written plainly stays that of the tokenizer alone, as T5 has it.
        let decides = match &writing {
            Writing::Plain => None,
            Writing::NoTemplate(_) => Some(b"messages are refused".to_vec()),
            Writing::Template { template, texts } => {
                Some([template.fingerprint().as_bytes(), &[u8::from(*texts)][..]].concat())
            }
        };
        if let Some(decides) = decides {
            self.fingerprint = blake3::hash(&[self.fingerprint.as_bytes(), &decides[..]].concat());
        }
        if let Writing::Template { template, .. } = &writing {
            let behind = template.behind_an_answer().and_then(|text| self.ids(&text).ok()).unwrap_or_default();
            let turn_end = behind.into_iter().find(|id| self.special.contains(id)).filter(|id| ends.contains(id));
            self.turn_end = turn_end.unwrap_or(self.eos);
            self.ends.extend(self.inner.id_to_token(self.turn_end).filter(|name| !self.ends.contains(name)));
        }
        self.writing = writing;
        self
    }

    /// How prompts are written.
    pub fn writing(&self) -> &Writing {
        &self.writing
    }

    /// Encodes what is asked in at most `limit` ids. By a template it is cut as long as it has more: first the oldest turns go, but
    /// for those of the system and from the last user's on, always up to the next of the user; then the longest text that is
    /// left loses its end or its start, as `cut` says. What the template writes around the texts stays.
    ///
    /// # Errors
    /// If it cannot be written ([`ChatTemplate::prompt`]), or what the template writes around the texts is too long by itself,
    /// or the tokenizer's own model fails.
    pub fn ask(&self, prompt: &Prompt, limit: usize, cut: Cut) -> Result<Encoded> {
        let Some((template, turns)) = self.writing.turns(prompt)? else {
            return self.prompt(&prompt.text(), limit, cut);
        };
        let whole = self.ids(&template.prompt(&turns)?)?;
        let special = turns.iter().map(|turn| self.specials(&turn.text)).sum::<Result<usize>>()?;
        let (length, hash) = (whole.len(), super::hash(&whole));
        let ids = if length > limit { self.fitted(template, &turns, limit, cut)? } else { whole };
        let blank = is_blank(&prompt.text());
        Ok(self.counted(Encoded { length, unknown: 0, blank, special, whole: hash, templated: true, ids }))
    }

    /// Encodes the response to `prompt` in at most `limit` ids. One that is cut has no end, for the text does not end there.
    ///
    /// # Errors
    /// If the prompt is of messages and there is no template for them, or the tokenizer's own model fails on the text.
    pub fn answer(&self, prompt: &Prompt, text: &str, limit: usize) -> Result<Encoded> {
        let end = if self.writing.turns(prompt)?.is_some() { self.turn_end } else { self.eos };
        self.ended(text, limit, end)
    }

    /// How many special tokens a text spells out.
    fn specials(&self, text: &str) -> Result<usize> {
        Ok(self.ids(text)?.iter().filter(|id| self.special.contains(id)).count())
    }

    /// The ids of a conversation of which so much was left out that there are at most `limit`.
    fn fitted(&self, template: &ChatTemplate, turns: &[Turn], limit: usize, cut: Cut) -> Result<Vec<u32>> {
        let systems = turns.iter().take_while(|turn| turn.role == "system").count();
        let (system, spoken) = turns.split_at(systems);
        let is_user = |(i, turn): (usize, &Turn)| (turn.role == "user").then_some(i);
        let firsts: Vec<usize> = spoken.iter().enumerate().skip(1).filter_map(is_user).collect();
        let from = |first: usize| [system, &spoken[first..]].concat();
        // The more is kept the longer it is, so what fits is found by halves: a conversation may have thousands of turns.
        let (mut fits, mut too_long, mut left) = (None, 0, firsts.len());
        while too_long < left {
            let middle = too_long.midpoint(left);
            let ids = self.ids(&template.prompt(&from(firsts[middle]))?)?;
            match ids.len() <= limit {
                true => (fits, left) = (Some(ids), middle),
                false => too_long = middle + 1,
            }
        }
        if let Some(ids) = fits {
            return Ok(ids);
        }
        let mut kept = firsts.last().map_or_else(|| turns.to_vec(), |first| from(*first));
        loop {
            let ids = self.ids(&template.prompt(&kept)?)?;
            if ids.len() <= limit {
                return Ok(ids);
            }
            match kept.iter_mut().max_by_key(|turn| turn.text.len()).filter(|turn| !turn.text.is_empty()) {
                Some(longest) => longest.text = self.shortened(&longest.text, ids.len() - limit, cut)?,
                None => {
                    return Err(Error::Prompt(format!(
                        "what the chat template writes around the texts takes {} tokens, and a prompt may have {limit}; raise \
                         --max-prompt-tokens",
                        ids.len()
                    )));
                }
            }
        }
    }

    /// A text that is not empty, with so many tokens less at one end, and one character at least.
    fn shortened(&self, text: &str, tokens: usize, cut: Cut) -> Result<String> {
        let encoding = self.inner.encode(text, false).map_err(|e| Error::Text(e.to_string()))?;
        let offsets = encoding.get_offsets();
        let kept = offsets.len().saturating_sub(tokens);
        Ok(match cut {
            Cut::End => {
                let end = offsets[..kept].last().map_or(0, |(_, end)| *end);
                text[..text.floor_char_boundary(end.min(text.len() - 1))].into()
            }
            Cut::Start => {
                let start = offsets[offsets.len() - kept..].first().map_or(text.len(), |(start, _)| *start);
                text[text.ceil_char_boundary(start.max(1))..].into()
            }
        })
    }
}
