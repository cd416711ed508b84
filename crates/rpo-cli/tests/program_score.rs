//! Given responses and how likely they are: what may be read, what is said of each row, what is kept and what is refused.

mod common;

use common::Place;
use serde_json::{Value, json};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field}: {line}"))
}

fn numbers(line: &Value, field: &str) -> Vec<f64> {
    line[field].as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * a.abs().max(1.0)
}

/// The number behind `words` in what is said.
fn told(said: &str, words: &str) -> f64 {
    let behind = said.split_once(words).unwrap_or_else(|| panic!("{words}: {said}")).1;
    let end = behind.find(|c: char| !matches!(c, '0'..='9' | '.' | '-')).unwrap_or(behind.len());
    behind[..end].parse().expect("a number")
}

/// A place with responses nobody rated: flat rows with and without a name, one of them twice, and a row of several.
fn place() -> Place {
    let place = Place::with_model();
    let rows = [
        json!({"id": "a", "prompt": "say yes", "response": "yes please"}),
        json!({"id": 7, "prompt": "say", "response": "no"}),
        json!({"prompt": "say yes", "response": "yes please"}),
        json!({"prompt": "say yes", "responses": ["no", "yes thanks please", ""]}),
    ];
    place.write("given.jsonl", &rows.map(|row| format!("{row}\n")).concat());
    place
}

#[test]
fn every_response_has_its_line_in_order_and_its_numbers_fit_together() {
    let place = place();
    let output = place.run("score --model model given.jsonl --per-token");
    let (said, summary) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{summary}");
    assert!(summary.contains("1 response is empty and was left out"), "{summary}");
    let found = lines(&said);
    let column = |name: &str| found.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("id"), [json!("a"), json!(7), json!(2), json!(3), json!(3)]);
    assert_eq!(column("response_index"), [Value::Null, Value::Null, Value::Null, json!(0), json!(1)]);
    assert_eq!(column("response"), ["yes please", "no", "yes please", "no", "yes thanks please"]);
    assert_eq!(column("tokens"), [3, 2, 3, 2, 4], "the token that ends a response counts");
    assert_eq!(found[0]["token_texts"], json!(["yes", "please", "</s>"]));
    for line in &found {
        let (sum, tokens) = (number(line, "log_prob"), number(line, "tokens"));
        assert!(near(numbers(line, "token_log_probs").iter().sum(), sum) && sum < 0.0, "{line}");
        assert!(near(number(line, "mean_log_prob"), sum / tokens), "{line}");
        assert!(near(number(line, "perplexity"), (-sum / tokens).exp()), "{line}");
        assert!(
            line["truncated"] == false && line["prompt_truncated"] == false && line.get("reward").is_none(),
            "{line}"
        );
        assert!(line.get("reference_log_prob").is_none(), "{line}");
    }
    assert_eq!(found[0]["log_prob"], found[2]["log_prob"], "a copy has the same score");
    assert_ne!(found[1]["log_prob"], found[3]["log_prob"], "another prompt, the same answer");
    let total: f64 = found.iter().map(|line| number(line, "log_prob")).sum();
    assert!(summary.contains("5 responses of 2 prompts, 14 tokens scored"), "{summary}");
    assert!((told(&summary, "log-probability of a token: ") - total / 14.0).abs() < 1e-4, "{total}: {summary}");
    let perplexity = (-total / 14.0).exp();
    assert!((told(&summary, "perplexity ") / perplexity - 1.0).abs() < 1e-4, "{perplexity}: {summary}");

    // Without its end a response has the same tokens but for the last.
    let open = lines(&place.ok("score --model model given.jsonl --no-end --per-token"));
    for (open, ended) in open.iter().zip(&found) {
        let (open, ended) = (numbers(open, "token_log_probs"), numbers(ended, "token_log_probs"));
        assert!(open.len() + 1 == ended.len() && open.iter().zip(&ended).all(|(a, b)| near(*a, *b)));
    }
    // A response that fills the limit has lost its end, and nothing if that is not scored.
    let cut = |more: &str| lines(&place.ok(&format!("score --model model given.jsonl --max-response-tokens 2{more}")));
    let truncated = |lines: &[Value]| lines.iter().map(|l| l["truncated"] == true).collect::<Vec<_>>();
    assert_eq!(truncated(&cut("")), [true, false, true, false, true]);
    assert_eq!(truncated(&cut(" --no-end")), [false, false, false, false, true]);
    assert!(near(number(&cut("")[0], "log_prob"), number(&open[0], "log_prob")));
    let short = place.run("score --model model given.jsonl --max-prompt-tokens 2");
    assert!(String::from_utf8_lossy(&short.stderr).contains("prompts are cut (--max-prompt-tokens)"));
    let short = lines(&String::from_utf8_lossy(&short.stdout));
    assert_eq!(
        short.iter().map(|l| l["prompt_truncated"] == true).collect::<Vec<_>>(),
        [true, false, true, true, true]
    );
}

