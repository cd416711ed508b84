//! What an evaluation found as tables: for terminals, pages, Markdown and CSV.

use std::path::Path;

use anyhow::{Context, Result};
use rpo::evaluate::evaluation::{Evaluation, JudgeFound, MetricDifference, MetricFound};
use rpo::evaluate::preference::{Judged, LengthControlled, Pair};
use rpo::statistics::Interval;
use rpo::store::files::write_file;

use crate::report::{Cell, Column, estimate, show};

/// A table under a heading.
pub struct Table {
    /// What it is of.
    pub title: String,
    /// How it is to be read.
    pub note: String,
    /// Names and kinds of its columns.
    pub columns: Vec<(String, bool)>,
    /// By row and column.
    pub rows: Vec<Vec<Cell>>,
}

/// Why figures of a judge are struck out.
pub const UNTRUSTWORTHY: &str = "the judge cannot tell responses apart";

impl Table {
    fn new(title: impl Into<String>, note: impl Into<String>, columns: &[(&str, bool)]) -> Self {
        let columns = columns.iter().map(|(name, number)| ((*name).to_string(), *number)).collect();
        Self { title: title.into(), note: note.into(), columns, rows: Vec::new() }
    }

    /// The columns as reports have them.
    pub fn heads(&self) -> Vec<Column<'_>> {
        let mut heads = Vec::new();
        for (name, number) in &self.columns {
            heads.push(if *number { Column::Number(name) } else { Column::Text(name) });
        }
        heads
    }

    /// As Markdown, under its heading.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.note);
        text += &line(self.columns.iter().map(|(name, _)| Cell::from(name.as_str()).markdown()).collect());
        text += &line(self.columns.iter().map(|(_, number)| if *number { "---:" } else { "---" }.into()).collect());
        for row in &self.rows {
            text += &line(row.iter().map(Cell::markdown).collect());
        }
        text + "\n"
    }
}

/// All tables that there is something to say in.
pub fn all(evaluation: &Evaluation) -> Vec<Table> {
    let mut tables = Vec::new();
    for judge in &evaluation.judges {
        tables.push(wins(evaluation, judge));
    }
    if !evaluation.judges.is_empty() {
        tables.push(strengths(evaluation));
        tables.push(diagnostics(evaluation));
    }
    tables.extend(agreements(evaluation));
    if !evaluation.metrics.is_empty() {
        tables.push(metrics(evaluation));
        tables.extend(differences(evaluation));
    }
    tables
}

/// The least digits that tell values of this size apart.
fn digits(metric: &MetricFound) -> usize {
    let largest = metric.models.iter().flatten().map(|found| found.interval.mean.abs()).fold(0.0, f64::max);
    if largest >= 10.0 { 1 } else { 3 }
}

fn name(evaluation: &Evaluation, model: usize) -> &str {
    &evaluation.models[model].name
}

/// A judge's cells are struck out where it is not to be trusted.
fn cell(judged: &Judged, text: String) -> Cell {
    let cell = Cell::from(text);
    if judged.verdict.is_sound() { cell } else { cell.struck(UNTRUSTWORTHY) }
}

fn percent(interval: Interval) -> String {
    let Interval { mean, low, high } = interval;
    show(Interval { mean: 100.0 * mean, low: 100.0 * low, high: 100.0 * high }, 1)
}

fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

fn wins(evaluation: &Evaluation, judge: &JudgeFound) -> Table {
    let note = format!(
        "Judged by {} ({}, template {}) in both orders; a choice that turns with the order is a tie, and ties are half a win. \
         Intervals of 95 % over prompts; p of the sign test, after Holm's correction over all pairs. Length-controlled: what the \
         rate would be if answers were equally long, where the judgements tell.{}",
        judge.name,
        judge.kind,
        judge.template,
        if judge.judged.verdict.is_sound() { "" } else { " Struck out: this judge is not to be trusted." },
    ) + &match judge.incomplete {
        0 => String::new(),
        n => format!(" {n} pairs lack a reply and count nowhere: what is left may be a selection."),
    };
    let columns = [
        ("model", false),
        ("against", false),
        ("won", true),
        ("tied", true),
        ("lost", true),
        ("win rate, %", true),
        ("length-controlled, %", true),
        ("p", true),
        ("prompts for 60 %", true),
    ];
    let mut table = Table::new(format!("Win rates by {}", judge.name), note, &columns);
    for pair in &judge.judged.pairs {
        let controlled =
            |c: &LengthControlled| format!("{}{}", percent(c.rate.interval), if c.extreme { " (unsure)" } else { "" });
        let Pair { models: [a, b], wins, ties, losses, rate, p_holm, length_controlled, prompts_needed, .. } = pair;
        let of = |text: String| cell(&judge.judged, text);
        table.rows.push(vec![
            name(evaluation, *a).into(),
            name(evaluation, *b).into(),
            wins.to_string().into(),
            ties.to_string().into(),
            losses.to_string().into(),
            of(percent(rate.interval)),
            of(length_controlled.as_ref().map_or_else(|| "-".into(), controlled)),
            of(probability(*p_holm)),
            prompts_needed[1].map_or_else(|| "-".to_string(), |n| n.to_string()).into(),
        ]);
    }
    table
}

