//! Answers of a model of flan-t5 shape or of that of SmolLM2-135M: tokens a second, beside the least time that the machine's
//! memory and arithmetic allow, measured in the same run.
//!
//! `cargo bench --workspace --bench generate -- [--size small|base|large|smollm2] [--batch B]... [--mode greedy|published|beam4]...
//! [--weights f32|bf16|int8] [--prompt TOKENS] [--new TOKENS] [--rounds N] [--json FILE] [--peer COMMAND]...`: B prompts, half of them of so many
//! tokens and the others shorter, down to half as many, each answered with exactly as many new tokens. The floor is, for each step,
//! the larger of two: what is read of memory (the decoder's weights, the head's, keys and values) at the rate at which memory is read
//! here, and the matrix products at the rate of `gemm`; and the prompts' matrix products. A peer answers the same in its own
//! process, in turn; its task is `MODE BATCH`: `scripts/generate_peers.py`.

mod common;

use std::time::{Duration, Instant};

use common::{Peer, least, median, option, options, peak_memory, shape};
use gemm::Parallelism;
use rayon::prelude::*;
use rpo::generate::{Decoding, Engine, Request};
use rpo::model::{Config, PackedModel, Precision, RandomWeights};
use serde_json::json;

fn number(name: &str, otherwise: usize) -> usize {
    option(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

fn several(name: &str, otherwise: &[&str]) -> Vec<String> {
    let given = options(name);
    if given.is_empty() { otherwise.iter().map(ToString::to_string).collect() } else { given }
}

fn main() {
    common::begin();
    let config = shape(&option("--size").unwrap_or_else(|| "small".into()));
    let (prompt, new, rounds) = (number("--prompt", 128), number("--new", 128), number("--rounds", 3));
    let (precision, bytes) = match option("--weights").as_deref() {
        None | Some("f32") => (Precision::F32, 4.0),
        Some("bf16") => (Precision::Bf16, 2.0),
        Some("int8") => (Precision::Int8, 1.0),
        Some(other) => panic!("--weights {other}: f32, bf16 and int8 are known"),
    };
    let mut peers: Vec<Peer> = options("--peer").iter().map(|command| Peer::start(command)).collect();
    // They are loaded when they have answered.
    for peer in &mut peers {
        peer.ask("greedy 1 16 4");
    }
    rest();
    let machine = Machine::measure(Work::of(&config).answer as f64 * bytes);
    // What was measured with does not count as the model's memory.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let model = PackedModel::new(&config, &mut RandomWeights::new(1), precision).expect("random");
    let mut engine = Engine::packed(model, &config, usize::MAX);
    println!("{}", common::machine());
    println!("memory {:.1} GB/s, products {:.0} GFLOP/s", machine.bytes / 1e9, machine.operations / 1e9);
    let mut table = Vec::new();
    for mode in several("--mode", &["greedy", "published", "beam4"]) {
        for batch in several("--batch", &["1", "16", "64"]) {
            let batch: usize = batch.parse().expect("a number");
            let prompts: Vec<Vec<u32>> =
                (0..batch).map(|i| ids(i, prompt - (i % 2) * (i * prompt / batch / 2))).collect();
            let decoding = decoding(&mode, new);
            let (mut own, mut theirs) = (Vec::new(), vec![Vec::new(); peers.len()]);
            answer(&mut engine, &prompts, &Decoding { max_new_tokens: 4, min_new_tokens: 4, ..decoding.clone() });
            for _ in 0..rounds {
                rest();
                own.push(answer(&mut engine, &prompts, &decoding));
                for (peer, theirs) in peers.iter_mut().zip(&mut theirs) {
                    rest();
                    let task = format!("{mode} {batch} {prompt} {new}");
                    theirs.extend(peer.ask(&task).map(|(seconds, _)| seconds));
                }
            }
            let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
            let floor = floor(&config, &machine, &lengths, new, decoding.num_beams, bytes);
            let rate = |seconds: f64| (batch * new) as f64 / seconds;
            print!(
                "{mode:9} batch {batch:3}: {:7.1} tokens/s (most {:.1}), {:.2} of the floor's {:.1}",
                rate(median(&own)),
                rate(least(&own)),
                floor / median(&own),
                rate(floor)
            );
            for (peer, theirs) in peers.iter().zip(&theirs).filter(|(_, theirs)| !theirs.is_empty()) {
                let ratios: Vec<f64> = own.iter().zip(theirs).map(|(own, theirs)| theirs / own).collect();
                print!("; {} {:.1}: {:.2} times as fast", peer.name, rate(median(theirs)), median(&ratios));
            }
            println!();
            table.push(json!({"mode": mode, "batch": batch, "seconds": own, "floor_s": floor, "peers_s": theirs}));
        }
    }
    println!("peak memory {:.0} MiB", peak_memory());
    for peer in peers {
        println!("{}: {:.0} MiB", peer.name.clone(), peer.finish());
    }
    common::write_json(json!({"prompt": prompt, "new": new, "peak_mib": peak_memory(), "table": table}));
}

/// Lets the threads of others, which wait for work a while without sleeping, fall asleep.
fn rest() {
    std::thread::sleep(Duration::from_millis(500));
}

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n.max(2)).map(|i| (3 + (i * 7919 + seed * 104_729) % 32_000) as u32).collect()
}

