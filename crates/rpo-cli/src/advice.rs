//! What `rpo train` says of data and settings before it trains.

use anyhow::Result;
use rpo::advice::{Facts, advise, harms, one_line, suspicions};
use rpo::feedback::Split;
use rpo::model::checkpoint::Checkpoint;

use crate::settings::Settings;

/// Recommends an objective, warns of what is known to do harm, and notes what of the model is not used.
pub fn tell(settings: &Settings, split: &Split) -> Result<()> {
    let facts = Facts::of_split(split);
    println!("{}", one_line(&advise(&facts)));
    for warning in suspicions(&facts).iter().chain(&harms(&facts, &settings.objective)) {
        eprintln!("warning: {warning}");
    }
    let dropout = Checkpoint::find(&settings.model)?.config()?.dropout_rate();
    if dropout > 0.0 {
        println!("note: the model's config.json has dropout_rate {dropout}; training here is without dropout");
    }
    Ok(())
}
