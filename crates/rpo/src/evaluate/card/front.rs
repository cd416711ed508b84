//! The front matter: what the hub reads of a card.

use std::fmt::Write;

use super::super::evaluation::Evaluation;
use super::sections::seen_from;
use super::yaml::{number, text};
use super::{Card, Kind};
use crate::error::{Error, Result};

/// The block between two lines `---`, with both.
///
/// # Errors
/// If a licence or a language is no identifier.
pub fn front_matter(card: &Card) -> Result<String> {
    let mut out = String::from("---\n");
    if let Some(license) = &card.license {
        check("license", license, "one of the hub's identifiers, such as apache-2.0 or other")?;
        entry(&mut out, "license", license);
    }
    for language in &card.languages {
        check("language", language, "a code such as en")?;
    }
    list(&mut out, "language", &card.languages);
    if let Some(base) = &card.base_model {
        entry(&mut out, "base_model", base);
        entry(&mut out, "base_model_relation", if card.kind.adapter { "adapter" } else { "finetune" });
    }
    list(&mut out, "datasets", &card.datasets);
    entry(&mut out, "library_name", if card.kind.adapter { "peft" } else { "transformers" });
    entry(&mut out, "pipeline_tag", task(card.kind));
    list(&mut out, "tags", &tags(card));
    if let Some((evaluation, model)) = &card.evaluation {
        model_index(&mut out, &card.name, task(card.kind), evaluation, *model);
    }
    out.push_str("---\n");
    Ok(out)
}

fn check(field: &'static str, value: &str, allowed: &str) -> Result<()> {
    let legal = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let problem = || format!("`{value}` is no identifier; give {allowed}");
    legal.then_some(()).ok_or_else(|| Error::Setting { field, problem: problem() })
}

/// The hub's name of what the model does.
fn task(kind: Kind) -> &'static str {
    if kind.encoder_decoder { "text2text-generation" } else { "text-generation" }
}

fn tags(card: &Card) -> Vec<String> {
    let objective = card.training.as_ref().map(|training| training.objective.as_str());
    let of_method: &[&str] = match objective {
        Some("rpo") => &["rpo", "reward-partitioning-optimization"],
        Some(other) => &[other],
        None => &[],
    };
    let mut tags: Vec<String> = of_method.iter().map(ToString::to_string).collect();
    if objective.is_some() {
        tags.push("scalar-feedback".into());
    }
    if card.kind.adapter {
        tags.push("lora".into());
    }
    tags.push("trained-with-rpo".into());
    tags
}

fn entry(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name}: {}", text(value));
}

fn list(out: &mut String, name: &str, values: &[String]) {
    if !values.is_empty() {
        let _ = writeln!(out, "{name}:");
        values.iter().for_each(|value| _ = writeln!(out, "- {}", text(value)));
    }
}

/// What was measured of the model, as the hub's `model-index`; rates of judges that are struck out are not in it.
fn model_index(out: &mut String, name: &str, task: &str, evaluation: &Evaluation, model: usize) {
    let measured = evaluation.metrics.iter().filter_map(|metric| {
        let estimate = metric.models[model]?;
        let version = &metric.about.version;
        Some((metric.about.name.clone(), estimate.interval.mean, format!("{} ({version})", metric.about.name)))
    });
    let sound = evaluation.judges.iter().filter(|judge| judge.judged.verdict.is_sound());
    let won = sound.flat_map(|judge| {
        let pairs = judge.judged.pairs.iter().filter_map(move |pair| seen_from(pair, model));
        pairs.map(|seen| {
            let name = format!("win rate against {}, judged by {} (%)", evaluation.models[seen.other].name, judge.name);
            ("win_rate".to_string(), 100.0 * seen.rate.mean, name)
        })
    });
    let values: Vec<(String, f64, String)> = measured.chain(won).filter(|(_, value, _)| value.is_finite()).collect();
    if values.is_empty() {
        return;
    }
    let source = super::sections::file_name(&evaluation.prompts.source);
    let _ = writeln!(out, "model-index:\n- name: {}\n  results:\n  - task:\n      type: {task}", text(name));
    let _ = writeln!(out, "    dataset:\n      name: {}\n      type: {}", text(source), text(source));
    out.push_str("    metrics:\n");
    for (metric, value, name) in values {
        let value = number((value * 1e4).round() / 1e4);
        let _ = writeln!(out, "    - type: {}\n      value: {value}\n      name: {}", text(&metric), text(&name));
    }
}
