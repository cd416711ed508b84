//! A judge ready to be asked: what it is asked with, and what people see of it.

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use rpo::evaluate::judge::{Court, Judge, Limits, Store, Tally, Template};

use crate::{interrupt, progress};

/// A judge with its template, its limits and where its replies are kept.
pub struct Seat {
    pub judge: Box<dyn Judge>,
    pub template: Template,
    pub limits: Limits,
    /// None for verdicts that are replayed.
    pub store: Option<Arc<Store>>,
    /// Of a million tokens read and written.
    pub price: Option<(f64, f64)>,
}

impl Seat {
    /// It as the library asks it, until somebody wishes to stop.
    pub fn court(&self) -> Court<'_> {
        let Self { judge, template, limits, store, .. } = self;
        Court { judge: judge.as_ref(), template, limits, store: store.as_deref(), stop: interrupt::stop() }
    }

    /// A bar over its part of `questions`, and what shows a tally on it.
    pub fn bar(&self, questions: usize) -> (ProgressBar, impl Fn(&Tally) + use<>) {
        let bar = progress::judging(questions / self.limits.part.map_or(1, |(_, of)| of));
        let shown = bar.clone();
        let show = move |tally: &Tally| {
            shown.set_position(tally.done() as u64);
            let failed = (tally.failed > 0).then(|| format!("{} without a reply", tally.failed));
            let waits = |(left, why): &(Duration, String)| format!("waiting {} s ({why})", left.as_secs_f64().ceil());
            let said = ["judging".to_string()].into_iter().chain(failed).chain(tally.waiting.as_ref().map(waits));
            shown.set_message(said.collect::<Vec<_>>().join(", "));
        };
        (bar, show)
    }

    /// What a hearing took, a sentence a line.
    pub fn summary(&self, tally: &Tally) -> Vec<String> {
        let reused = (tally.reused > 0).then(|| format!("; {} replies were there already", tally.reused));
        let retries =
            (tally.retries > 0).then(|| format!("; {} failed in passing and were tried again", tally.retries));
        let calls = [Some(format!("calls: {}", tally.calls)), reused, retries];
        let mut said = vec![calls.into_iter().flatten().collect()];
        let usage = tally.usage;
        if usage.input + usage.output > 0 {
            let cost = self.price.map(|(input, output)| format!(", cost {:.4}", tally.cost(input, output)));
            let (read, written) = (usage.input, usage.output);
            said.push(format!("tokens: {read} read, {written} written{}", cost.unwrap_or_default()));
        }
        if tally.untold > 0 && self.price.is_some() {
            said.push(format!("{} replies did not tell their tokens, so the cost is higher", tally.untold));
        }
        said
    }

    /// What is to be known of a hearing, each with what to do.
    pub fn warnings(&self, tally: &Tally) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(problem) = &tally.last_failure {
            let n = tally.failed;
            let again = if self.store.is_some() { "; the same command with --resume asks them again" } else { "" };
            said.push(format!("{n} questions got no reply, the last of them: {problem}{again}"));
        }
        if tally.unasked > 0 {
            said.push(format!(
                "{} questions were not asked: {} calls were allowed (--max-judge-calls); the same command with --resume goes on",
                tally.unasked,
                self.limits.most_calls.unwrap_or_default()
            ));
        }
        if !tally.without.is_empty() {
            said.push(format!("the judge refuses {} and was asked without", tally.without.join(", ")));
        }
        said
    }

    /// Why a hearing ended early, and how to go on.
    pub fn ended(&self, problem: &rpo::Error) -> anyhow::Error {
        match self.store.as_ref().filter(|store| store.replies() > 0) {
            Some(store) => anyhow::anyhow!(
                "{problem}; {} replies are kept in {}, and the same command with --resume goes on without asking them again",
                store.replies(),
                store.path().display()
            ),
            None => anyhow::anyhow!("{problem}"),
        }
    }
}
