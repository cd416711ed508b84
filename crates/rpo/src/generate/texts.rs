//! Answers as texts: what the engine emits, decoded as it comes, ended where a stop text begins, and the best of several kept.

use std::collections::BTreeMap;

use super::{Emitted, Engine, Finish, Request, RequestId};
use crate::error::{Error, Result};
use crate::tokenizer::{TextStream, Tokenizer};

/// An answer that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// [`Request::index`] of what it answers.
    pub index: u64,
    /// Which of the answers to it, from 0: as they are drawn, or the best first where the best are kept.
    pub answer: usize,
    /// Its text, without special tokens and from a stop text on.
    pub text: String,
    /// Sum of its tokens' log-probabilities under the model, in nats: before anything shaped the distribution.
    pub log_prob: f64,
    /// How many tokens it took, the one that ended it among them.
    pub tokens: usize,
    /// Why it is over; [`Finish::End`] by a stop text too.
    pub finish: Finish,
}

/// What a step brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// More of an answer's text, where pieces are wanted: whole characters that no stop text takes back.
    Piece {
        /// [`Request::index`] of what it answers.
        index: u64,
        /// Which of the answers to it.
        answer: usize,
        /// What follows the pieces before.
        text: String,
    },
    /// An answer that is over.
    Answer(Answer),
}

/// An engine whose answers come as texts.
pub struct Texts<'a> {
    engine: Engine,
    tokenizer: &'a Tokenizer,
    /// None of them empty.
    stops: Vec<String>,
    /// Whether pieces are wanted.
    streaming: bool,
    open: BTreeMap<RequestId, Open>,
    tokens: usize,
}

/// A request that is not answered yet.
struct Open {
    index: u64,
    /// How many of its answers are kept: the best, if not all.
    kept: usize,
    /// By the number of the answer.
    drafts: Vec<Draft>,
    /// Those that are over, where the best are kept.
    over: Vec<Answer>,
    /// How many are not over.
    left: usize,
    /// Whether it is a beam search, whose answers come together.
    searched: bool,
}

/// An answer that goes on.
#[derive(Clone, Default)]
struct Draft {
    ids: Vec<u32>,
    log_prob: f64,
    stream: TextStream,
    /// Bytes of its text that went out in pieces.
    told: usize,
}

