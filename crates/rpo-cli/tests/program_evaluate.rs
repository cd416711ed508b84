//! `rpo evaluate`: answers measured and judged, and what is left of it.

mod common;

use common::Place;
use serde_json::{Value, json};

/// Chooses the answer that says good, by its place; writes down that it was asked.
const JUDGE: &str = "read line; echo x >> asked; case \"$line\" in *'\"first\":\"good'*) echo A;; *) echo B;; esac";

/// Twelve prompts with answers of two; `good` of a for the first eight prompts, of b for the others.
fn place() -> Place {
    let place = Place::new();
    let answers = |name: &str, is_good: &dyn Fn(usize) -> bool| -> String {
        let answer = |i: usize| if is_good(i) { format!("good {name}") } else { format!("poor {name} and long") };
        (0..12).rev().map(|i| format!("{}\n", json!({"prompt": format!("p{i}"), "response": answer(i)}))).collect()
    };
    place.write("a.jsonl", &answers("a", &|i| i < 8));
    place.write("b.jsonl", &answers("b", &|i| i >= 8));
    place.write("prompts.txt", &(0..12).map(|i| format!("p{i}\n")).collect::<String>());
    place.write(
        "good.jsonl",
        &(0..12).map(|i| format!("{}\n", json!({"prompt": format!("p{i}"), "response": "good a"}))).collect::<String>(),
    );
    place.write("judge.sh", JUDGE);
    place
}

const EVALUATE: &str =
    "evaluate --outputs a=a.jsonl --outputs b=b.jsonl --prompts prompts.txt --judge-command sh\u{a0}judge.sh";

fn read(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).expect(name)
}

fn evaluation(place: &Place, out: &str) -> Value {
    serde_json::from_str(&read(place, &format!("{out}/evaluation.json"))).expect("JSON")
}

#[test]
#[cfg(unix)]
fn answers_are_judged_and_measured_and_nothing_is_asked_twice() {
    let place = place();
    let said = place.ok(&format!("{EVALUATE} --references good.jsonl --out eval"));
    let found = evaluation(&place, "eval");
    let pair = &found["judges"][0]["pairs"][0];
    assert_eq!((&pair["wins"], &pair["ties"], &pair["losses"]), (&json!(8), &json!(0), &json!(4)));
    let rate = pair["rate"]["mean"].as_f64().expect("number");
    assert!((rate - 8.0 / 12.0).abs() < 1e-9, "{pair}");
    // 2 (1 + 12 + 66 + 220 + 495) / 2^12.
    assert!((pair["p"].as_f64().expect("number") - 1588.0 / 4096.0).abs() < 1e-9, "{pair}");
    assert!(said.contains("66.7 ["), "{said}");
    let metric = |name: &str| {
        found["metrics"].as_array().expect("all").iter().find(|m| m["about"]["name"] == name).expect("it").clone()
    };
    // Eight of twelve answers of a are the reference word for word; words are 2 of 8 and 4 of 4 answers.
    assert!(
        (metric("length-words")["models"][0]["mean"].as_f64().expect("n") - (8.0 * 2.0 + 4.0 * 4.0) / 12.0).abs()
            < 1e-9
    );
    let rouge = metric("rouge-1");
    // "a" is one of four words, and one of the two of the reference: F1 is 1/3.
    assert!((rouge["models"][0]["mean"].as_f64().expect("n") - (8.0 + 4.0 / 3.0) / 12.0).abs() < 1e-9, "{rouge}");
    for file in ["metrics.csv", "wins.csv", "evaluation.md", "report.html"] {
        assert!(!read(&place, &format!("eval/{file}")).is_empty(), "{file}");
    }
    assert!(read(&place, "eval/wins.csv").contains("short,true,a,b,12,8,0,4,0.6666666666666666,"));
    assert!(read(&place, "eval/evaluation.md").contains("| a | b | 8 | 0 | 4 |"));
    assert!(read(&place, "eval/report.html").contains("poor b and long"));
    assert_eq!(read(&place, "asked").lines().count(), 24, "both orders of every pair");
    place.ok(&format!("{EVALUATE} --references good.jsonl --out eval --resume"));
    assert_eq!(read(&place, "asked").lines().count(), 24, "nothing is asked again");
    assert_eq!(evaluation(&place, "eval")["judges"], found["judges"]);
}

