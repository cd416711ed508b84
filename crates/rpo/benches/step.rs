//! One RPO training step of a flan-t5 shape, or of that of SmolLM2-135M, beside the time of its matrix products alone, alternately.
//!
//! `cargo bench --workspace --bench step -- [--size small|base|large|smollm2] [--responses K] [--apart] [--recompute] [--lora RANK]
//! [--rounds N] [--device NAME] [--no-floor] [--json FILE] [--peer COMMAND]`: 8 prompts of 256 tokens with K responses (1) of 128 tokens each or, `--apart`, K times as
//! many prompts with one response each, in micro-batches of at most 4096 tokens. The floor is every matrix product of the
//! step (forward, and both gradients), at full size, from and into memory that is allocated already, which is not counted
//! in the peak; recomputation is not counted, nor, with adapters, are the gradients of frozen matrices. Off the CPU there is no floor. A peer takes the same step in its own process, in turn: `scripts/step_torch.py`.

mod common;

use std::time::Instant;

use common::{Peer, flag, least, median, option, peak_memory, shape};
use gemm::Parallelism;
use rpo::model::lora::Lora;
use rpo::model::{Config, llama, t5};
use rpo::train::{Event, Observer, TrainConfig};
use serde_json::json;

const BATCH: usize = 8;
const PROMPT: usize = 256;
const RESPONSE: usize = 128;

fn main() {
    common::begin();
    let rounds: usize = option("--rounds").and_then(|r| r.parse().ok()).unwrap_or(5);
    let config = shape(&option("--size").unwrap_or_else(|| "small".into()));
    let responses: usize = option("--responses").map_or(1, |k| k.parse().expect("a number"));
    let (prompts, responses) = if flag("--apart") { (BATCH * responses, 1) } else { (BATCH, responses) };
    let train = TrainConfig {
        max_steps: Some(rounds + 2),
        batch_size: prompts * responses,
        micro_batch_tokens: 4096,
        recompute: flag("--recompute"),
        lora: Lora { rank: option("--lora").map_or(0, |rank| rank.parse().expect("a number")), ..Lora::default() },
        ..TrainConfig::default()
    };
    let peer = option("--peer").map(|command| Peer::start(&command));
    let mut times = Times {
        products: (!flag("--no-floor") && option("--device").is_none_or(|d| d == "cpu"))
            .then(|| Products::of(&config, prompts, responses, train.lora.is_on())),
        peer,
        steps: Vec::new(),
        floors: Vec::new(),
        peers: Vec::new(),
    };
    let data = common::data(prompts, responses, |_| PROMPT, |_| RESPONSE);
    common::train(common::fresh(&config), data, &train, &mut times);

    // The first two warm up.
    let steps = &times.steps[2..];
    let giga = times.products.as_ref().map_or(0.0, Products::operations) / 1e9;
    let peak = peak_memory() - times.products.as_ref().map_or(0.0, Products::mebibytes);
    println!("{}", common::machine());
    println!("step   {:.3} s (least {:.3}), peak memory {peak:.0} MiB", median(steps), least(steps));
    let floors = times.floors.get(2..).unwrap_or_default();
    if !floors.is_empty() {
        let ratios: Vec<f64> = steps.iter().zip(floors).map(|(s, f)| s / f).collect();
        println!(
            "floor  {:.3} s (least {:.3}): {giga:.0} GFLOP at {:.0} GFLOP/s",
            median(floors),
            least(floors),
            giga / median(floors)
        );
        println!("step / floor, median of {} alternate rounds: {:.2}", ratios.len(), median(&ratios));
    }
    let peers = times.peers.get(2..).unwrap_or_default().to_vec();
    let peer_memory = times.peer.take().map_or(0.0, Peer::finish);
    if !peers.is_empty() {
        let ratios: Vec<f64> = steps.iter().zip(&peers).map(|(s, p)| s / p).collect();
        println!("peer   {:.3} s (least {:.3}), peak memory {peer_memory:.0} MiB", median(&peers), least(&peers));
        println!("step / peer: {:.2}; memory / peer: {:.2}", median(&ratios), peak / peer_memory);
    }
    common::write_json(json!({
        "step_s": steps, "floor_s": floors, "gflop": giga, "peak_mib": peak,
        "peer_s": peers, "peer_peak_mib": peer_memory,
    }));
}

/// Times each step, and the floor and the peer after it.
struct Times {
    products: Option<Products>,
    peer: Option<Peer>,
    steps: Vec<f64>,
    floors: Vec<f64>,
    peers: Vec<f64>,
}

impl Observer for Times {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Step(report) = event {
            self.steps.push(report.seconds);
            self.floors.extend(self.products.as_mut().map(Products::run));
            self.peers.extend(self.peer.as_mut().and_then(|p| p.ask("step")).map(|(seconds, _)| seconds));
        }
        Ok(())
    }
}

/// The matrix products of a step, `(m, n, k, how many, in parallel inside)`.
struct Products {
    shapes: Vec<(usize, usize, usize, usize, bool)>,
    memory: [Vec<f32>; 3],
}

impl Products {
    /// Those of the gradients of matrices are left out if they are `frozen`.
    fn of(config: &Config, prompts: usize, responses: usize, frozen: bool) -> Self {
        match config {
            Config::T5(config) => Self::of_t5(config, prompts, responses, frozen),
            Config::Llama(config) => Self::of_llama(config, prompts, responses, frozen),
        }
    }