impl<'a> Texts<'a> {
    /// The answers of `engine` as texts, each of which ends before the first of `stops` in it.
    ///
    /// # Errors
    /// If a stop text is empty.
    pub fn new(engine: Engine, tokenizer: &'a Tokenizer, stops: &[String]) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            let problem = "an empty text is in every answer from its beginning".into();
            return Err(Error::Setting { field: "stop", problem });
        }
        Ok(Self { engine, tokenizer, stops: stops.into(), streaming: false, open: BTreeMap::new(), tokens: 0 })
    }

    /// The same, and texts come in pieces before they come as answers; those of which only the best are kept do not.
    #[must_use]
    pub fn streaming(self) -> Self {
        Self { streaming: true, ..self }
    }

    /// Takes up a request and keeps `kept` of its answers; of more, those whose tokens have the highest mean log-probability.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn add(&mut self, request: Request, kept: usize) -> Result<()> {
        self.check(&request, kept)?;
        let (index, n, searched) = (request.index, request.answers, request.decoding.num_beams > 1);
        let id = self.engine.add(request)?;
        let drafts = vec![Draft::default(); n];
        self.open.insert(id, Open { index, kept, drafts, over: Vec::new(), left: n, searched });
        Ok(())
    }

    /// Checks that a request can be answered so.
    ///
    /// # Errors
    /// As [`Engine::check`]; and if not as many answers are kept as there are, or there are stop texts for a beam search.
    pub fn check(&self, request: &Request, kept: usize) -> Result<()> {
        self.engine.check(request)?;
        let refuse = |field, problem: String| Err(Error::Setting { field, problem });
        let Request { answers, decoding, .. } = request;
        if kept == 0 || kept > *answers {
            return refuse("best-of", format!("{kept} of {answers} answers cannot be kept"));
        }
        if decoding.num_beams > 1 && !self.stops.is_empty() {
            let problem = "a beam search compares whole answers, which no text ends in between; follow one beam";
            return refuse("stop", problem.into());
        }
        Ok(())
    }

    /// Whether there is nothing left to do.
    pub fn idle(&self) -> bool {
        self.engine.idle()
    }

    /// Requests that wait for others to be answered.
    pub fn waiting(&self) -> usize {
        self.engine.waiting()
    }

    /// How many tokens were made so far, those of answers that are not kept among them.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Gives up all that is not answered yet.
    pub fn cancel(&mut self) {
        for (id, open) in std::mem::take(&mut self.open) {
            (0..open.drafts.len()).for_each(|answer| self.engine.cancel(id, answer));
        }
    }

    /// One more token of every answer that is worked on.
    ///
    /// # Errors
    /// If the device or the tokenizer's decoder fails, or a beam search found fewer answers than were asked for, which happens
    /// only where nearly all tokens are forbidden.
    pub fn step(&mut self) -> Result<Vec<Said>> {
        let mut said = Vec::new();
        let emitted = self.engine.step()?;
        let begun: Vec<RequestId> = emitted.iter().map(|emitted| emitted.request).collect();
        for emitted in emitted {
            self.tokens += 1;
            let Emitted { request, answer, token, log_prob, finish } = emitted;
            let Some(open) = self.open.get_mut(&request) else { continue };
            let all_kept = open.kept == open.drafts.len();
            let streaming = self.streaming && all_kept;
            let draft = &mut open.drafts[answer];
            draft.ids.push(token);
            draft.log_prob += f64::from(log_prob);
            let mut stopped = false;
            if streaming || !self.stops.is_empty() {
                let text = draft.stream.push(token, self.tokenizer)?;
                stopped = begin_of(&self.stops, text).is_some();
                let whole = text.len() - unsure(&self.stops, text);
                if streaming && !stopped && whole > draft.told {
                    let piece = text[draft.told..whole].to_string();
                    draft.told = whole;
                    said.push(Said::Piece { index: open.index, answer, text: piece });
                }
            }
            if stopped && finish.is_none() {
                self.engine.cancel(request, answer);
            }
            let Some(finish) = stopped.then_some(Finish::End).or(finish) else { continue };
            let Draft { ids, log_prob, told, .. } = std::mem::take(&mut open.drafts[answer]);
            let mut text = self.tokenizer.decode(&ids)?;
            let end = begin_of(&self.stops, &text);
            text.truncate(end.unwrap_or(text.len()));
            if let Some(rest) = text.get(told..).filter(|rest| streaming && !rest.is_empty()) {
                said.push(Said::Piece { index: open.index, answer, text: rest.into() });
            }
            open.left -= 1;
            let over = Answer { index: open.index, answer, text, log_prob, tokens: ids.len(), finish };
            match all_kept {
                true => said.push(Said::Answer(over)),
                false => open.over.push(over),
            }
            if open.left == 0
                && let Some(open) = self.open.remove(&request)
            {
                said.extend(open.best().into_iter().map(Said::Answer));
            }
        }
        // The answers of a search come together: what is not there now never comes.
        match begun.iter().filter_map(|id| self.open.get(id)).find(|open| open.searched) {
            Some(open) => Err(Error::Data(format!(
                "the beam search for prompt {} found {} answers where {} are wanted: too many tokens are forbidden",
                open.index + 1,
                open.drafts.len() - open.left,
                open.drafts.len()
            ))),
            None => Ok(said),
        }
    }
}

impl Open {
    /// The best of the answers that were held back, numbered anew.
    fn best(self) -> Vec<Answer> {
        let mut over = self.over;
        let mean = |answer: &Answer| answer.log_prob / answer.tokens as f64;
        // Among equals the one that was drawn first.
        over.sort_by(|a, b| mean(b).total_cmp(&mean(a)).then(a.answer.cmp(&b.answer)));
        over.truncate(self.kept);
        over.into_iter().enumerate().map(|(place, answer)| Answer { answer: place, ..answer }).collect()
    }
}

