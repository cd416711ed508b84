//! The figures of a comparison's report: results as bars with intervals, and what training looked like.

use anyhow::Result;
use rpo::evaluate::Estimate;
use rpo::statistics::Interval;
use rpo::train::METRICS;

use super::arena::Verdict;
use super::record::Draw;
use crate::report::{
    Axis, Bar, Bars, Chart, Figure, Histogram, Line, Look, Page, Points, Record, Sample, from_first_defined, show,
    smoothed, window,
};

/// Bars of what was judged: reward and wins with a judge, and the ranking of rated responses.
pub fn results(verdicts: &[Verdict], best_reward: Option<f64>) -> Vec<Figure> {
    let with = |read: fn(&Verdict) -> Option<Estimate>| verdicts.iter().any(|v| read(v).is_some());
    let n = |read: fn(&Verdict) -> Option<Estimate>| verdicts.iter().filter_map(read).map(|e| e.n).max().unwrap_or(0);
    let mut figures = Vec::new();
    if with(|v| v.reward) {
        let start = verdicts.iter().find(|v| v.settings.is_none()).and_then(|v| v.reward);
        let start = start.map(|e| (e.interval.mean, "start"));
        figures.push(Bars {
            title: "Mean reward of drawn answers",
            note: format!("{} held-out prompts, 95 % intervals.", n(|v| v.reward)),
            axis: Axis::even("mean reward"),
            rows: bars(verdicts, |v| v.reward),
            marks: start.into_iter().chain(best_reward.map(|best| (best, "best possible"))).collect(),
            within: &[],
        });
        figures.push(Bars {
            title: "Wins against the start",
            note: "By reward, prompt for prompt; ties count half.".into(),
            axis: Axis::even("share of prompts"),
            rows: bars(&verdicts[1..], |v| v.wins_against_start),
            marks: vec![(0.5, "as good as the start")],
            within: &[0.0, 1.0],
        });
    }
    if with(|v| v.tau_b) {
        figures.push(Bars {
            title: "Ranking of the rated responses",
            note: format!("Mean tau-b within prompts, {} at most.", n(|v| v.tau_b)),
            axis: Axis::even("tau-b"),
            rows: bars(&verdicts[1..], |v| v.tau_b),
            marks: vec![(0.0, "no better than chance")],
            within: &[],
        });
    }
    figures.iter().map(Bars::figure).collect()
}

/// How long all drawn answers to these prompts are, and what they are worth.
pub fn answers(verdicts: &[Verdict], prompts: &[usize]) -> [Figure; 2] {
    let start = verdicts.iter().filter(|v| v.settings.is_none()).count();
    let samples = |value: &dyn Fn(&Draw, usize) -> f64| -> Vec<Sample> {
        let of = |v: &Verdict| v.draws.iter().flat_map(|draw| prompts.iter().map(|&i| value(draw, i))).collect();
        let sample =
            |(i, v): (usize, &Verdict)| Sample { label: v.label.clone(), values: of(v), colour: i.checked_sub(start) };
        verdicts.iter().enumerate().map(sample).collect()
    };
    let note = "All drawn answers to the judged prompts; a line marks the median.";
    let histogram = |title, axis, rows| Histogram { title, note: note.into(), axis, rows, within: &[] }.figure();
    [
        histogram("Rewards", Axis::even("reward"), samples(&|draw, i| draw.rewards[i])),
        histogram("Lengths", Axis::whole("characters"), samples(&|draw, i| draw.answers[i].chars().count() as f64)),
    ]
}

/// A bar for each verdict; the start, which is none of the contestants, has no colour.
fn bars(verdicts: &[Verdict], read: fn(&Verdict) -> Option<Estimate>) -> Vec<Bar> {
    let start = verdicts.iter().filter(|v| v.settings.is_none()).count();
    let bar = |(i, v): (usize, &Verdict)| {
        let interval: Option<Interval> = read(v).map(|e| e.interval);
        let words = interval.map_or_else(|| "not defined".into(), |interval| show(interval, 2));
        Bar { label: v.label.clone(), interval, words, colour: i.checked_sub(start), struck: false }
    };
    verdicts.iter().enumerate().map(bar).collect()
}

