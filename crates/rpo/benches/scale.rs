//! How time and memory grow with the data and with the model.
//!
//! `cargo bench --workspace --bench scale -- [--sizes small,base,large] [--json FILE]`: an epoch of RPO on 128, 512 and 2048
//! rated responses (4 for each prompt; prompts of 16 to 96 tokens, responses of 16 to 64) of the flan-t5-small shape; then
//! steps of 8 x 256 + 8 x 128 tokens of each size, with and without `recompute`. Each in a process of its own, whose peak
//! memory it is.

mod common;

use std::process::Command;

use common::{data, flag, median, option, peak_memory, shape};
use rpo::train::{Event, Observer, TrainConfig};
use serde_json::{Value, json};

fn main() {
    common::begin();
    if let Some(prompts) = option("--prompts") {
        return data_case(prompts.parse().expect("a number"));
    }
    if let Some(size) = option("--size") {
        return size_case(&size, flag("--recompute"));
    }
    println!("{}", common::machine());
    println!("{:>10} {:>12} {:>16} {:>15} {:>10}", "responses", "seconds", "reference ms", "training ms", "peak MiB");
    let mut by_data = Vec::new();
    for prompts in ["32", "128", "512"] {
        let case = run(&["--prompts", prompts]);
        let number = |name: &str| case[name].as_f64().expect("a number");
        let (responses, reference, training) = (number("responses"), number("reference_s"), number("training_s"));
        let each = |seconds: f64| 1e3 * seconds / responses;
        println!(
            "{responses:>10} {:>12.1} {:>16.1} {:>15.1} {:>10.0}",
            reference + training,
            each(reference),
            each(training),
            number("peak_mib")
        );
        by_data.push(case);
    }
    println!("\n{:>10} {:>12} {:>12} {:>10}", "size", "recompute", "step s", "peak MiB");
    let mut by_size = Vec::new();
    for size in option("--sizes").unwrap_or_else(|| "small,base,large".into()).split(',') {
        for recompute in [false, true] {
            let mut arguments = vec!["--size", size];
            arguments.extend(recompute.then_some("--recompute"));
            let case = run(&arguments);
            let number = |name: &str| case[name].as_f64().expect("a number");
            println!("{size:>10} {recompute:>12} {:>12.2} {:>10.0}", number("step_s"), number("peak_mib"));
            by_size.push(case);
        }
    }
    common::write_json(json!({ "by_data": by_data, "by_size": by_size }));
}

/// What this program says with these arguments.
fn run(arguments: &[&str]) -> Value {
    let this = std::env::current_exe().expect("its own path");
    let output = Command::new(this).args(arguments).output().expect("runs");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}, {errors}", output.status);
    serde_json::from_str(&said).expect("JSON")
}

/// Seconds of every step.
#[derive(Default)]
struct Steps(Vec<f64>);

impl Observer for Steps {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Step(report) = event {
            self.0.push(report.seconds);
        }
        Ok(())
    }
}

fn data_case(prompts: usize) {
    let mut steps = Steps::default();
    // A smooth spread of lengths, the same at every scale.
    let length = |i: usize, from: usize, to: usize| from + (i * 7919) % (to - from + 1);
    let data = data(prompts, 4, |i| length(i, 16, 96), |i| length(i, 16, 64));
    let reference = common::train(common::fresh(&shape("small")), data, &TrainConfig::default(), &mut steps);
    let training: f64 = steps.0.iter().sum();
    let responses = 4 * prompts;
    println!(
        "{}",
        json!({ "responses": responses, "reference_s": reference, "training_s": training, "peak_mib": peak_memory() })
    );
}

fn size_case(size: &str, recompute: bool) {
    let mut steps = Steps::default();
    let data = data(8, 1, |_| 256, |_| 128);
    let config = TrainConfig { max_steps: Some(4), batch_size: 8, recompute, ..TrainConfig::default() };
    common::train(common::fresh(&shape(size)), data, &config, &mut steps);
    // The first warms up.
    let seconds = median(&steps.0[1..]);
    println!("{}", json!({ "size": size, "recompute": recompute, "step_s": seconds, "peak_mib": peak_memory() }));
}