    /// Prompts and responses go through the same matrices; attention counts what queries see, without what is hidden.
    fn of_llama(config: &llama::Config, prompts: usize, responses: usize, frozen: bool) -> Self {
        let (d, ff, layers, width) = (config.d_model, config.d_ff, config.num_layers, config.head_width);
        let (queries, keys) = (config.num_heads * width, config.num_key_heads * width);
        let target = prompts * responses * RESPONSE;
        let all = prompts * PROMPT + target;
        let linear = [
            (all, queries, d, layers),
            (all, keys, d, 2 * layers),
            (all, d, queries, layers),
            (all, ff, d, 2 * layers),
            (all, d, ff, layers),
            (target, config.vocab_size, d, 1),
        ];
        let heads = config.num_heads * layers;
        let attention =
            [(PROMPT, PROMPT / 2, prompts * heads), (RESPONSE, PROMPT + RESPONSE / 2, prompts * responses * heads)];
        Self::new(&linear, &attention, width, frozen)
    }

    fn of_t5(config: &t5::Config, prompts: usize, responses: usize, frozen: bool) -> Self {
        let (d, ff, inner) = (config.d_model, config.d_ff, config.num_heads * config.d_kv);
        let (source, target) = (prompts * PROMPT, prompts * responses * RESPONSE);
        let (encoder, decoder) = (config.num_layers, config.num_decoder_layers);
        // Matrices of every layer, as (tokens, outputs, inputs, how many).
        let linear = [
            (source, inner, d, 3 * encoder + 2 * decoder),
            (source, d, inner, encoder),
            (source, ff, d, 2 * encoder),
            (source, d, ff, encoder),
            (target, inner, d, 4 * decoder),
            (target, d, inner, 2 * decoder),
            (target, ff, d, 2 * decoder),
            (target, d, ff, decoder),
            (target, config.vocab_size, d, 1),
        ];
        let heads = prompts * config.num_heads;
        let attention = [
            (PROMPT, PROMPT, heads * encoder),
            (RESPONSE, RESPONSE, heads * responses * decoder),
            (RESPONSE, PROMPT, heads * responses * decoder),
        ];
        Self::new(&linear, &attention, config.d_kv, frozen)
    }

    /// Of matrices as `(tokens, outputs, inputs, how many)` and attention of heads of this `width` as `(queries, keys, how many)`.
    fn new(
        linear: &[(usize, usize, usize, usize)],
        attention: &[(usize, usize, usize)],
        width: usize,
        frozen: bool,
    ) -> Self {
        let mut shapes = Vec::new();
        for &(tokens, out, into, n) in linear {
            shapes.extend([(tokens, out, into, n, true), (tokens, into, out, n, true)]);
            shapes.extend((!frozen).then_some((out, into, tokens, n, true)));
        }
        // Attention, for each sequence and head: scores and mixture, and two gradients of each.
        for &(queries, keys, n) in attention {
            let wide = (queries, keys, width, 2 * n, false);
            let narrow = (queries, width, keys, 2 * n, false);
            let turned = (keys, width, queries, 2 * n, false);
            shapes.extend([wide, narrow, turned]);
        }
        let largest = |f: fn(&(usize, usize, usize, usize, bool)) -> usize| shapes.iter().map(f).max().unwrap_or(0);
        let memory = [largest(|s| s.0 * s.2), largest(|s| s.2 * s.1), largest(|s| s.0 * s.1)].map(|n| vec![0.5; n]);
        Self { shapes, memory }
    }

    fn operations(&self) -> f64 {
        self.shapes.iter().map(|(m, n, k, count, _)| 2.0 * (m * n * k * count) as f64).sum()
    }

    /// The memory that they work in.
    fn mebibytes(&self) -> f64 {
        self.memory.iter().map(Vec::len).sum::<usize>() as f64 * 4.0 / 1024.0 / 1024.0
    }

    /// Seconds that they take.
    fn run(&mut self) -> f64 {
        let [a, b, c] = &mut self.memory;
        let started = Instant::now();
        for &(m, n, k, count, parallel) in &self.shapes {
            if parallel {
                (0..count).for_each(|_| multiply(m, n, k, a, b, c, Parallelism::Rayon(0)));
            } else {
                // Small products keep every core busy side by side.
                let threads = rayon::current_num_threads();
                let (a, b) = (&*a, &*b);
                let parts: Vec<&mut [f32]> = c.chunks_mut(m * n).take(threads).collect();
                rayon::scope(|scope| {
                    for part in parts {
                        scope.spawn(move |_| {
                            (0..count.div_ceil(threads)).for_each(|_| multiply(m, n, k, a, b, part, Parallelism::None));
                        });
                    }
                });
            }
        }
        started.elapsed().as_secs_f64()
    }
}

#[expect(unsafe_code, reason = "the interface of gemm")]
fn multiply(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], parallelism: Parallelism) {
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n);
    let [n_stride, k_stride] = [n, k].map(|s| s as isize);
    // SAFETY: row-major matrices that lie inside their slices, as asserted.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n_stride,
            false,
            a.as_ptr(),
            1,
            k_stride,
            b.as_ptr(),
            1,
            n_stride,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
