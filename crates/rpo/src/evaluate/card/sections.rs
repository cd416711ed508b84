//! What a person reads of a card.

use std::fmt::Write;

use super::super::evaluation::{Evaluation, JudgeFound};
use super::super::preference::Pair;
use super::{Card, Kind, Training};
use crate::statistics::Interval;

/// A pair of models from the side of one of them.
pub struct Seen {
    /// The other model.
    pub other: usize,
    /// Its share of the points.
    pub rate: Interval,
    /// That at equal length, where it is known.
    pub length_controlled: Option<Interval>,
    /// Prompts won, tied and lost.
    pub counts: [usize; 3],
    /// After correction for many comparisons.
    pub p: f64,
}

/// The pair from the side of `model`, if it is one of the two.
pub fn seen_from(pair: &Pair, model: usize) -> Option<Seen> {
    let [first, second] = pair.models;
    let is_first = match model {
        model if model == first => true,
        model if model == second => false,
        _ => return None,
    };
    let turn = |rate: Interval| match is_first {
        true => rate,
        false => Interval { mean: 1.0 - rate.mean, low: 1.0 - rate.high, high: 1.0 - rate.low },
    };
    let [wins, losses] = if is_first { [pair.wins, pair.losses] } else { [pair.losses, pair.wins] };
    Some(Seen {
        other: if is_first { second } else { first },
        rate: turn(pair.rate.interval),
        length_controlled: pair.length_controlled.as_ref().map(|rate| turn(rate.rate.interval)),
        counts: [wins, pair.ties, losses],
        p: pair.p_holm,
    })
}

/// The last part of a path; the whole of what is none, such as a hub id.
pub fn file_name(source: &str) -> &str {
    let is_path = source.starts_with(['/', '.', '~']) || source.matches('/').count() > 1 || source.contains('\\');
    let name = source.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
    if is_path { name.unwrap_or(source) } else { source }
}

/// A text as the cell of a table, or within a sentence.
fn plain(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ").replace('\\', "\\\\");
    text.replace('|', "\\|").replace('<', "&lt;").replace('`', "'").replace('*', "\\*").replace('~', "\\~")
}

/// Everything behind the front matter.
pub fn sections(card: &Card) -> String {
    let mut out = format!("# {}\n\n", plain(&card.name));
    opening(&mut out, card);
    loading(&mut out, card);
    match &card.training {
        Some(training) => trained(&mut out, training),
        None => out.push_str(
            "## Training\n\nThe settings of its training are not beside the model: nothing is said of it.\n\n",
        ),
    }
    match &card.evaluation {
        Some((evaluation, model)) => evaluated(&mut out, evaluation, *model),
        None => out.push_str("## Evaluation\n\nNothing was measured of this model.\n\n"),
    }
    use_and_limits(&mut out, card);
    out
}

fn opening(out: &mut String, card: &Card) {
    let link = |id: &str| format!("[{id}](https://huggingface.co/{id})");
    let what = if card.kind.adapter { "Adapters (LoRA) for" } else { "This is" };
    let base = match (&card.base_model, &card.training) {
        (Some(id), _) => link(id),
        (None, Some(training)) => format!("`{}`, a model without an id on the hub,", plain(file_name(&training.from))),
        (None, None) => "a model that is not named here".into(),
    };
    let how = match card.training.as_ref().map(|t| t.objective.as_str()) {
        Some("rpo") => {
            "trained from scalar feedback, one rated response at a time, by Reward Partitioning Optimization (RPO, [arXiv \
             2506.13702](https://arxiv.org/abs/2506.13702))"
                .to_string()
        }
        Some(objective) => format!("trained from scalar feedback by the objective `{objective}` of the program `rpo`"),
        None => "written by the program `rpo`".to_string(),
    };
    let _ = writeln!(out, "{what} {base} {how}.\n");
    match &card.license {
        Some(license) => _ = writeln!(out, "Licence: `{license}`.\n"),
        None => out.push_str(
            "The licence of this model was not given. It is bound by that of the model it was trained from and of its data: see \
             there.\n\n",
        ),
    }
}

