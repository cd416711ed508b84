//! What a run is, in a few lines at the head of its log.

use rpo::device::Arithmetic;
use rpo::model::{Model, NamedParameters};
use rpo::objective::ObjectiveConfig;
use rpo::train::Task;
use rpo::train::optim::Algorithm;

use crate::settings::Settings;

/// Model, objective, steps and rates of the run of `settings`.
pub fn lines(settings: &Settings, model: &Model, task: &Task, processes: usize) -> Vec<String> {
    let used = task.data.train.iter().filter(|r| task.objective.uses(r.row)).count();
    let lines = [model_line(settings, model), objective_line(&settings.objective), steps_line(settings, used)];
    lines.into_iter().chain(world_line(processes, settings.train.shards())).collect()
}

/// Who computes what of a step, where that is worth saying.
fn world_line(processes: usize, shards: usize) -> Option<String> {
    let of_one = match shards / processes {
        1 => "a part each".to_string(),
        n => format!("{n} parts each, one after the other"),
    };
    let threads = match crate::place::threads() {
        1 => "1 thread".to_string(),
        n => format!("{n} threads"),
    };
    let by = if processes == 1 { "one process".into() } else { format!("{processes} processes") };
    (shards > 1).then(|| format!("each step in {shards} parts, by {by}: {of_one}, on {threads}"))
}

fn model_line(settings: &Settings, model: &Model) -> String {
    let parameters: usize = model.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum();
    let lora = &settings.train.lora;
    let adapters = match lora.is_on() {
        true => format!(", frozen but for adapters of rank {} ({})", lora.rank, short(lora.parameters(model))),
        false => String::new(),
    };
    let products = match Arithmetic::on(&settings.device, model.compute()) {
        Arithmetic::F32 => String::new(),
        other => format!(", products in {}", other.name()),
    };
    format!("model: {}, {} parameters{adapters}, on {}{products}", settings.model, short(parameters), settings.device)
}

/// `77.0 million`.
fn short(n: usize) -> String {
    match n {
        0..1_000_000 => n.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} million", n as f64 / 1e6),
        _ => format!("{:.2} billion", n as f64 / 1e9),
    }
}

/// The objective with all its settings.
fn objective_line(objective: &ObjectiveConfig) -> String {
    let mut line = format!("objective: {}", objective.name());
    if let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(objective) {
        let told =
            settings.iter().filter(|(name, value)| *name != "name" && !value.is_null()).map(
                |(name, value)| match value {
                    serde_json::Value::String(text) => format!(", {name} {text}"),
                    other => format!(", {name} {other}"),
                },
            );
        line.extend(told);
    }
    line
}

/// Steps, batches, rates and validations, `used` being the training responses that the objective uses.
fn steps_line(settings: &Settings, used: usize) -> String {
    let train = &settings.train;
    let steps = train.steps(used);
    let algorithm = match train.optimizer.algorithm {
        Algorithm::AdamW(_) => "AdamW",
        Algorithm::Adafactor(_) => "Adafactor",
    };
    let epochs = (steps * train.batch_size) as f64 / used.max(1) as f64;
    format!(
        "training: {steps} steps of {} responses ({epochs:.1} passes over {used}), learning rate {:e} by {algorithm} after {} \
         steps of warm-up, seed {}, a validation every {} steps",
        train.batch_size,
        train.optimizer.learning_rate,
        train.warmup(steps),
        train.seed,
        train.validates_every(steps)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Origin;

    #[test]
    fn a_run_is_told_in_full() {
        let settings = "model = \"m\"\ndata = \"d\"\nout = \"o\"\n[objective]\nname = \"rpo\"\n[train]\nepochs = 2\n";
        let settings = Settings::from_table(settings.parse().expect("TOML"), Origin::default()).expect("valid");
        assert_eq!(
            objective_line(&settings.objective),
            "objective: rpo, log-prob sum, partition fitted, single-response global, standardize-rewards true, tau 0.1"
        );
        assert_eq!(
            steps_line(&settings, 640),
            "training: 40 steps of 32 responses (2.0 passes over 640), learning rate 1e-4 by AdamW after 4 steps of \
             warm-up, seed 42, a validation every 4 steps"
        );
        assert_eq!([short(999), short(76_961_152), short(2_849_757_184)], ["999", "77.0 million", "2.85 billion"]);
    }
}
