//! Who judges: the flags that name judges, how they are asked, and a program of the user's that rates many answers at once, as
//! training and comparisons ask it.

mod flags;
mod seat;
mod shared;

use std::time::Duration;

use anyhow::{Result, bail};
use rpo::evaluate::judge::program::{self, Allowed};
use rpo::train::Answered;
use rpo::train::record::Reader;

pub use flags::JudgeFlags;
pub use rpo::evaluate::judge::Tally;
pub use seat::Seat;
pub use shared::hear_together;

use crate::interrupt;

/// Rates answers: from prompts and responses to rewards.
pub type Judge<'a> = dyn Fn(&[(String, String)]) -> Result<Vec<f64>> + 'a;

/// What a program may take for so many answers: the time that is set, else time to load a model and a minute for each; a line for
/// each.
fn allowed(answers: usize, timeout: Option<f64>) -> Allowed {
    let usual = Duration::from_mins(10 + answers as u64);
    Allowed { time: timeout.map_or(usual, Duration::from_secs_f64), output: (64 << 10) + (answers << 10) }
}

/// Checks the time that a program is given, in seconds.
///
/// # Errors
/// If it is none, or more than a month.
pub fn check_timeout(timeout: Option<f64>) -> rpo::Result<()> {
    match timeout {
        Some(seconds) if !(0.001..=2_678_400.0).contains(&seconds) => {
            let problem = format!("{seconds} is not between 0.001 and 2678400 seconds (a month)");
            Err(rpo::Error::Setting { field: "judge-timeout", problem })
        }
        _ => Ok(()),
    }
}

/// Lets the program `command` rate answers in so many seconds, or in those that [`allowed`] gives it; then it is ended with all that
/// it has started.
pub fn ask(command: &str, answers: &[(String, String)], timeout: Option<f64>) -> Result<Vec<f64>> {
    ask_within(command, answers, allowed(answers.len(), timeout))
}

fn ask_within(command: &str, answers: &[(String, String)], allowed: Allowed) -> Result<Vec<f64>> {
    let lines: String = answers
        .iter()
        .map(|(prompt, response)| format!("{}\n", serde_json::json!({"prompt": prompt, "response": response})))
        .collect();
    let over = || interrupt::stop().requested();
    let said = match program::run(command, lines, allowed, &over) {
        Ok(said) => said,
        Err(ended @ program::Ended::TooSlow(_)) => {
            bail!("the judge `{command}` {ended}; --judge-timeout gives it more time")
        }
        Err(ended) => bail!("the judge `{command}` {ended}"),
    };
    let parse = |(i, line): (usize, &str)| match line.trim().parse::<f64>() {
        Ok(reward) if reward.is_finite() => Ok(reward),
        _ => bail!("the judge `{command}`, line {}: `{line}` is not a finite number", i + 1),
    };
    let rewards = said.lines().enumerate().map(parse).collect::<Result<Vec<f64>>>()?;
    if rewards.len() != answers.len() {
        bail!(
            "the judge `{command}` gave {} numbers for {} answers; it must print one a line",
            rewards.len(),
            answers.len()
        );
    }
    Ok(rewards)
}

/// The program `command` as the training loop, which knows token ids only, asks it.
pub fn of_tokens(command: &str, timeout: Option<f64>, reader: Reader) -> impl Fn(&[Answered]) -> rpo::Result<Vec<f64>> {
    move |answers| {
        let texts = answers.iter().map(|(ids, answer)| Ok((reader.prompt(ids)?, reader.answer(answer)?)));
        let texts = texts.collect::<rpo::Result<Vec<_>>>()?;
        ask(command, &texts, timeout).map_err(|problem| rpo::Error::Data(format!("{problem:#}")))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn answers(n: usize) -> Vec<(String, String)> {
        (0..n).map(|i| (format!("prompt \"{i}\"\n"), "x".repeat(i))).collect()
    }

    #[test]
    fn a_program_gets_json_lines_and_prints_numbers() {
        // More than a pipe holds, answered while it is written.
        let rewards = ask("while read line; do echo ${#line}; done", &answers(400), None).expect("judged");
        assert_eq!(rewards.len(), 400);
        assert_eq!(rewards[399] - rewards[398], 1.0);
    }

    #[test]
    fn bad_judges_are_told_apart() {
        for (command, complaint) in [
            ("exit 3", "exit status: 3"),
            ("echo 1; echo maybe", "line 2: `maybe` is not a finite number"),
            ("echo 1", "1 numbers for 2 answers"),
            ("echo nan; echo 1", "line 1"),
        ] {
            let said = ask(command, &answers(2), None).expect_err(command).to_string();
            assert!(said.contains(complaint), "{said}");
        }
        let said = ask("sleep 30", &answers(2), Some(0.2)).expect_err("slow").to_string();
        assert!(
            said.contains("the judge `sleep 30` had not ended after 0.2 s and was ended; --judge-timeout"),
            "{said}"
        );
        let short = Allowed { output: 100, ..allowed(2, None) };
        let said = ask_within("yes", &answers(2), short).expect_err("much").to_string();
        assert!(said.contains("printed more than 100 bytes"), "{said}");
        for (seconds, good) in
            [(Some(1.0), true), (None, true), (Some(0.0), false), (Some(f64::NAN), false), (Some(1e9), false)]
        {
            assert_eq!(check_timeout(seconds).is_ok(), good, "{seconds:?}");
        }
    }
}
