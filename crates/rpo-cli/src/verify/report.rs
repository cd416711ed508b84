//! The report of `rpo verify`: tables, charts and JSON of measured runs. It trains and measures nothing.

use std::path::Path;

use anyhow::{Context, Result};
use rpo::statistics::geometric_interval;

use super::charts::{charts, overview};
use super::found::{DISTANCE, Found, MASS, Quantity, REWARD};
use super::problem::{BASE, Condition, GROUPS, objectives};
use super::search::GRID;
use super::{Measure, Outcome, Run, Setting, TUNING_SEED, judged};
use crate::report::{Column, Page, Provenance, print_table, provenance, show};

const INTRODUCTION: &str = "36 prompts, 27 possible responses each (under `lengths`: 39, of one to three words), a T5 of its \
    own for every problem that first imitates a crowd. That start is also the reference, from which rated responses are \
    drawn (under `uniform`: from all possible ones with equal chances). Distance is KL(pi || pi*) to the exact optimum \
    of reward under a KL penalty of tau, in nats, of the policy conditioned on the possible responses, plus -ln of the \
    probability that it gives to them: the surprise of having to condition. tau times the KL is what the conditioned \
    policy misses of the best possible value. Reward has mean 0 and standard deviation 1 over all pairs. With 95 % \
    intervals over the problems.";

const NAMES: &str = "Objectives use sums of log-probabilities and the condition's tau. With `mean log-prob` an objective has an \
    optimum of its own, not pi*: log-probabilities are averaged over tokens, as in the published code (where all responses \
    are equally long, as if tau were divided by their tokens). `rpo published` is the published configuration whatever \
    tau is: tau 5, mean log-prob, partition by sum, standardised rewards. KTO and QRPO have other optima too, to \
    which a table of their own holds them.";

const OWN: &str = "QRPO's optimum is proportional to pi_ref exp(f(q) / beta), q being the quantile of a reward under the \
    reference (half of what is equal counted); given is the distance to it. Where the rated responses are not drawn from the \
    reference, QRPO estimates other quantiles. KTO's optimum is the reference conditioned on the desirable responses (for \
    beta <= 1, see the documentation of the source); given is -ln of the probability of desirable responses, the least KL \
    from any policy that answers with nothing else, its threshold being the mean of its training rewards and prompts \
    without a desirable response left out. Geometric means in nats.";

const STOP: &str = "The lowest distance on the way, geometric mean over the problems, and the step at which it was. It is looked \
    for after the fact, on the same problems and under the same falling learning rate: what the best early stop could have \
    given, not what a user would have known. Step 0 is the start.";

const EDGE: &str = "A * marks a learning rate at which the grid ends. At the smallest one an objective hardly leaves the start: larger \
    ones took it further from the optimum.";

/// Prints the main tables, and writes `report.html` and `verify.json` to the new directory `out`.
pub fn write(
    out: &Path,
    seeds: u64,
    steps: usize,
    conditions: &[Condition],
    settings: &[Setting],
    outcomes: &[Outcome],
) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let start = |c: &Condition| {
        let problems: Vec<Measure> = judged(settings, c).map(|s| s.at_start(c.tau)).collect();
        serde_json::json!({ "condition": c.label, "problems": problems })
    };
    let starts: Vec<_> = conditions.iter().map(start).collect();
    let json = serde_json::json!({
        "seeds": seeds, "steps": steps, "learning_rates": GRID, "starts": starts, "outcomes": outcomes
    });
    let path = out.join("verify.json");
    std::fs::write(&path, serde_json::to_string(&json)?).with_context(|| format!("cannot write {}", path.display()))?;

    let found = Found { conditions, settings, outcomes };
    let mut page = Page::new("Objectives on problems with a known optimum", INTRODUCTION);
    overview(&mut page, &found);
    page.heading("What was done");
    page.paragraph(NAMES);
    page.paragraph(&format!(
        "{seeds} problems, {steps} optimizer steps of 32 responses. Each objective chose its learning rate under each \
         condition by the distance at the end on a problem apart: from {}, downhill from 3e-4 and 1e-3 until both \
         neighbours of the best are worse.",
        GRID.map(|rate| format!("{rate:e}")).join(", ")
    ));
    tables(&mut page, &found);
    charts(&mut page, &found);
    page.provenance(&origin(seeds, conditions, outcomes)?);
    let path = out.join("report.html");
    page.write(&path)?;
    println!("{}: this, the learning rates, the best stopping points and charts", path.display());
    if let Some(warning) = at_edges(outcomes) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Where the figures come from.
