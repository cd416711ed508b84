//! `tokenizer.json`, `tokenizer_config.json` and chat templates.

use rpo::chat::{ChatTemplate, Turn};
use rpo::model::Config;
use rpo::model::checkpoint::check_vocabulary;
use rpo::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::names;

/// A tokenizer of words, with these changes by pointer.
fn tokenizer(changes: &[(&str, Value)]) -> String {
    let mut whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2, "yes": 3}, "unk_token": "<unk>"}
    });
    for (pointer, value) in changes {
        *whole.pointer_mut(pointer).expect("a place") = value.clone();
    }
    whole.to_string()
}

#[test]
fn tokenizers_that_are_none() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, text) in [
        ("empty", String::new()),
        ("no JSON", "tokenizer".into()),
        ("deep", deep),
        ("another model", tokenizer(&[("/model", json!({"type": "Magic"}))])),
        ("no end", tokenizer(&[("/model/vocab", json!({"a": 0}))])),
        ("a negative id", tokenizer(&[("/model/vocab", json!({"</s>": -1}))])),
        ("a huge id", tokenizer(&[("/model/vocab", json!({"</s>": 4_294_967_296u64}))])),
        (
            "merges of nothing",
            tokenizer(&[("/model", json!({"type": "BPE", "vocab": {"</s>": 0}, "merges": [["a", "b"]]}))]),
        ),
        ("unknown beyond", tokenizer(&[("/model", json!({"type": "Unigram", "vocab": [["</s>", 0.0]], "unk_id": 7}))])),
        ("no pieces", tokenizer(&[("/model", json!({"type": "Unigram", "vocab": [], "unk_id": 0}))])),
        (
            "a broken expression",
            tokenizer(&[(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "(["}, "behavior": "Isolated", "invert": false}),
            )]),
        ),
        ("a broken map", tokenizer(&[("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}))])),
        (
            "a template of nobody",
            tokenizer(&[(
                "/post_processor",
                json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [], "special_tokens": {}}),
            )]),
        ),
    ] {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::write(dir.path().join("tokenizer.json"), text).expect("written");
        let problem = Tokenizer::load(dir.path()).map(drop).expect_err(what).to_string();
        names(&problem, "tokenizer.json", "not a usable tokenizer.json", what);
    }
}

/// What may be read and fails on a text must fail with words.
#[test]
fn tokenizers_that_fail_on_texts() {
    let expression =
        json!({"type": "Split", "pattern": {"Regex": "(a|a?)+$b"}, "behavior": "Isolated", "invert": false});
    let replace = json!({"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""});
    for change in [("/pre_tokenizer", expression), ("/normalizer", replace)] {
        let Ok(tokenizer) = Tokenizer::parse(&tokenizer(&[change])) else { continue };
        for text in ["a".repeat(60), "x".repeat(60), "yes".into(), "\u{10ffff}\u{0}".into()] {
            let _ = tokenizer.response(&text, 100);
        }
    }
}

#[test]
fn vocabularies_are_judged_by_their_largest_id() {
    let config = Config::parse(
        r#"{"model_type":"t5","vocab_size":4,"d_model":4,"d_kv":3,"d_ff":8,"num_layers":1,"num_heads":2}"#,
    )
    .expect("valid");
    let check = |id: u32| {
        let vocabulary = json!({"<pad>": 0, "</s>": 1, "yes": id});
        let tokenizer =
            Tokenizer::parse(&tokenizer(&[("/model/vocab", vocabulary), ("/model/unk_token", "yes".into())]));
        check_vocabulary(&tokenizer.expect("valid"), &config, std::path::Path::new("m")).map_err(|e| e.to_string())
    };
    assert_eq!(check(3), Ok(()));
    // Three tokens, as before.
    for id in [4, 1_000_000, u32::MAX] {
        names(&check(id).expect_err("beyond"), "config.json", &format!("a token of id {id}"), "id");
    }
}

#[test]
fn chat_templates() {
    let nested = format!("{}x{}", "{% if true %}".repeat(10_000), "{% endif %}".repeat(10_000));
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    let double =
        "{% set ns = namespace(x='x') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
    for (what, source) in [
        ("endless", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x"),
        ("itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        ("nested", &nested),
        ("parentheses", &parentheses),
        ("doubling", double),
        ("repeating", "{{ 'x' * 99999999999 }}"),
        ("a long list", "{{ range(99999999999)|list|length }}"),
        ("a wide number", "{{ '%99999999999d' % 1 }}"),
        ("a wide text", "{{ 'x'.ljust(99999999999) }}"),
        ("another file", "{% include '/etc/passwd' %}"),
        ("its parent", "{% extends '../x' %}"),
        ("a module", "{% import 'os' as os %}{{ os }}"),
        ("attributes", "{{ ''.__class__.__mro__ }}"),
        ("broken", "{% if %}"),
        ("not closed", "{{ messages"),
        ("nothing", ""),
    ] {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::write(dir.path().join("chat_template.jinja"), source).expect("written");
        let template = ChatTemplate::find(dir.path(), None).expect("a template");
        let problem = template.prompt(&[Turn::new("user", "hello")]).expect_err(what).to_string();
        names(&problem, "chat_template.jinja", "", what);
        assert!(problem.len() < 2000, "{what}: {} bytes", problem.len());
    }
    #[cfg(unix)]
    {
        let dir = tempfile::tempdir().expect("directory");
        super::pipe(&dir.path().join("chat_template.jinja"));
        let problem = ChatTemplate::find(dir.path(), None).expect("one").prompt(&[]).expect_err("pipe").to_string();
        names(&problem, "chat_template.jinja", "a named pipe (FIFO)", "pipe");
    }
}
