//! Training by RPO on a feedback file, flan-t5-small shape, in rated responses a second.
//!
//! `cargo bench --workspace --bench real -- --data FILE --tokenizer DIR [--steps N] [--json FILE] [--peer NAME=COMMAND]...`:
//! scores the reference and trains one epoch, or N steps, at the default settings. A peer does the same in its own process,
//! in turn, for as many steps as it likes: `scripts/real_torch.py`. The first step of each warms up and is not counted.

mod common;

use std::path::Path;

use common::{Peer, option, options, peak_memory, shape};
use rpo::feedback::{FeedbackSet, Limits, ReadOptions};
use rpo::tokenizer::Tokenizer;
use rpo::train::{Event, Observer, TrainConfig};
use serde_json::json;

fn main() {
    common::begin();
    let required = |name: &str| option(name).unwrap_or_else(|| panic!("{name} is missing; see the top of this bench"));
    let (path, tokenizer) = (required("--data"), required("--tokenizer"));
    let tokenizer = Tokenizer::load(Path::new(&tokenizer)).expect("tokenizer");
    let limits = Limits { prompt_tokens: 512, response_tokens: 512, cut_prompts: rpo::tokenizer::Cut::End };
    let (data, summary) =
        FeedbackSet::read(&Path::new(&path).into(), &ReadOptions::default(), &tokenizer, limits, &mut |_| ())
            .expect("data");
    println!("{}", common::machine());
    println!("{path}: {} prompts, {} different responses, {} tokens", summary.prompts, data.responses(), data.tokens());

    let config = TrainConfig { max_steps: option("--steps").and_then(|n| n.parse().ok()), ..TrainConfig::default() };
    let peers = options("--peer").iter().map(|command| (Peer::start(command), Record::default())).collect();
    let mut turns = Turns { own: Record::default(), peers };
    let responses = data.responses() as f64;
    let reference = common::train(common::fresh(&shape("small")), data, &config, &mut turns);
    let Turns { mut own, peers } = turns;
    own.reference = (reference, responses);
    own.peak = peak_memory();

    println!(
        "{:<12} {:>6} {:>14} {:>15} {:>14} {:>10}",
        "", "steps", "training /s", "reference /s", "one epoch /s", "peak MiB"
    );
    println!("{}", own.row("rpo"));
    let mut results = vec![own.json("rpo")];
    for (peer, mut record) in peers {
        let name = peer.name.clone();
        record.peak = peer.finish();
        println!("{}", record.row(&name));
        let ratio = |rate: fn(&Record) -> f64| rate(&own) / rate(&record);
        let memory = own.peak / record.peak;
        println!(
            "{:<12} training {:.2}, one epoch {:.2}, memory {memory:.2}",
            format!("rpo / {name}"),
            ratio(Record::training),
            ratio(Record::epoch)
        );
        results.push(record.json(&name));
    }
    common::write_json(json!({ "data": path, "results": results }));
}

/// What one program took, as `(seconds, responses)`.
#[derive(Default)]
struct Record {
    reference: (f64, f64),
    steps: Vec<(f64, f64)>,
    peak: f64,
}

impl Record {
    /// Responses trained on in a second.
    fn training(&self) -> f64 {
        let (seconds, responses) = self.steps[1..].iter().fold((0.0, 0.0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
        responses / seconds
    }

    /// Responses scored by the reference in a second.
    fn scoring(&self) -> f64 {
        self.reference.1 / self.reference.0
    }

    /// Responses a second of a run of one epoch: each is scored by the reference and trained on.
    fn epoch(&self) -> f64 {
        1.0 / (1.0 / self.training() + 1.0 / self.scoring())
    }

    fn row(&self, name: &str) -> String {
        let (training, scoring, epoch) = (self.training(), self.scoring(), self.epoch());
        let steps = self.steps.len() - 1;
        format!("{name:<12} {steps:>6} {training:>14.2} {scoring:>15.2} {epoch:>14.2} {:>10.0}", self.peak)
    }

    fn json(&self, name: &str) -> serde_json::Value {
        json!({ "name": name, "reference": self.reference, "steps": self.steps, "peak_mib": self.peak })
    }
}

/// Gives each peer its turn after every step of ours.
struct Turns {
    own: Record,
    peers: Vec<(Peer, Record)>,
}

impl Observer for Turns {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        match event {
            Event::Start { .. } => {
                for (peer, record) in &mut self.peers {
                    record.reference = peer.ask("reference").expect("a reference pass");
                }
            }
            Event::Step(report) => {
                self.own.steps.push((report.seconds, report.responses as f64));
                self.peers.iter_mut().for_each(|(peer, record)| record.steps.extend(peer.ask("step")));
            }
            _ => {}
        }
        Ok(())
    }
}
