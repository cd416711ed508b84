//! What a file holds, as `inspect` and `train` tell it: the same numbers, and nothing left out in silence.

mod common;

use common::Place;

const DATA: &str = r#"{"prompt":"say yes","response":"yes please","reward":1}
{"prompt":"say yes\n","response":"yes  please","reward":0}
{"prompt":"say yes","response":"no","reward":0}
{"prompt":"say no","response":"<pad> no</s>","reward":1}
{"prompt":"say no","response":"no thanks","reward":null}
{"prompt":"say no","response":"yes </s> yes","reward":0}
{"prompt":"say please","response":"thanks","reward":1}
"#;

fn inspect(place: &Place, arguments: &str) -> serde_json::Value {
    let said = place.ok(&format!("inspect data d.jsonl --tokenizer model --json{arguments}"));
    serde_json::from_str(&said).expect("JSON")
}

#[test]
fn inspect_and_train_count_alike_what_is_the_same_to_the_model() {
    let place = Place::with_model();
    place.write("d.jsonl", DATA);
    let report = inspect(&place, "");
    for (field, value) in [
        ("rows", 6),
        ("prompts", 3),
        ("folded_prompts", 1),
        ("folded_by_cut", 0),
        ("duplicates", 1),
        ("special_texts", 1),
    ] {
        assert_eq!(report[field], value, "{field}: {report}");
    }
    assert_eq!(report["notes"][0], "1 row has no rating and was left out");
    let said = place.ok("train rpo --model model --data d.jsonl --out run --max-steps 1 --validation-fraction 0");
    for expected in [
        "d.jsonl: 6 rated responses of 3 prompts",
        "1 row has no rating and was left out",
        "1 prompts differ as texts only",
        "1 repeat another response and were merged into it with their mean reward; 1 of them",
        "1 texts spell out special tokens",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // Once more, from the tokenized data that were kept; and not from them once the file has changed.
    let again = place.ok("train rpo --model model --data d.jsonl --out again --max-steps 1 --validation-fraction 0");
    let first = |text: &str| text.lines().take(5).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(first(&again), first(&said));
    place.write("d.jsonl", &DATA.replace("thanks\",\"reward\":1", "thanks\",\"reward\":3"));
    let changed = place.ok("train rpo --model model --data d.jsonl --out other --max-steps 1 --validation-fraction 0");
    assert!(changed.contains("reward mean: 0.9"), "(0.5 + 0 + 1 + 0 + 3) / 5: {changed}");
}

#[cfg(unix)]
#[test]
fn data_may_come_through_a_pipe() {
    let place = Place::with_model();
    place.write("d.jsonl", DATA);
    let program = env!("CARGO_BIN_EXE_rpo");
    let train = "train rpo --model model --data - --out run --max-steps 1 --validation-fraction 0";
    let output = place.command("sh").args(["-c", &format!("cat d.jsonl | {program} {train}")]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("6 rated responses of 3 prompts"), "{said}");
}

#[test]
fn prompts_that_a_cut_makes_equal_are_told_and_the_other_end_keeps_them_apart() {
    let place = Place::with_model();
    let rows = ["yes", "no", "thanks"]
        .map(|word| format!("{{\"prompt\":\"say please say {word}\",\"response\":\"{word}\",\"reward\":1}}\n"));
    place.write("d.jsonl", &rows.concat());
    let cut = inspect(&place, " --max-prompt-tokens 4");
    assert_eq!((&cut["prompts"], &cut["folded_by_cut"]), (&1.into(), &2.into()), "{cut}");
    let kept = inspect(&place, " --max-prompt-tokens 4 --truncate-prompts start");
    assert_eq!((&kept["prompts"], &kept["folded_prompts"]), (&3.into(), &0.into()), "{kept}");
    assert_eq!(kept["truncated_prompts"], 3);
}

#[test]
fn a_set_of_its_own_validates_and_shares_no_prompt_with_training() {
    let place = Place::with_model();
    place.write("d.jsonl", DATA);
    place.write("v.jsonl", "{\"prompt\":\"say no\",\"response\":\"no\",\"reward\":1}\n{\"prompt\":\"no\",\"response\":\"no\",\"reward\":0}\n");
    let output = place.run("train rpo --model model --data d.jsonl --validation-data v.jsonl --out run --max-steps 1");
    let [said, warned] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    assert!(output.status.success(), "{warned}");
    assert!(said.contains("3 responses of 2 prompts to train on, 2 of 2 to validate"), "{said}");
    assert!(warned.contains("1 prompts to train on are among those of v.jsonl"), "{warned}");
}

#[test]
fn rows_without_a_token_and_responses_that_a_cut_makes_equal_are_told() {
    let place = Place::with_model();
    place.write(
        "d.jsonl",
        r#"{"prompt":"say yes","response":"</s>","reward":1}
{"prompt":"say yes","response":"yes yes no","reward":1}
{"prompt":"say yes","response":"yes yes please","reward":0}
{"prompt":"<pad></s>","response":"yes","reward":1}
{"prompt":"say no","response":"no","reward":1}
{"prompt":"say no","response":"yes","reward":1}
"#,
    );
    let report = inspect(&place, " --max-response-tokens 2");
    let counts = [
        ("rows", 4),
        ("prompts", 2),
        ("without_tokens", 2),
        ("alike_by_cut", 1),
        ("conflicting_by_cut", 1),
        ("cut_prompts", 1),
        ("tied_prompts", 1),
        ("duplicates", 0),
    ];
    for (field, value) in counts {
        assert_eq!(report[field], value, "{field}: {report}");
    }
    let train = "train rpo --model model --data d.jsonl --out run --max-steps 1 --validation-fraction 0 --max-response-tokens 2";
    let output = place.run(train);
    let [said, warned] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    assert!(said.contains("2 rows hold no token") && said.contains("1 prompts have several responses"), "{said}");
    assert!(warned.contains("up to the cut, 1 of them with another reward"), "{warned}");
    let refused = place.complaint("inspect data d.jsonl --tokenizer model --strict");
    assert!(refused.contains("d.jsonl, line 1: ") && refused.contains("holds no token"), "{refused}");
    // A response of control characters alone is none either, whatever comes before and after it.
    place.write("e.csv", "prompt,response,reward\nsay,\u{85},1\nsay,</s> </s>,0\nsay,yes,0\nsay,no,1\n");
    let report = place.ok("inspect data e.csv --tokenizer model --json");
    assert!(report.contains("\"rows\": 2,") && report.contains("\"prompts\": 1,"), "{report}");
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_is_told_and_ends_nothing() {
    let place = Place::with_model();
    place.write("d.jsonl", DATA);
    place.write("file", "");
    let output = place.run("train sft --model model --data d.jsonl --out run --max-steps 1 --cache file");
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warned.contains("the tokens are not kept"), "{warned}");
}

#[test]
fn quiet_leaves_results_alone() {
    let place = Place::with_model();
    place.write("d.jsonl", DATA);
    let output = place.run("-q train sft --model model --data d.jsonl --out run --max-steps 2 --validation-fraction 0");
    let [said, warned] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    assert!(output.status.success() && warned.is_empty(), "{warned}");
    assert!(!said.contains("step 1 of 2"), "{said}");
}