#[test]
#[cfg(unix)]
fn a_judge_that_answers_by_place_is_struck_out() {
    let place = place();
    place.write("judge.sh", "echo A");
    let said = place.ok(&format!("{EVALUATE} --out eval"));
    let found = evaluation(&place, "eval");
    let judge = &found["judges"][0];
    assert_eq!((&judge["pairs"][0]["ties"], &judge["diagnostics"]["flips"]), (&json!(12), &json!(12)), "{judge}");
    assert!(said.contains("100.0"), "flips are told: {said}");
    assert!(read(&place, "eval/evaluation.md").contains("~~50.0"));
    assert!(read(&place, "eval/report.html").contains("<s title=\"the judge cannot tell responses apart\">50.0"));
    assert!(read(&place, "eval/wins.csv").contains("short,false,a,b,"));
}

#[test]
fn models_answer_and_are_measured_beside_a_reference() {
    let place = Place::with_model();
    place.ok("init --config config.json --tokenizer tokenizer.json --seed 7 --out other");
    place.write("p.txt", "say please\nsay yes\nsay please\nno\n");
    let rated =
        |(p, r, reward): (&str, &str, u8)| format!("{}\n", json!({"prompt": p, "response": r, "reward": reward}));
    place.write(
        "rated.jsonl",
        &[("say", "yes", 1), ("say", "no", 0), ("no", "please", 1), ("no", "yes", 2)].map(rated).concat(),
    );
    let ask = "evaluate --model model --model new=other --prompts p.txt --reference-model model --rated rated.jsonl -n 2 \
               --max-new-tokens 12 --min-new-tokens 4";
    place.ok(&format!("{ask} --out eval"));
    let found = evaluation(&place, "eval");
    assert_eq!((&found["prompts"]["number"], &found["prompts"]["seeds"]), (&json!(3), &json!(2)));
    assert_eq!(found["models"][1]["name"], "new");
    assert!(found["models"].as_array().expect("two").iter().all(|model| model["fingerprint"].is_string()));
    let metric = |name: &str| {
        found["metrics"].as_array().expect("all").iter().find(|m| m["about"]["name"] == name).expect("it").clone()
    };
    let ratio = metric("log-ratio");
    assert_eq!(
        (&ratio["models"][0]["mean"], &ratio["models"][0]["n"]),
        (&json!(0.0), &json!(3)),
        "a model beside itself"
    );
    assert!(ratio["models"][1]["mean"].as_f64().is_some_and(|mean| mean > 0.0), "{ratio}");
    assert!(metric("reward-tau-b")["models"][0].is_null(), "equal log-ratios rank nothing");
    assert!(metric("reward-tau-b")["models"][1]["mean"].is_number());
    assert_eq!(read(&place, "eval/answers/new.jsonl").lines().count(), 6);
    assert_eq!((&found["decoding"]["temperature"], &found["decoding"]["seed"]), (&json!("0.7"), &json!("42")));
    // What cannot be is said before a model answers, and what is left can go on.
    let said = place.complaint(&format!("{ask} --model typo=nowhere --out eval --resume"));
    assert!(said.contains("--model typo: no model `nowhere`"), "{said}");
    for wrong in ["--model typo=nowhere --out new", "--metrics typo --out new", "--reference-model nowhere --out new"] {
        let wrong =
            format!("{} {wrong}", ask.replace(" --reference-model model", "").replace(" --rated rated.jsonl", ""));
        place.complaint(&wrong);
        assert!(!place.path("new").exists(), "{wrong}");
    }
    // Another model joins; what was answered is not answered anew.
    let before = std::fs::metadata(place.path("eval/answers/new.jsonl")).expect("there").modified().expect("time");
    place.ok(&format!("{ask} --model third=model --out eval --resume"));
    let after = std::fs::metadata(place.path("eval/answers/new.jsonl")).expect("there").modified().expect("time");
    assert_eq!((evaluation(&place, "eval")["models"].as_array().expect("all").len(), before), (3, after));
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let place = place();
    place.write("few.jsonl", "{\"prompt\":\"p1\",\"response\":\"x\"}\n");
    place.ok("evaluate --outputs a=a.jsonl --out done");
    for (arguments, complaint) in [
        ("--outputs a=a.jsonl --outputs a=b.jsonl --out e", "--outputs a: two are called so"),
        (
            "--outputs few.jsonl --prompts prompts.txt --out e1",
            "few: 11 of 12 prompts have no response, such as prompt 1 (\"p0\")",
        ),
        ("--model m --out e2", "--prompts: models need prompts"),
        ("--outputs a.jsonl --out done", "holds an evaluation: go on with it by --resume"),
        ("--outputs a.jsonl --prompts few.jsonl --out done --resume", "begun with other prompts"),
        ("--outputs a.jsonl --out e3 --metrics blue", "there is no `blue`; there are bleu"),
        ("--outputs a.jsonl --out e4 --baseline c", "--baseline c: there are a"),
        ("--outputs a.jsonl --out e5 --judge-command true", "there is one; name another"),
        ("--outputs a.jsonl --out e6 --limit 0", "--limit 0"),
        ("--outputs a.jsonl --out e7 --references few.jsonl --metrics meteor --wordnet nowhere", "wordnet-base"),
        ("--outputs a.jsonl --out e8 --bertscore nowhere", "nowhere"),
    ] {
        let said = place.complaint(&format!("evaluate {arguments}"));
        assert!(said.contains(complaint), "{arguments}: {said}");
    }
    place.complaint(
        "evaluate --outputs a.jsonl --outputs b.jsonl --out e9 --judge-command true --judge-template rating",
    );
    assert!(!place.path("e9").exists(), "nothing is left of what was never begun");
}

