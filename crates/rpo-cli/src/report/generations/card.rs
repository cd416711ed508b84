//! A prompt with its answers as HTML, the same as the page's script makes (`generations.js`, `card`).

use std::fmt::Write;

use super::{Answer, Generations, Outcome, pair};
use crate::report::chart::colour;
use crate::report::html::escape;

/// Longer texts are folded to about so many characters.
const FOLD: usize = 420;
/// More verdicts than these are folded.
const VERDICTS: usize = 3;

/// Prompt `i`.
pub fn html(all: &Generations<'_>, outcomes: &[Vec<Vec<Option<Outcome>>>], i: usize) -> String {
    let (prompt, n) = (&all.prompts[i], i + 1);
    let mut html = format!(
        "<article class=\"card\" id=\"p{n}\" tabindex=\"-1\" aria-label=\"Prompt {n}\"><h3><a href=\"#p{n}\">Prompt {n}</a>"
    );
    if let Some(part) = prompt.part {
        let _ = write!(html, " <small>{}</small>", escape(part));
    }
    let _ = write!(html, "</h3><div class=\"prompt\">{}</div>", folded(prompt.prompt));
    for reference in &prompt.references {
        let _ = write!(html, "<div class=\"reference\"><h4>reference</h4>{}</div>", folded(reference));
    }
    // A row for each draw, so that what is compared lies side by side.
    let most = prompt.answers.iter().map(Vec::len).max().unwrap_or(0);
    for draw in 0..most {
        html += "<div class=\"side\">";
        for (model, draws) in all.models.iter().zip(&prompt.answers) {
            let Some(answer) = draws.get(draw) else { continue };
            let (class, label) = (class(model.colour), escape(model.label));
            let facts = facts(all, answer, (most > 1).then_some(draw));
            let text = folded(answer.text);
            let _ = write!(
                html,
                "<div class=\"answer {class}\"><h4>{label}</h4><p class=\"facts\">{facts}</p>{text}</div>"
            );
        }
        html += "</div>";
    }
    html + &verdicts(all, &outcomes[i]) + "</article>"
}

/// The class of a model's colour.
pub fn class(number: Option<usize>) -> String {
    number.map_or_else(|| "plain".into(), |number| colour(Some(number)))
}

/// What is known of an answer, in spans between which lines may break.
fn facts(all: &Generations<'_>, answer: &Answer<'_>, draw: Option<usize>) -> String {
    let value = |(label, digits, value): (&str, usize, Option<f64>)| {
        let known = value.filter(|value| value.is_finite());
        format!("{label} {}", known.map_or_else(|| "-".into(), |value| format!("{value:.digits$}")))
    };
    let columns = all.values.iter().zip(&answer.values).map(|(column, value)| (column.label, column.digits, *value));
    let reward = answer.reward.filter(|reward| reward.is_finite()).map(|reward| ("reward", 2, Some(reward)));
    let draw = draw.map(|draw| format!("draw {}", draw + 1));
    let length = format!("{} characters", answer.text.chars().count());
    let all = draw.into_iter().chain(reward.into_iter().chain(columns).map(value)).chain([length]);
    all.map(|fact| format!("<span>{}</span> ", escape(&fact))).collect()
}

/// What the judges said, one line for each judge and pair.
fn verdicts(all: &Generations<'_>, outcomes: &[Vec<Option<Outcome>>]) -> String {
    let (models, draws) = (all.models.len(), all.draws());
    let mut lines = Vec::new();
    for (judge, outcomes) in all.judges.iter().zip(outcomes) {
        for (a, b) in (0..models).flat_map(|a| (a + 1..models).map(move |b| (a, b))) {
            let of_pair = &outcomes[pair(models, a, b) * draws..][..draws];
            let (a, b) = (all.models[a].label, all.models[b].label);
            let said = of_pair.iter().enumerate().filter_map(|(draw, outcome)| {
                let number = if draws > 1 { format!("draw {}: ", draw + 1) } else { String::new() };
                Some(number + &words(a, b, (*outcome)?))
            });
            let said: Vec<String> = said.collect();
            if !said.is_empty() {
                let doubt = if judge.trusted { "" } else { " (not to be trusted)" };
                let (judge, said) = (escape(judge.label), escape(&said.join("; ")));
                lines.push(format!("<li><b>{judge}</b>{doubt}: {said}</li>"));
            }
        }
    }
    let list = format!("<ul class=\"verdicts\">{}</ul>", lines.concat());
    match lines.len() {
        0 => String::new(),
        n if n > VERDICTS => format!("<details><summary>{n} verdicts</summary>{list}</details>"),
        _ => list,
    }
}

