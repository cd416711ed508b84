//! Known exports by their columns.

use serde_json::Value;

use super::pairs::{Pair, spoken};
use super::sample::{PROMPT, RESPONSE, REWARD, Sample, TEXTS, alias, listed};
use super::written::{self, Written};
use super::{ReadOptions, Reward, Shape, Terms, exports};
use crate::feedback::records::Format;

/// An export that is known.
pub(super) struct Known {
    pub said: String,
    pub prompt: Option<String>,
    pub shape: Shape,
    pub reward: Reward,
}
fn rows(response: &str) -> Shape {
    Shape::Rows { response: Some(response.into()), responses: None, text: None }
}

fn one(column: &str) -> Reward {
    Reward::Columns(Terms(vec![(column.into(), None)]))
}

/// What the sample is an export of, if it is known; an error if it is known to hold no rated responses.
pub(super) fn recognise(sample: &Sample<'_>, o: &ReadOptions) -> Result<Option<Known>, String> {
    let has = |names: &[&str]| names.iter().all(|name| sample.has(name));
    let named = o.response.is_some() || o.responses.is_some();
    let reward_of = |usual: &str| o.reward.clone().unwrap_or_else(|| usual.into());
    let known = |said: &str, prompt: Option<&str>, shape, reward| {
        Ok(Some(Known { said: format!("recognised as {said}"), prompt: prompt.map(Into::into), shape, reward }))
    };
    let rated = sample.holds("completions.annotations") && sample.holds("completions.response");
    if o.format == Some(Format::Ultrafeedback) || (!named && has(&["instruction"]) && rated) {
        let said = match (&o.reward, o.score) {
            (Some(reward), _) => &format!("UltraFeedback: the reward is {reward}"),
            (None, super::Score::OverallScore) => "UltraFeedback: the reward is overall_score",
            (None, super::Score::FineGrained) => "UltraFeedback: the reward is the mean of the fine-grained ratings",
        };
        let completions =
            Shape::Rows { response: None, responses: Some("completions".into()), text: Some("response".into()) };
        return known(said, Some("instruction"), completions, Reward::Ultrafeedback(o.score));
    }
    let plain = has(&["prompt"]) && (has(&["response", "reward"]) || has(&["responses"]));
    if plain {
        return Ok(None);
    }
    if has(&["message_id", "parent_id", "role", "text"]) && o.prompt.is_none() {
        return Err(format!(
            "no `prompt`; there are: {}. These are messages of OpenAssistant trees, one a row: write for each answer a row \
             with the text of its parent (`parent_id`) as prompt, its own as response and one of its labels as reward",
            listed(&sample.columns())
        ));
    }
    if has(&["data.rating", "snapshot.chat"]) && o.response.is_none() {
        let said = format!("feedback of Open WebUI: the reward is {}", reward_of("data.rating"));
        return known(&said, None, Shape::OpenWebUi, one("data.rating"));
    }
    let columns = sample.columns();
    if let Some(found) = annotated(sample, &columns, o)? {
        return Ok(Some(found));
    }
    if !named && let Some(found) = pairs(sample, &columns, o)? {
        return match &o.reward {
            None => Ok(Some(found)),
            Some(column) => Err(format!(
                "two responses a row, which the one rating in `{column}` cannot tell apart; leave --reward-column out, or \
                 name the response that it rates (--response-column)"
            )),
        };
    }
    if has(&["prompt", "response", "helpfulness", "verbosity"]) {
        let said = match &o.reward {
            None => "HelpSteer or HelpSteer2: the reward is helpfulness; --reward-column takes others, also weighted",
            Some(reward) => &format!("HelpSteer or HelpSteer2: the reward is {reward}"),
        };
        return known(said, Some("prompt"), rows("response"), one("helpfulness"));
    }
    if has(&["prompt", "completion", "label"]) && !has(&["response"]) {
        return known("unpaired preferences of TRL", Some("prompt"), rows("completion"), one("label"));
    }
    let scores = sample.scores();
    if has(&["input", "output"]) && !scores.is_empty() {
        return match (&o.reward, &scores[..]) {
            (None, [_, _, ..]) => Err(format!(
                "several scores, as Langfuse exports them: {}; choose with --reward-column",
                scores.join(", ")
            )),
            _ => known(
                &format!("an export of Langfuse: the reward is {}", reward_of(&scores[0])),
                Some("input"),
                rows("output"),
                one(&scores[0]),
            ),
        };
    }
    let dialogues = ["messages", "conversations", "conversation"].into_iter().find(|c| has(&[c]));
    if let Some(column) = dialogues.filter(|_| o.response.is_none() && alias(&columns, &RESPONSE).is_none()) {
        let reward = ["reward", "label", "kto_tag"].into_iter().find(|c| has(&[c])).unwrap_or("reward");
        return known(&format!("dialogues in `{column}`"), None, Shape::Dialogue(column.into()), one(reward));
    }
    Ok(None)
}

