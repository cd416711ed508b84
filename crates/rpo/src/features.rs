//! What the reference's encoder says of a prompt, in a few numbers: from these a value can be told without a network of its
//! own. It knows prompts, not rewards.

use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rpo_ops::{Segments, segment_mean};

use crate::feedback::{PromptGroup, Split};
use crate::t5::T5;

/// Numbers that are kept of each prompt.
const WIDTH: usize = 64;
/// Decides the directions on which wider states are projected.
const SEED: u64 = 0;

/// Features of every prompt of a data set, found by the row of any of its responses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptFeatures {
    width: usize,
    /// `width` numbers a prompt.
    values: Vec<f32>,
    /// Place of the prompt of each row.
    prompts: Vec<u32>,
}

impl PromptFeatures {
    /// The mean over a prompt's encoder states, `(d_model)`; of wider ones, projections on [`WIDTH`] random directions, which
    /// nearly keep distances (Johnson and Lindenstrauss). `model` must not track gradients; `budget` bounds the tokens of a
    /// pass.
    pub fn compute(model: &T5, split: &Split, budget: usize) -> Self {
        let groups: Vec<&PromptGroup> = split.train.groups.iter().chain(&split.validation.groups).collect();
        let rows = groups.iter().flat_map(|g| &g.responses).map(|r| r.row + 1).max().unwrap_or(0);
        let mut prompts = vec![0; rows];
        for (i, group) in groups.iter().enumerate() {
            group.responses.iter().for_each(|r| prompts[r.row] = i as u32);
        }
        let directions = directions(model);
        let width = directions.as_ref().map_or(model.config().d_model, |d| d.dims()[1]);
        let mut values = vec![0.0; groups.len() * width];
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|&i| groups[i].prompt.len());
        let mut from = 0;
        while from < order.len() {
            let mut tokens = 0;
            let fitting = order[from..].iter().take_while(|&&i| {
                tokens += groups[i].prompt.len();
                tokens <= budget
            });
            let batch = &order[from..from + fitting.count().max(1)];
            from += batch.len();
            let ids: Vec<u32> = batch.iter().flat_map(|&i| groups[i].prompt.iter().copied()).collect();
            let segments = Segments::from_lengths(batch.iter().map(|&i| groups[i].prompt.len()));
            let mut means = segment_mean(model.encode(&ids, &segments), &segments);
            if let Some(directions) = &directions {
                means = means.matmul(directions.clone());
            }
            let means: Vec<f32> = means.into_data().try_to_vec().unwrap_or_default();
            for (&i, mean) in batch.iter().zip(means.chunks(width)) {
                values[i * width..][..width].copy_from_slice(mean);
            }
        }
        Self { width, values, prompts }
    }

    /// How many numbers are kept of a prompt.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Those of the prompt of the response in `row`.
    pub fn of(&self, row: usize) -> &[f32] {
        &self.values[self.prompts[row] as usize * self.width..][..self.width]
    }
}

/// `(d_model, WIDTH)` standard normal numbers, or nothing for models that are no wider.
fn directions(model: &T5) -> Option<Tensor<2>> {
    let d_model = model.config().d_model;
    if d_model <= WIDTH {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let numbers: Vec<f32> = (0..d_model * WIDTH).map(|_| StandardNormal.sample(&mut rng)).collect();
    Some(Tensor::from_data(TensorData::new(numbers, [d_model, WIDTH]), &model.device()))
}