/// How to load it: Python that runs where `transformers` is installed, in the model's directory if it has no id.
fn loading(out: &mut String, card: &Card) {
    let Kind { encoder_decoder, adapter } = card.kind;
    let class = if encoder_decoder { "AutoModelForSeq2SeqLM" } else { "AutoModelForCausalLM" };
    let (name, note) = match &card.repo {
        Some(repo) => (repo.as_str(), ""),
        None => (".", "  # this directory"),
    };
    out.push_str("## How to use it\n\n```python\n");
    let auto = if adapter { class.replace("Auto", "AutoPeft") } else { class.into() };
    // The tokenizer of adapters is that of their base model.
    let (imports, tokenizer) = match adapter {
        true => (
            format!("from peft import {auto}\nfrom transformers import AutoTokenizer"),
            "model.peft_config[\"default\"].base_model_name_or_path",
        ),
        false => (format!("from transformers import {auto}, AutoTokenizer"), "name"),
    };
    let _ = writeln!(out, "{imports}\n\nname = \"{name}\"{note}\nmodel = {auto}.from_pretrained(name)");
    let _ = writeln!(out, "tokenizer = AutoTokenizer.from_pretrained({tokenizer})");
    out.push_str("prompt = \"How do I keep basil alive in winter?\"\n");
    match card.chat {
        true => out.push_str(
            "inputs = tokenizer.apply_chat_template(\n    [{\"role\": \"user\", \"content\": prompt}], add_generation_prompt=True, \
             return_tensors=\"pt\", return_dict=True\n)\n",
        ),
        false => out.push_str("inputs = tokenizer(prompt, return_tensors=\"pt\")\n"),
    }
    out.push_str("answer = model.generate(**inputs, max_new_tokens=128)[0]\n");
    if !encoder_decoder {
        out.push_str("answer = answer[inputs[\"input_ids\"].shape[1]:]\n");
    }
    out.push_str("print(tokenizer.decode(answer, skip_special_tokens=True))\n```\n\nor without Python:\n\n```sh\n");
    let chat = if card.chat { " --chat-template always" } else { "" };
    let _ = writeln!(out, "rpo generate --model {name}{chat} \"How do I keep basil alive in winter?\"\n```\n");
}

fn trained(out: &mut String, training: &Training) {
    let named = [
        ("objective", training.objective.as_str()),
        ("started from", file_name(&training.from)),
        ("data", file_name(&training.data)),
    ];
    out.push_str("## Training\n\n| | |\n|---|---|\n");
    let facts = training.facts.iter().map(|(what, value)| (what.as_str(), value.as_str()));
    named
        .into_iter()
        .chain(facts)
        .for_each(|(what, value)| _ = writeln!(out, "| {} | {} |", plain(what), plain(value)));
    // A fence longer than any in the settings.
    let ticks = training.settings.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(ticks.max(2) + 1);
    let settings = training.settings.trim_end();
    let _ =
        writeln!(out, "\n<details><summary>All settings</summary>\n\n{fence}toml\n{settings}\n{fence}\n\n</details>\n");
}

fn evaluated(out: &mut String, evaluation: &Evaluation, model: usize) {
    let prompts = &evaluation.prompts;
    let answers = if prompts.seeds == 1 { "one answer".into() } else { format!("{} answers", prompts.seeds) };
    let _ = writeln!(
        out,
        "## Evaluation\n\nOn {} prompts of `{}`, {answers} each, {} ({}). Brackets hold 95 % intervals.\n",
        prompts.number,
        plain(file_name(&prompts.source)),
        plain(&evaluation.provenance.date),
        plain(&format!("rpo {}", evaluation.provenance.version)),
    );
    if !evaluation.decoding.is_empty() {
        let settings: Vec<String> = evaluation.decoding.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = writeln!(out, "Answers were drawn with: {}.\n", plain(&settings.join(", ")));
    }
    if evaluation.metrics.is_empty() && evaluation.judges.is_empty() {
        out.push_str("The evaluation measured nothing.\n\n");
    }
    if !evaluation.metrics.is_empty() {
        metrics(out, evaluation, model);
    }
    if !evaluation.judges.is_empty() {
        judges(out, evaluation, model);
    }
}

fn metrics(out: &mut String, evaluation: &Evaluation, model: usize) {
    // This model first.
    let mut order: Vec<usize> = (0..evaluation.models.len()).collect();
    order.sort_by_key(|&i| i != model);
    let names: Vec<String> = order.iter().map(|&i| plain(&evaluation.models[i].name)).collect();
    let _ = writeln!(out, "| metric | {} | n | version | unit |", names.join(" | "));
    let _ = writeln!(out, "|---|{}---|---|---|", "---|".repeat(names.len()));
    for metric in &evaluation.metrics {
        let values: Vec<String> = order
            .iter()
            .map(|&i| metric.models[i].map_or_else(|| "not measured".into(), |estimate| figures(estimate.interval)))
            .collect();
        let n = metric.models[model].map_or_else(|| "-".into(), |estimate| estimate.n.to_string());
        let about = &metric.about;
        let name = match about.higher_is_better {
            Some(true) => format!("{} (higher is better)", about.name),
            Some(false) => format!("{} (lower is better)", about.name),
            None => about.name.clone(),
        };
        let [name, version, unit] = [&name, &about.version, &about.unit].map(|text| plain(text));
        let _ = writeln!(out, "| {name} | {} | {n} | {version} | {unit} |", values.join(" | "));
    }
    out.push('\n');
}