/// Exports of tools in which people annotate answers.
fn annotated(sample: &Sample<'_>, columns: &[String], o: &ReadOptions) -> Result<Option<Known>, String> {
    let has = |names: &[&str]| names.iter().all(|name| sample.has(name));
    let known = |said: &str, prompt: Option<&str>, shape, reward| {
        Ok(Some(Known { said: format!("recognised as {said}"), prompt: prompt.map(Into::into), shape, reward }))
    };
    // The columns that the user named as reward.
    let wanted: Option<Vec<String>> = o
        .reward
        .as_deref()
        .map(|r| Terms::parse(r).map(|terms| terms.0.into_iter().map(|(c, _)| c).collect()))
        .transpose()?;
    let chosen = |usual: String| o.reward.clone().unwrap_or(usual);
    if sample.holds("annotations.result") && has(&["data"]) {
        // A path is followed as everywhere; other names are those of controls.
        let reward = match o.reward.as_deref().filter(|reward| reward.contains('.')) {
            Some(path) => Reward::Columns(Terms::parse(path)?),
            None => Reward::LabelStudio(o.reward.clone()),
        };
        if let (Reward::LabelStudio(Some(name)), controls) = (&reward, exports::controls(&sample.0))
            && !controls.is_empty()
            && !controls.contains(name)
        {
            return Err(format!("no annotation of a control `{name}`; there are: {}", controls.join(", ")));
        }
        let data: Vec<String> = columns.iter().filter(|column| column.starts_with("data.")).cloned().collect();
        let (prompt, response) = (alias(&data, &PROMPT), alias(&data, &RESPONSE));
        let response = response.unwrap_or_else(|| "data.response".into());
        let prompt = prompt.unwrap_or_else(|| "data.prompt".into());
        return known("an export of Label Studio", Some(&prompt), rows(&response), reward);
    }
    if has(&["fields", "responses"]) && o.responses.is_none() {
        let within = |outer: &str| columns.iter().filter(|c| c.starts_with(outer)).cloned().collect::<Vec<_>>();
        let (fields, questions) = (within("fields."), within("responses."));
        let (prompt, response) = (alias(&fields, &PROMPT), alias(&fields, &RESPONSE));
        let reward =
            alias(&questions, &REWARD).or_else(|| questions.first().cloned()).unwrap_or_else(|| "reward".into());
        let response = response.unwrap_or_else(|| "response".into());
        return known(
            &format!("records of Argilla 2: the reward is {}", chosen(reward.clone())),
            prompt.as_deref(),
            rows(&response),
            one(&reward),
        );
    }
    let question =
        |c: &&String| c.ends_with(".responses") && (has(&[&format!("{c}.status")]) || has(&[&format!("{c}.users")]));
    let questions: Vec<String> = columns.iter().filter(question).cloned().collect();
    let is_wanted = |c: &String| {
        wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|r| r == c || format!("{r}.responses") == *c))
    };
    let questions: Vec<String> = questions.into_iter().filter(is_wanted).collect();
    if let Some(reward) = the_question(&questions, ".responses", wanted.is_some())? {
        let (prompt, response) = (alias(columns, &PROMPT), alias(columns, &RESPONSE));
        let response = response.unwrap_or_else(|| "response".into());
        let said = format!("an export of Argilla 2: the reward is the mean of {}", chosen(reward.clone()));
        return known(&said, prompt.as_deref(), rows(&response), one(&reward));
    }
    let of_annotators = |c: &&String| {
        sample
            .0
            .iter()
            .filter_map(|r| r.get(*c)?.get(0))
            .any(|v| v.get("user_id").is_some() && v.get("value").is_some_and(is_rating))
    };
    let questions: Vec<String> = columns.iter().filter(of_annotators).filter(|c| is_wanted(c)).cloned().collect();
    if let Some(reward) = the_question(&questions, "", wanted.is_some())? {
        let (prompt, response) = (alias(columns, &PROMPT), alias(columns, &RESPONSE));
        let said = format!("an export of Argilla 1: the reward is the mean of {}", chosen(reward.clone()));
        let response = response.unwrap_or_else(|| "response".into());
        return known(&said, prompt.as_deref(), rows(&response), one(&reward));
    }
    Ok(None)
}

