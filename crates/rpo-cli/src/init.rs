//! `rpo init`: a fresh model.

use std::path::PathBuf;

use anyhow::Result;
use rpo::model::Config;
use rpo::model::checkpoint::{StoredAs, init};

/// Make a fresh, untrained model from a config.json and a tokenizer.json
///
/// Equal seeds give equal models.
#[derive(clap::Args)]
pub struct Arguments {
    /// config.json of a T5
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// tokenizer.json, or a directory that holds one
    #[arg(long, value_name = "PATH")]
    tokenizer: PathBuf,
    /// Decides the weights
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// New directory for the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { config, tokenizer, seed, out } = arguments;
    let parameters = init(&Config::read(config)?, tokenizer, *seed, StoredAs::F32, out)?;
    println!("{}: a fresh model of {:.1} million parameters, seed {seed}", out.display(), parameters as f64 / 1e6);
    Ok(())
}
