//! A judge rates answers, and a model is trained on the ratings: the whole loop, what ends it in between, and what is refused.

mod common;
#[path = "../../rpo/tests/common/stand_in.rs"]
mod stand_in;

use std::collections::BTreeMap;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Place, names};
use serde_json::{Value, json};
use stand_in::{Does, Received, StandIn};

const KEY: &str = "sk-a-key-nobody-sees";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn read(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What is printed and said.
fn told(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(!printed.contains(KEY) && !said.contains(KEY), "{printed}{said}");
    (printed, said)
}

/// Runs `rpo rate` with a key, and words parted by single spaces.
fn rate(place: &Place, arguments: &str) -> Output {
    let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
    command.env_remove("OPENAI_API_KEY").env("RPO_JUDGE_KEY", KEY).arg("rate");
    command.args(arguments.split(' ').map(|a| a.replace('\u{a0}', " "))).output().expect("runs")
}

fn rated(place: &Place, arguments: &str) -> (String, String) {
    let output = rate(place, arguments);
    let said = told(&output);
    assert!(output.status.success(), "{arguments}: {}", said.1);
    said
}

fn complaint(place: &Place, arguments: &str) -> String {
    let output = rate(place, arguments);
    assert!(!output.status.success(), "{arguments} succeeded");
    told(&output).1
}

/// A judge that likes `please`, and has no number for `thanks`.
fn likes_please(received: &Received) -> Does {
    let answer = received.asked().split("[Answer]\n").nth(1).expect("an answer");
    let answer = answer.split("\n\nReply").next().expect("its end");
    match answer {
        _ if answer.contains("thanks") => Does::says("How kind!"),
        _ if answer.contains("please") => Does::says("Rating: 9"),
        _ => Does::says("2"),
    }
}

/// Rows of answers, two to each of `n` prompts.
fn answers(place: &Place, n: usize) {
    let row = |i: usize| {
        let prompt = format!("say {}", "yes ".repeat(i / 2).trim_end());
        json!({"prompt": prompt, "response": (["yes please", "no"][i % 2]), "log_prob": -1.5, "seed": 7})
    };
    place.write("answers.jsonl", &(0..2 * n).map(|i| format!("{}\n", row(i))).collect::<String>());
}

#[test]
fn generating_rating_and_training_are_one_loop() {
    let place = Place::with_model();
    place.write("prompts.txt", "say\nsay yes\nsay no\nsay please\nsay yes please\n");
    place.ok(
        "generate --model model --input prompts.txt --sample -n 8 --max-new-tokens 4 --output answers.jsonl --logit-bias yes=30 \
         --logit-bias no=30 --logit-bias please=30 --logit-bias thanks=28",
    );
    let server = StandIn::start(|received, _| likes_please(received));
    let flags = format!("--judge-url {} --judge-model tiny --output rated.jsonl", server.url);
    let (printed, said) = rated(&place, &format!("answers.jsonl {flags} --judge-price 1,2"));
    let given = lines(&read(&place, "answers.jsonl"));
    let (rows, calls) = (lines(&read(&place, "rated.jsonl")), server.calls());
    // One that was drawn twice is asked about once.
    let texts: Vec<&str> = given.iter().filter_map(|row| row["response"].as_str()).collect();
    let unparsed = texts.iter().filter(|text| text.contains("thanks")).count();
    assert!(unparsed > 0 && rows.len() > 5, "the draw has both: {texts:?}");
    assert_eq!(rows.len(), texts.len() - unparsed);
    let judge = format!("tiny at {}/v1/chat/completions", server.url);
    for row in &rows {
        let expected = if row["response"].as_str().expect("a text").contains("please") { 9.0 } else { 2.0 };
        assert_eq!(
            (row["reward"].as_f64(), &row["judge"], &row["template"]),
            (Some(expected), &json!(judge), &json!("rating"))
        );
    }
    let asked: std::collections::BTreeSet<String> = server.received().iter().map(|it| it.asked().to_string()).collect();
    assert_eq!(asked.len(), calls, "nothing is asked twice");
    assert!(printed.contains(&format!("{} of {} answers rated by {judge}", rows.len(), texts.len())), "{printed}");
    assert!(printed.contains(&format!("replies that are no rating: {unparsed}\n")) && printed.contains("`How kind!`"));
    let cost = calls as f64 * 13.0 / 1e6;
    assert!(printed.contains(&format!("tokens: {} read, {calls} written, cost {cost:.4}", 11 * calls)), "{printed}");
    assert!(printed.contains("   9  ####") && !said.contains("warning"), "{printed}{said}");

    let trained =
        place.ok("train rpo --model model --data rated.jsonl --out run --max-steps 2 --validation-fraction 0");
    assert!(trained.contains("last: run/last"), "{trained}");
    let kept = read(&place, "rated.jsonl.judge.jsonl");
    assert_eq!(kept.lines().count(), calls);
    for name in names(place.0.path()) {
        let path = place.path(&name);
        let bytes = if path.is_file() { std::fs::read(path).expect("a file") } else { Vec::new() };
        assert!(!String::from_utf8_lossy(&bytes).contains(KEY), "the key is in {name}");
    }

    // Again: nothing is asked; without --resume nothing is written over; elsewhere the verdicts can be replayed.
    let said = complaint(&place, &format!("answers.jsonl {flags}"));
    assert!(said.contains("rated.jsonl already exists; go on with it (--resume)"), "{said}");
    let before = read(&place, "rated.jsonl");
    let (printed, _) = rated(&place, &format!("answers.jsonl {flags} --resume"));
    assert!(printed.contains(&format!("calls: 0; {} replies were there already", texts.len())), "{printed}");
    assert_eq!((read(&place, "rated.jsonl"), server.calls()), (before.clone(), calls));
    rated(&place, "answers.jsonl --judge-replay rated.jsonl.judge.jsonl --output replayed.jsonl");
    let replayed = lines(&read(&place, "replayed.jsonl"));
    let rewards = |rows: &[Value]| rows.iter().map(|row| row["reward"].clone()).collect::<Vec<_>>();
    assert_eq!(rewards(&replayed), rewards(&lines(&before)));
}

/// Starts `rpo rate` with a server that takes a while for each call.
fn start(place: &Place, server: &StandIn) -> Child {
    let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
    let flags = ["rate", "answers.jsonl", "--judge-model", "tiny", "--output", "rated.jsonl", "--judge-parallel", "4"];
    command.args(flags).args(["--judge-url", &server.url]).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("runs");
    let began = Instant::now();
    while server.calls() < 20 {
        assert!(began.elapsed() < Duration::from_secs(30), "{} calls", server.calls());
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn slow() -> StandIn {
    StandIn::start(|received, _| {
        std::thread::sleep(Duration::from_millis(20));
        likes_please(received)
    })
}

/// How often each question was asked.
fn counts(server: &StandIn) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    server.received().iter().for_each(|it| *counts.entry(it.asked().to_string()).or_default() += 1);
    counts
}

#[cfg(unix)]
#[test]
fn what_was_replied_before_a_kill_is_not_asked_again() {
    let (place, server) = (Place::new(), slow());
    answers(&place, 100);
    let mut child = start(&place, &server);
    child.kill().expect("killed");
    child.wait().expect("ended");
    // What a kill within a write leaves.
    let store = place.path("rated.jsonl.judge.jsonl");
    let kept = std::fs::read_to_string(&store).expect("kept");
    std::fs::write(&store, format!("{kept}{{\"key\":\"ab")).expect("torn");
    assert!(!place.path("rated.jsonl").exists());
    let (printed, said) =
        rated(&place, &format!("answers.jsonl --judge-model tiny --output rated.jsonl --judge-url {}", server.url));
    assert!(said.contains("its last 10 bytes are no whole reply and were dropped"), "{said}");
    assert!(printed.contains("200 of 200 answers rated"), "{printed}");
    let counts = counts(&server);
    let again: usize = counts.values().map(|n| n - 1).sum();
    assert_eq!(counts.len(), 200);
    assert!(again <= 4, "{again} questions were asked again, and four calls were under way");
    let keys: std::collections::BTreeSet<String> =
        lines(&read(&place, "rated.jsonl.judge.jsonl")).iter().map(|line| line["key"].to_string()).collect();
    assert_eq!((keys.len(), lines(&read(&place, "rated.jsonl")).len()), (200, 200));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_soon_and_loses_no_reply() {
    let (place, server) = (Place::new(), slow());
    answers(&place, 100);
    let mut child = start(&place, &server);
    let began = Instant::now();
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let status = child.wait().expect("ended");
    assert_eq!(status.code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let (printed, said) =
        rated(&place, &format!("answers.jsonl --judge-model tiny --output rated.jsonl --judge-url {}", server.url));
    assert!(said.contains("replies are there; what they answer is not asked again"), "{said}");
    assert!(printed.contains("200 of 200 answers rated"), "{printed}");
    assert_eq!(counts(&server).values().copied().collect::<Vec<_>>(), [1; 200], "calls under way could end");
}

#[test]
fn a_cap_and_questions_without_a_reply_are_told_and_made_up_for() {
    let place = Place::new();
    answers(&place, 10);
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let server = StandIn::start(move |received, _| match received.asked().contains("say yes yes\n") {
        true if is_broken.load(Ordering::SeqCst) => Does::status(400, "not that one"),
        _ => likes_please(received),
    });
    let flags = format!("answers.jsonl --judge-url {} --judge-model tiny --output rated.jsonl", server.url);
    let (printed, said) = rated(&place, &format!("{flags} --max-judge-calls 12 --judge-parallel 1"));
    assert!(printed.contains("10 of 20 answers rated") && printed.contains("calls: 12\n"), "{printed}");
    assert!(said.contains("8 questions were not asked: 12 calls were allowed (--max-judge-calls)"), "{said}");
    assert!(said.contains("2 questions got no reply, the last of them: HTTP 400, which says: not that one"), "{said}");
    broken.store(false, Ordering::SeqCst);
    let (printed, said) = rated(&place, &format!("{flags} --resume"));
    assert!(printed.contains("20 of 20 answers rated") && printed.contains("calls: 10; 10 replies"), "{printed}");
    assert!(!said.contains("warning"), "{said}");
    let rewards: Vec<f64> =
        lines(&read(&place, "rated.jsonl")).iter().filter_map(|row| row["reward"].as_f64()).collect();
    assert_eq!(rewards, [9.0, 2.0].repeat(10), "in the order of the answers");
}

#[cfg(unix)]
#[test]
fn programs_and_models_of_ones_own_judge_too() {
    let place = Place::with_model();
    answers(&place, 3);
    place.write("judge.sh", "read line; case $line in *please*) echo 10;; *) echo 1/10;; esac");
    let (printed, _) = rated(&place, "answers.jsonl --judge-command sh\u{a0}judge.sh --output by-program.jsonl");
    assert!(
        printed.contains("6 of 6 answers rated by `sh judge.sh`") && printed.contains("mean rating 5.5"),
        "{printed}"
    );
    let said = complaint(&place, "answers.jsonl --judge-command false --output x.jsonl");
    assert!(
        said.contains("the judge `false`: 5 questions in a row got no reply, the last one: it ended with"),
        "{said}"
    );
    assert!(!said.contains("replies are kept") && !place.path("x.jsonl").exists(), "{said}");
    let said = complaint(&place, "answers.jsonl --judge-command no-such-program --output x.jsonl");
    assert!(said.contains("it cannot be run (exit status: 127)"), "{said}");
    let said = complaint(&place, "answers.jsonl --judge-command sleep\u{a0}30 --judge-timeout 0.1 --output x.jsonl");
    assert!(said.contains("had not ended after 0.1 s"), "{said}");
    // A fresh model says anything but numbers; what it says is shown and never taken for one.
    let said = complaint(&place, "answers.jsonl --judge-model model --output by-model.jsonl");
    assert!(said.contains("no rating, but `") && said.contains("no answer was rated; nothing is written"), "{said}");
    let chat = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"}], "response": "farewell"});
    place.write("chat.jsonl", &format!("{chat}\n"));
    rated(
        &place,
        "chat.jsonl --prompt-column messages --judge-command tee\u{a0}-a\u{a0}seen.jsonl\u{a0}>/dev/null;echo\u{a0}7 --output chat-rated.jsonl",
    );
    let seen = lines(&read(&place, "seen.jsonl"));
    assert_eq!(seen[0]["prompt"], "User: hi\nAssistant: hello\nUser: bye", "a plain transcript");
    assert_eq!(lines(&read(&place, "chat-rated.jsonl"))[0]["prompt"], chat["messages"], "as it came");
}

#[test]
fn what_cannot_be_is_refused_before_anybody_is_asked() {
    let place = Place::new();
    answers(&place, 5);
    let server = StandIn::start(|_, _| Does::status(401, &format!("no such key: {KEY}")));
    let url = format!("--judge-url {} --judge-model m", server.url);
    place.write(
        "bad.toml",
        "name = \"bad\"\nkind = \"pointwise\"\nscale = [1, 5]\nmax-tokens = 5\nuser = \"{prompt}\"\n[verdict]\n",
    );
    place.write("notes.jsonl.judge.jsonl", "my own notes");
    for (arguments, complaints) in [
        (String::new(), ["no judge: name one with --judge-url", "--judge-command"]),
        (format!("--judge-url {}", server.url), ["which of its models judges?", "--judge-model"]),
        (format!("{url} --judge-template short"), ["--judge-template short", "single answers are rated here"]),
        (
            format!("{url} --judge-template bad.toml"),
            ["bad.toml: user: a pointwise template needs the slot {response}", ""],
        ),
        (format!("{url} --judge-template none"), ["none: no such template", "mtbench-like, rating"]),
        (format!("{url} --judge-model n"), ["2 judges are named, and one is to rate", ""]),
        (format!("{url} --judge-store notes.jsonl.judge.jsonl"), ["line 1 is not one of a store", "replies of judges"]),
        (format!("{url} --judge-store no/where"), ["cannot write no/where", ""]),
        ("--judge-url ftp://x --judge-model m".into(), ["judge-url: it is no address that begins with http", ""]),
        (
            "--judge-model nowhere".into(),
            ["--judge-model nowhere: without --judge-url it is a model directory", "no model"],
        ),
        (format!("{url} --judge-parallel 0"), ["--judge-parallel", "not between 1 and 1024"]),
        (format!("{url} --judge-timeout 0"), ["--judge-timeout", "not between"]),
        (format!("{url} --judge-price 3"), ["--judge-price", "two prices"]),
    ] {
        let said = complaint(&place, format!("answers.jsonl --output x.jsonl {arguments}").trim_end());
        complaints.iter().for_each(|part| assert!(said.contains(part), "{arguments}: {said}"));
    }
    let said = complaint(&place, &format!("answers.jsonl --output no/x.jsonl {url}"));
    assert!(said.contains("there is no directory no"), "{said}");
    assert_eq!(server.calls(), 0);
    let said = complaint(&place, &format!("answers.jsonl --output x.jsonl {url} --judge-parallel 1"));
    assert!(
        said.contains("HTTP 401, which says: no such key: [key]; the key was refused (set RPO_JUDGE_KEY"),
        "{said}"
    );
    assert_eq!(server.calls(), 1, "nobody else is asked with a wrong key");
}
