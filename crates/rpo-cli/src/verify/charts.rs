//! The figures of the report of `rpo verify`: where each objective ends, and the way there. They measure nothing.

use rpo::evaluate::finite::Responses;
use rpo::statistics::Interval;

use super::found::{DISTANCE, Found, MASS, Quantity, REWARD};
use super::problem::{BASE, Condition};
use super::{Measure, Outcome, Run, Setting, judged};
use crate::report::{Axis, Bar, Bars, Chart, Line, Page, Points, show};

/// The condition that figures are of.
fn shown<'a>(found: &Found<'a>) -> Option<&'a Condition> {
    found.conditions.iter().find(|c| c.label == BASE.label).or(found.conditions.first())
}

/// The objectives that figures are of, with the numbers of their colours.
fn entrants(found: &Found<'_>) -> impl Iterator<Item = (usize, &'static str)> {
    let took_part = |name: &&str| shown(found).is_some_and(|condition| found.outcome(name, condition).is_some());
    found.names().filter(took_part).enumerate()
}

/// Where each objective ends under one condition, as bars with intervals beside the start.
pub fn overview(page: &mut Page, found: &Found<'_>) {
    let Some(condition) = shown(found) else { return };
    page.paragraph(&format!(
        "Where training under `{}` ended, with 95 % intervals over the problems; other conditions are in the tables.",
        condition.label
    ));
    let bars = |quantity: Quantity, title, note: &str, axis, within| {
        let marks = vec![(found.at_start(quantity, condition).mean, "start")];
        Bars { title, note: note.into(), axis, rows: rows(found, condition, quantity), marks, within }
    };
    let (nats, share, reward) =
        (Axis::logarithmic("distance in nats"), Axis::even("probability"), Axis::even("expected reward"));
    let figures = [
        bars(DISTANCE, "Distance to the optimum", "Less is better.", nats, &[][..]),
        bars(MASS, "Probability of the possible responses", "The rest went to other texts.", share, &[0.0, 1.0]),
        bars(REWARD, "Expected reward", "More is not better by itself.", reward, &[]),
    ];
    page.figures(&figures.map(|bars| bars.figure()));
}

fn rows(found: &Found<'_>, condition: &Condition, quantity: Quantity) -> Vec<Bar> {
    let row = |(i, name): (usize, &str)| {
        let outcome = found.outcome(name, condition)?;
        let interval = at_end(outcome, quantity);
        let words = interval.map_or_else(|| "no end".into(), |interval| show(interval, quantity.digits));
        Some(Bar { label: name.into(), interval, words, colour: Some(i), struck: false })
    };
    entrants(found).filter_map(row).collect()
}

/// A quantity at the end of training; `None` unless every run came to its end.
fn at_end(outcome: &Outcome, quantity: Quantity) -> Option<Interval> {
    let ends: Option<Vec<f64>> = outcome.runs.iter().map(|run| run.end().map(quantity.value)).collect();
    ends.filter(|ends| !ends.is_empty()).map(|ends| (quantity.interval)(&ends))
}

/// Where along a chart a condition is, if it belongs there.
type Place = fn(&Condition) -> Option<f64>;

/// Charts of the way to the optimum, and of the distance by condition.
pub fn charts(page: &mut Page, found: &Found<'_>) {
    if let Some(condition) = shown(found) {
        way(page, found, condition);
    }
    let number = |c: &Condition| match c.responses {
        Responses::Each(n) if Condition { label: BASE.label, responses: BASE.responses, ..*c } == BASE => {
            Some(n as f64)
        }
        _ => None,
    };
    let tau = |c: &Condition| (Condition { label: BASE.label, tau: BASE.tau, ..*c } == BASE).then_some(c.tau);
    let places: [(&str, Place); 2] = [("responses per prompt", number), ("tau", tau)];
    for (what, place) in places {
        if found.conditions.iter().filter_map(place).count() > 1 {
            let title = format!("Distance to the optimum by {what}");
            page.heading(&title);
            let (x, y) = (Axis::logarithmic(what), Axis::logarithmic("distance in nats"));
            let note = "At the end of training, with 95 % intervals over the problems.";
            page.chart(Chart::new(&title, note, x, y, distances(found, place)));
        }
    }
}

/// Two charts of training under one condition.
fn way(page: &mut Page, found: &Found<'_>, condition: &Condition) {
    let label = condition.label;
    let path = |x: fn(&Measure) -> f64, y: fn(&Measure) -> f64| -> Vec<Line> {
        let paths = entrants(found).filter_map(|(i, name)| Some((i, name, found.outcome(name, condition)?)));
        paths.map(|(i, name, outcome)| Line::new(name, mean_path(outcome, x, y), i)).collect()
    };
    page.heading("The way to the optimum");
    let note = format!(
        "As training goes on, under `{label}`, means over the problems. The dotted line is the most reward that is possible at \
         a KL."
    );
    let mut lines = path(|m| m.kl_to_reference, |m| m.reward);
    let best = frontier(found.settings, condition);
    lines.push(Line { colour: None, ..Line::new("best possible", best, 0) });
    let (x, y) = (Axis::even("KL(pi || pi_ref) in nats"), Axis::even("expected reward"));
    page.chart(Chart::new("Reward and nearness to the start", &note, x, y, lines));
    let note = format!("As training goes on, under `{label}`, means over the problems.");
    let y = Axis::logarithmic("distance in nats");
    let lines = path(|m| m.step as f64, DISTANCE.value);
    page.chart(Chart::new("Distance to the optimum", &note, Axis::STEPS, y, lines));
}

/// `(KL to the reference, reward)` of the optimum as tau falls, mean over the problems.
fn frontier(settings: &[Setting], condition: &Condition) -> Points {
    let n = judged(settings, condition).count() as f64;
    let point = |i: i32| {
        let tau = 10f64.powf(1.5 - f64::from(i) / 16.0);
        let each = judged(settings, condition).map(|s| {
            let best = s.problem.optimum(&s.reference, tau);
            (best.kl(&s.reference) / n, s.problem.expected_reward(&best) / n)
        });
        each.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    (0..40).map(point).collect()
}

/// `(x, y)` along training, mean over the problems; empty unless every run came to its end.
fn mean_path(outcome: &Outcome, x: fn(&Measure) -> f64, y: fn(&Measure) -> f64) -> Points {
    let paths: Option<Vec<&[Measure]>> = outcome.runs.iter().map(Run::path).collect();
    let paths = paths.unwrap_or_default();
    let shortest = paths.iter().map(|path| path.len()).min().unwrap_or(0);
    let mean = |i: usize, value: fn(&Measure) -> f64| {
        paths.iter().map(|path| value(&path[i])).sum::<f64>() / paths.len() as f64
    };
    (0..shortest).map(|i| (mean(i, x), mean(i, y))).collect()
}

/// The distance to the optimum of each objective over the conditions to which `place` gives a place.
fn distances(found: &Found<'_>, place: Place) -> Vec<Line> {
    let mut placed: Vec<(f64, &Condition)> = found.conditions.iter().filter_map(|c| Some((place(c)?, c))).collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let line = |(i, name): (usize, &'static str)| {
        let measured = |(x, c): &(f64, &Condition)| Some((*x, at_end(found.outcome(name, c)?, DISTANCE)?));
        let points = placed.iter().filter_map(measured).map(|(x, i)| ((x, i.mean), (i.low, i.high)));
        let (points, intervals) = points.unzip();
        Line { intervals, ..Line::new(name, points, i) }
    };
    entrants(found).map(line).collect()
}