/// Charts of the first run of each objective.
pub fn training(page: &mut Page, verdicts: &[Verdict]) -> Result<()> {
    let mut runs = Vec::new();
    for v in verdicts {
        if let Some(settings) = &v.settings {
            runs.push((v, Record::read(&settings.out.join(METRICS))?));
        }
    }
    page.heading("Training");
    page.paragraph("Of the first run of each objective.");
    let curve = |v: &Verdict| {
        let points = v.curve.iter().map(|p| (p.step as f64, p.tau_b.unwrap_or(f64::NAN))).collect();
        from_first_defined(points)
    };
    let curves = runs.iter().enumerate().map(|(i, (v, _))| Line::new(&v.label, curve(v), i)).collect();
    let note = "Mean tau-b within the judged prompts. The start ranks nothing, so that curves begin at the first validation \
         after it.";
    page.chart(Chart::new("Ranking of the rated responses", note, Axis::STEPS, Axis::even("tau-b"), curves));
    let kept = |record: &Record| record.series("validation", "mass_kept");
    let kept: Vec<Line> =
        runs.iter().enumerate().map(|(i, (v, record))| Line::new(&v.label, kept(record), i)).collect();
    if kept.iter().any(|line| !line.points.is_empty()) {
        let note =
            "On held-out prompts, relative to the start. Far below 1, probability went to answers that nobody rated.";
        let axis = Axis::fitting("probability kept (start = 1)");
        page.chart(Chart::new("Probability of the rated responses", note, Axis::STEPS, axis, kept));
    }
    page.heading("Losses");
    page.paragraph("Of the first run of each objective. Each objective has a loss of its own; losses of different objectives cannot be compared.");
    let losses = runs.iter().map(|(v, record)| losses(v, record).small());
    page.figures(&losses.collect::<Vec<_>>());
    Ok(())
}

/// Losses of a run: of each step, smoothed, and held out, with the best step if any was better than the start.
fn losses(v: &Verdict, record: &Record) -> Chart {
    let (train, held_out) = (record.series("train", "loss"), record.series("validation", "loss"));
    let best = v.judged.first().filter(|model| model.name == "best").map(|model| model.step);
    let note = if best.is_none() { "No step was better than the start." } else { "" };
    Chart::new(
        &format!("Loss of {}", v.label),
        note,
        Axis::STEPS,
        Axis::fitting("loss"),
        loss_lines(train, held_out, best),
    )
}

fn loss_lines(train: Points, held_out: Points, best: Option<usize>) -> Vec<Line> {
    let smooth = window(train.len()).map(|window| {
        let label = format!("training, mean of {window} steps around");
        Line::new(label, smoothed(&train, window), 0)
    });
    let look = if smooth.is_some() { Look::Raw } else { Look::Line };
    let raw = Line::new("training, each step", train, 0).drawn(look);
    let ring = best.map(|step| {
        let at = held_out.iter().filter(|p| p.0 == step as f64).copied().collect();
        Line { colour: None, ..Line::new(format!("best held-out loss (step {step})"), at, 0).drawn(Look::Ring) }
    });
    let held_out = Line::new("held out", held_out, 1).drawn(Look::Dots);
    [Some(raw), smooth, Some(held_out), ring].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_raw_smoothed_and_held_out_with_the_best_marked() {
        let train: Points = (1..=40).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let lines = loss_lines(train.clone(), vec![(0.0, 1.0), (20.0, 0.25), (40.0, 0.5)], Some(20));
        let labels: Vec<&str> = lines.iter().map(|line| line.label.as_str()).collect();
        let expected =
            ["training, each step", "training, mean of 3 steps around", "held out", "best held-out loss (step 20)"];
        assert_eq!(labels, expected);
        assert_eq!(
            lines.iter().map(|line| line.look).collect::<Vec<_>>(),
            [Look::Raw, Look::Line, Look::Dots, Look::Ring]
        );
        assert_eq!((lines[0].points.clone(), lines[3].points.clone()), (train, vec![(20.0, 0.25)]));
        // Too few steps to smooth, and none better than the start.
        let lines = loss_lines(vec![(1.0, 2.0), (2.0, 1.0)], vec![(0.0, 1.0)], None);
        assert_eq!(lines.iter().map(|line| line.look).collect::<Vec<_>>(), [Look::Line, Look::Dots]);
    }

    #[test]
    fn only_contestants_have_colours_and_what_is_not_known_says_so() {
        let estimate = Estimate { interval: Interval { mean: 1.0, low: 0.5, high: 1.5 }, n: 4 };
        let verdict = |label: &str, reward| Verdict { label: label.into(), reward, ..Verdict::default() };
        let start = [verdict("start", Some(estimate)), verdict("other start", None)];
        let rows = bars(&start, |v| v.reward);
        assert_eq!(rows[0].words, "1.00 [0.50, 1.50]");
        assert_eq!((rows[0].colour, rows[1].words.as_str()), (None, "not defined"));
    }
}
