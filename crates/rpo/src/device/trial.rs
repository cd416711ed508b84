//! What a device is tried on: a small model of the family and options of the one in question, with fixed random weights and a packed
//! batch; and all that is computed of it, by name.

use burn::tensor::{Device, Tensor};
use rpo_ops::{Segments, sum_of_squares};
use serde_json::{Map, Value, json};

use super::compare::{Kind, Quantity};
use crate::batch::{PackedBatch, Span};
use crate::error::{Error, Result};
use crate::feedback::{FeedbackSet, PromptGroup, Response};
use crate::generate::{Decoding, generate};
use crate::host::host;
use crate::model::encoder::{self, Encoder};
use crate::model::lora::Lora;
use crate::model::{Compute, Config, Init, Model, NamedParameters, RandomWeights, States, Weights};
use crate::score::{LogProb, score};
use crate::stop::Stop;

/// The model in question, of which a small likeness is tried.
#[derive(Clone, Debug)]
pub struct Subject {
    shape: Shape,
    adapted: bool,
    rounded: bool,
    compute: Compute,
}

#[derive(Clone, Debug)]
enum Shape {
    Model(Config),
    Encoder(encoder::Config),
}

/// Seed of the weights.
const SEED: u64 = 20_260_101;
/// Tokens of the prompts.
const PROMPTS: [usize; 3] = [37, 9, 20];
/// Tokens of the responses to each: unequal, one of a single token, some longer than a group of 32 threads.
const RESPONSES: [&[usize]; 3] = [&[12, 33, 1], &[5, 17], &[8, 24]];
/// Rank of adapters.
const RANK: usize = 4;
/// Tokens of each answer.
const ANSWER: usize = 8;

impl Subject {
    /// A language model that is trained whole, in f32.
    pub fn of(config: Config) -> Self {
        Self { shape: Shape::Model(config), adapted: false, rounded: false, compute: Compute::F32 }
    }

    /// An encoder, which is never trained.
    pub fn encoder(config: encoder::Config) -> Self {
        Self { shape: Shape::Encoder(config), adapted: false, rounded: false, compute: Compute::F32 }
    }

    /// The same with adapters, which alone are trained; the rest is held in bfloat16 if it is `rounded`.
    #[must_use]
    pub fn with_adapters(self, rounded: bool) -> Self {
        Self { adapted: true, rounded, ..self }
    }

    /// The same with products computed in `compute`.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Self { compute, ..self }
    }

    /// What its products are computed in.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// What is tried, in a few words; equal for subjects of which the same is tried.
    pub fn description(&self) -> String {
        let adapters = match (self.adapted, self.rounded) {
            (false, _) => "",
            (true, false) => " with adapters",
            (true, true) => " in bfloat16 with adapters",
        };
        let shape = match &self.shape {
            Shape::Model(Config::T5(config)) => {
                let gate = format!("{:?}", config.feed_forward).to_lowercase();
                let head = if config.tie_word_embeddings { "tied" } else { "untied" };
                format!("{:?} ({gate}, {head}, width {})", config.family, config.d_model)
            }
            Shape::Model(Config::Llama(config)) => {
                let head = if config.tie_word_embeddings { "tied" } else { "untied" };
                format!(
                    "{:?} ({} and {} heads, {head}, width {})",
                    config.family, config.num_heads, config.num_key_heads, config.d_model
                )
            }
            Shape::Encoder(config) => format!("{:?} (width {})", config.family, config.d_model),
        };
        format!("{shape}{adapters}")
    }

    /// All quantities of the small likeness, computed on `device`.
    ///
    /// # Errors
    /// If the device fails, or a trained tensor gets no gradient.
    pub(super) fn on(&self, device: &Device) -> Result<Vec<Quantity>> {
        match &self.shape {
            Shape::Model(config) => self.of_model(&small(config)?, device),
            Shape::Encoder(config) => of_encoder(config, device),
        }
    }

    fn of_model(&self, config: &Config, device: &Device) -> Result<Vec<Quantity>> {
        let mut weights = Lively { random: RandomWeights::new(SEED), rounded: self.rounded };
        let model = Model::new(config, &mut weights, &device.clone().autodiff())?.with_compute(self.compute);
        let lora = Lora { rank: if self.adapted { RANK } else { 0 }, ..Lora::default() };
        let model = lora.attach(model, &mut weights)?.with_compute(self.compute);
        let data = data(config.vocab_size());
        let spans: Vec<Span> = (0..data.groups.len()).map(|i| Span::whole(i, &data)).collect();
        let batch = PackedBatch::pack(&data, &spans, model.start());
        let mut found = Found::default();

        let States { prompts, responses } = model.inference().forward(&batch);
        found.value("states of prompts", prompts)?;
        found.value("states of responses", responses)?;
        let scores = score(&model, &batch);
        found.value("log-probabilities", scores.log_probs.clone())?;
        // Unequal, so that a gradient that goes to another response is seen, and of one sign, so that nothing cancels.
        let weights: Vec<f32> = (0..scores.rows.len()).map(|i| -0.5 - 0.25 * ((i * 3) % 5) as f32).collect();
        let loss: Tensor<1> = (scores.ell(LogProb::Mean) * scores.constant(&weights)).sum();
        found.value("loss", loss.clone())?;
        found.gradients(&model, &loss)?;

        let prompts: Vec<Vec<u32>> = data.groups.iter().map(|group| group.prompt.clone()).collect();
        found.decoding(&model.inference(), &prompts)?;
        Ok(found.0)
    }
}

