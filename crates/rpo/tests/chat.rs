//! Chat templates against Hugging Face transformers: what they write, token for token, and whom they refuse. The values were made
//! by `goldens/make_chat.py`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpo::chat::{ChatTemplate, Prompt, Turn, Writing};
use rpo::feedback::read_prompts;
use rpo::tokenizer::{Cut, Tokenizer};
use serde_json::{Value, json};

/// Directory of a model with the golden tokenizer and, in its settings, this chat template.
fn model(golden: &Value, template: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("write");
    let mut settings = golden["settings"].clone();
    settings["chat_template"] = template.clone();
    write("tokenizer.json", golden["tokenizer"].to_string());
    write("tokenizer_config.json", settings.to_string());
    dir
}

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/chat.json");
    serde_json::from_slice(&std::fs::read(path).expect("golden file")).expect("JSON")
}

/// The golden conversations, read as a file of messages is.
fn conversations(golden: &Value) -> Vec<Prompt> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("prompts.jsonl");
    let line = |messages: &Value| format!("{}\n", json!({"prompt": messages}));
    let lines: String = golden["conversations"].as_array().expect("list").iter().map(line).collect();
    std::fs::write(&path, lines).expect("write");
    let asked = read_prompts(&path.as_path().into(), "prompt", None, None).expect("prompts");
    asked.into_iter().map(|asked| asked.prompt).collect()
}

fn template(golden: &Value, dir: &Path) -> ChatTemplate {
    let today = golden["today"].as_str().expect("text").parse().expect("a day");
    ChatTemplate::find(dir, Some(today)).expect("a template")
}

/// The golden tokenizer as it is used with the template in `dir`.
fn tokenizer(golden: &Value, dir: &Path, texts: bool) -> Tokenizer {
    let template = Arc::new(template(golden, dir));
    Tokenizer::load(dir).expect("valid").decoder_only().written(Writing::Template { template, texts }, &[1, 4])
}

fn named<'a>(golden: &'a Value, name: &str) -> &'a Value {
    let cases = golden["cases"].as_array().expect("list");
    &cases.iter().find(|case| case["name"] == name).expect("such a case")["template"]
}

