//! `rpo plan`: what training would take on several machines, before one rents them.

mod cost;
mod measure;
mod shapes;

use anyhow::{Result, bail};
use cost::{Job, Line, Machine};
use indicatif::HumanBytes;
use rpo::device::{self, Precision};
use rpo::model::{Compute, Config};
use rpo::world::World;

use crate::world::once_any;
use crate::{place, progress};

/// See what training would take on 1 to 64 machines: `rpo plan --model google/flan-t5-large`
///
/// Measures on this machine how fast gradients of a model as wide as that one are computed (of two of its layers, so that any model
/// fits) and how fast its memory is, and works out from that and from the lines between machines what a step takes and how much
/// memory a process needs: machines like this one, one process each, each with its part of a step (`mpirun -n N rpo train`). Started by
/// mpirun itself, it also measures the line between its processes. What is said is an estimate, right to about a third; `rpo train
/// --dry-run` measures a run on one machine.
#[derive(clap::Args)]
#[command(
    next_help_heading = "Plan",
    after_help = "\
Examples:
  rpo plan --model google/flan-t5-xl --batch-size 128
  rpo plan --model runs/first/best --lora 16 --machines 1,2,8
  mpirun -n 2 rpo plan --model google/flan-t5-small"
)]
pub struct Arguments {
    /// Model directory, hub id, or config.json; the shapes of google/flan-t5-small to -xxl are known
    #[arg(long, value_name = "DIR|ID|FILE")]
    model: String,
    /// Responses of an optimizer step
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Tokens, prompts included, of a micro-batch
    #[arg(long, default_value_t = 4096)]
    micro_batch_tokens: usize,
    /// Tokens of a prompt
    #[arg(long, value_name = "N", default_value_t = 256)]
    prompt_tokens: usize,
    /// Tokens of a response
    #[arg(long, value_name = "N", default_value_t = 64)]
    response_tokens: usize,
    /// Responses to each prompt, which is read once for all of them
    #[arg(long, value_name = "N", default_value_t = 4)]
    responses: usize,
    /// Rank of adapters (LoRA) that are trained instead of the whole model, which is then held in bfloat16
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// What remembers: adamw keeps two numbers for each that is trained, adafactor next to none
    #[arg(long, default_value = "adamw", value_parser = ["adamw", "adafactor"])]
    optimizer: String,
    /// Numbers of machines
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64])]
    machines: Vec<usize>,
    /// Rates of the lines between them, in gigabits a second
    #[arg(long, value_name = "GBIT", value_delimiter = ',', default_values_t = [1.0, 10.0, 25.0, 100.0])]
    network: Vec<f64>,
    /// What computes; all but the CPU must be compiled in
    #[arg(long, default_value = "cpu", value_parser = device::NAMES)]
    device: String,
    /// What the factors of matrix products are rounded to
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = clap::value_parser!(Precision))]
    precision: Precision,
}

/// Lengths of texts, in tokens, and responses to a prompt.
#[derive(Clone, Copy, Debug)]
struct Texts {
    prompt: usize,
    response: usize,
    responses: usize,
}

/// Seconds until a message arrives, over a line of which nothing is measured.
const LATENCY: f64 = 50e-6;

/// Runs the command, as one of the processes of `world`.
pub fn run(arguments: &Arguments, world: &dyn World) -> Result<()> {
    check(arguments)?;
    let config = shapes::find(&arguments.model)?;
    let device = place::find(&arguments.device, arguments.precision, false)?;
    let compute = arguments.precision.on(&device, config.d_model());
    let line = if world.size() > 1 { Some(measure::line(world)?) } else { None };
    once_any(world, || {
        let texts = Texts {
            prompt: arguments.prompt_tokens,
            response: arguments.response_tokens,
            responses: arguments.responses.min(arguments.batch_size),
        };
        let bar = progress::busy("measuring this machine with a likeness of the model");
        let measured = measure::machine(&config, texts, &device, compute);
        bar.finish_and_clear();
        let (machine, like) = measured?;
        let job = job(arguments, &config, texts, compute);
        told(arguments, &config, &like, &job, &machine, compute);
        times(arguments, &job, &machine, line);
        memory(arguments, &job);
        Ok(())
    })
}

fn check(arguments: &Arguments) -> Result<()> {
    let Arguments { batch_size, micro_batch_tokens, prompt_tokens, response_tokens, responses, .. } = arguments;
    for (flag, value) in [
        ("batch-size", batch_size),
        ("micro-batch-tokens", micro_batch_tokens),
        ("prompt-tokens", prompt_tokens),
        ("response-tokens", response_tokens),
        ("responses", responses),
    ] {
        if *value == 0 {
            bail!("--{flag} 0: at least 1 is needed");
        }
    }
    if arguments.machines.contains(&0) || arguments.network.iter().any(|rate| !rate.is_finite() || *rate <= 0.0) {
        bail!("--machines and --network: numbers above 0 are needed");
    }
    Ok(())
}