fn of_encoder(config: &encoder::Config, device: &Device) -> Result<Vec<Quantity>> {
    let heads = config.heads.min(4);
    let config = encoder::Config {
        vocab_size: reduced(config.vocab_size, 512),
        d_model: heads * reduced(config.d_model / config.heads.max(1), 64),
        layers: 2,
        heads,
        d_ff: reduced(config.d_ff, 256),
        positions: config.positions.min(128),
        pad: config.pad.min(1),
        ..config.clone()
    };
    let mut weights = Lively { random: RandomWeights::new(SEED), rounded: false };
    let encoder = Encoder::new(&config, config.layers, &mut weights, device)?;
    let texts: Vec<Vec<u32>> = PROMPTS.iter().enumerate().map(|(i, n)| ids(i, *n, config.vocab_size)).collect();
    let segments = Segments::from_lengths(texts.iter().map(Vec::len));
    let mut found = Found::default();
    for (i, states) in encoder.states(&texts.concat(), &segments)?.into_iter().enumerate() {
        found.value(format!("states after {i} layers"), states)?;
    }
    Ok(found.0)
}

/// What was computed so far.
#[derive(Default)]
struct Found(Vec<Quantity>);

impl Found {
    fn add(&mut self, kind: Kind, name: impl Into<String>, values: Vec<f32>) {
        self.0.push(Quantity { name: name.into(), kind, values });
    }

    fn value<const D: usize>(&mut self, name: impl Into<String>, x: Tensor<D>) -> Result<()> {
        let values = host(x)?;
        self.add(Kind::Value, name, values);
        Ok(())
    }

    /// The gradients of what is trained, and their norm as the optimizer computes it.
    fn gradients(&mut self, model: &Model, loss: &Tensor<1>) -> Result<()> {
        let trained = model.trained();
        let mut squares = 0.0;
        for (name, gradient) in model.gradients(&mut loss.backward()) {
            if !trained.iter().any(|parameter| parameter.name == name) {
                continue;
            }
            let gradient = gradient.ok_or_else(|| Error::Device(format!("`{name}` gets no gradient")))?;
            squares += sum_of_squares(gradient.clone());
            let values = host(gradient)?;
            self.add(Kind::Gradient, format!("gradient of {name}"), values);
        }
        self.add(Kind::Gradient, "norm of all gradients", vec![squares.sqrt() as f32]);
        Ok(())
    }

    /// Logits after given tokens, and answers, the likeliest token each time.
    fn decoding(&mut self, model: &Model, prompts: &[Vec<u32>]) -> Result<()> {
        let read = match model.start() {
            crate::batch::Start::Token(_) => prompts.to_vec(),
            // The last token is the first that is fed.
            crate::batch::Start::EndOfPrompt => prompts.iter().map(|p| p[..p.len() - 1].to_vec()).collect(),
        };
        let mut cache = model.begin(&read.concat(), &Segments::from_lengths(read.iter().map(Vec::len)));
        let head = model.head().transpose();
        let mut logits = Vec::new();
        for step in 0..3 {
            let tokens: Vec<u32> = prompts.iter().map(|prompt| prompt[step]).collect();
            logits.extend(host(model.step(&tokens, &mut cache).matmul(head.clone()))?);
        }
        self.add(Kind::Value, "logits of decoding", logits);
        let greedy = Decoding { max_new_tokens: ANSWER, min_new_tokens: ANSWER, ..Decoding::default() };
        let answers = generate(model, prompts, 0, &greedy, &Stop::new())?;
        self.add(Kind::Tokens, "greedy answers", answers.concat().into_iter().map(|id| id as f32).collect());
        Ok(())
    }
}

/// Token ids that look random, those of every text others.
fn ids(text: usize, n: usize, vocabulary: usize) -> Vec<u32> {
    (0..n).map(|i| ((7 + i * 79 + text * 131) % vocabulary) as u32).collect()
}

