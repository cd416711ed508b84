//! Generations as the data that a page's script reads, in little space: JSON that cannot end the element in which it stands.

use serde::Serialize;

use super::{Generations, Outcome, PAGE};

#[derive(Serialize)]
struct Data<'a> {
    page: usize,
    draws: usize,
    /// Names and classes of their colours.
    models: Vec<(&'a str, String)>,
    judges: Vec<(&'a str, bool)>,
    values: Vec<(&'a str, usize)>,
    prompts: Vec<Prompt<'a>>,
}

#[derive(Serialize)]
struct Prompt<'a> {
    /// Its text.
    p: &'a str,
    /// References.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    r: &'a [&'a str],
    /// What it served for.
    #[serde(skip_serializing_if = "Option::is_none")]
    u: Option<&'a str>,
    /// By model and draw: text, reward, values.
    a: Vec<Vec<Answered<'a>>>,
    /// By judge: a letter for each pair and draw.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    v: Vec<String>,
}

/// Text, reward, values.
type Answered<'a> = (&'a str, Option<f64>, Vec<Option<f64>>);

/// As the content of a script element.
pub fn json(generations: &Generations<'_>, outcomes: &[Vec<Vec<Option<Outcome>>>]) -> String {
    let Generations { models, judges, values, prompts, .. } = generations;
    let data = Data {
        page: PAGE,
        draws: generations.draws(),
        models: models.iter().map(|m| (m.label, super::card::class(m.colour))).collect(),
        judges: judges.iter().map(|j| (j.label, j.trusted)).collect(),
        values: values.iter().map(|v| (v.label, v.digits)).collect(),
        prompts: prompts
            .iter()
            .zip(outcomes)
            .map(|(prompt, outcomes)| Prompt {
                p: prompt.prompt,
                r: &prompt.references,
                u: prompt.part,
                a: prompt
                    .answers
                    .iter()
                    .map(|draws| {
                        let values = |values: &[Option<f64>]| values.iter().map(|v| v.and_then(short)).collect();
                        draws.iter().map(|a| (a.text, a.reward.and_then(short), values(&a.values))).collect()
                    })
                    .collect(),
                v: outcomes.iter().map(|judge| judge.iter().map(|outcome| letter(*outcome)).collect()).collect(),
            })
            .collect(),
    };
    // Texts, numbers and lists always have a form in JSON.
    let json = serde_json::to_string(&data).unwrap_or_default();
    // These stand in strings only, where an escape means the same. `<` would begin an end tag or a comment.
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// With seven digits, more than are shown; none for what is not finite.
fn short(value: f64) -> Option<f64> {
    format!("{value:.6e}").parse().ok().filter(|value: &f64| value.is_finite())
}

fn letter(outcome: Option<Outcome>) -> char {
    match outcome {
        Some(Outcome::Won) => 'w',
        Some(Outcome::Lost) => 'l',
        Some(Outcome::Tie) => 't',
        Some(Outcome::Flip) => 'f',
        Some(Outcome::Unparsed) => 'u',
        None => '.',
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Contestant, Generated};
    use super::*;

    #[test]
    fn texts_come_back_as_they_were_and_end_nothing() {
        let texts = ["</script><!--<script>", "a\u{2028}b\u{2029}c\0\r\n\t\"\\\u{7f}", "\u{1f600} &lt; <b>"];
        let answer = |text| Answer { text, reward: Some(1.0 / 3.0), values: vec![Some(f64::NAN), Some(0.1)] };
        let all = Generations {
            models: vec![Contestant { label: "</script>", colour: Some(0) }],
            judges: vec![],
            values: vec![],
            prompts: vec![Generated {
                prompt: texts[0],
                references: vec![texts[1]],
                part: None,
                answers: vec![vec![answer(texts[2])]],
            }],
            verdicts: vec![],
        };
        let json = json(&all, &all.outcomes());
        assert!(!json.contains('<') && !json.contains('\u{2028}') && !json.contains('\u{2029}'), "{json}");
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let prompt = &read["prompts"][0];
        assert_eq!((prompt["p"].as_str(), prompt["r"][0].as_str()), (Some(texts[0]), Some(texts[1])));
        assert_eq!(prompt["a"][0][0], serde_json::json!([texts[2], 0.333_333_3, [null, 0.1]]));
        assert_eq!(read["models"][0][0], "</script>");
    }
}