/// Where in `text` the first of the stop texts begins.
fn begin_of(stops: &[String], text: &str) -> Option<usize> {
    stops.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

/// How many bytes at the end of `text` may be the beginning of a stop text.
fn unsure(stops: &[String], text: &str) -> usize {
    let begun = |stop: &String| {
        let lengths = stop.char_indices().map(|(i, _)| i).rev();
        lengths.into_iter().find(|&n| text.ends_with(&stop[..n])).unwrap_or(0)
    };
    stops.iter().map(begun).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::generate::Decoding;
    use crate::model::{Config, Model, RandomWeights};
    use crate::tokenizer::word_level;

    fn model() -> Model {
        let config = r#"{"model_type":"t5","vocab_size":16,"d_model":16,"d_kv":4,"d_ff":16,"num_layers":1,"num_heads":2,
                         "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;
        Model::new(&Config::parse(config).expect("valid"), &mut RandomWeights::new(5), &Device::flex())
            .expect("a model")
    }

    fn tokenizer() -> Tokenizer {
        let words = ["ä", "bc", "de", "fg", "hi", "jk", "lm", "no", "pq", "rs", "tu", "vw", "xy"];
        Tokenizer::parse(&word_level(&words)).expect("valid")
    }

    fn request(index: u64, answers: usize) -> Request {
        let decoding = Decoding { sample: true, max_new_tokens: 12, seed: 3, ..Decoding::default() };
        Request { prompt: vec![5, 6, 1], decoding, index, answers }
    }

    fn all(texts: &mut Texts<'_>) -> (Vec<Answer>, BTreeMap<(u64, usize), String>) {
        let (mut answers, mut pieces) = (Vec::new(), BTreeMap::new());
        while !texts.idle() {
            for said in texts.step().expect("a step") {
                match said {
                    Said::Answer(answer) => answers.push(answer),
                    Said::Piece { index, answer, text } => {
                        pieces.entry((index, answer)).or_insert_with(String::new).push_str(&text);
                    }
                }
            }
        }
        answers.sort_by_key(|answer| (answer.index, answer.answer));
        (answers, pieces)
    }

    fn ask(stops: &[&str], answers: usize, kept: usize) -> (Vec<Answer>, BTreeMap<(u64, usize), String>) {
        let (model, tokenizer) = (model(), tokenizer());
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_string()).collect();
        let engine = Engine::new(&model, 4).expect("an engine");
        let mut texts = Texts::new(engine, &tokenizer, &stops).expect("stop texts").streaming();
        (0..6).for_each(|index| texts.add(request(index, answers), kept).expect("a request"));
        all(&mut texts)
    }

    #[test]
    fn a_stop_text_ends_an_answer_before_it_and_never_shows_in_pieces() {
        let (whole, pieces) = ask(&[], 2, 2);
        assert_eq!(whole.len(), 12);
        whole.iter().for_each(|a| assert_eq!(pieces.get(&(a.index, a.answer)).map_or("", |p| p), a.text));
        // Across the border of two tokens, and of whole answers.
        let first = whole.iter().find(|a| a.text.split(' ').count() > 4).expect("a long answer");
        let words: Vec<&str> = first.text.split(' ').collect();
        let second = words[1].chars().last().expect("letters");
        let stop = format!("{second} {}", words[2]);
        let (cut, pieces) = ask(&[&stop, "never"], 2, 2);
        for (cut, whole) in cut.iter().zip(&whole) {
            let expected = whole.text.find(&stop).map_or(&whole.text[..], |at| &whole.text[..at]);
            assert_eq!(cut.text, expected);
            assert_eq!(pieces.get(&(cut.index, cut.answer)).map_or("", |p| p), expected);
            let shorter = whole.text.contains(&stop);
            assert_eq!(shorter, cut.tokens < whole.tokens || (shorter && cut.tokens == whole.tokens));
            assert!(!shorter || (cut.finish == Finish::End && cut.log_prob >= whole.log_prob));
        }
        assert!(cut.iter().zip(&whole).any(|(cut, whole)| cut.tokens < whole.tokens), "some are shorter for it");
    }

    #[test]
    fn the_best_have_the_highest_mean_log_probability() {
        let (drawn, _) = ask(&[], 3, 3);
        let (best, pieces) = ask(&[], 3, 2);
        assert!(pieces.is_empty());
        assert_eq!(best.len(), 12);
        for index in 0..6 {
            let mut of: Vec<&Answer> = drawn.iter().filter(|a| a.index == index).collect();
            of.sort_by(|a, b| (b.log_prob / b.tokens as f64).total_cmp(&(a.log_prob / a.tokens as f64)));
            let kept: Vec<&Answer> = best.iter().filter(|a| a.index == index).collect();
            assert_eq!(kept.iter().map(|a| &a.text).collect::<Vec<_>>(), [&of[0].text, &of[1].text]);
            assert_eq!([kept[0].answer, kept[1].answer], [0, 1]);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_what_is_given_up_leaves_nothing() {
        let (model, tokenizer) = (model(), tokenizer());
        let engine = || Engine::new(&model, 4).expect("an engine");
        let said = Texts::new(engine(), &tokenizer, &[String::new()]).err().map(|e| e.to_string());
        assert!(said.is_some_and(|said| said.starts_with("stop: an empty text")));
        let mut texts = Texts::new(engine(), &tokenizer, &["bc".into()]).expect("a stop text");
        let beams = Decoding { num_beams: 2, ..Decoding::default() };
        let said = texts.add(Request { decoding: beams, ..request(0, 1) }, 1).expect_err("beams").to_string();
        assert!(said.contains("stop: a beam search"), "{said}");
        assert!(texts.add(request(0, 2), 3).is_err() && texts.add(request(0, 2), 0).is_err());
        (0..9).for_each(|index| texts.add(request(index, 2), 2).expect("a request"));
        texts.step().expect("a step");
        texts.cancel();
        assert!(texts.idle() && texts.tokens() > 0 && texts.step().expect("nothing").is_empty());
    }

    #[test]
    fn what_may_become_a_stop_text_is_held_back() {
        let stops = ["end.".to_string(), "ähm".to_string()];
        for (text, held) in [("the en", 2), ("an ä", 2), ("end", 3), ("n", 0), ("", 0), ("eend", 3), ("äh ", 0)] {
            assert_eq!(unsure(&stops, text), held, "{text}");
        }
        assert_eq!(begin_of(&stops, "so ähm the end."), Some(3));
    }
}