fn origin(seeds: u64, conditions: &[Condition], outcomes: &[Outcome]) -> Result<Provenance> {
    let data = format!(
        "no file: problems of the seeds 1 to {seeds}, learning rates chosen on the problem of seed {TUNING_SEED}; seed and \
         program version determine them"
    );
    let mut origin = provenance().fact("data", data).settings("Conditions", format!("{conditions:#?}"));
    for entrant in objectives(BASE.tau) {
        if outcomes.iter().any(|o| o.objective == entrant.name) {
            let toml = toml::to_string_pretty(&entrant.objective)?;
            origin = origin.settings(format!("Settings of {} where tau is {}", entrant.name, BASE.tau), toml);
        }
    }
    Ok(origin)
}

fn tables(page: &mut Page, found: &Found<'_>) {
    measured(page, found, DISTANCE);
    if let Some(warning) = at_edges(found.outcomes) {
        page.paragraph(&format!("{EDGE} Here {warning}."));
    }
    for quantity in [MASS, REWARD] {
        measured(page, found, quantity);
    }
    own_optima(page, found);
    let names: Vec<(String, &str)> = found.names().map(|name| (name.to_string(), name)).collect();
    let stops = Section { title: "Best stopping point", note: STOP, printed: false };
    table(page, found, &stops, &names, |name, c| Some(cell(found.outcome(name, c)?, best_stop)));
    let rates = Section { title: "Learning rates chosen", note: EDGE, printed: false };
    table(page, found, &rates, &names, |name, c| {
        let outcome = found.outcome(name, c)?;
        let mark = if outcome.at_edge { "*" } else { "" };
        Some(outcome.learning_rate.map_or_else(|| "none".into(), |rate| format!("{rate:e}{mark}")))
    });
}

/// The policy at the start and after each objective.
fn measured(page: &mut Page, found: &Found<'_>, quantity: Quantity) {
    let Quantity { title, note, digits, value, interval } = quantity;
    let rows = std::iter::once(("start".to_string(), None)).chain(found.names().map(|n| (n.to_string(), Some(n))));
    let rows: Vec<(String, Option<&str>)> = rows.collect();
    table(page, found, &Section { title, note, printed: true }, &rows, |name, c| {
        let Some(name) = name else {
            return Some(show(found.at_start(quantity, c), digits));
        };
        let outcome = found.outcome(name, c)?;
        let mark = if outcome.at_edge { "*" } else { "" };
        let ends = |paths: &[&[Measure]]| {
            let values: Option<Vec<f64>> = paths.iter().map(|path| path.last().map(value)).collect();
            values.map(|values| format!("{}{mark}", show(interval(&values), digits)))
        };
        Some(cell(outcome, ends))
    });
}

/// The objectives whose optimum is another one than `pi*`, held to their own.
fn own_optima(page: &mut Page, found: &Found<'_>) {
    let at =
        |name: &'static str| [("start", false), ("end", true)].map(|(at, end)| (format!("{name}, {at}"), (name, end)));
    let rows: Vec<(String, (&str, bool))> = found.names().flat_map(at).collect();
    let section = Section { title: "Distance of KTO and QRPO to their own optimum", note: OWN, printed: true };
    table(page, found, &section, &rows, |(name, end), c| {
        let outcome = found.outcome(name, c)?;
        let place = |path: &[Measure]| if *end { path.last()?.own } else { path.first()?.own };
        let ends = |paths: &[&[Measure]]| {
            let values: Option<Vec<f64>> = paths.iter().map(|path| place(path)).collect();
            values.map(|values| show(geometric_interval(&values), DISTANCE.digits))
        };
        let known = outcome.runs.iter().filter_map(Run::path).any(|path| place(path).is_some());
        known.then(|| cell(outcome, ends))
    });
}

/// What `read` says of the runs from start to end, or why there are none.
fn cell(outcome: &Outcome, read: impl Fn(&[&[Measure]]) -> Option<String>) -> String {
    if outcome.runs.iter().any(|run| matches!(run, Run::Undefined(_))) {
        return "undefined".into();
    }
    let paths: Vec<&[Measure]> = outcome.runs.iter().filter_map(Run::path).collect();
    let (all, lost) = (outcome.runs.len(), outcome.runs.len() - paths.len());
    match (outcome.learning_rate, lost) {
        (None, _) => "diverged".into(),
        (Some(_), 0) => read(&paths).unwrap_or_else(|| "-".into()),
        (Some(_), _) => format!("{lost} of {all} diverged"),
    }
}

/// The step at which the geometric mean of the distances is lowest.
fn best_stop(paths: &[&[Measure]]) -> Option<String> {
    let shortest = paths.iter().map(|path| path.len()).min()?;
    let at = |i: usize| {
        let distances: Vec<f64> = paths.iter().map(|path| (DISTANCE.value)(&path[i])).collect();
        (paths[0][i].step, (DISTANCE.interval)(&distances))
    };
    let best = (0..shortest).map(at).min_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
    best.map(|(step, distance)| format!("{} at {step}", show(distance, DISTANCE.digits)))
}