/// Whether an annotator's value is a rating rather than a remark.
fn is_rating(value: &Value) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => !matches!(written::read(text), Written::Unknown),
        _ => false,
    }
}

/// The one question that rates: the only one, the one that is called so, or one of those that the user `named`.
fn the_question(questions: &[String], ending: &str, named: bool) -> Result<Option<String>, String> {
    let names: Vec<String> = questions.iter().map(|name| name.trim_end_matches(ending).to_string()).collect();
    match questions {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        [first, ..] if named => Ok(Some(first.clone())),
        several => match alias(&names, &REWARD).and_then(|name| names.iter().position(|n| *n == name)) {
            Some(at) => Ok(Some(several[at].clone())),
            None => Err(format!("several rated questions: {}; choose with --reward-column", names.join(", "))),
        },
    }
}

/// Layouts with two responses a row.
fn pairs(sample: &Sample<'_>, columns: &[String], o: &ReadOptions) -> Result<Option<Known>, String> {
    let has = |names: &[String; 2]| names.iter().all(|name| sample.has(name));
    // Fields of objects are other things than the prompt, unless they are its text.
    let is_own =
        |column: &&String| column.rsplit('.').next().is_some_and(|last| last == *column || TEXTS.contains(&last));
    let own: Vec<String> = columns.iter().filter(is_own).cloned().collect();
    let dialogue = ["conversations", "messages", "conversation"].into_iter().find(|column| sample.has(column));
    let prompt = o.prompt.clone().or_else(|| alias(&own, &PROMPT)).or_else(|| dialogue.map(String::from));
    let known = [["human_ref_A", "human_ref_B"], ["chosen", "rejected"], ["answer_0", "answer_1"]];
    let Some([a, b]) = known.map(|names| names.map(String::from)).into_iter().find(has) else { return Ok(None) };
    let named = |form: &dyn Fn(&str) -> String| [a.as_str(), b.as_str()].map(form);
    let tail = |name: &str| name.rsplit('_').next().unwrap_or(name).to_string();
    let mut forms = vec![named(&|name| format!("score_{}", tail(name)))];
    for kind in ["score", "rating", "reward"] {
        forms.extend([
            named(&|name| format!("{kind}_{name}")),
            named(&|name| format!("{name}_{kind}")),
            named(&|name| format!("{name}-{kind}")),
        ]);
    }
    let scores = forms.into_iter().find(has);
    let (said, prompt) = match (a.as_str(), &scores, &prompt) {
        ("human_ref_A", ..) => ("SHP: two answers a row", Some("history".to_string())),
        ("chosen", Some(_), _) => ("pairs with scores, as in UltraFeedback binarized", prompt),
        ("chosen", None, Some(_)) => ("preferences as in TRL: chosen counts 1, rejected 0", prompt),
        ("chosen", None, None) => ("pairs of dialogues as in hh-rlhf: chosen counts 1, rejected 0", None),
        _ => ("two rated answers a row", prompt),
    };
    // Without scores only the names of the columns tell the better one.
    if a != "chosen" && scores.is_none() {
        return Ok(None);
    }
    // Dialogues hold what was asked; texts may begin with it, unless it stands elsewhere.
    let is_dialogue =
        |column: &str| sample.value(column).is_some_and(|value| spoken(&value).is_ok_and(|t| t.is_some()));
    if prompt.is_none()
        && !is_dialogue(&a)
        && let Some(text) = sample.other_text(&[&a, &b])
    {
        return Err(format!(
            "`{a}` and `{b}`, and no prompt; there are: {}. Name its column: --prompt-column {text}",
            listed(columns)
        ));
    }
    let said = format!("recognised as {said}");
    Ok(Some(Known { said, prompt, shape: Shape::Pair(Pair { responses: [a, b], scores }), reward: one("reward") }))
}
