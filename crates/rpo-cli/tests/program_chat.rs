//! Chat messages through the program, with a model that has a chat template, with one that has none, and with broken ones.

mod common;

use common::{Place, names};
use serde_json::json;

const CONFIG: &str = r#"{"model_type":"llama","vocab_size":16,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,
    "num_attention_heads":4,"num_key_value_heads":2,"bos_token_id":3,"eos_token_id":[1,7],"initializer_range":0.2}"#;
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}\n\
    {% if m.role == 'system' and not loop.first %}{{ raise_exception('The system speaks first') }}{% endif %}\n\
    {{ '<' + m.role + '>' + m.content + '<end>' }}\n\
    {% endfor %}\n{% if add_generation_prompt %}<assistant>{% endif %}";
const TRAIN: &str = "train rpo --model model --data chat.jsonl --out run --batch-size 8 --max-steps 2";

/// A place with rated answers to conversations and a decoder-only model, which has this template.
fn place(template: Option<&str>) -> Place {
    let place = Place::new();
    let words = ["<s>", "<user>", "<assistant>", "<system>", "<end>", "say", "yes", "no", "please", "thanks"];
    place.write("config.json", CONFIG);
    place.write("tokenizer.json", &rpo::tokenizer::word_level(&words));
    place.write("tokenizer_config.json", r#"{"bos_token":"<s>","eos_token":"</s>"}"#);
    template.into_iter().for_each(|template| place.write("chat_template.jinja", template));
    place.ok("init --config config.json --tokenizer tokenizer.json --out model");
    let row = |i: usize| {
        let asked = ["say ", "please "][i % 2].repeat(1 + i / 2);
        let prompt = json!([{"role": "user", "content": asked}, {"role": "assistant", "content": "yes"},
                            {"role": "user", "content": "thanks"}]);
        json!({"prompt": prompt, "responses": [{"text": "yes please", "reward": 1}, {"text": "no", "reward": 0}]})
    };
    place.write("chat.jsonl", &(0..20).map(|i| format!("{}\n", row(i))).collect::<String>());
    place
}

#[test]
fn messages_go_through_the_template_and_people_see_their_own_texts() {
    let place = place(Some(TEMPLATE));
    let said = place.ok(&format!("{TRAIN} --sample-every 2"));
    assert!(said.contains("20 of 20 prompts go through the model's chat template"), "{said}");
    assert!(said.contains("/best --chat-template always \"your prompt\""), "as it was trained: {said}");
    assert!(names(&place.path("run/last")).contains(&"chat_template.jinja".to_string()));
    let saved = std::fs::read_to_string(place.path("run/config.toml")).expect("saved");
    assert!(saved.contains("chat-template = \"auto\"") && !saved.contains("chat-date"), "{saved}");
    let metrics = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("metrics");
    let shown = metrics.lines().find(|line| line.contains("\"sample\"")).expect("a sample");
    assert!(shown.contains(r"\nAssistant: yes\nUser: thanks"), "{shown}");
    place.ok("train --resume run --max-steps 3");
    // A judge that knows what a person wrote.
    let judged = "--judge sed\u{a0}s/.*Assistant:.yes.*/1/ --validation-fraction 0.2";
    place.ok(&format!("{TRAIN} {judged}").replace("--out run", "--out judged"));
    let metrics = std::fs::read_to_string(place.path("judged/metrics.jsonl")).expect("metrics");
    assert!(metrics.contains("\"reward\":1.0"), "{metrics}");
    let rows = place.ok("convert chat.jsonl --out -");
    assert!(rows.starts_with(r#"{"prompt":[{"content":"say ","role":"user"},"#), "{rows}");

    place.write("ask.jsonl", r#"{"messages":[{"role":"user","content":"say"},{"role":"assistant","content":"no"},{"role":"user","content":"please"}]}"#);
    let ask = "generate --model run/last --input ask.jsonl --prompt-column messages --max-new-tokens 3 --json";
    let answer: serde_json::Value = serde_json::from_str(&place.ok(ask)).expect("JSON");
    assert_eq!(answer["prompt"], "User: say\nAssistant: no\nUser: please");
    let text = "generate --model run/last say\u{a0}please --max-new-tokens 3";
    let told = |arguments: &str| String::from_utf8_lossy(&place.run(arguments).stderr).into_owned();
    assert!(told(text).contains("1 of 1 prompts are plain text although"), "{}", told(text));
    for way in ["always", "never"] {
        assert_eq!(told(&format!("{text} --chat-template {way}")), "", "{way}");
    }
    let report = place.ok("inspect data chat.jsonl --tokenizer model --json");
    assert!(report.contains("\"templated_prompts\": 20"), "{report}");
    // <s><user>say<end><user>yes... : 4 tokens of the shortest first turn, 3 of the answer, 3 of the last turn, 1 to go on.
    assert!(report.contains("\"min\": 11.0"), "{report}");
    assert!(report.contains("\"folded_line_breaks\": 0"), "nobody wrote a line break: {report}");
    let plain = place.ok("inspect data data.jsonl --tokenizer model");
    assert!(plain.contains("20 of 20 prompts are plain text although"), "{plain}");
}

#[test]
fn the_day_is_settled_once() {
    let place = place(Some(&format!("{{{{ strftime_now('%Y') and '' }}}}{TEMPLATE}")));
    place.ok(TRAIN);
    let saved = || std::fs::read_to_string(place.path("run/config.toml")).expect("saved");
    assert!(saved().contains("chat-date = \"20"), "{}", saved());
    place.ok(&TRAIN.replace("--out run", "--out then --chat-date 2024-07-26"));
    let kept = std::fs::read_to_string(place.path("then/config.toml")).expect("saved");
    assert!(kept.contains("chat-date = \"2024-07-26\""), "{kept}");
    place.ok("train --resume then --max-steps 3");
    place.write("day.toml", "chat-date = 2024-07-26\n");
    place.ok("train --resume then --max-steps 4 --config day.toml");
    place.ok("train --resume then --max-steps 5 --set chat-date=2024-07-26");
    let said = place.complaint("train --resume then --max-steps 6 --chat-date 2024-07-27");
    assert!(said.contains("chat-date: \"2024-07-26\" then, \"2024-07-27\" now"), "{said}");
    let said = place.complaint(&TRAIN.replace("--out run", "--out never --chat-date July"));
    assert!(said.contains("chat-date") && said.contains("`July` is no day; write it like 2024-07-26"), "{said}");
    let compare =
        "compare --model model --data chat.jsonl --out both --objectives sft,rpo --max-steps 1 --batch-size 8";
    place.ok(&format!("{compare} --chat-date 2024-07-26"));
    place.ok(&format!("{compare} --resume"));
}

#[test]
fn a_run_of_a_version_without_templates_goes_on_as_it_was() {
    let place = place(Some(TEMPLATE));
    place.ok(&format!("{TRAIN} --chat-template never"));
    let path = place.path("run/config.toml");
    let saved = std::fs::read_to_string(&path).expect("saved");
    std::fs::write(&path, saved.replace("chat-template = \"never\"\n", "")).expect("write");
    place.ok("train --resume run --max-steps 3");
    let said = place.complaint("train --resume run --max-steps 4 --chat-template always");
    assert!(said.contains("the run was begun otherwise"), "{said}");
}

#[test]
fn what_cannot_be_written_is_told_with_its_row_and_what_to_do() {
    let bare = place(None);
    let said = bare.complaint(TRAIN);
    for expected in ["chat.jsonl, line 1", "the model in model has no chat template", "--chat-template never"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    bare.ok(&format!("{TRAIN} --chat-template never"));
    let said = bare.complaint(&TRAIN.replace("--out run", "--out auto"));
    assert!(said.contains("has no chat template"), "what `never` left in the cache is not taken: {said}");
    let said = bare.complaint(&format!("{TRAIN} --chat-template always").replace("--out run", "--out always"));
    assert!(said.contains("chat-template: `always` needs a chat template, and model has none (no "), "{said}");
    assert!(said.contains("; put one there; without one, leave the setting out"), "{said}");
    bare.write("t5.json", common::CONFIG);
    bare.ok("init --config t5.json --tokenizer tokenizer.json --out t5");
    let said = bare.complaint("generate --model t5 say --chat-template always");
    let expected = "and an encoder-decoder model reads plain text; without one, leave the setting out";
    assert!(said.contains(expected), "{said}");

    let wrong = place(Some("{% for m in messages %}\n{{ m.content }\n{% endfor %}"));
    let said = wrong.complaint(TRAIN);
    assert!(said.contains("chat_template.jinja: line 2 of the chat template is not valid Jinja"), "{said}");

    let strict = place(Some(TEMPLATE));
    let late = r#"[{"role":"user","content":"say"},{"role":"system","content":"no"}]"#;
    let rows = std::fs::read_to_string(strict.path("chat.jsonl")).expect("rows");
    strict.write(
        "chat.jsonl",
        &format!("{rows}{{\"prompt\":{late},\"responses\":[{{\"text\":\"yes\",\"reward\":1}}]}}\n"),
    );
    let said = strict.complaint(TRAIN);
    assert!(
        said.contains("chat.jsonl, line 21: ") && said.contains("refuses this conversation: The system speaks first")
    );
    strict.write("ask.jsonl", &format!("{{\"prompt\":{late}}}"));
    let said = strict.complaint("generate --model model --input ask.jsonl");
    assert!(said.contains("prompt 1") && said.contains("The system speaks first"), "{said}");
}
