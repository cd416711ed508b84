//! Puts many questions to one judge: several at a time, again where a call failed in passing, and none twice. It knows neither
//! what a judge is nor what is done with verdicts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::store::{Asking, Key};
use super::{Case, Fault, Judge, Reply, Store, Tally, Template, Until, Verdict, excerpt};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// How a judge may be asked.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Questions under way together.
    pub parallel: usize,
    /// How often a call that failed in passing is tried again.
    pub retries: usize,
    /// Time before the first such try; twice as long before each further one, up to half a minute, and half as much more or less
    /// by chance.
    pub pause: Duration,
    /// Longest time that a judge may ask to be left alone.
    pub longest_wait: Duration,
    /// Most calls, those that are tried again among them.
    pub most_calls: Option<u64>,
    /// So many questions without a reply one after another end the hearing.
    pub failures_in_a_row: usize,
    /// Only this part of the questions, counted from 0, of so many: equal ones are in the same part. Of others nothing is heard.
    pub part: Option<(usize, usize)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parallel: 8,
            retries: 5,
            pause: Duration::from_millis(500),
            longest_wait: Duration::from_mins(10),
            most_calls: None,
            failures_in_a_row: 5,
            part: None,
        }
    }
}

/// A judge with all that it takes to ask it.
#[derive(Clone, Copy)]
pub struct Court<'a> {
    /// Who is asked.
    pub judge: &'a dyn Judge,
    /// How cases are put and verdicts read.
    pub template: &'a Template,
    /// Where replies are kept and looked for.
    pub store: Option<&'a Store>,
    /// How the judge may be asked.
    pub limits: &'a Limits,
    /// Heard between calls and during them; a call under way has a second to end.
    pub stop: &'a Stop,
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a reply.
    Heard(Heard),
    /// It has none, for this reason; another hearing asks it again.
    Failed(String),
    /// It was not asked, since no more calls were allowed.
    Unasked,
}

/// A reply, as its template reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// What it says.
    pub verdict: Verdict,
    /// The probability of the first response, where the judge told log-probabilities.
    pub preference: Option<f64>,
    /// The beginning of a reply that is not what was asked for.
    pub unparsed: Option<String>,
}

const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often `told` hears of it while nothing happens.
const TOLD: Duration = Duration::from_millis(200);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Court<'_> {
    /// Asks all `questions`, taken one by one as the judge has time; `each` gets what became of them, in the order in which that is
    /// known, and `told` counts again and again. What is in the store is not asked; what comes is in it at once.
    ///
    /// # Errors
    /// [`Error::Stopped`] on a wish to stop; [`Error::Judge`] if the judge cannot be asked at all or too many questions in a row
    /// got no reply; those of the questions, of the store and of `each`. What was replied before is kept.
    pub fn hear<T: Send>(
        &self,
        questions: impl Iterator<Item = Result<(T, Case)>> + Send,
        each: &mut dyn FnMut(T, Outcome) -> Result<()>,
        told: &mut dyn FnMut(&Tally),
    ) -> Result<Tally> {
        let parallel = self.limits.parallel.max(1);
        let hearing = Hearing {
            court: self,
            questions: Mutex::new(questions.fuse()),
            open: Mutex::default(),
            ended: AtomicBool::new(false),
            in_a_row: AtomicUsize::new(0),
            replies: AtomicUsize::new(0),
            wait: Mutex::new(None),
            tally: Mutex::default(),
            trouble: Mutex::new(None),
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(2 * parallel);
            for _ in 0..parallel {
                let (sender, hearing) = (sender.clone(), &hearing);
                scope.spawn(move || hearing.work(&sender));
            }
            drop(sender);
            loop {
                let taken = match receiver.recv_timeout(TOLD) {
                    Ok((tag, outcome)) => each(tag, outcome),
                    Err(RecvTimeoutError::Timeout) => Ok(()),
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                told(&hearing.counted());
                if let Err(problem) = taken {
                    hearing.end(problem);
                    break;
                }
            }
        });
        let tally = hearing.counted();
        told(&tally);
        let synced = self.store.map_or(Ok(()), Store::sync);
        match lock(&hearing.trouble).take() {
            Some(problem) => Err(problem),
            None => self.stop.check().and(synced).map(|()| tally),
        }
    }
}