fn strengths(evaluation: &Evaluation) -> Table {
    let mut columns = vec![("model".to_string(), false)];
    columns.extend(evaluation.judges.iter().map(|judge| (format!("Elo by {}", judge.name), true)));
    let rows = (0..evaluation.models.len()).map(|model| {
        let of_judge = |judge: &JudgeFound| {
            let strength = judge.judged.strengths.models[model];
            let text = if strength.judgements == 0 { "-".into() } else { show(strength.elo, 0) };
            cell(&judge.judged, text)
        };
        std::iter::once(name(evaluation, model).into()).chain(evaluation.judges.iter().map(of_judge)).collect()
    });
    let mut note =
        "Strengths by Bradley and Terry's model on Elo's scale (400 points are odds of ten to one), mean 1000."
            .to_string();
    if evaluation.judges.iter().any(|judge| !judge.judged.strengths.finite) {
        note +=
            " Where a model has won all, a tie was added to every pair, without which its strength would be infinite.";
    }
    if evaluation.judges.iter().any(|judge| judge.judged.strengths.groups > 1) {
        note += " Models that never met, not even by way of others, cannot be compared.";
    }
    Table { title: "Strengths".into(), note, columns, rows: rows.collect() }
}

fn diagnostics(evaluation: &Evaluation) -> Table {
    let columns = [
        ("judge", false),
        ("judged", true),
        ("not answered as asked, %", true),
        ("flips, %", true),
        ("same response in both orders, %", true),
        ("prefers the first, %", true),
        ("prefers the longer, %", true),
        ("to be trusted", false),
    ];
    let verdicts: String =
        evaluation.judges.iter().map(|judge| format!(" {}: {}", judge.name, judge.judged.verdict.says())).collect();
    let note = format!(
        "A judge that answers by place chooses another response when the order turns (a flip), and the first about always or \
         never.{verdicts}"
    );
    let mut table = Table::new("Judges", note, &columns);
    for judge in &evaluation.judges {
        let d = &judge.judged.diagnostics;
        let share = |share: Option<f64>| share.map_or_else(|| "-".to_string(), |share| format!("{:.1}", 100.0 * share));
        let interval = |found: Option<rpo::evaluate::Estimate>| {
            found.map_or_else(|| "-".to_string(), |found| percent(found.interval))
        };
        table.rows.push(vec![
            judge.name.as_str().into(),
            d.judgements.to_string().into(),
            share(d.unparsed_share()).into(),
            share(d.flip_rate()).into(),
            interval(d.consistency).into(),
            interval(d.first).into(),
            interval(d.longer).into(),
            if judge.judged.verdict.is_sound() { "yes" } else { "no" }.into(),
        ]);
    }
    table
}

fn agreements(evaluation: &Evaluation) -> Option<Table> {
    let agreements = evaluation.agreements.as_ref().filter(|agreements| !agreements.pairs.is_empty())?;
    let columns = [("judges", false), ("judged by both", true), ("agree, %", true), ("Cohen's kappa", true)];
    let alpha = |alpha: Option<Interval>| alpha.map_or_else(|| "-".to_string(), |alpha| show(alpha, 2));
    let note = format!(
        "Of win, tie and loss. Krippendorff's alpha of all judges: {}, with ties between wins and losses {}.",
        alpha(agreements.alpha_nominal),
        alpha(agreements.alpha_interval)
    );
    let mut table = Table::new("How far judges agree", note, &columns);
    for agreement in &agreements.pairs {
        let [a, b] = agreement.judges.map(|judge| evaluation.judges[judge].name.as_str());
        table.rows.push(vec![
            format!("{a} and {b}").into(),
            agreement.judgements.to_string().into(),
            percent(agreement.share).into(),
            alpha(agreement.kappa).into(),
        ]);
    }
    Some(table)
}