#[test]
#[cfg(unix)]
fn pairs_are_told_as_the_baseline_has_them_and_what_lacks_a_reply_is_told() {
    let place = place();
    let three = format!("{EVALUATE} --outputs c=good.jsonl --pairs baseline --baseline b");
    place.ok(&format!("{three} --out eval"));
    let wins = read(&place, "eval/wins.csv");
    assert!(wins.contains(",b,a,12,4,0,8,") && wins.contains(",b,c,12,") && !wins.contains(",a,c,"), "{wins}");
    assert!(read(&place, "eval/report.html").contains("Wins of b, by sh judge.sh"));
    place.ok(&format!("{EVALUATE} --max-judge-calls 13 --out few"));
    assert_eq!(evaluation(&place, "few")["judges"][0]["incomplete"], 6);
    assert!(read(&place, "few/evaluation.md").contains("6 pairs lack a reply and count nowhere"));
    // Secrets of a command and of an address stay out of what is written, and keys of what programs print.
    let secret = "evaluate --outputs a.jsonl --outputs b.jsonl --judge-command A_KEY=s3cret\u{a0}env --out masked";
    let output = place
        .command(env!("CARGO_BIN_EXE_rpo"))
        .args(secret.split(' ').map(|argument| argument.replace('\u{a0}', " ")))
        .env("RPO_JUDGE_KEY", "k-0123456789")
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in common::names(&place.path("masked")) {
        let text = std::fs::read_to_string(place.path(&format!("masked/{file}"))).unwrap_or_default();
        assert!(!text.contains("k-0123456789"), "{file}");
        assert!(file == "judgements.jsonl" || !text.contains("s3cret"), "{file}");
    }
}

#[test]
#[cfg(unix)]
fn the_recipe_of_the_model_card_goes_from_ratings_to_a_card_and_goes_on_where_it_was_stopped() {
    let place = Place::with_model();
    let words = ["yes", "no", "please", "say"];
    let row = |i: usize| {
        let prompt = format!("say {} {} {}", words[i / 2 % 4], words[i / 8 % 4], words[i / 32 % 4]);
        let response = words[i % 2];
        format!("{}\n", json!({"prompt": prompt, "response": response, "reward": i % 2}))
    };
    place.write("ratings.jsonl", &(0..128).map(row).collect::<String>());
    // Whoever's answer comes first in order of the alphabet is better.
    place.write(
        "judge.sh",
        "read line; echo x >> asked; first=${line#*\\\"first\\\":}; second=${line#*\\\"second\\\":}; \
         if [ \"$first\" \\< \"$second\" ]; then echo A; else echo B; fi",
    );
    let recipe = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/model-card/run.sh");
    let run = || {
        let output = place
            .command("bash")
            .arg(&recipe)
            .args(["model", "ratings.jsonl", "out", "--judge-command", "sh judge.sh", "--max-new-tokens", "8"])
            .env("RPO", env!("CARGO_BIN_EXE_rpo"))
            .env("FRACTION", "0.3")
            .env("LICENSE", "mit")
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read(&place, "out/trained/rpo-42/best/README.md")
    };
    let card = run();
    let found = evaluation(&place, "out/evaluation");
    assert_eq!(found["models"].as_array().expect("all").len(), 5);
    let judge = &found["judges"][0];
    assert!(
        card.contains("license: mit") && card.contains("win rate against sft, judged by sh judge.sh"),
        "{card}\n{judge}"
    );
    let asked = read(&place, "asked").lines().count();
    assert_eq!(run(), card, "the same again");
    assert_eq!(read(&place, "asked").lines().count(), asked, "nothing is asked twice");
    // Trained and evaluated prompts have nothing in common.
    let prompts = |name: &str| -> std::collections::BTreeSet<String> {
        let prompt = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["prompt"].to_string();
        read(&place, name).lines().map(prompt).collect()
    };
    assert!(prompts("out/train.jsonl").is_disjoint(&prompts("out/evaluation/prompts.jsonl")));
}