/// What a step of training consists of.
fn job(arguments: &Arguments, config: &Config, texts: Texts, compute: Compute) -> Job {
    let prompts = arguments.batch_size.div_ceil(texts.responses);
    let (tokens, scored) = (prompts * texts.prompt, arguments.batch_size * texts.response);
    let weights = config.parameters() as f64;
    // Both maps of an adapter at each linear map, whose sides are about as long as the model is wide.
    let maps = 11.0 * config.layers() as f64;
    let adapters = arguments.lora.map(|rank| maps * 2.0 * rank as f64 * config.d_model() as f64);
    let passes = if adapters.is_some() { 2.0 } else { 3.0 };
    let largest = arguments.micro_batch_tokens.min(tokens + scored) as f64;
    // Logits of 2,048 tokens of the vocabulary at a time, and exponentials of all that are kept unless they are many.
    let labels = largest * scored as f64 / (tokens + scored) as f64;
    let of_vocabulary = labels * config.vocab_size() as f64;
    let kept = if of_vocabulary > f64::from(128 << 20) { 0.0 } else { of_vocabulary };
    let logits =
        4.0 * (labels * 2048.0).min(f64::from(32 << 20)) + if compute == Compute::Bf16 { 2.0 } else { 4.0 } * kept;
    Job {
        operations: passes * config.forward_operations(tokens, scored),
        weights,
        frozen_bytes: if adapters.is_some() { 2.0 } else { 4.0 },
        trained: adapters.unwrap_or(weights),
        remembered: if arguments.optimizer == "adamw" { 2.0 } else { 0.0 },
        activations: config.kept_bytes(compute == Compute::Bf16) * largest + logits,
    }
}

/// What was measured, and of what.
fn told(arguments: &Arguments, config: &Config, like: &Config, job: &Job, machine: &Machine, compute: Compute) {
    println!(
        "{}: {:.0} million parameters, of which {:.1} million are trained; a step of {} responses is {:.2} TFLOP",
        arguments.model,
        job.weights / 1e6,
        job.trained / 1e6,
        arguments.batch_size,
        job.operations / 1e12
    );
    println!(
        "this machine, {} threads, products in {}: {:.0} GFLOP/s of gradients, measured with {} of {} layers; {:.1} GB/s of memory",
        crate::place::threads(),
        if compute == Compute::Bf16 { "bf16" } else { "f32" },
        machine.operations / 1e9,
        like.layers(),
        config.layers(),
        machine.memory / 1e9
    );
}

/// The table of times.
fn times(arguments: &Arguments, job: &Job, machine: &Machine, measured: Option<Line>) {
    let mut lines: Vec<(String, Line)> = arguments
        .network
        .iter()
        .map(|rate| (format!("{rate} Gbit/s"), Line { bytes: rate * 1e9 / 8.0, latency: LATENCY }))
        .collect();
    if let Some(line) = measured {
        println!(
            "the line between these processes: {:.2} GB/s each way, {:.0} us until a message arrives",
            line.bytes / 1e9,
            line.latency * 1e6
        );
        lines.push(("as measured".into(), line));
    }
    println!("\nseconds of a step, and how many times as fast as one machine:");
    print!("{:>9}", "machines");
    lines.iter().for_each(|(name, _)| print!("{name:>18}"));
    println!();
    let alone: f64 = cost::step(job, machine, &lines[0].1, 1).iter().sum();
    let mut losses = Vec::new();
    for &n in &arguments.machines {
        print!("{n:>9}");
        for (name, line) in &lines {
            if n > arguments.batch_size {
                print!("{:>18}", "-");
                continue;
            }
            let seconds: f64 = cost::step(job, machine, line, n).iter().sum();
            print!("{:>18}", format!("{seconds:.3} ({:.1}x)", alone / seconds));
            if n > 1 && seconds >= alone {
                losses.push((n, name.clone(), line));
            }
        }
        println!();
    }
    if arguments.machines.iter().any(|&n| n > arguments.batch_size) {
        println!("-: a step of {} responses has no more parts", arguments.batch_size);
    }
    for (n, name, line) in losses {
        let [_, exchange, _] = cost::step(job, machine, line, n);
        // Gradients take longer in proportion to the batch, and the exchange does not.
        let saved_by_one = (job.operations / machine.operations / arguments.batch_size as f64) * (1.0 - 1.0 / n as f64);
        let worth = (exchange / saved_by_one).ceil();
        println!(
            "{n} machines at {name} are slower than one: the exchange takes {exchange:.2} s. Below steps of {worth:.0} responses \
             (--batch-size) they are a loss"
        );
    }
}

/// The table of memory.
fn memory(arguments: &Arguments, job: &Job) {
    println!("\nmemory of a process:");
    println!(
        "{:>9}{:>21}{:>12}{:>28}{:>12}",
        "machines", "program and weights", "optimizer", "gradients and activations", "together"
    );
    let bytes = |bytes: f64| HumanBytes(bytes as u64).to_string();
    let mut needed = Vec::new();
    for &n in &arguments.machines {
        let [weights, optimizer, most] = cost::memory(job, n);
        let all = weights + optimizer + most;
        needed.push((n, all));
        println!("{n:>9}{:>21}{:>12}{:>28}{:>12}", bytes(weights), bytes(optimizer), bytes(most), bytes(all));
    }
    let Some(there) = crate::doctor::total_memory() else { return };
    let fitting: Vec<String> =
        needed.iter().filter(|(_, all)| *all <= 0.9 * there as f64).map(|(n, _)| n.to_string()).collect();
    match &fitting[..] {
        [] => println!(
            "this machine has {}, which is too little for any of them; try --lora 16, --optimizer adafactor, or a smaller \
             --micro-batch-tokens (rpo train: also --recompute)",
            HumanBytes(there)
        ),
        some => println!("this machine has {}: enough with {} machines like it", HumanBytes(there), some.join(", ")),
    }
}