fn data(vocabulary: usize) -> FeedbackSet {
    let mut row = 0;
    let mut response = |n: &usize| {
        row += 1;
        let ids = ids(PROMPTS.len() + row, *n, vocabulary);
        Response { row: row - 1, ids, truncated: false, reward: 0.0, copies: 1 }
    };
    let groups = PROMPTS.iter().zip(RESPONSES).enumerate().map(|(i, (n, responses))| PromptGroup {
        prompt: ids(i, *n, vocabulary),
        first_row: 0,
        responses: responses.iter().map(&mut response).collect(),
    });
    FeedbackSet { groups: groups.collect() }
}

/// A size of at most about `most`, a multiple of 64, with the remainder by 64 that it has: kernels are chosen by that.
fn reduced(size: usize, most: usize) -> usize {
    if size <= most { size } else { most + size % 64 }
}

/// A model of the same family and options with few and narrow layers.
fn small(config: &Config) -> Result<Config> {
    let unread = |problem: String| Error::Data(format!("no small model can be made of this one: {problem}"));
    let text = config.to_json("float32");
    let mut raw: Map<String, Value> = serde_json::from_str(&text).map_err(|e| unread(e.to_string()))?;
    let sizes = match config {
        Config::T5(config) => json!({
            "vocab_size": reduced(config.vocab_size, 512),
            "d_model": reduced(config.d_model, 128),
            "d_kv": reduced(config.d_kv, 64),
            "d_ff": reduced(config.d_ff, 256),
            "num_heads": config.num_heads.min(4),
            "num_layers": config.num_layers.min(2),
            "num_decoder_layers": config.num_decoder_layers.min(2),
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        }),
        Config::Llama(config) => {
            let keys = config.num_key_heads.min(2);
            json!({
                "vocab_size": reduced(config.vocab_size, 512),
                "hidden_size": reduced(config.d_model, 128),
                "head_dim": reduced(config.head_width, 64),
                "intermediate_size": reduced(config.d_ff, 256),
                "num_attention_heads": keys * (config.num_heads / config.num_key_heads).min(4),
                "num_key_value_heads": keys,
                "num_hidden_layers": config.num_layers.min(2),
                "initializer_range": 1.0,
                "bos_token_id": 0, "eos_token_id": 1,
            })
        }
    };
    if let Value::Object(sizes) = sizes {
        raw.extend(sizes);
    }
    Config::parse(&Value::Object(raw).to_string()).map_err(unread)
}

/// Random weights under which everything matters: matrices that keep a token's norm, and norms, biases and adapters off their usual
/// ones and zeros.
struct Lively {
    random: RandomWeights,
    rounded: bool,
}

impl Weights for Lively {
    fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Vec<f32>> {
        let kept = shape.last().map_or(1.0, |inputs| (*inputs as f64).powf(-0.5));
        match init {
            Init::Normal(deviation) => self.random.get(name, shape, Init::Normal(deviation.min(kept))),
            Init::Uniform(_) => self.random.get(name, shape, init),
            Init::Constant(value) => {
                let around = self.random.get(name, shape, Init::Normal(0.1))?;
                Ok(around.into_iter().map(|z| value as f32 + z).collect())
            }
        }
    }

    fn rounded(&self) -> bool {
        self.rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_model_keeps_family_options_and_remainders() {
        let t5 = r#"{"model_type":"t5","vocab_size":32128,"d_model":1000,"d_kv":64,"d_ff":2816,"num_layers":24,"num_heads":16,
            "feed_forward_proj":"gated-gelu","tie_word_embeddings":false,"decoder_start_token_id":9000}"#;
        let Config::T5(small) = small(&Config::parse(t5).expect("valid")).expect("small") else { panic!("a T5") };
        let sizes = [small.vocab_size, small.d_model, small.d_kv, small.d_ff, small.num_layers, small.num_heads];
        assert_eq!(sizes, [512, 168, 64, 256, 2, 4]);
        assert!(!small.tie_word_embeddings);
        let qwen = r#"{"model_type":"qwen3","vocab_size":151936,"hidden_size":1024,"intermediate_size":3072,"num_hidden_layers":28,
            "num_attention_heads":16,"num_key_value_heads":8,"tie_word_embeddings":true,"eos_token_id":151645}"#;
        let Config::Llama(small) = super::small(&Config::parse(qwen).expect("valid")).expect("small") else {
            panic!("decoder-only")
        };
        assert_eq!([small.num_heads, small.num_key_heads, small.head_width, small.vocab_size], [4, 2, 64, 512]);
        assert!(small.tie_word_embeddings);
    }
}
