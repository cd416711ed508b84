//! The page of an evaluation: win rates, judges, metrics, lengths, and everything that was answered.

use std::path::Path;

use anyhow::Result;
use rpo::evaluate::evaluation::{Evaluation, JudgeFound};
use rpo::evaluate::judge::Pairwise;
use rpo::evaluate::metric::Measured;

use super::answers::Answered;
use super::measure::Metric;
use super::prompts::Prompts;
use super::tables::Table;
use crate::report::{
    Answer, Axis, Bar, Bars, Contestant, Figure, Generated, Generations, Histogram, Judge, Outcome, Page, Sample,
    ValueColumn, Verdict, provenance,
};

/// Everything that the page shows.
pub struct Found<'a> {
    /// What was found of models and judges.
    pub evaluation: &'a Evaluation,
    /// The same in words.
    pub tables: &'a [Table],
    /// What was asked.
    pub prompts: &'a Prompts,
    /// What was answered.
    pub answered: &'a [Answered],
    /// What was measured, prompt by prompt.
    pub metrics: &'a [Metric],
    /// What each judge said.
    pub judgements: &'a [Vec<Pairwise>],
}

impl Found<'_> {
    /// Writes the page.
    pub fn write(&self, path: &Path) -> Result<()> {
        let names: Vec<&str> = self.evaluation.models.iter().map(|model| model.name.as_str()).collect();
        let introduction = format!(
            "{} {} answered by {}{}.",
            self.prompts.texts.len(),
            if self.prompts.texts.len() == 1 { "prompt" } else { "prompts" },
            names.join(", "),
            match self.evaluation.prompts.seeds {
                1 => String::new(),
                n => format!(", {n} times each"),
            }
        );
        let mut page = Page::new("Evaluation", &introduction);
        page.figures(&self.wins());
        for table in self.tables {
            page.heading(&table.title);
            page.table(&table.title, &table.heads(), &table.rows);
            page.note(&table.note);
        }
        page.heading("Lengths");
        page.figures(&self.lengths());
        page.heading("All answers");
        page.generations(&self.generations());
        page.provenance(&self.origin()?);
        page.write(path)
    }

    /// Win rates of the first model, the baseline, against each other one; a figure for each judge.
    fn wins(&self) -> Vec<Figure> {
        let of_judge = |judge: &JudgeFound| {
            let sound = judge.judged.verdict.is_sound();
            let rows = judge.judged.pairs.iter().filter_map(|pair| {
                let [0, other] = pair.models else { return None };
                let interval = pair.rate.interval;
                let percent = |x: f64| format!("{:.0} %", 100.0 * x);
                let words =
                    format!("{} [{}, {}]", percent(interval.mean), percent(interval.low), percent(interval.high));
                let label = format!("against {}", self.evaluation.models[other].name);
                Some(Bar { label, interval: Some(interval), words, colour: Some(other), struck: !sound })
            });
            let title = format!("Wins of {}, by {}", self.evaluation.models[0].name, judge.name);
            let note = match sound {
                true => format!("{} prompts, both orders, 95 % intervals.", self.prompts.texts.len()),
                false => format!("Not to be trusted: {}.", super::tables::UNTRUSTWORTHY),
            };
            let bars = Bars {
                title: &title,
                note,
                axis: Axis::even("share of prompts"),
                rows: rows.collect(),
                marks: vec![(0.5, "as good")],
                within: &[0.0, 1.0],
            };
            bars.figure()
        };
        self.evaluation.judges.iter().map(of_judge).collect()
    }

    fn lengths(&self) -> Vec<Figure> {
        let sample = |(model, answered): (usize, &Answered)| {
            let words = |text: &String| text.split_whitespace().count() as f64;
            let values = answered.entrant.draws.iter().flatten().map(words).collect();
            Sample { label: answered.entrant.name.clone(), values, colour: Some(model) }
        };
        let histogram = Histogram {
            title: "Length of answers",
            note: "Words of each answer.".into(),
            axis: Axis::even("words"),
            rows: self.answered.iter().enumerate().map(sample).collect(),
            within: &[0.0],
        };
        vec![histogram.figure()]
    }

    fn generations(&self) -> Generations<'_> {
        let n = self.prompts.texts.len();
        // What is known of each prompt's answers by themselves.
        let of_prompts = |metric: &&Metric| {
            let each = |found: &Option<Measured>| found.as_ref().is_some_and(|found| found.each().len() == n);
            metric.models.iter().any(each)
        };
        let metrics: Vec<&Metric> = self.metrics.iter().filter(of_prompts).collect();
        let values: Vec<Vec<Vec<Option<f64>>>> = metrics
            .iter()
            .map(|metric| {
                let each = |found: &Option<Measured>| {
                    found.as_ref().map(Measured::each).filter(|each| each.len() == n).unwrap_or_else(|| vec![None; n])
                };
                metric.models.iter().map(each).collect()
            })
            .collect();
        let answers = |prompt: usize, model: usize| -> Vec<Answer<'_>> {
            let values: Vec<Option<f64>> = values.iter().map(|by_model| by_model[model][prompt]).collect();
            let answer = |text| Answer { text, reward: None, values: values.clone() };
            self.answered[model].entrant.draws.iter().map(|draw| answer(draw[prompt].as_str())).collect()
        };
        let generated = |prompt: usize| Generated {
            prompt: &self.prompts.texts[prompt],
            references: self.prompts.references[prompt].iter().map(String::as_str).collect(),
            part: None,
            answers: (0..self.answered.len()).map(|model| answers(prompt, model)).collect(),
        };
        let verdict = |judge: usize, judged: &Pairwise| Verdict {
            judge,
            prompt: judged.prompt,
            models: judged.models,
            draw: judged.seed,
            outcome: Outcome::of(judged),
        };
        Generations {
            models: (self.answered.iter().enumerate())
                .map(|(model, answered)| Contestant { label: &answered.entrant.name, colour: Some(model) })
                .collect(),
            judges: (self.evaluation.judges.iter())
                .map(|judge| Judge { label: &judge.name, trusted: judge.judged.verdict.is_sound() })
                .collect(),
            values: metrics.iter().map(|metric| ValueColumn { label: &metric.about.name, digits: 2 }).collect(),
            prompts: (0..n).map(generated).collect(),
            verdicts: (self.judgements.iter().enumerate())
                .flat_map(|(judge, all)| all.iter().map(move |judged| verdict(judge, judged)))
                .collect(),
        }
    }

    fn origin(&self) -> Result<crate::report::Provenance> {
        let mut origin =
            provenance().fact("prompts", &self.prompts.source).fact("prompts fingerprint", &self.prompts.fingerprint);
        for metric in self.metrics {
            let about = &metric.about;
            origin = origin
                .fact("metric", format!("{}: {}; tokenization: {}", about.name, about.version, about.tokenization));
        }
        for (model, answered) in self.evaluation.models.iter().zip(self.answered) {
            let known = model.fingerprint.as_deref().unwrap_or("not known");
            origin = origin.fact("model", format!("{}: {}, fingerprint {known}", model.name, answered.place));
        }
        let decoding = toml::to_string_pretty(&self.evaluation.decoding)?;
        Ok(if decoding.is_empty() { origin } else { origin.settings("How answers were drawn", decoding) })
    }
}