fn metrics(evaluation: &Evaluation) -> Table {
    let mut columns = vec![("metric".to_string(), false)];
    columns.extend(evaluation.models.iter().map(|model| (model.name.clone(), true)));
    columns.push(("better".into(), false));
    columns.push(("unit".into(), false));
    let row = |metric: &MetricFound| {
        let value = |found: &Option<rpo::evaluate::Estimate>| estimate(*found, digits(metric)).into();
        let better = match metric.about.higher_is_better {
            Some(true) => "more",
            Some(false) => "less",
            None => "neither",
        };
        let mut row: Vec<Cell> = vec![metric.about.name.as_str().into()];
        row.extend(metric.models.iter().map(value));
        row.push(better.into());
        row.push(metric.about.unit.as_str().into());
        row
    };
    let note = "Intervals of 95 %, bootstrap over prompts.".to_string();
    Table { title: "Metrics".into(), note, columns, rows: evaluation.metrics.iter().map(row).collect() }
}

fn differences(evaluation: &Evaluation) -> Option<Table> {
    let others = 1..evaluation.models.len();
    let mut columns = vec![("metric".to_string(), false)];
    columns.extend(others.clone().map(|model| (name(evaluation, model).to_string(), true)));
    let row = |metric: &MetricFound| {
        let of = |model: usize| -> Cell {
            let found = metric.differences.iter().find(|d| d.models == [model, 0]);
            let text = |d: &MetricDifference| {
                let d = &d.difference;
                format!("{}, p {}", show(d.interval, digits(metric)), probability(d.p))
            };
            found.map_or_else(|| "-".to_string(), text).into()
        };
        std::iter::once(metric.about.name.as_str().into()).chain(others.clone().map(of)).collect()
    };
    let note = "Paired by prompts: intervals of 95 % by the bootstrap, p of a random exchange of the two models, not corrected for the \
        number of comparisons.";
    (!others.is_empty()).then(|| Table {
        title: format!("Metrics above those of {}", name(evaluation, 0)),
        note: note.into(),
        columns,
        rows: evaluation.metrics.iter().map(row).collect(),
    })
}

/// Writes metrics.csv and wins.csv, a value a row, with full precision.
pub fn write_csv(evaluation: &Evaluation, out: &Path) -> Result<()> {
    let head = ["metric", "model", "value", "low", "high", "n", "unit", "version", "tokenization"];
    let mut rows: Vec<Vec<String>> = vec![head.map(String::from).to_vec()];
    for metric in &evaluation.metrics {
        for (model, found) in metric.models.iter().enumerate() {
            let Some(found) = found else { continue };
            let about = &metric.about;
            rows.push(vec![
                about.name.clone(),
                name(evaluation, model).into(),
                found.interval.mean.to_string(),
                found.interval.low.to_string(),
                found.interval.high.to_string(),
                found.n.to_string(),
                about.unit.clone(),
                about.version.clone(),
                about.tokenization.clone(),
            ]);
        }
    }
    write_rows(&out.join("metrics.csv"), &rows)?;
    if evaluation.judges.is_empty() {
        return Ok(());
    }
    let head = [
        "judge",
        "template",
        "sound",
        "model",
        "against",
        "prompts",
        "won",
        "tied",
        "lost",
        "win_rate",
        "low",
        "high",
        "length_controlled",
        "p",
        "p_holm",
    ];
    let mut rows: Vec<Vec<String>> = vec![head.map(String::from).to_vec()];
    for judge in &evaluation.judges {
        for pair in &judge.judged.pairs {
            let controlled = pair.length_controlled.as_ref().map(|c| c.rate.interval.mean.to_string());
            rows.push(vec![
                judge.name.clone(),
                judge.template.clone(),
                judge.judged.verdict.is_sound().to_string(),
                name(evaluation, pair.models[0]).into(),
                name(evaluation, pair.models[1]).into(),
                pair.rate.n.to_string(),
                pair.wins.to_string(),
                pair.ties.to_string(),
                pair.losses.to_string(),
                pair.rate.interval.mean.to_string(),
                pair.rate.interval.low.to_string(),
                pair.rate.interval.high.to_string(),
                controlled.unwrap_or_default(),
                pair.p.to_string(),
                pair.p_holm.to_string(),
            ]);
        }
    }
    write_rows(&out.join("wins.csv"), &rows)
}

fn write_rows(path: &Path, rows: &[Vec<String>]) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.write_record(row))?;
    let bytes = writer.into_inner().context("a table")?;
    Ok(write_file(path, &bytes)?)
}
