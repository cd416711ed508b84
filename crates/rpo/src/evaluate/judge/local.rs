//! A model on this machine as a judge, run by the program's own engine. Questions that are asked at the same time are answered
//! together.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{Fault, Judge, Question, Reply, Template, Until, Usage};
use crate::burn::tensor::Device;
use crate::chat::{Chat, Prompt, Turn, UseTemplate};
use crate::error::{Error, Result};
use crate::generate::{Decoding, Engine, Processors, Request, Said, Texts};
use crate::model::Precision;
use crate::model::checkpoint::Checkpoint;
use crate::tokenizer::{Cut, Tokenizer};

/// Which model, and how it is held.
#[derive(Clone)]
pub struct LocalSettings {
    /// Its directory or hub id.
    pub model: String,
    /// What it is called in the place of that.
    pub name: Option<String>,
    /// What computes.
    pub device: Device,
    /// What its weights are held in.
    pub precision: Precision,
    /// How many questions are answered together.
    pub rows: usize,
}

/// A model that judges. Its chat template writes the questions, where it has one; else they are plain texts, the system's above
/// the user's.
pub struct Local {
    name: String,
    /// To whoever runs the model.
    jobs: Mutex<Sender<Job>>,
}

struct Job {
    question: Question,
    decoding: Decoding,
    /// Decides what is drawn.
    index: u64,
    reply: Sender<std::result::Result<Reply, Fault>>,
}

impl Local {
    /// Loads a model.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn load(settings: LocalSettings) -> Result<Self> {
        let (jobs, questions) = mpsc::channel();
        let (ready, loaded) = mpsc::channel();
        let name = settings.name.clone();
        // The engine stays on the thread that makes it.
        let run = move || match Runner::load(&settings) {
            Err(problem) => _ = ready.send(Err(problem)),
            Ok((engine, runner, fingerprint)) => {
                let _ = ready.send(Ok((settings.model.clone(), fingerprint)));
                runner.run(engine, &questions);
            }
        };
        let failed = |e| Error::Data(format!("no thread can be started for the judge: {e}"));
        std::thread::Builder::new().name("local judge".into()).spawn(run).map_err(failed)?;
        let loaded = loaded.recv().map_err(|_| Error::Data("the judge's model could not be loaded".into()))?;
        let (model, fingerprint) = loaded?;
        let name = name.unwrap_or_else(|| format!("{model} ({})", &fingerprint[..fingerprint.len().min(12)]));
        Ok(Self { name, jobs: Mutex::new(jobs) })
    }
}

impl Judge for Local {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "a model run here"
    }

    fn request(&self, question: &Question, template: &Template) -> Value {
        json!({
            "system": question.system, "user": question.user, "max_tokens": template.max_tokens,
            "temperature": template.temperature
        })
    }

    fn ask(&self, question: &Question, template: &Template, until: Until<'_>) -> std::result::Result<Reply, Fault> {
        let drawn = template.temperature > 0.0;
        let temperature = if drawn { template.temperature as f32 } else { 1.0 };
        let processors = Processors { temperature, ..Processors::default() };
        let decoding =
            Decoding { sample: drawn, max_new_tokens: template.max_tokens as usize, processors, ..Decoding::default() };
        // What is drawn is a function of the question, whatever else is asked.
        let hash = blake3::hash(question.user.as_bytes());
        let index = u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i])) >> 1;
        let (reply, replied) = mpsc::channel();
        let gone = || Fault::Fatal("the model has stopped working".into());
        let job = Job { question: question.clone(), decoding, index, reply };
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job).map_err(|_| gone())?;
        match until.receive(&replied) {
            Some(reply) => reply,
            None if until.over() => Err(Fault::Stopped),
            None => Err(gone()),
        }
    }
}

/// Writes questions for the model.
struct Runner {
    tokenizer: Tokenizer,
    /// Most tokens of a question with its reply.
    context: usize,
}

impl Runner {
    fn load(settings: &LocalSettings) -> Result<(Engine, Self, String)> {
        let checkpoint = Checkpoint::find(&settings.model)?;
        let tokenizer = checkpoint.tokenizer(Chat { template: UseTemplate::Auto, date: None })?;
        let config: Value = serde_json::from_str(&checkpoint.config()?.to_json("float32")).unwrap_or_default();
        let context = config["max_position_embeddings"].as_u64().map_or(usize::MAX, |n| n as usize);
        let (engine, fingerprint) = Engine::load(&checkpoint, &settings.device, settings.precision, settings.rows)?;
        Ok((engine, Self { tokenizer, context }, fingerprint))
    }