fn decoding(mode: &str, new: usize) -> Decoding {
    let decoding = match mode {
        "greedy" => Decoding::default(),
        "published" => Decoding::published(),
        "beam4" => Decoding { num_beams: 4, ..Decoding::default() },
        other => panic!("--mode {other}: greedy, published and beam4 are known"),
    };
    Decoding { max_new_tokens: new, min_new_tokens: new, ..decoding }
}

/// Seconds until all are answered.
fn answer(engine: &mut Engine, prompts: &[Vec<u32>], decoding: &Decoding) -> f64 {
    engine.forget();
    let started = Instant::now();
    for (index, prompt) in prompts.iter().enumerate() {
        let (prompt, decoding, index) = (prompt.clone(), decoding.clone(), index as u64);
        engine.add(Request { prompt, decoding, index, answers: 1 }).expect("valid");
    }
    let mut tokens = 0;
    while !engine.idle() {
        tokens += engine.step().expect("computed").len();
    }
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(tokens, prompts.len() * decoding.max_new_tokens);
    seconds
}

/// What the machine does in a second.
struct Machine {
    bytes: f64,
    operations: f64,
}

impl Machine {
    /// By reading so many bytes, as a step does, again and again; and by products of square matrices.
    fn measure(bytes: f64) -> Self {
        let values = vec![1f32; bytes as usize / 4];
        let threads = rayon::current_num_threads();
        let read = || {
            let started = Instant::now();
            let sum: f32 = values
                .par_chunks(values.len() / threads)
                .map(|part| {
                    let mut lanes = [0f32; 64];
                    part.chunks_exact(64).for_each(|some| lanes.iter_mut().zip(some).for_each(|(lane, v)| *lane += v));
                    lanes.iter().sum::<f32>()
                })
                .sum();
            assert!(sum > 0.0);
            started.elapsed().as_secs_f64()
        };
        let seconds: Vec<f64> = (0..9).map(|_| read()).collect();
        let n = 1536;
        let (a, b, mut c) = (vec![0.5f32; n * n], vec![0.5f32; n * n], vec![0f32; n * n]);
        let multiply = |_| {
            let started = Instant::now();
            multiply(n, &a, &b, &mut c);
            started.elapsed().as_secs_f64()
        };
        let products: Vec<f64> = (0..9).map(multiply).collect();
        Self {
            bytes: (values.len() * 4) as f64 / median(&seconds),
            operations: 2.0 * (n * n * n) as f64 / median(&products),
        }
    }
}

/// Square matrices.
#[expect(unsafe_code, reason = "the interface of gemm")]
fn multiply(n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let (stride, parallel) = (n as isize, Parallelism::Rayon(0));
    let (c, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
    // SAFETY: all three have n rows of n values.
    unsafe {
        gemm::gemm(n, n, n, c, 1, stride, false, a, 1, stride, b, 1, stride, 0.0, 1.0, false, false, false, parallel);
    }
}

/// Weights that a token passes, and values of keys and values that one leaves.
struct Work {
    prompt: usize,
    answer: usize,
    prompt_keys: usize,
    own_keys: usize,
}

impl Work {
    fn of(config: &Config) -> Self {
        match config {
            Config::T5(c) => {
                let inner = c.num_heads * c.d_kv;
                let feed_forward = 3 * c.d_model * c.d_ff;
                let memory = c.num_decoder_layers * 2 * c.d_model * inner;
                let decoder = c.num_decoder_layers * (6 * c.d_model * inner + feed_forward);
                let keys = 2 * c.num_decoder_layers * inner;
                Self {
                    prompt: c.num_layers * (4 * c.d_model * inner + feed_forward) + memory,
                    answer: decoder + c.d_model * c.vocab_size,
                    prompt_keys: keys,
                    own_keys: keys,
                }
            }
            Config::Llama(c) => {
                let (queries, keys) = (c.num_heads * c.head_width, c.num_key_heads * c.head_width);
                let layers = c.num_layers * (2 * c.d_model * (queries + keys) + 3 * c.d_model * c.d_ff);
                let kept = 2 * c.num_layers * keys;
                Self { prompt: layers, answer: layers + c.d_model * c.vocab_size, prompt_keys: kept, own_keys: kept }
            }
        }
    }
}

/// The least seconds where weights are held in so many bytes, keys and values in two at least, and products run at the rate of f32.
fn floor(config: &Config, machine: &Machine, prompts: &[usize], new: usize, beams: usize, bytes: f64) -> f64 {
    let Work { prompt, answer, prompt_keys, own_keys } = Work::of(config);
    let (tokens, rows) = (prompts.iter().sum::<usize>(), prompts.len() * beams);
    let reading = 2.0 * (tokens * prompt) as f64 / machine.operations;
    let step = |done: usize| {
        let kept = (tokens * prompt_keys + rows * done * own_keys) as f64 * bytes.max(2.0);
        let memory = (answer as f64 * bytes + kept) / machine.bytes;
        memory.max(2.0 * (rows * answer) as f64 / machine.operations)
    };
    reading + (0..new).map(step).sum::<f64>()
}