/// A hearing that is under way.
struct Hearing<'a, T, I> {
    court: &'a Court<'a>,
    questions: Mutex<std::iter::Fuse<I>>,
    /// Questions that are being asked, with those of equal ones that came meanwhile.
    open: Mutex<HashMap<Key, Vec<T>>>,
    ended: AtomicBool,
    /// Questions without a reply since the last one that got one.
    in_a_row: AtomicUsize,
    /// Calls that brought a reply.
    replies: AtomicUsize,
    /// Until when the judge wants to be left alone, and what it said.
    wait: Mutex<Option<(Instant, String)>>,
    tally: Mutex<Tally>,
    trouble: Mutex<Option<Error>>,
}

/// Why a question has no outcome.
enum Left {
    /// The hearing is over.
    Over,
    /// It cannot go on.
    Trouble(Error),
}

impl From<Error> for Left {
    fn from(problem: Error) -> Self {
        Self::Trouble(problem)
    }
}

impl<T: Send, I: Iterator<Item = Result<(T, Case)>> + Send> Hearing<'_, T, I> {
    fn until(&self) -> Until<'_> {
        Until::new(self.court.stop, &self.ended)
    }

    /// Ends the hearing; the first reason counts.
    fn end(&self, problem: Error) {
        lock(&self.trouble).get_or_insert(problem);
        self.ended.store(true, Ordering::Relaxed);
    }

    fn counted(&self) -> Tally {
        let waiting = lock(&self.wait).clone().and_then(|(end, said)| {
            let left = end.saturating_duration_since(Instant::now());
            (!left.is_zero()).then_some((left, said))
        });
        Tally { waiting, ..lock(&self.tally).clone() }
    }

    /// Asks one question after another.
    fn work(&self, sender: &SyncSender<(T, Outcome)>) {
        while !self.until().over() {
            let next = lock(&self.questions).next();
            let answered = match next {
                None => return,
                Some(Ok((tag, case))) => self.answer(tag, case),
                Some(Err(problem)) => Err(Left::Trouble(problem)),
            };
            match answered {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        if sender.send(outcome).is_err() {
                            return;
                        }
                    }
                }
                Err(Left::Over) => return,
                Err(Left::Trouble(problem)) => self.end(problem),
            }
        }
    }

    /// What becomes of a question and of the equal ones that come meanwhile; nothing if it is itself one of those.
    fn answer(&self, tag: T, case: Case) -> std::result::Result<Vec<(T, Outcome)>, Left> {
        let Court { judge, template, store, limits, .. } = *self.court;
        let question = template.fill(case)?;
        let asking = Asking::new(judge, template, &question);
        if limits.part.is_some_and(|(part, of)| asking.part(of) != part) {
            return Ok(Vec::new());
        }
        match lock(&self.open).entry(asking.key) {
            std::collections::hash_map::Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(tag);
                return Ok(Vec::new());
            }
            std::collections::hash_map::Entry::Vacant(place) => _ = place.insert(Vec::new()),
        }
        let found = store.map_or(Ok(None), |store| store.find(&asking.key))?;
        let was_there = found.is_some();
        let outcome = match found {
            Some((text, preference)) => Outcome::Heard(self.heard(&text, preference)),
            None => self.ask(&asking)?,
        };
        let tags = lock(&self.open).remove(&asking.key).unwrap_or_default();
        let n = 1 + tags.len();
        let mut tally = lock(&self.tally);
        match &outcome {
            Outcome::Heard(heard) => {
                tally.replies += n;
                tally.reused += n - usize::from(!was_there);
                tally.unparsed += if heard.unparsed.is_some() { n } else { 0 };
            }
            Outcome::Failed(problem) => {
                tally.failed += n;
                tally.last_failure = Some(problem.clone());
            }
            Outcome::Unasked => tally.unasked += n,
        }
        drop(tally);
        let all = tags.into_iter().chain([tag]);
        Ok(all.map(|tag| (tag, outcome.clone())).collect())
    }

    fn heard(&self, text: &str, preference: Option<f64>) -> Heard {
        let verdict = self.court.template.read(text);
        Heard { verdict, preference, unparsed: verdict.is_unparsed().then(|| excerpt(text)) }
    }

    /// Asks until there is a reply or no more use in it.
    fn ask(&self, asking: &Asking<'_>) -> std::result::Result<Outcome, Left> {
        let Court { judge, template, store, limits, .. } = *self.court;
        let problem_of = |problem: String| Error::Judge { judge: judge.name().into(), problem };
        let (mut retries, mut served) = (0, 0);
        loop {
            self.leave_alone();
            if self.until().over() {
                return Err(Left::Over);
            }
            if !self.may_call() {
                return Ok(Outcome::Unasked);
            }
            let (problem, counts) = match judge.ask(asking.question, template, self.until()) {
                Ok(reply) => return Ok(Outcome::Heard(self.keep(asking, &reply)?)),
                Err(Fault::Stopped) => return Err(Left::Over),
                Err(Fault::Fatal(problem)) => return Err(problem_of(problem).into()),
                Err(Fault::Adjusted) => continue,
                Err(Fault::Passing { problem, wait: Some(wait) }) if wait > limits.longest_wait => {
                    let problem = format!("{problem}; it wants to be left alone for {} s", wait.as_secs());
                    return Err(problem_of(problem).into());
                }
                Err(Fault::Passing { problem, wait }) if retries < limits.retries => {
                    lock(&self.tally).retries += 1;
                    match wait {
                        // As long as it serves others, this one's turn comes too.
                        Some(wait) => {
                            let replies = self.replies.load(Ordering::Relaxed);
                            retries = if replies == served { retries + 1 } else { 0 };
                            served = replies;
                            self.wait_for(wait, &problem);
                        }
                        None => {
                            self.until().sleep(pause(limits.pause, retries));
                            retries += 1;
                        }
                    }
                    continue;
                }
                Err(Fault::Passing { problem, .. }) => (format!("{problem} ({})", tried(retries)), true),
                // Of a judge that replies to others, it is the question that gets none, as where a filter refuses it.
                Err(Fault::Question(problem)) => (problem, lock(&self.tally).replies == 0),
                Err(Fault::Absent(problem)) => return Ok(Outcome::Failed(problem)),
            };
            store.map_or(Ok(()), |store| store.fail(asking, &problem))?;
            if counts {
                let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
                if in_a_row >= limits.failures_in_a_row {
                    let said = format!("{in_a_row} questions in a row got no reply, the last one: {problem}");
                    return Err(problem_of(said).into());
                }
            }
            return Ok(Outcome::Failed(problem));
        }
    }

    /// Keeps a reply, and says what it says.
    fn keep(&self, asking: &Asking<'_>, reply: &Reply) -> Result<Heard> {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.replies.fetch_add(1, Ordering::Relaxed);
        let preference = self.court.template.preference(&reply.tokens);
        self.court.store.map_or(Ok(()), |store| store.add(asking, reply, preference))?;
        let mut tally = lock(&self.tally);
        match reply.usage {
            Some(usage) => {
                tally.usage.input += usage.input;
                tally.usage.output += usage.output;
            }
            None => tally.untold += 1,
        }
        for name in &reply.without {
            if !tally.without.contains(name) {
                tally.without.push(name);
            }
        }
        drop(tally);
        Ok(self.heard(&reply.text, preference))
    }

    /// Counts a call, if one more may be made.
    fn may_call(&self) -> bool {
        let mut tally = lock(&self.tally);
        let may = self.court.limits.most_calls.is_none_or(|most| tally.calls < most);
        tally.calls += u64::from(may && self.court.judge.keeps());
        may
    }

    /// Notes that the judge wants to be left alone by all.
    fn wait_for(&self, time: Duration, said: &str) {
        let end = Instant::now() + time;
        let mut wait = lock(&self.wait);
        if wait.as_ref().is_none_or(|(until, _)| *until < end) {
            *wait = Some((end, said.into()));
        }
    }

    /// Waits as long as the judge wants to be left alone.
    fn leave_alone(&self) {
        loop {
            let end = lock(&self.wait).as_ref().map(|(end, _)| *end);
            let left = end.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() || self.until().over() {
                return;
            }
            // Not all at the same moment.
            self.until().sleep(left.mul_f64(rand::random_range(1.0..1.5)));
        }
    }
}

/// Time before try `retries + 1`, spread by chance so that what failed together does not come back together.
fn pause(first: Duration, retries: usize) -> Duration {
    let doubled = first.saturating_mul(1 << retries.min(16)).min(LONGEST_PAUSE);
    doubled.mul_f64(rand::random_range(0.5..1.5))
}

fn tried(retries: usize) -> String {
    match retries {
        0 => "tried once".into(),
        n => format!("tried {} times", n + 1),
    }
}
