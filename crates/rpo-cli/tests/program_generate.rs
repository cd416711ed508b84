//! Answers: where prompts come from, what decides how they are answered, and what is said of it.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::Place;

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_models_own_settings_hold_unless_a_flag_says_otherwise() {
    let place = Place::with_model();
    let ask = |arguments: &str| {
        let output = place.run(&format!("generate --model model{arguments} say\u{a0}please\u{a0}say\u{a0}please"));
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"))
    };
    let own = r#"{"no_repeat_ngram_size":1,"max_length":9,"eos_token_id":[1],"diversity_penalty":0.5}"#;
    let plain = ask(" --max-new-tokens 8")[0].clone();
    place.write("model/generation_config.json", own);
    let [answer, said] = ask(" --verbose");
    assert_eq!(answer, ask(" --preset plain --max-new-tokens 8 --no-repeat-ngram-size 1")[0]);
    assert!(said.contains("generation_config.json says: max-new-tokens 8, no-repeat-ngram-size 1"), "{said}");
    assert!(said.contains("1 of 1 answers were cut at 8 tokens") || !said.contains("cut"), "{said}");
    assert!(ask("")[1].contains("not supported: diversity_penalty 0.5"), "a wish that is not met is told in any case");
    assert!(!ask("")[1].contains("generation_config.json says"), "what is met is told to people");
    assert_eq!(ask(" --no-repeat-ngram-size 0")[0], plain);
    assert_ne!(answer, plain, "the setting acts");
}

#[test]
fn prompts_come_from_files_and_pipes_and_answers_go_to_json_lines() {
    let place = Place::with_model();
    place.write("p.jsonl", "{\"prompt\":\"say yes\"}\n{\"prompt\":\"say no\"}\n");
    let printed = place.ok("generate --model model --max-new-tokens 4 --input p.jsonl --json");
    let found = lines(&printed);
    assert_eq!(found.iter().map(|r| r["prompt"].as_str().expect("text")).collect::<Vec<_>>(), ["say yes", "say no"]);
    for record in &found {
        let cut = record["tokens"] == 4 && record["finish_reason"] == "length";
        assert!(cut || record["finish_reason"] == "stop", "{record}");
    }
    place.ok("generate --model model --max-new-tokens 4 --input p.jsonl --output answers.jsonl");
    assert_eq!(std::fs::read_to_string(place.path("answers.jsonl")).expect("written"), printed);
    assert!(
        place.complaint("generate --model model --input p.jsonl --output answers.jsonl").contains("already exists")
    );

    let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
    command.args(["generate", "--model", "model", "--max-new-tokens", "4", "--json", "--input", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("input").write_all(b"say yes\nsay no\n").expect("written");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), printed);
}

#[test]
fn beams_lengths_and_limits() {
    let place = Place::with_model();
    let tokens = |arguments: &str| {
        lines(&place.ok(&format!("generate --model model --preset plain --json {arguments} say")))[0]["tokens"].clone()
    };
    assert!(tokens("--num-beams 4 --max-new-tokens 6 --length-penalty -1").as_u64().is_some_and(|n| n <= 6));
    assert!(tokens("--min-new-tokens 5 --max-new-tokens 6").as_u64().is_some_and(|n| n >= 5));
    for (arguments, complaint) in [
        ("--max-prompt-tokens 0", "--max-prompt-tokens 0: at least 1"),
        ("--batch-size 0", "--batch-size 0: at least 1"),
        ("--max-new-tokens 0", "max-new-tokens: 0 would leave nothing"),
        ("--num-beams 0", "num-beams"),
        ("--sample --num-beams 2", "a beam search is not drawn"),
        ("--temperature 0.5", "add --sample"),
        ("--min-new-tokens 9 --max-new-tokens 3", "above max-new-tokens"),
        ("--input nowhere.txt", "cannot be used with"),
    ] {
        let said = place.complaint(&format!("generate --model model {arguments} say"));
        assert!(said.contains(complaint), "{arguments}: {said}");
    }
    let said = place.complaint("generate --model model --input nowhere.txt");
    assert_eq!(said.matches("nowhere.txt").count(), 1, "{said}");
    assert_eq!(said.matches("os error").count(), 1, "a cause is said once: {said}");
}