fn judges(out: &mut String, evaluation: &Evaluation, model: usize) {
    out.push_str("Win rates of this model, a tie being half a win; both orders of every two answers were judged:\n\n");
    out.push_str("| judge | against | win rate | at equal length | won, tied, lost | p (sign test, corrected) |\n|---|---|---|---|---|---|\n");
    for judge in &evaluation.judges {
        let strike = if judge.judged.verdict.is_sound() { "" } else { "~~" };
        for seen in judge.judged.pairs.iter().filter_map(|pair| seen_from(pair, model)) {
            let controlled = seen.length_controlled.map_or_else(|| "not known".into(), percent);
            let [won, tied, lost] = seen.counts;
            let _ = writeln!(
                out,
                "| {} | {} | {strike}{}{strike} | {strike}{controlled}{strike} | {strike}{won}, {tied}, {lost}{strike} | \
                 {strike}{}{strike} |",
                plain(&judge.name),
                plain(&evaluation.models[seen.other].name),
                percent(seen.rate),
                p_value(seen.p),
            );
        }
    }
    out.push_str("\nHow the judges answered:\n\n");
    evaluation.judges.iter().for_each(|judge| diagnostics(out, judge));
    for pair in evaluation.agreements.iter().flat_map(|agreements| &agreements.pairs) {
        let name = |judge: usize| evaluation.judges.get(judge).map_or("?", |judge| judge.name.as_str());
        let kappa = pair.kappa.map_or_else(|| "not defined".into(), figures);
        let _ = writeln!(
            out,
            "- {} and {} agree on {} of {} judgements; Cohen's kappa {kappa}.",
            plain(name(pair.judges[0])),
            plain(name(pair.judges[1])),
            percent(pair.share),
            pair.judgements,
        );
    }
    out.push('\n');
}

fn diagnostics(out: &mut String, judge: &JudgeFound) {
    let found = &judge.judged.diagnostics;
    let share = |estimate: Option<super::super::Estimate>| {
        estimate.map_or_else(|| "not known".into(), |estimate| percent(estimate.interval))
    };
    let _ = writeln!(
        out,
        "- **{}** (template {}): {} judgements, {} of {} calls not answered as asked; the choice turned with the order in {} of {} \
         decided ones; it chose the answer shown first in {}, the longer one in {} of its calls. {}",
        plain(&judge.name),
        plain(&judge.template),
        found.judgements,
        found.unparsed_calls,
        2 * found.judgements,
        found.flips,
        found.decided,
        share(found.first),
        share(found.longer),
        judge.judged.verdict.says(),
    );
}

fn use_and_limits(out: &mut String, card: &Card) {
    out.push_str(
        "## Intended use\n\nAnswers to prompts like those that it was trained on, where somebody reads them before they matter; and \
         research on training from scalar feedback. It is not made to decide about people, or to be asked where a wrong answer \
         does harm.\n\n## Limits\n\n",
    );
    let judged = card.evaluation.as_ref().is_some_and(|(evaluation, _)| !evaluation.judges.is_empty());
    let measures = |word: &str| {
        card.evaluation.as_ref().is_some_and(|(evaluation, model)| {
            let of = |metric: &super::super::evaluation::MetricFound| metric.models[*model].is_some();
            evaluation.metrics.iter().any(|metric| metric.about.name.to_lowercase().contains(word) && of(metric))
        })
    };
    let mut limits = vec![
        "It learned what its ratings rated and nothing else: what they did not look at, such as truth or safety, may be worse than in \
         the model that it was trained from.",
        "The faults of the model that it was trained from, and of the people or models that rated, are its own.",
    ];
    if judged {
        limits.push(
            "Win rates are what language models preferred, not people, on the prompts named above; intervals cover the choice of \
             prompts and not the choice of judges.",
        );
    }
    if !measures("toxic") {
        limits.push("Toxicity was not measured.");
    }
    if card.evaluation.is_none() {
        limits.push("Whether it is better than what it was trained from was not measured.");
    }
    limits.iter().for_each(|limit| _ = writeln!(out, "- {limit}"));
    let _ = writeln!(out, "\nCard written by `rpo {}`.", card.version);
}

/// A share in percent, with its interval.
fn percent(share: Interval) -> String {
    let end = |x: f64| if x.is_finite() { format!("{:.1}", 100.0 * x) } else { "?".into() };
    format!("{:.1} % [{}, {}]", 100.0 * share.mean, end(share.low), end(share.high))
}

/// A number with its interval, in about four digits.
fn figures(value: Interval) -> String {
    let digits = match value.mean.abs() {
        x if x >= 1000.0 => 0,
        x if x >= 100.0 => 1,
        x if x >= 1.0 => 2,
        _ => 3,
    };
    let end = |x: f64| if x.is_finite() { format!("{x:.digits$}") } else { "?".into() };
    format!("{} [{}, {}]", end(value.mean), end(value.low), end(value.high))
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "below 0.001".into() } else { format!("{p:.3}") }
}