#[test]
fn scores_are_kept_and_do_not_depend_on_what_is_computed_together() {
    let place = place();
    let score = |more: &str| {
        let output = place.run(&format!("score --model model given.jsonl {more}"));
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{more}: {}", said[1]);
        said
    };
    let found = "taken from the cache";
    let ([first, told], [again, told_again]) = (score("--cache kept"), score("--cache kept"));
    assert!(!told.contains(found) && told_again.contains(found) && first == again, "{told_again}");
    let [fresh, told] = score("--no-cache");
    assert!(!told.contains(found) && fresh == first, "{told}");
    assert!(!place.path("cache/rpo/reference").exists(), "nothing is kept where nobody wants it");
    for (alone, together) in lines(&score("--no-cache --micro-batch-tokens 1")[0]).iter().zip(lines(&first)) {
        assert!(near(number(alone, "log_prob"), number(&together, "log_prob")), "{alone} {together}");
    }
    // What training has computed of the same data is not computed again, and the other way round.
    place.ok(
        "train rpo --model model --data data.jsonl --out run --max-steps 1 --validation-fraction 0 --precision f32",
    );
    let output = place.run("score --model model data.jsonl");
    assert!(String::from_utf8_lossy(&output.stderr).contains(found), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_reference_tells_what_training_has_moved() {
    let place = Place::with_model();
    place.ok("train sft --model model --data data.jsonl --out run --rows best --max-steps 8 --batch-size 8 --learning-rate 0.01");
    let said = place.ok("score --model run/last --reference model data.jsonl --output scores.jsonl --per-token");
    let found = lines(&std::fs::read_to_string(place.path("scores.jsonl")).expect("written"));
    assert_eq!(found.len(), 40);
    let (mut moved, mut right) = (0.0, 0);
    for line in &found {
        let ratio = number(line, "log_prob") - number(line, "reference_log_prob");
        assert!((number(line, "log_ratio") - ratio).abs() < 1e-4, "{line}");
        assert!(
            near(number(line, "log_ratio_per_token"), number(line, "log_ratio") / number(line, "tokens")),
            "{line}"
        );
        let (ours, theirs) = (numbers(line, "token_log_probs"), numbers(line, "token_reference_log_probs"));
        assert!(near(ours.iter().sum::<f64>() - theirs.iter().sum::<f64>(), ratio), "{line}");
        moved += ratio;
    }
    for pair in found.chunks(2) {
        assert_eq!((&pair[0]["reward"], &pair[1]["reward"]), (&json!(1.0), &json!(0.0)));
        right += i32::from(number(&pair[0], "log_ratio") > number(&pair[1], "log_ratio"));
    }
    let tokens: f64 = found.iter().map(|line| number(line, "tokens")).sum();
    let mean = told(&said, "log-ratio of a token to the reference: ");
    assert!((mean - moved / tokens).abs() < 1e-3 && mean > 0.1, "{moved} of {tokens}: {said}");
    let tau = f64::from(2 * right - 20) / 20.0;
    let correlation = format!("of log-ratio and reward within prompts: {tau:.3} (95 % interval");
    assert!(said.contains(&correlation) && said.contains("20 prompts)"), "{correlation}: {said}");

    let same = lines(&place.ok("score --model model --reference model data.jsonl"));
    assert!(same.iter().all(|line| line["log_ratio"] == 0.0));
    let output = place.run("score --model model --reference model data.jsonl");
    assert!(String::from_utf8_lossy(&output.stderr).contains("model and reference are the same"));
    let said = place.complaint("score --model model --reference run/last data.jsonl --output scores.jsonl");
    assert!(said.contains("already exists"), "{said}");
}

#[test]
fn any_form_is_read_and_answers_are_scored() {
    let place = Place::with_model();
    let want = |rows: &[Value]| rows.iter().map(|r| (r["prompt"].clone(), r["response"].clone())).collect::<Vec<_>>();
    let pairs = [("say", "yes"), ("say", "no please")].map(|(p, r)| (json!(p), json!(r)));
    place.write("given.csv", "question;answer\nsay;yes\nsay;no please\n");
    let csv = lines(&place.ok("score --model model given.csv --prompt-column question --response-column answer"));
    assert_eq!(want(&csv), pairs);
    let spoken = json!({"messages": [{"role": "user", "content": "say"}, {"role": "assistant", "content": "yes"}]});
    place.write("chat.jsonl", &format!("{spoken}\n{spoken}\n"));
    let chat = lines(&place.ok("score --model model chat.jsonl"));
    assert!(near(number(&chat[0], "log_prob"), number(&csv[0], "log_prob")));
    assert_eq!(chat[0]["prompt"], json!([{"role": "user", "content": "say"}]), "messages stay messages");
    let rated = json!({"key": "q1", "prompt": "say", "response": "yes", "stars": 4});
    let unrated = json!({"key": "q2", "prompt": "say", "response": "no"});
    place.write("stars.jsonl", &format!("{rated}\n{unrated}\n"));
    let output = place.run("score --model model stars.jsonl --id-column key");
    assert!(String::from_utf8_lossy(&output.stderr).contains("name it: --reward-column stars"));
    let rated = lines(&place.ok("score --model model stars.jsonl --id-column key --reward-column stars"));
    assert_eq!((&rated[0]["reward"], &rated[0]["id"], &rated[1]["id"]), (&json!(4.0), &json!("q1"), &json!("q2")));
    assert!(rated[1].get("reward").is_none(), "a row without a rating is scored too");

    let train = "train sft --model model --data data.jsonl --out run --rows best --max-steps 8 --batch-size 8";
    place.ok(&format!("{train} --learning-rate 0.01"));
    let ask =
        "generate --model run/last --preset plain --max-new-tokens 6 --json say\u{a0}yes no say\u{a0}please thanks";
    let answers = place.ok(ask);
    place.write("answers.jsonl", &answers);
    let (answers, scored) = (lines(&answers), lines(&place.ok("score --model run/last answers.jsonl")));
    assert_eq!(want(&scored), want(&answers));
    for (scored, answer) in scored.iter().zip(&answers) {
        assert!(answer["finish_reason"] == "stop" && scored["tokens"] == answer["tokens"], "{answer}");
    }
}

#[test]
fn what_cannot_be_scored_is_told() {
    let place = place();
    place.write("empty.jsonl", "");
    place
        .write("lacking.jsonl", "{\"prompt\":\"say\",\"response\":\"yes\"}\n{\"prompt\":\"say\",\"response\":\" \"}\n");
    place.write("nothing.jsonl", "{\"prompt\":\"say\",\"response\":\" \"}\n");
    let tokenizer = std::fs::read_to_string(place.path("tokenizer.json")).expect("tokenizer");
    place.write("swapped.json", &tokenizer.replace("\"yes\":4", "\"yes\":5").replace("\"no\":5", "\"no\":4"));
    place.ok("init --config config.json --tokenizer swapped.json --out swapped");
    let llama = r#"{"model_type":"llama","vocab_size":64,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":1,
        "num_attention_heads":4,"num_key_value_heads":2,"bos_token_id":3,"eos_token_id":1,"initializer_range":0.2}"#;
    place.write("llama.json", llama);
    place.ok("init --config llama.json --tokenizer tokenizer.json --out llama");
    for (arguments, said) in [
        ("nowhere.jsonl", "nowhere.jsonl"),
        ("empty.jsonl", "the file is empty"),
        ("nothing.jsonl", "no response in it: 1 row has an empty response"),
        ("lacking.jsonl --strict", "lacking.jsonl, line 2: the row has an empty response"),
        ("given.jsonl --prompt-column question", "no `question`"),
        ("given.jsonl --reward-column stars", "no `stars`"),
        ("given.jsonl --id-column key", "given.jsonl, line 1: no text or number in `key`"),
        ("given.jsonl --reference swapped", "different tokenizers: token 4 is `yes` to one and `no` to the other"),
        ("given.jsonl --reference llama", "encoder-decoder"),
        ("given.jsonl --reference nowhere", "no model `nowhere`"),
        ("given.jsonl --output nowhere/x.jsonl", "there is no directory nowhere"),
        ("given.jsonl --output given.jsonl", "already exists"),
        ("given.jsonl --max-response-tokens 0", "max-response-tokens: 0 would leave nothing"),
        ("given.jsonl --micro-batch-tokens 0", "--micro-batch-tokens 0"),
        ("given.jsonl --no-cache --cache kept", "cannot be used with"),
    ] {
        let complaint = place.complaint(&format!("score --model model {arguments}"));
        assert!(complaint.contains(said), "{arguments}: {complaint}");
    }
    assert!(place.complaint("score --model llama given.jsonl").contains("single token"), "a prompt of one token");
}