fn words(a: &str, b: &str, outcome: Outcome) -> String {
    match outcome {
        Outcome::Won => format!("{a} beats {b}"),
        Outcome::Lost => format!("{b} beats {a}"),
        Outcome::Tie => format!("{a} and {b} tie"),
        Outcome::Flip => format!("{a} or {b} by their order (a flip)"),
        Outcome::Unparsed => format!("{a} or {b}: unparsed"),
    }
}

/// A text of a model or a user; a long one opens on request.
fn folded(text: &str) -> String {
    if text.trim().is_empty() {
        return "<div class=\"text quiet\">(nothing)</div>".into();
    }
    let whole = format!("<div class=\"text\" dir=\"auto\">{}</div>", escape(text));
    // A fold that hides a word or two helps nobody.
    if text.chars().count() <= FOLD + FOLD / 4 {
        return whole;
    }
    let head: String = text.chars().take(FOLD).collect();
    let head = head.rsplit_once(char::is_whitespace).map_or(head.as_str(), |(head, _)| head);
    format!(
        "<details class=\"fold\"><summary><span class=\"text head\" dir=\"auto\">{} …</span>\
         <span class=\"quiet less\">fold</span></summary>{whole}</details>",
        escape(head)
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Contestant, Generated, Judge, ValueColumn, Verdict};
    use super::*;

    #[test]
    fn every_answer_is_there_with_what_is_known_of_it_and_no_markup_of_its_own() {
        let answer =
            |text, reward| Answer { text, reward: Some(reward), values: vec![Some(0.25), Some(f64::INFINITY)] };
        let all = Generations {
            models: vec![Contestant { label: "start", colour: None }, Contestant { label: "<rpo>", colour: Some(0) }],
            judges: vec![Judge { label: "j<1>", trusted: false }],
            values: vec![ValueColumn { label: "BLEU", digits: 1 }, ValueColumn { label: "KL", digits: 0 }],
            prompts: vec![Generated {
                prompt: "<script>alert(\"1\")</script> & '",
                references: vec!["<u>"],
                part: Some("judging"),
                answers: vec![
                    vec![answer("<img src=x onerror=y>", 1.25), answer("", 2.0)],
                    vec![answer("b", -0.5), answer("c", f64::NAN)],
                ],
            }],
            verdicts: vec![Verdict { judge: 0, prompt: 0, models: [1, 0], draw: 1, outcome: Outcome::Won }],
        };
        let html = html(&all, &all.outcomes(), 0);
        for markup in ["<script", "<img", "<rpo>", "<u>"] {
            assert!(!html.contains(markup), "{html}");
        }
        for part in [
            "&lt;img src=x onerror=y&gt;",
            "<span>draw 1</span> <span>reward 1.25</span> <span>BLEU 0.2</span> <span>KL -</span> <span>21 characters</span>",
            "<p class=\"facts\"><span>draw 2</span> <span>BLEU 0.2</span>",
            "(nothing)",
            "<b>j&lt;1&gt;</b> (not to be trusted): draw 2: &lt;rpo&gt; beats start</li>",
            "<small>judging</small>",
            "answer plain\"",
            "answer c0\"",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn long_texts_fold_and_are_kept_whole() {
        let long = "word and <tag> ".repeat(80);
        let html = folded(&long);
        assert!(html.starts_with("<details class=\"fold\"><summary>") && html.contains(&escape(&long)), "{html}");
        let head = html.split("</span>").next().expect("head");
        assert!(head.ends_with(" …") && head.len() < 800, "{head}");
        assert!(!folded(&"a".repeat(FOLD)).contains("details"));
        // Nothing to cut at, and letters of several bytes.
        assert!(folded(&"é".repeat(2 * FOLD)).contains(&format!("{} …", "é".repeat(FOLD))));
    }
}
