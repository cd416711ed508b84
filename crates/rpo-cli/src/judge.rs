//! Who rates answers: a function, or a program of the user's.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rpo::train::Answered;
use rpo::train::record::Reader;

/// Rates answers: from prompts and responses to rewards.
pub type Judge<'a> = dyn Fn(&[(String, String)]) -> Result<Vec<f64>> + 'a;

/// Lets the program `command` rate answers.
pub fn ask(command: &str, answers: &[(String, String)]) -> Result<Vec<f64>> {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut child = Command::new(shell)
        .args([flag, command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the judge `{command}`"))?;
    let lines: String = answers
        .iter()
        .map(|(prompt, response)| format!("{}\n", serde_json::json!({"prompt": prompt, "response": response})))
        .collect();
    // Written beside reading, or a judge that answers as it reads would block both sides.
    let stdin = child.stdin.take();
    let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(lines.as_bytes())));
    let output = child.wait_with_output().with_context(|| format!("the judge `{command}`"))?;
    // A judge that ends early closes its input; its exit status and its answers say what is wrong.
    let _ = writer.join();
    if !output.status.success() {
        bail!("the judge `{command}` ended with {}", output.status);
    }
    let said = String::from_utf8_lossy(&output.stdout);
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
pub fn of_tokens(command: &str, reader: Reader) -> impl Fn(&[Answered]) -> rpo::Result<Vec<f64>> {
    move |answers| {
        let texts = answers.iter().map(|(ids, answer)| Ok((reader.prompt(ids)?, reader.answer(answer)?)));
        let texts = texts.collect::<rpo::Result<Vec<_>>>()?;
        ask(command, &texts).map_err(|problem| rpo::Error::Data(format!("{problem:#}")))
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
        let rewards = ask("while read line; do echo ${#line}; done", &answers(400)).expect("judged");
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
            let said = ask(command, &answers(2)).expect_err(command).to_string();
            assert!(said.contains(complaint), "{said}");
        }
    }
}