    /// The ids of a question, whole.
    fn ids(&self, question: &Question, reply: usize) -> Result<Vec<u32>> {
        let Question { system, user, .. } = question;
        let merged = system.as_ref().map_or_else(|| user.clone(), |system| format!("{system}\n\n{user}"));
        let whole = |prompt: &Prompt| self.tokenizer.ask(prompt, usize::MAX, Cut::End);
        let encoded = if self.tokenizer.writing().has_template() {
            let system = system.iter().map(|text| Turn::new("system", text));
            let turns = Prompt::Turns(system.chain([Turn::new("user", user)]).collect());
            // Some templates know no system.
            whole(&turns).or_else(|_| whole(&Prompt::Turns(vec![Turn::new("user", &merged)])))?
        } else {
            whole(&Prompt::Text(merged))?
        };
        match encoded.ids.len().saturating_add(reply) > self.context {
            true => Err(Error::Prompt(format!(
                "the question has {} tokens, and the model reads and writes {} together, of which {reply} are for the reply",
                encoded.ids.len(),
                self.context
            ))),
            false => Ok(encoded.ids),
        }
    }

    /// Answers questions until nobody asks any more.
    fn run(&self, engine: Engine, questions: &Receiver<Job>) {
        let mut waiting = HashMap::new();
        let Err(problem) = self.answer(engine, questions, &mut waiting) else { return };
        let said = problem.to_string();
        waiting.into_values().for_each(|(reply, _): Asker| _ = reply.send(Err(Fault::Fatal(said.clone()))));
    }

    fn answer(&self, engine: Engine, questions: &Receiver<Job>, waiting: &mut HashMap<u64, Asker>) -> Result<()> {
        let mut texts = Texts::new(engine, &self.tokenizer, &[])?;
        loop {
            let first = if texts.idle() { questions.recv().ok() } else { None };
            if texts.idle() && first.is_none() {
                return Ok(());
            }
            for Job { question, decoding, index, reply } in first.into_iter().chain(questions.try_iter()) {
                let ids = self.ids(&question, decoding.max_new_tokens);
                let added = ids.and_then(|prompt| {
                    let read = prompt.len() as u64;
                    texts.add(Request { prompt, decoding, index, answers: 1 }, 1).map(|()| read)
                });
                // Whoever asked may be gone.
                match added {
                    Ok(read) => _ = waiting.insert(index, (reply, read)),
                    Err(problem) => _ = reply.send(Err(Fault::Question(problem.to_string()))),
                }
            }
            for said in texts.step()? {
                let Said::Answer(answer) = said else { continue };
                let Some((reply, input)) = waiting.remove(&answer.index) else { continue };
                let usage = Some(Usage { input, output: answer.tokens as u64 });
                let (raw, text) = (answer.text.clone(), answer.text);
                let _ = reply.send(Ok(Reply { raw, text, usage, ..Reply::default() }));
            }
        }
    }
}

/// Who waits for an answer, and how many tokens were read for it.
type Asker = (Sender<std::result::Result<Reply, Fault>>, u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::judge::{Case, Court, Limits, Outcome, Verdict};
    use crate::model::checkpoint::{StoredAs, init};
    use crate::stop::Stop;
    use crate::tokenizer::word_level;

    const CONFIG: &str = r#"{"model_type":"t5","vocab_size":16,"d_model":16,"d_kv":4,"d_ff":16,"num_layers":1,"num_heads":2,
        "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;

    #[test]
    fn a_model_judges_and_says_the_same_alone_and_beside_others() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let words = ["A", "B", "one", "two", "three", "rate"];
        std::fs::write(dir.path().join("tokenizer.json"), word_level(&words)).expect("written");
        let config = crate::model::Config::parse(CONFIG).expect("valid");
        let model = dir.path().join("model");
        init(&config, &dir.path().join("tokenizer.json"), 3, StoredAs::F32, &model).expect("a model");
        let hear = |parallel: usize| {
            let settings = LocalSettings {
                model: model.display().to_string(),
                name: None,
                device: Device::flex(),
                precision: Precision::F32,
                rows: parallel,
            };
            let judge = Local::load(settings).expect("loaded");
            let text = "name = \"t\"\nkind = \"pairwise\"\nmax-tokens = 3\nuser = \"rate {prompt} {first} {second}\"\n\
                        [verdict]\nfirst = [\"A\"]\nsecond = [\"B\"]\n";
            let template = Template::parse(text).expect("valid");
            let (limits, stop) = (Limits { parallel, ..Limits::default() }, Stop::new());
            let court = Court { judge: &judge, template: &template, store: None, limits: &limits, stop: &stop };
            let case = |i: usize| Case::Pair {
                prompt: words[2 + i % 3].into(),
                first: words[i % 2].into(),
                second: format!("two {}", words[i % 5]),
            };
            let mut said = vec![None; 20];
            let mut each = |i: usize, outcome: Outcome| {
                let Outcome::Heard(heard) = outcome else { panic!("{outcome:?}") };
                assert!(matches!(heard.verdict, Verdict::Choice(_)));
                said[i] = Some((heard.verdict, heard.unparsed));
                Ok(())
            };
            let tally = court.hear((0..20).map(|i| Ok((i, case(i)))), &mut each, &mut |_| {}).expect("heard");
            assert_eq!((tally.replies, tally.failed), (20, 0));
            assert!(tally.usage.input > 0 && tally.usage.output > 0);
            (said, judge.name().to_string())
        };
        let (alone, name) = hear(1);
        assert_eq!((alone, name.clone()), hear(8));
        assert!(name.contains("model ("), "{name}");
    }
}