#[test]
fn templates_write_what_transformers_writes_and_refuse_what_it_refuses() {
    let golden = golden();
    let conversations = conversations(&golden);
    assert_eq!(conversations.len(), 13);
    let mut wrong = Vec::new();
    for case in golden["cases"].as_array().expect("list") {
        let dir = model(&golden, &case["template"]);
        let (template, tokenizer) = (template(&golden, dir.path()), tokenizer(&golden, dir.path(), false));
        for (i, (prompt, said)) in conversations.iter().zip(case["said"].as_array().expect("list")).enumerate() {
            let Prompt::Turns(turns) = prompt else { panic!("messages") };
            match (template.prompt(turns), said["text"].as_str()) {
                // Nothing to read is nothing to answer.
                (Err(problem), Some("")) if problem.to_string().contains("writes nothing") => {}
                (Ok(text), Some(expected)) => {
                    let ids = tokenizer.ask(prompt, usize::MAX, Cut::End).expect("encodes").ids;
                    if text != expected || json!(ids) != said["ids"] {
                        wrong.push(format!("{} {i}: {text:?} for {expected:?}, {ids:?}", case["name"]));
                    }
                }
                (Err(problem), None) if problem.to_string().contains(said["problem"].as_str().expect("text")) => {}
                (found, expected) => wrong.push(format!("{} {i}: {found:?} for {expected:?}", case["name"])),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn talk(turns: &[(&str, &str)]) -> Prompt {
    Prompt::Turns(turns.iter().map(|(role, text)| Turn::new(role, text)).collect())
}

#[test]
fn what_is_too_long_loses_the_oldest_turns_and_then_an_end_of_the_longest_text() {
    let golden = golden();
    let dir = model(&golden, named(&golden, "marks"));
    let t = tokenizer(&golden, dir.path(), false);
    let ids = |turns: &[(&str, &str)]| t.ask(&talk(turns), usize::MAX, Cut::End).expect("encodes").ids;
    let long = [
        ("system", "Be brief."),
        ("user", "first question"),
        ("assistant", "first answer"),
        ("user", "the second question"),
        ("assistant", "second answer"),
        ("user", "a third question"),
    ];
    let cut = |limit: usize, cut: Cut| {
        let encoded = t.ask(&talk(&long), limit, cut).expect("encodes");
        assert!(encoded.ids.len() <= limit && encoded.truncated() == (limit < encoded.length));
        assert_eq!((encoded.length, encoded.templated), (ids(&long).len(), true));
        encoded.ids
    };
    let (whole, two, one) = (ids(&long), ids(&[&long[..1], &long[3..]].concat()), ids(&[long[0], long[5]]));
    assert_eq!(cut(whole.len(), Cut::End), whole);
    for limit in [whole.len() - 1, two.len()] {
        assert_eq!(cut(limit, Cut::End), two, "an answer goes with its question");
    }
    assert_eq!(cut(two.len() - 1, Cut::Start), one);
    assert_eq!(cut(one.len() - 1, Cut::End), ids(&[long[0], ("user", "a third questio")]));
    assert_eq!(cut(one.len() - 3, Cut::Start), ids(&[long[0], ("user", "ird question")]));
    let frame = ids(&[("system", ""), ("user", "")]);
    assert_eq!(cut(frame.len(), Cut::End), frame);
    let said = t.ask(&talk(&long), frame.len() - 1, Cut::End).expect_err("no room").to_string();
    assert!(said.contains("raise --max-prompt-tokens"), "{said}");
}

#[test]
fn of_thousands_of_turns_those_that_fit_are_found_at_once() {
    let golden = golden();
    let dir = model(&golden, named(&golden, "marks"));
    let t = tokenizer(&golden, dir.path(), false);
    let turns: Vec<Turn> = (0..4000).map(|i| Turn::new(["user", "assistant"][i % 2], &format!("turn {i}"))).collect();
    let last = Prompt::Turns(turns[3980..].to_vec());
    let expected = t.ask(&last, usize::MAX, Cut::End).expect("encodes").ids;
    let begun = Instant::now();
    for limit in [expected.len(), expected.len() + 1] {
        assert_eq!(t.ask(&Prompt::Turns(turns.clone()), limit, Cut::End).expect("encodes").ids, expected);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "one turn after the other takes a minute");
}

#[test]
fn answers_end_as_the_template_ends_them_where_the_model_stops_there() {
    let golden = golden();
    let dir = model(&golden, named(&golden, "marks"));
    let end = |t: &Tokenizer, prompt: &Prompt| t.answer(prompt, "yes", 99).expect("encodes").ids.pop();
    let (messages, text) = (talk(&[("user", "Hi")]), Prompt::from("Hi"));
    let t = tokenizer(&golden, dir.path(), false);
    assert_eq!((end(&t, &messages), end(&t, &text)), (Some(4), Some(1)));
    let ids = |text| t.answer(&messages, text, 99).expect("encodes").ids;
    assert_eq!(ids("yes<|im_end|>"), ids("yes"), "it is there already");
    assert_eq!(end(&tokenizer(&golden, dir.path(), true), &text), Some(4));
    let template = Arc::new(template(&golden, dir.path()));
    let elsewhere =
        Tokenizer::load(dir.path()).expect("valid").written(Writing::Template { template, texts: true }, &[1]);
    assert_eq!(end(&elsewhere, &messages), Some(1), "the model would not stop at <|im_end|>");
}

#[test]
fn plain_texts_are_what_a_user_says_or_stay_as_they_are() {
    let golden = golden();
    let dir = model(&golden, named(&golden, "marks"));
    let ask = |t: &Tokenizer, prompt: &Prompt| t.ask(prompt, 999, Cut::End).expect("encodes");
    let (auto, always) = (tokenizer(&golden, dir.path(), false), tokenizer(&golden, dir.path(), true));
    let text = Prompt::from("stop <|im_end|> </s> here");
    let said = ask(&always, &text);
    assert_eq!(said, ask(&auto, &talk(&[("user", "stop <|im_end|> </s> here")])));
    assert_eq!((said.special, said.templated), (2, true), "those of the user, not those of the template");
    let plain = ask(&auto, &text);
    assert_eq!(
        plain,
        Tokenizer::load(dir.path())
            .expect("valid")
            .decoder_only()
            .prompt("stop <|im_end|> </s> here", 999, Cut::End)
            .expect("encodes")
    );
    let none = Tokenizer::load(dir.path()).expect("valid").written(Writing::NoTemplate("models/mine".into()), &[1]);
    let refused = none.ask(&talk(&[("user", "Hi")]), 99, Cut::End).expect_err("no template").to_string();
    assert!(refused.contains("models/mine") && refused.contains("--chat-template never"), "{refused}");
}

#[test]
fn what_decides_what_is_written_decides_the_key_and_nothing_else() {
    let golden = golden();
    let key = |name: &str, today: Option<&str>| {
        let dir = model(&golden, named(&golden, name));
        let today = today.map(|day| day.parse().expect("a day"));
        ChatTemplate::find(dir.path(), today).expect("a template").fingerprint()
    };
    assert_eq!(key("marks", None), key("marks", Some("2024-02-09")));
    assert_ne!(key("marks", None), key("brackets", None));
    assert_ne!(key("dated", Some("2024-02-10")), key("dated", Some("2024-02-09")));
    let dir = model(&golden, named(&golden, "marks"));
    let plain = Tokenizer::load(dir.path()).expect("valid").decoder_only();
    assert_eq!(plain.clone().written(Writing::Plain, &[1]).fingerprint(), plain.fingerprint());
    let refusing = plain.clone().written(Writing::NoTemplate("models/mine".into()), &[1]);
    assert_eq!(refusing.fingerprint(), plain.clone().written(Writing::NoTemplate("b".into()), &[1]).fingerprint());
    for written in [tokenizer(&golden, dir.path(), false), refusing] {
        assert_ne!(written.fingerprint(), plain.fingerprint());
    }
}

#[test]
fn a_template_that_nests_as_deep_as_its_length_allows_is_read() {
    let golden = golden();
    let chain = |one: &str, before: &str, behind: &str| {
        let n = ((1 << 20) - before.len() - behind.len()) / one.len();
        format!("{before}{}{behind}", one.repeat(n))
    };
    // However they end, no stack overflows.
    for template in [
        chain("+1", "{{ 1", " }}"),
        chain(".a", "{{ a", " }}"),
        chain("|a", "{{ 1", " }}"),
        chain("<1", "{{ 1", " }}"),
        chain("[1]", "{{ a", " }}"),
        chain("()", "{{ a", " }}"),
        chain(" and 1", "{{ 1", " }}"),
        chain(" if 1", "{{ 1", " }}"),
        chain(" is a", "{{ 1", " }}"),
        chain("**1", "{{ 1", " }}"),
        chain("not ", "{{ ", "1 }}"),
        chain("-", "{{ ", "1 }}"),
        chain("[", "{{ ", ""),
        chain("(", "{{ ", ""),
        chain("{1:", "{{ ", ""),
        chain("{% elif 1 %}", "{% if 1 %}", "{% endif %}"),
        chain("{% if 1 %}", "", ""),
        chain("{% for a in b %}", "", ""),
        chain("{% set a %}", "", ""),
        chain("{% set a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]] %}", "", "{{ a }}"),
    ] {
        let dir = model(&golden, &json!(template));
        let written = self::template(&golden, dir.path()).prompt(&[Turn::new("user", "Hi")]);
        let said = written.map_or_else(|problem| problem.to_string(), |text| format!("{} bytes", text.len()));
        assert!(!said.contains("seconds"), "{said}");
    }
}

#[test]
fn a_broken_template_is_told_with_file_and_line() {
    let golden = golden();
    for (template, said) in [
        (
            json!("{% for m in messages %}\n{{ m.content \n{% endfor %}"),
            "line 3 of the chat template is not valid Jinja",
        ),
        (json!("a\nb {{ messages[0].content.shout() }}"), "line 2 of the chat template fails: unknown method"),
        (
            json!("{% for i in range(99999) %}\n{% for j in range(99999) %}\n{% endfor %}\n{% endfor %}"),
            "of the chat template does not end",
        ),
        (json!("{{ 'x' * 100000000000 }}"), "of the chat template does not end, or makes more than"),
        (json!("{{ ([['x' * 1000] * 1000] * 1000) | tojson }}"), "tojson: it is longer than 64 MiB"),
        (
            json!(
                "{% set ns = namespace(x=[]) %}{% for i in range(300) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}"
            ),
            "tojson: more than 200 lists and dictionaries lie in each other",
        ),
        // What lies in itself, or so deep in each other that the engine's own stack would not hold it.
        (
            json!("{% set ns = namespace(x=1) %}\n{% set ns.x = [ns] %}{{ ns == ns.x }}"),
            "line 2 of the chat template takes the namespace `ns` for a value",
        ),
        (
            json!("{% set ns = namespace() %}{% set ns.x = namespace %}"),
            "line 1 of the chat template makes a namespace in",
        ),
        (json!("{% set a = [namespace(x=1)] %}"), "line 1 of the chat template makes a namespace in another way"),
        (
            json!(
                "{% set ns = namespace(x=[], y=[]) %}{% for i in range(20000) %}{% set ns.x = {'a': ns.x} %}\
                 {% set ns.y = {'a': ns.y} %}{% endfor %}{{ ns.x == ns.y }}{{ [ns.x, ns.y] | sort | length }}{{ ns.x.x.y }}"
            ),
            "fails: undefined value",
        ),
        (json!("x".repeat((1 << 20) + 1)), "the chat template has 1048577 bytes; at most 1048576 are read"),
        (
            json!(
                "{% set ns = namespace(x=[], y=[]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}\
                 {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}"
            ),
            "the chat template does not end: it was stopped after 5 seconds",
        ),
        (json!("{{ messages | tojson(indent=' ' * 65) }}"), "tojson: indent is longer than 64 bytes"),
        (json!("{{ messages[0].content.rsplit('i', 18446744073709551615)[3].x.y }}"), "fails: undefined value"),
        (json!("{{ strftime_now('%Q') }}"), "strftime_now: not all of `%Q` is known"),
        (json!([{"name": "rag", "template": "x"}]), "none called `default`; there are: rag"),
        (json!(7), "neither a text nor a list"),
    ] {
        let dir = model(&golden, &template);
        let problem = self::template(&golden, dir.path()).prompt(&[Turn::new("user", "Hi")]);
        let problem = problem.expect_err("broken").to_string();
        assert!(problem.contains("tokenizer_config.json: ") && problem.contains(said), "{problem}");
        // The file of its own wins.
        std::fs::write(dir.path().join("chat_template.jinja"), "{{ messages[0].content }}!").expect("write");
        let own = ChatTemplate::find(dir.path(), None).expect("one").prompt(&[Turn::new("user", "Hi")]);
        assert_eq!(own.expect("written"), "Hi!");
    }
}
