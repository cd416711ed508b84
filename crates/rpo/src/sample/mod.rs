//! Generation: a model continues prompts, greedily or by sampling, with keys and values cached.

mod processors;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rpo_ops::Segments;
use serde::{Deserialize, Serialize};

pub use processors::{ProcessorError, Processors, draw, greedy};

use crate::error::Result;
use crate::host::host;
use crate::stop::Stop;
use crate::t5::T5;

/// How to decode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Decoding {
    /// Draw tokens instead of taking the most likely.
    pub sample: bool,
    /// Most tokens to add, `</s>` among them.
    pub max_new_tokens: usize,
    /// Decides all draws together with a prompt's index, so that batching changes nothing.
    pub seed: u64,
    /// What shapes the distribution.
    pub processors: Processors,
}

impl Default for Decoding {
    fn default() -> Self {
        Self { sample: false, max_new_tokens: 128, seed: 0, processors: Processors::default() }
    }
}

impl Decoding {
    /// As the RPO authors draw answers: temperature 0.7, top-k 50, top-p 0.95, repetition penalty 1.2, no trigram twice, 128
    /// tokens.
    pub fn published() -> Self {
        let processors =
            Processors { repetition_penalty: 1.2, no_repeat_ngram_size: 3, temperature: 0.7, top_k: 50, top_p: 0.95 };
        Self { sample: true, processors, ..Self::default() }
    }
}

/// Continues each prompt: token ids up to and including `</s>`, or `max_new_tokens` of them.
///
/// `first` is the index of the first prompt among all that are to be answered; it decides the random numbers. `model`
/// must not track gradients. `stop` is heard before each token.
///
/// # Errors
/// If the device fails, or somebody wishes to stop.
pub fn generate(
    model: &T5,
    prompts: &[Vec<u32>],
    first: usize,
    decoding: &Decoding,
    stop: &Stop,
) -> Result<Vec<Vec<u32>>> {
    let config = model.config();
    let ids: Vec<u32> = prompts.iter().flatten().copied().collect();
    let mut cache = model.start_decoding(&ids, &Segments::from_lengths(prompts.iter().map(Vec::len)));
    let head = model.head().transpose();
    // Decoder inputs so far; the start token counts as seen, as in transformers.
    let mut inputs: Vec<Vec<u32>> = vec![vec![config.decoder_start_token_id]; prompts.len()];
    let mut rngs: Vec<ChaCha8Rng> = (first..first + prompts.len()).map(|i| stream(decoding.seed, i)).collect();
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    for _ in 0..decoding.max_new_tokens {
        stop.check()?;
        let last: Vec<u32> = active.iter().map(|&i| inputs[i][inputs[i].len() - 1]).collect();
        let logits = model.decode_step(&last, &mut cache).matmul(head.clone());
        let [_, vocabulary] = logits.dims();
        let mut logits = host(logits)?;
        let mut unfinished = Vec::new();
        for (place, (&i, row)) in active.iter().zip(logits.chunks_exact_mut(vocabulary)).enumerate() {
            decoding.processors.apply(&inputs[i], row);
            let next = if decoding.sample { draw(row, &mut rngs[i]) } else { greedy(row) };
            inputs[i].push(next);
            if next != config.eos_token_id {
                unfinished.push(place);
            }
        }
        if unfinished.is_empty() {
            break;
        }
        if unfinished.len() < active.len() {
            cache.keep(&unfinished);
            active = unfinished.into_iter().map(|place| active[place]).collect();
        }
    }
    Ok(inputs.into_iter().map(|ids| ids[1..].to_vec()).collect())
}

/// The random numbers of prompt `index`.
fn stream(seed: u64, index: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index as u64);
    rng
}
