//! The constants of this machine, measured: how fast it computes gradients and updates weights of models as wide as the one that is
//! planned, how fast numbers go through its memory, and, where several processes were started together, through what joins them.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use rpo::burn::tensor::Device;
use rpo::feedback::{FeedbackSet, PromptGroup, Response, Split};
use rpo::model::{Compute, Config, Model, RandomWeights};
use rpo::objective::{ObjectiveConfig, SftConfig};
use rpo::reference::References;
use rpo::stop::Stop;
use rpo::train::{State, Task, TrainConfig, Trainer};
use rpo::world::{Alone, World};

use super::Texts;
use super::cost::{Line, Machine};

/// Layers of the model that is measured, and its greatest size.
const LAYERS: usize = 2;
const WEIGHTS: usize = 400_000_000;

/// What this machine does with a model as wide as `config`, and what was measured for it.
pub fn machine(config: &Config, texts: Texts, device: &Device, compute: Compute) -> Result<(Machine, Config)> {
    let mut like = config.with_layers(LAYERS);
    if like.parameters() > WEIGHTS {
        like = config.with_layers(1);
    }
    let prompts = (2048 / (texts.prompt + texts.responses * texts.response)).max(1);
    let data = Split { train: data(prompts, texts, like.vocab_size()), ..Split::default() };
    let (tokens, scored) = (prompts * texts.prompt, prompts * texts.responses * texts.response);
    let config = TrainConfig { batch_size: prompts * texts.responses, max_steps: Some(1), ..TrainConfig::default() };
    let model =
        Model::new(&like, &mut RandomWeights::new(1), &device.clone().autodiff()).map_err(anyhow::Error::from)?;
    let model = model.with_compute(compute);
    let objective = ObjectiveConfig::Sft(SftConfig::default());
    let task = Task::new(&objective, data, 1, |passes| Ok::<_, rpo::Error>(References::zeros(passes.all)))?;
    let state = State::begin(model, &task, &config)?;
    let trainer = Trainer { task, config: &config, saving: None, judge: None, stop: &Stop::new(), world: &Alone };
    let costs = trainer.measure(state)?;
    let operations = 3.0 * like.forward_operations(tokens, scored) / (costs.step_seconds - costs.update_seconds);
    let machine = Machine { operations, update: costs.update_seconds / like.parameters() as f64, memory: memory() };
    Ok((machine, like))
}

/// Prompts with responses of one length.
fn data(prompts: usize, texts: Texts, vocabulary: usize) -> FeedbackSet {
    let ids =
        |seed: usize, n: usize| (0..n).map(|i| (3 + (i * 7919 + seed * 104_729) % (vocabulary - 3)) as u32).collect();
    let group = |group: usize| {
        let response = |k: usize| {
            let row = group * texts.responses + k;
            Response { row, ids: ids(row + prompts, texts.response), truncated: false, reward: k as f64, copies: 1 }
        };
        PromptGroup {
            prompt: ids(group, texts.prompt),
            first_row: group * texts.responses,
            responses: (0..texts.responses).map(response).collect(),
        }
    };
    FeedbackSet { groups: (0..prompts).map(group).collect() }
}

/// Bytes a second at which numbers are copied, the best of a few times.
fn memory() -> f64 {
    let from = vec![1.0f32; 1 << 25];
    let mut to = vec![0.0f32; from.len()];
    let once = |to: &mut Vec<f32>| {
        let began = Instant::now();
        black_box(&mut *to).copy_from_slice(black_box(&from));
        2.0 * 4.0 * from.len() as f64 / began.elapsed().as_secs_f64()
    };
    (0..5).map(|_| once(&mut to)).fold(0.0, f64::max)
}

/// What joins the ranks: every one sends to every other at once, the best of a few times.
pub fn line(world: &dyn World) -> Result<Line> {
    const NUMBERS: usize = 1 << 24;
    let others = || (0..world.size()).filter(|&rank| rank != world.rank());
    let exchange = |n: usize| -> rpo::Result<f64> {
        let own = vec![1.0f32; n];
        let sent: Vec<(usize, &[f32])> = others().map(|to| (to, own.as_slice())).collect();
        let mut places: Vec<(usize, Vec<f32>)> = others().map(|from| (from, vec![0.0; n])).collect();
        let received = places.iter_mut().map(|(from, place)| (*from, place.as_mut_slice())).collect();
        world.together(Ok(()))?;
        let began = Instant::now();
        world.exchange(&sent, received)?;
        Ok(began.elapsed().as_secs_f64())
    };
    // A rank that measures less waited for another.
    let slowest =
        |seconds: f64| -> rpo::Result<f64> { Ok(world.together(Ok(seconds))?.into_iter().fold(0.0, f64::max)) };
    let each = NUMBERS / (world.size() - 1).max(1);
    let (mut bulk, mut latency) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..5 {
        bulk = bulk.min(slowest(exchange(each)?)?);
        latency = latency.min(slowest(exchange(1)?)?);
    }
    let bytes = 4.0 * (each * (world.size() - 1)) as f64;
    Ok(Line { bytes: bytes / (bulk - latency).max(1e-9), latency })
}