/// What the reader has to know of rates at which the grid ends; `None` if there are none.
fn at_edges(outcomes: &[Outcome]) -> Option<String> {
    let cells = outcomes.iter().filter(|o| o.at_edge);
    let cell = |o: &Outcome| {
        let rate = o.learning_rate.map_or_else(String::new, |rate| format!(" ({rate:e})"));
        format!("{} under {}{rate}", o.objective, o.condition)
    };
    let cells: Vec<String> = cells.map(cell).collect();
    (!cells.is_empty()).then(|| {
        format!("the grid of learning rates ends at the chosen one, another might be better: {}", cells.join("; "))
    })
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// What stands above a table.
struct Section<'a> {
    title: &'a str,
    note: &'a str,
    /// Whether the terminal shows it too.
    printed: bool,
}

/// Tables of `cell` by row and condition, one for each group of conditions; rows without any cell are left out.
fn table<R>(
    page: &mut Page,
    found: &Found<'_>,
    section: &Section<'_>,
    rows: &[(String, R)],
    cell: impl Fn(&R, &Condition) -> Option<String>,
) {
    let mut note = Some(section.note);
    for group in GROUPS {
        let conditions: Vec<&Condition> = found.conditions.iter().filter(|c| c.group() == group).collect();
        let filled = rows.iter().filter_map(|(label, row)| {
            let cells: Vec<Option<String>> = conditions.iter().map(|c| cell(row, c)).collect();
            let shown = cells.iter().any(Option::is_some);
            let cells = cells.into_iter().map(|text| text.unwrap_or_else(|| "-".into()));
            shown.then(|| std::iter::once(label.clone()).chain(cells).collect())
        });
        let filled: Vec<Vec<String>> = filled.collect();
        if filled.is_empty() {
            continue;
        }
        let labels = conditions.iter().map(|c| Column::Number(c.label));
        let columns: Vec<Column> = std::iter::once(Column::Text("objective")).chain(labels).collect();
        if let Some(note) = note.take() {
            page.heading(section.title);
            page.paragraph(note);
        }
        let heading = format!("{}, {group}", section.title);
        page.subheading(&capitalized(group));
        page.table(&heading, &columns, &filled);
        if section.printed {
            println!("{heading}");
            print_table(&columns, &filled);
            println!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(step: usize, distance: f64) -> Measure {
        Measure {
            step,
            distance,
            kl_to_optimum: distance,
            surprise: 0.0,
            mass: 1.0,
            kl_to_reference: 0.0,
            reward: 0.0,
            own: None,
        }
    }

    fn outcome(runs: Vec<Run>) -> Outcome {
        Outcome { objective: "dro", condition: "4", learning_rate: Some(3e-2), at_edge: true, tried: vec![], runs }
    }

    #[test]
    fn the_best_stop_is_one_step_for_all_problems() {
        let paths = [[4.0, 1.0, 9.0], [4.0, 9.0, 2.0]].map(|d| [0, 10, 20].map(|s| measure(s, d[s / 10])));
        let paths: Vec<&[Measure]> = paths.iter().map(<[Measure; 3]>::as_slice).collect();
        // Geometric means 4, 3 and 4.24: not the 1 and 2 of each problem's own best.
        let stop = best_stop(&paths).expect("some");
        assert!(stop.starts_with("3.00 [") && stop.ends_with("] at 10"), "{stop}");
        assert_eq!(best_stop(&[]), None);
    }

    #[test]
    fn a_cell_says_why_there_is_no_number() {
        let read = |_: &[&[Measure]]| Some("number".to_string());
        let ended = || Run::Ended(vec![measure(0, 1.0)]);
        assert_eq!(cell(&outcome(vec![ended(), ended()]), read), "number");
        assert_eq!(cell(&outcome(vec![ended(), Run::Diverged(String::new())]), read), "1 of 2 diverged");
        assert_eq!(cell(&outcome(vec![Run::Undefined(String::new())]), read), "undefined");
        let nothing = Outcome { learning_rate: None, ..outcome(vec![Run::Diverged(String::new())]) };
        assert_eq!(cell(&nothing, read), "diverged");
    }

    #[test]
    fn rates_at_the_end_of_the_grid_are_named() {
        let warning = at_edges(&[outcome(vec![])]).expect("one is at the edge");
        assert!(warning.ends_with(": dro under 4 (3e-2)"), "{warning}");
        assert_eq!(at_edges(&[Outcome { at_edge: false, ..outcome(vec![]) }]), None);
    }
}
