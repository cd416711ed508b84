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
    assert!(said.contains("generation_config.json says: max-length 9, no-repeat-ngram-size 1"), "{said}");
    assert!(said.contains("1 of 1 answers were cut at the length of 9 tokens") || !said.contains("cut"), "{said}");
    assert!(ask("")[1].contains("not supported: diversity_penalty 0.5"), "a wish that is not met is told in any case");
    assert!(!ask("")[1].contains("generation_config.json says"), "what is met is told to people");
    assert_eq!(ask(" --no-repeat-ngram-size 0")[0], plain);
    assert_ne!(answer, plain, "the setting acts");
    let long = " --sample --min-new-tokens 30 --max-new-tokens 30";
    let drawn = ask(&format!(" --preset plain{long}"))[0].clone();
    let first = drawn.split_whitespace().next().expect("a word");
    place.write("model/generation_config.json", &format!(r#"{{"stop_strings":"{first}","decoder_start_token_id":3}}"#));
    let [answer, said] = ask(long);
    assert_eq!(answer, "\n", "its text ends the answer before the first word");
    assert!(said.contains("not supported: decoder_start_token_id 3 (answers begin with 0"), "{said}");
    let said = place.complaint("generate --model model --num-beams 2 say");
    assert!(said.contains("generation_config.json: stop_strings: a search with 2 beams"), "{said}");
    assert_eq!(ask(&format!(" --preset plain{long}"))[0], drawn);
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
    place.ok("generate --model model --max-new-tokens 4 --input p.jsonl --output answers.jsonl --in-order");
    assert_eq!(std::fs::read_to_string(place.path("answers.jsonl")).expect("written"), printed);
    assert!(
        place.complaint("generate --model model --input p.jsonl --output answers.jsonl").contains("already exists")
    );

    let ask = "generate --model model --max-new-tokens 4 --json --input -";
    for (arguments, input) in [
        ("", "say yes\nsay no\n"),
        ("", "[\n{\"prompt\": \"say yes\"},\n{\"prompt\": \"say no\"}\n]"),
        (" --format csv --prompt-column q", "n;q\n1;say yes\n2;say no\n"),
    ] {
        let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
        let command = command.args(format!("{ask}{arguments}").split(' '));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
        child.stdin.take().expect("input").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{input}");
    }
    let said = place.complaint("generate --model model --input p.jsonl --output no/where.jsonl");
    assert!(said.contains("cannot write no/where.jsonl: there is no directory no"), "{said}");
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

#[test]
fn rows_tell_which_prompt_they_answer_and_how_likely_that_is() {
    let place = Place::with_model();
    place.write("p.csv", "q,key\nsay yes,a\nsay yes,b\nsay no,c\n");
    let ask = "generate --model model --preset plain --max-new-tokens 5 --sample --seed 9 --json";
    let columns = "--input p.csv --prompt-column q --id-column key";
    let rows = lines(&place.ok(&format!("{ask} {columns} -n 2")));
    let told: Vec<_> = rows.iter().map(|r| format!("{} {} {}", r["id"], r["index"], r["answer"])).collect();
    assert_eq!(told, ["\"a\" 0 0", "\"a\" 0 1", "\"b\" 1 0", "\"b\" 1 1", "\"c\" 2 0", "\"c\" 2 1"]);
    assert!(rows.iter().all(|r| r["seed"] == 9 && r["log_prob"].as_f64().is_some_and(|p| p < 0.0)));
    assert_ne!(rows[0]["response"], rows[2]["response"], "the same prompt twice is drawn anew");
    let single = lines(&place.ok(&format!("{ask} {columns}")));
    assert_eq!(single.iter().map(|r| &r["response"]).collect::<Vec<_>>(), [0, 2, 4].map(|i| &rows[i]["response"]));
    assert!(single[0].get("answer").is_none());
    let unnamed = lines(&place.ok(&format!("{ask} --input p.csv --prompt-column q --batch-size 1")));
    assert_eq!(unnamed.iter().map(|r| r["id"].clone()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(unnamed[0].get("index").is_none());
    assert_eq!(unnamed[2]["response"], single[2]["response"]);

    // Of four draws the one with the highest mean log-probability.
    let drawn = lines(&place.ok(&format!("{ask} {columns} -n 4")));
    let mean = |r: &serde_json::Value| r["log_prob"].as_f64().expect("number") / r["tokens"].as_f64().expect("number");
    let best = lines(&place.ok(&format!("{ask} {columns} --best-of 4")));
    for (best, drawn) in best.iter().zip(drawn.chunks(4)) {
        let highest = drawn.iter().max_by(|a, b| mean(a).total_cmp(&mean(b))).expect("four");
        assert_eq!((&best["response"], &best["log_prob"]), (&highest["response"], &highest["log_prob"]));
    }
    let texts = place.ok("generate --model model --preset plain --num-beams 3 -n 2 --max-new-tokens 3 say no");
    let heads: Vec<&str> = texts.lines().filter(|line| !line.starts_with("  -> ")).collect();
    assert_eq!((heads, texts.lines().count()), (vec!["say", "no"], 6), "{texts}");
}

#[test]
fn a_stop_text_ends_an_answer_before_it() {
    let place = Place::with_model();
    let ask = "generate --model model --preset plain --max-new-tokens 80 --min-new-tokens 80 --sample say\u{a0}yes";
    let whole = place.ok(ask).trim_end_matches('\n').to_string();
    let words: Vec<&str> = whole.split(' ').collect();
    assert!(words.len() > 4, "{whole}");
    // From the middle of a word into the next one.
    let stop = format!("{}\u{a0}{}", &words[2][1..], &words[3][..1]);
    let at = whole.find(&stop.replace('\u{a0}', " ")).expect("it is there");
    assert_eq!(place.ok(&format!("{ask} --stop nonono --stop {stop}")), format!("{}\n", &whole[..at]));
    let row = &lines(&place.ok(&format!("{ask} --stop {stop} --json")))[0];
    assert_eq!((&row["response"], &row["finish_reason"]), (&whole[..at].into(), &"stop".into()));
    assert!(row["tokens"].as_u64().is_some_and(|n| n < 80), "{row}");
    let said = place.run("generate --model model say --stop <nosay>");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("`<nosay>`: the model has no such token") || said.contains("has no `<`"), "{said}");
    for (arguments, complaint) in [
        ("--stop zebra", "--stop `zebra`: no answer has it, for the model's tokenizer has no `z`"),
        ("--stop \u{a0}", ""),
        ("--stop yes --num-beams 2 --preset plain", "--stop: a search with 2 beams"),
        ("-n 3", "-n 3: all answers would be alike"),
        ("--best-of 3", "--best-of 3: all answers would be alike"),
        ("--best-of 3 --num-beams 3", "a beam search draws none"),
        ("-n 3 --num-beams 2", "gives at most 2 answers"),
        ("-n 3 --best-of 2 --sample", "3 answers cannot be kept of 2"),
        ("-n 0", "--answers 0"),
        ("--resume", "--output"),
        ("--shard 4/3", "there is no part 4 of 3"),
        ("--chat", "cannot be used with"),
        ("--ban zebra", "--ban `zebra`: tokenizer: it has no token for `zebra`"),
        ("--ban </s>", "--ban `</s>`: it ends answers"),
        ("--logit-bias zebra=1", "--logit-bias `zebra`: tokenizer: it has no token"),
        ("--logit-bias yes", "it is TOKEN=VALUE"),
        ("--logit-bias yes=much", "`much` is not a finite number"),
        ("--min-p 0.1", "--min-p shapes what is drawn from"),
        ("--sample --min-p 1.5", "min-p"),
        ("--weights int4", "int8"),
    ] {
        let arguments = format!("generate --model model say {arguments}");
        match complaint {
            "" => _ = place.ok(&arguments),
            complaint => {
                let said = place.complaint(&arguments);
                assert!(said.contains(complaint), "{arguments}: {said}");
            }
        }
    }
}

#[test]
fn texts_are_banned_and_made_likely_and_weights_are_rounded() {
    let place = Place::with_model();
    let ask = "generate --model model --preset plain --sample --max-new-tokens 400 --min-new-tokens 400 say\u{a0}yes";
    let whole = place.ok(ask);
    assert!(whole.contains("please") && whole.contains("no say"), "{whole}");
    let without = place.ok(&format!("{ask} --ban please --ban no\u{a0}say"));
    assert!(!without.contains("please") && !without.contains("no say") && without.contains("say"), "{without}");
    let many = place.ok(&format!("{ask} --logit-bias please=20"));
    assert!(many.split_whitespace().all(|word| word == "please"), "{many}");
    let few = place.ok(&format!("{ask} --logit-bias say=-30"));
    assert!(!few.contains("say"), "{few}");
    assert_eq!(place.ok(&format!("{ask} --min-p 0")), whole);
    let likely = |arguments: &str| {
        lines(&place.ok(&format!("{ask} --json{arguments}")))[0]["log_prob"].as_f64().expect("number")
    };
    assert!(likely(" --min-p 0.9") > likely(""), "only the likely are drawn");
    for weights in ["bf16", "int8"] {
        assert!(likely(&format!(" --weights {weights}")).is_finite());
    }
}

#[test]
fn long_prompts_are_cut_and_told_or_refused() {
    let place = Place::with_model();
    place.write("p.jsonl", "{\"prompt\":\"say\"}\n{\"prompt\":\"say yes no please\"}\n");
    let ask = "generate --model model --max-new-tokens 2 --input p.jsonl --max-prompt-tokens 3";
    let said = String::from_utf8_lossy(&place.run(ask).stderr).into_owned();
    assert!(said.contains("1 of 2 prompts were cut at 3 tokens"), "{said}");
    let said = place.complaint(&format!("{ask} --strict"));
    assert!(said.contains("prompt 2 (p.jsonl, line 2) has 5 tokens, and a prompt may have 3"), "{said}");
    place.ok("generate --model model --max-new-tokens 2 --input p.jsonl --strict");
}
