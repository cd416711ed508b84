//! `rpo doctor`: what this machine has, and whether a device computes what it should.

mod machine;
mod table;

use anyhow::{Result, bail};
use rpo::device::{self, Check, Precision, Subject, WIDE};
use rpo::model::checkpoint::Checkpoint;
use rpo::model::{Compute, Config};

use crate::{place, progress};

pub use machine::total_memory;

/// See what this machine has, and whether a device computes what it should: `rpo doctor --device vulkan`
///
/// A small model with fixed random weights scores a packed batch of prompts and responses of unequal lengths: its hidden states,
/// log-probabilities, loss, the gradient of every tensor and greedy answers are computed on the device and compared with what the
/// CPU computes in f32. Without --device, the CPU's own kernels are compared with the engine's plain operations. The difference is
/// the norm of the difference over the norm of what was expected; ends with status 1 if one is beyond what rounding explains. Other
/// commands compare in the same way, once, before they compute on anything but the CPU.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo doctor
  rpo doctor --device vulkan
  rpo doctor --device cuda --model google/flan-t5-small --all")]
pub struct Arguments {
    /// What is tried; all but the CPU must be compiled in
    #[arg(long, default_value = "cpu", value_parser = device::NAMES)]
    device: String,
    /// Model directory or hub id, of which a small likeness is tried [default: one of Flan-T5 and one of SmolLM2]
    #[arg(long, value_name = "DIR|ID")]
    model: Option<String>,
    /// What the factors of matrix products are rounded to; auto tries f32, and bf16 where the device has such products
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = clap::value_parser!(Precision))]
    precision: Precision,
    /// Also with adapters (LoRA), the rest of the model being held in bfloat16
    #[arg(long)]
    lora: bool,
    /// Every gradient, and not only those that differ most
    #[arg(long)]
    all: bool,
}

/// The shape of google/flan-t5-small.
const T5: &str = r#"{"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;

/// The shape of HuggingFaceTB/SmolLM2-135M.
const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 100000, "tie_word_embeddings": true}"#;

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    machine::lines().iter().for_each(|line| println!("{line}"));
    let (mut beyond, mut all) = (0, 0);
    for subject in subjects(arguments)? {
        let check = tried(arguments, &subject)?;
        // Again, as it is once kernels are compiled: neither the time nor the numbers need be the same.
        let again = tried(arguments, &subject)?;
        println!();
        table::lines(&subject, &check, &again, arguments.all).iter().for_each(|line| println!("{line}"));
        for check in [&check, &again] {
            beyond += check.compared.iter().filter(|quantity| !quantity.is_within()).count();
            all += check.compared.len();
        }
    }
    println!();
    let name = &arguments.device;
    if beyond > 0 {
        bail!(
            "{name}: {beyond} of {all} comparisons differ by more than rounding; rpo trains and scores nothing there. A driver that is \
             newer, or another one, may compute rightly; --device cpu does"
        );
    }
    println!("{name}: all {all} comparisons are within rounding");
    Ok(())
}

fn tried(arguments: &Arguments, subject: &Subject) -> Result<Check> {
    let bar = progress::busy("computing on the device, for which kernels are compiled the first time");
    let check = device::check(&arguments.device, subject);
    bar.finish_and_clear();
    Ok(check?)
}

/// What is tried, one after the other.
fn subjects(arguments: &Arguments) -> Result<Vec<Subject>> {
    let device = place::find(&arguments.device, arguments.precision, false)?;
    let widest = arguments.precision.on(&device, WIDE);
    let computes = match (arguments.precision, widest) {
        (Precision::Auto, Compute::Bf16) => vec![Compute::F32, Compute::Bf16],
        _ => vec![widest],
    };
    let configs = match &arguments.model {
        Some(name) => vec![Checkpoint::find(name)?.config()?],
        None => [T5, LLAMA].map(Config::parse).into_iter().collect::<Result<_, _>>().map_err(anyhow::Error::msg)?,
    };
    let mut subjects = Vec::new();
    for config in configs {
        for compute in &computes {
            let subject = Subject::of(config.clone()).with_compute(*compute);
            subjects.push(subject.clone());
            if arguments.lora {
                subjects.push(subject.with_adapters(true));
            }
        }
    }
    Ok(subjects)
}
