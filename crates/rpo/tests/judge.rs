//! Judges over HTTP against a server that fails in every way that servers do: what is tried again, what ends a hearing, what is
//! kept, and what is never asked twice.

#[path = "common/stand_in.rs"]
mod stand_in;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rpo::Error;
use rpo::evaluate::judge::{
    Case, Choice, Court, Endpoint, EndpointSettings, Judge, Judged, Limits, Outcome, Store, Stored, Tally, Template,
    Verdict, pairwise, questions,
};
use rpo::stop::Stop;
use stand_in::{Does, Received, StandIn, completion};

const KEY: &str = "sk-never-to-be-seen";

fn endpoint(url: &str) -> Endpoint {
    let deadline = Duration::from_millis(700);
    let settings = EndpointSettings {
        url: url.into(),
        model: "tiny".into(),
        name: None,
        key: Some(KEY.into()),
        deadline,
        parallel: 32,
    };
    Endpoint::new(settings).expect("an address")
}

fn limits() -> Limits {
    Limits { parallel: 4, pause: Duration::from_millis(5), ..Limits::default() }
}

fn single(i: usize) -> Case {
    Case::Single { prompt: format!("prompt {i}"), response: format!("response {i} {{prompt}}") }
}

/// What `n` questions come to, in their order, and the counts.
fn rate(
    judge: &dyn Judge,
    store: Option<&Store>,
    limits: &Limits,
    n: usize,
) -> (Vec<Option<Outcome>>, Result<Tally, Error>) {
    let (template, stop) = (Template::named("rating").expect("built in"), Stop::new());
    let court = Court { judge, template: &template, store, limits, stop: &stop };
    let mut found = vec![None; n];
    let mut each = |i: usize, outcome| {
        assert!(found[i].is_none(), "question {i} has two outcomes");
        found[i] = Some(outcome);
        Ok(())
    };
    let tally = court.hear((0..n).map(|i| Ok((i, single(i)))), &mut each, &mut |_| {});
    (found, tally)
}

fn rating(outcome: Option<&Outcome>) -> Option<f64> {
    match outcome {
        Some(Outcome::Heard(heard)) => match heard.verdict {
            Verdict::Rating(rating) => rating,
            Verdict::Choice(_) => panic!("no rating"),
        },
        _ => None,
    }
}

/// The number in `prompt 7`.
fn number(received: &Received) -> usize {
    let asked = received.asked().split("prompt ").nth(1).expect("a prompt");
    asked.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).expect("a number")
}

fn ratings(n: usize) -> Vec<Option<f64>> {
    (0..n).map(|i| Some((1 + i % 10) as f64)).collect()
}

fn says_its_rating(received: &Received) -> Does {
    Does::Says((1 + number(received) % 10).to_string())
}

fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("replies.jsonl")).expect("a store")
}

fn complaint(result: Result<Tally, Error>) -> String {
    let said = result.expect_err("an error").to_string();
    assert!(!said.contains(KEY), "{said}");
    said
}

#[test]
fn every_question_is_asked_once_and_its_reply_kept_and_used_again() {
    let server = StandIn::start(|received, _| says_its_rating(received));
    let dir = tempfile::tempdir().expect("temporary directory");
    let judge = endpoint(&server.url);
    let kept = store(&dir);
    let (found, tally) = rate(&judge, Some(&kept), &limits(), 50);
    let tally = tally.expect("heard");
    assert_eq!(found.iter().map(|it| rating(it.as_ref())).collect::<Vec<_>>(), ratings(50));
    assert_eq!((tally.replies, tally.reused, tally.calls, tally.untold), (50, 0, 50, 0));
    assert_eq!((tally.usage.input, tally.usage.output), (550, 50));
    assert!((tally.cost(2.0, 4.0) - 0.0013).abs() < 1e-12);
    let sent = server.received();
    assert_eq!(sent.len(), 50);
    assert!(sent[0].head.starts_with("POST /v1/chat/completions"), "{}", sent[0].head);
    assert!(sent[0].head.contains(&format!("Bearer {KEY}")));
    assert_eq!((&sent[0].body["model"], &sent[0].body["stream"]), (&"tiny".into(), &false.into()));
    assert!(sent.iter().all(|it| it.asked().contains("{prompt}")), "a response's braces are text");

    drop(kept);
    let text = std::fs::read_to_string(dir.path().join("replies.jsonl")).expect("kept");
    assert_eq!(text.lines().count(), 50);
    assert!(!text.contains(KEY) && text.contains("chat.completion") && text.contains("prompt 49"));
    let (found, tally) = rate(&judge, Some(&store(&dir)), &limits(), 60);
    let tally = tally.expect("heard");
    assert_eq!(found.iter().map(|it| rating(it.as_ref())).collect::<Vec<_>>(), ratings(60));
    assert_eq!((tally.replies, tally.reused, tally.calls, server.calls()), (60, 50, 10, 60));
}

type Failure = Box<dyn Fn() -> Does + Send + Sync>;

#[test]
fn what_fails_in_passing_is_tried_again() {
    // Each in turn, then a reply.
    let half = completion("7").to_string();
    let half = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", half.len(), &half[..40]);
    let failures: Vec<(&str, Failure)> = vec![
        ("429", Box::new(|| Does::Sends(429, "retry-after: 0.2\r\n", "slow down".into()))),
        ("500", Box::new(|| Does::status(500, "{\"error\":\"overloaded\"}"))),
        ("503", Box::new(|| Does::status(503, ""))),
        ("closed", Box::new(|| Does::Breaks(Vec::new()))),
        ("closed within a reply", Box::new(move || Does::Breaks(half.clone().into_bytes()))),
        ("no HTTP", Box::new(|| Does::Breaks(b"hello, I am no web server\r\n\r\n".to_vec()))),
        ("half a reply", Box::new(|| Does::status(200, "{\"choices\":[{\"message\":{\"content\":\"7"))),
        (
            "a broken stream",
            Box::new(|| Does::status(200, "data: {\"choices\":[{\"delta\":{\"content\":\"7\"}}]}\n\n")),
        ),
        ("an error as a reply", Box::new(|| Does::status(200, "{\"error\":{\"message\":\"busy\",\"code\":503}}"))),
        ("nothing", Box::new(|| Does::status(200, ""))),
        ("silence", Box::new(|| Does::Waits(Duration::from_secs(2)))),
    ];
    for (what, fails) in failures {
        let server = StandIn::start(move |_, before| if before < 2 { fails() } else { Does::says("7") });
        let began = Instant::now();
        let one = Limits { parallel: 1, ..limits() };
        let (found, tally) = rate(&endpoint(&server.url), None, &one, 1);
        let tally = tally.unwrap_or_else(|problem| panic!("{what}: {problem}"));
        assert_eq!(rating(found[0].as_ref()), Some(7.0), "{what}");
        assert_eq!((tally.calls, tally.retries, server.calls()), (3, 2, 3), "{what}");
        let waited = began.elapsed();
        assert!(what != "429" || waited >= Duration::from_millis(400), "it was left alone for {waited:?} only");
        assert!(what != "silence" || waited >= Duration::from_millis(1400), "{waited:?}");
    }
}

#[test]
fn a_limit_on_rates_is_waited_out_as_long_as_others_are_served() {
    // One call in so many is served; each question is refused more often than it may be tried again.
    let server = StandIn::start(|received, before| match before % 12 {
        11 => says_its_rating(received),
        _ => Does::Sends(429, "retry-after: 0.01\r\n", String::new()),
    });
    let (found, tally) = rate(&endpoint(&server.url), None, &Limits { parallel: 24, retries: 12, ..limits() }, 24);
    let tally = tally.expect("heard");
    assert_eq!((tally.replies, tally.failed), (24, 0));
    assert_eq!(found.iter().map(|it| rating(it.as_ref())).collect::<Vec<_>>(), ratings(24));
}

#[test]
fn a_server_that_only_fails_ends_the_hearing_and_says_why() {
    for (does, complaints) in [
        (0, ["3 questions in a row", "HTTP 500, which says: out of memory", "(tried 3 times)"]),
        (1, ["3 questions in a row", "a reply that cannot be read: half a JSON object: {\"choices", "(tried 3 times)"]),
        (2, ["3 questions in a row", "no reply within 0.7 s", "(tried 3 times)"]),
        (3, ["3 questions in a row", "a reply of more than 8 MiB", "in a row"]),
        (4, ["3 questions in a row", "HTTP 413, which says: too long", "in a row"]),
        (5, ["a page of HTML instead of JSON", "<title>Welcome</title>", "is the address right?"]),
        (6, ["HTTP 401, which says: bad key [key]", "the key was refused", "RPO_JUDGE_KEY"]),
        (7, ["HTTP 404, which says: no such model", "is the address right", "model"]),
        (8, ["HTTP 302", "points to http://elsewhere.invalid/", "give that address"]),
        (9, ["wants to be left alone for 7200 s", "HTTP 429", "come back"]),
    ] {
        let server = StandIn::start(move |_, _| match does {
            0 => Does::status(500, "out of\nmemory"),
            1 => Does::status(200, "{\"choices\":[{\"mess"),
            2 => Does::Waits(Duration::from_secs(3)),
            3 => Does::status(200, &" ".repeat(9 << 20)),
            4 => Does::status(413, "too long"),
            5 => Does::Sends(200, "content-type: text/html\r\n", "<!doctype html>\n<title>Welcome</title>".into()),
            6 => Does::status(401, &format!("bad key {KEY}")),
            7 => Does::status(404, "no such model"),
            8 => Does::Sends(302, "location: http://elsewhere.invalid/\r\n", String::new()),
            _ => Does::Sends(429, "retry-after: 7200\r\n", "come back tomorrow".into()),
        });
        let dir = tempfile::tempdir().expect("temporary directory");
        let kept = store(&dir);
        let limits = Limits { parallel: 1, retries: 2, failures_in_a_row: 3, ..limits() };
        let (found, result) = rate(&endpoint(&server.url), Some(&kept), &limits, 20);
        let said = complaint(result);
        complaints.iter().for_each(|part| assert!(said.contains(part), "{part}: {said}"));
        assert!(said.contains(&format!("the judge tiny at {}/v1/chat/completions: ", server.url)), "{said}");
        assert!(server.calls() <= 9, "{} calls", server.calls());
        assert!(found.iter().all(|it| !matches!(it, Some(Outcome::Heard(_)))), "nothing is taken for a reply");
        drop(kept);
        let text = std::fs::read_to_string(dir.path().join("replies.jsonl")).expect("kept");
        assert!(!text.contains(KEY) && !text.contains("\"reply\""), "{text}");
        assert_eq!(store(&dir).replies(), 0, "a failure is no answer");
    }
    let nobody = format!("http://{}", {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    });
    let said = complaint(rate(&endpoint(&nobody), None, &Limits { retries: 1, ..limits() }, 20).1);
    assert!(said.contains("the connection was refused; is the server running?"), "{said}");
}

#[test]
fn single_failures_are_asked_again_another_time_and_nothing_else_is() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_broken = std::sync::Arc::clone(&broken);
    let server = StandIn::start(move |received, _| match number(received) % 5 {
        3 if is_broken.load(Ordering::SeqCst) => Does::status(400, "that I do not read"),
        4 => Does::says("I would rather not say"),
        _ => says_its_rating(received),
    });
    let dir = tempfile::tempdir().expect("temporary directory");
    let judge = endpoint(&server.url);
    let kept = store(&dir);
    let (found, tally) = rate(&judge, Some(&kept), &limits(), 20);
    let tally = tally.expect("heard");
    assert_eq!((tally.replies, tally.failed, tally.unparsed, tally.calls), (16, 4, 4, 20));
    assert_eq!(tally.last_failure.as_deref(), Some("HTTP 400, which says: that I do not read"));
    assert!(matches!(&found[3], Some(Outcome::Failed(said)) if said.contains("HTTP 400")));
    let Some(Outcome::Heard(unparsed)) = &found[4] else { panic!("a reply") };
    assert_eq!(unparsed.verdict, Verdict::Rating(None), "never a number");
    assert_eq!(unparsed.unparsed.as_deref(), Some("I would rather not say"));
    broken.store(false, Ordering::SeqCst);
    let (found, tally) = rate(&judge, Some(&kept), &limits(), 20);
    let tally = tally.expect("heard");
    assert_eq!((tally.replies, tally.reused, tally.failed, tally.calls), (20, 16, 0, 4));
    assert_eq!(rating(found[3].as_ref()), Some(4.0));
}

#[test]
fn questions_that_a_filter_refuses_end_no_hearing_now_or_later() {
    // Eight in a row, more than may fail of a judge that replies to nothing.
    let server = StandIn::start(|received, _| match number(received) {
        20..28 => Does::status(400, r#"{"error":{"message":"content filter","code":"content_filter"}}"#),
        _ => says_its_rating(received),
    });
    let dir = tempfile::tempdir().expect("temporary directory");
    let judge = endpoint(&server.url);
    let kept = store(&dir);
    for calls in [40, 8] {
        let (found, tally) = rate(&judge, Some(&kept), &limits(), 40);
        let tally = tally.expect("it ends as it should");
        assert_eq!((tally.replies, tally.failed, tally.calls), (32, 8, calls));
        assert!((20..28).all(|i| rating(found[i].as_ref()).is_none()) && rating(found[39].as_ref()) == Some(10.0));
    }
}

#[test]
fn no_more_calls_are_made_than_allowed_retries_among_them() {
    let server = StandIn::start(|received, before| match before {
        3 => Does::status(500, ""),
        _ => says_its_rating(received),
    });
    let dir = tempfile::tempdir().expect("temporary directory");
    let (judge, kept) = (endpoint(&server.url), store(&dir));
    let capped = Limits { most_calls: Some(12), ..limits() };
    let (_, tally) = rate(&judge, Some(&kept), &capped, 30);
    let tally = tally.expect("heard");
    assert_eq!((tally.calls, tally.replies, tally.unasked, server.calls()), (12, 11, 19, 12));
    let (_, tally) = rate(&judge, Some(&kept), &capped, 30);
    assert_eq!(tally.map(|tally| (tally.replies, tally.unasked)).ok(), Some((23, 7)));
    let (found, tally) = rate(&judge, Some(&kept), &capped, 30);
    assert_eq!(tally.map(|tally| (tally.replies, tally.calls)).ok(), Some((30, 7)));
    assert_eq!(found.iter().map(|it| rating(it.as_ref())).collect::<Vec<_>>(), ratings(30));
}

#[test]
fn equal_questions_are_asked_once_even_while_the_first_is_under_way() {
    let server = StandIn::start(|_, _| {
        std::thread::sleep(Duration::from_millis(100));
        Does::says("6")
    });
    let dir = tempfile::tempdir().expect("temporary directory");
    let (judge, kept, limits, stop) = (endpoint(&server.url), store(&dir), limits(), Stop::new());
    let template = Template::named("rating").expect("built in");
    let court = Court { judge: &judge, template: &template, store: Some(&kept), limits: &limits, stop: &stop };
    let mut heard = 0;
    let mut each = |(), outcome: Outcome| {
        assert_eq!(rating(Some(&outcome)), Some(6.0));
        heard += 1;
        Ok(())
    };
    let tally = court.hear((0..40).map(|_| Ok(((), single(1)))), &mut each, &mut |_| {}).expect("heard");
    assert_eq!((heard, tally.replies, tally.reused, tally.calls, server.calls()), (40, 40, 39, 1, 1));
}

#[test]
fn a_stream_is_read_although_none_was_asked_for_and_refused_parameters_are_left_out() {
    let pieces = "data: {\"choices\":[{\"delta\":{\"content\":\"Rating: \"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"8\"}}]}\n\n\
                  data: [DONE]\n\n";
    // The server leaves the stream open: it has no length and no end.
    let open = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{pieces}");
    let server = StandIn::start(move |_, _| Does::Breaks(open.clone().into_bytes()));
    let (found, tally) = rate(&endpoint(&server.url), None, &limits(), 3);
    assert_eq!(found.iter().map(|it| rating(it.as_ref())).collect::<Vec<_>>(), [Some(8.0); 3]);
    assert_eq!(tally.expect("heard").untold, 3);

    let server = StandIn::start(|received, _| match received.body.get("response_format") {
        Some(_) => Does::status(400, "{\"error\":{\"message\":\"response_format is not supported\"}}"),
        None if received.body.get("logprobs").is_some() => Does::status(422, "unknown field logprobs"),
        None => Does::says("{\"rating\": 9}"),
    });
    let text = "name = \"json\"\nkind = \"pointwise\"\nscale = [1, 10]\nmax-tokens = 9\nlogprobs = 5\nuser = \"{prompt} {response}\"\n\
                response-format = {type = \"json_object\"}\n[verdict]\nfield = \"rating\"\n";
    let template = Template::parse(text).expect("valid");
    let dir = tempfile::tempdir().expect("temporary directory");
    let (judge, kept, limits, stop) =
        (endpoint(&server.url), store(&dir), Limits { parallel: 1, retries: 0, ..limits() }, Stop::new());
    let court = Court { judge: &judge, template: &template, store: Some(&kept), limits: &limits, stop: &stop };
    let mut each = |_, outcome: Outcome| {
        assert_eq!(rating(Some(&outcome)), Some(9.0));
        Ok(())
    };
    let tally = court.hear((0..4).map(|i| Ok((i, single(i)))), &mut each, &mut |_| {}).expect("heard");
    assert_eq!((tally.calls, tally.without), (6, vec!["logprobs", "response_format"]));
}

#[test]
fn a_wish_to_stop_is_heard_soon_and_nothing_that_came_is_asked_again() {
    let server = StandIn::start(|received, _| match number(received) {
        0..10 => says_its_rating(received),
        _ => Does::Waits(Duration::from_secs(30)),
    });
    let dir = tempfile::tempdir().expect("temporary directory");
    let settings = EndpointSettings {
        url: server.url.clone(),
        model: "tiny".into(),
        name: Some("a name that stays".into()),
        key: None,
        deadline: Duration::from_mins(1),
        parallel: 4,
    };
    let (judge, kept, limits, stop) =
        (Endpoint::new(settings.clone()).expect("valid"), store(&dir), limits(), Stop::new());
    let template = Template::named("rating").expect("built in");
    let court = Court { judge: &judge, template: &template, store: Some(&kept), limits: &limits, stop: &stop };
    let asked_to = Mutex::new(None);
    let mut each = |_, _| Ok(());
    let mut told = |tally: &Tally| {
        if tally.replies == 10 {
            asked_to.lock().expect("time").get_or_insert_with(Instant::now);
            stop.request();
        }
    };
    let stopped = court.hear((0..20).map(|i| Ok((i, single(i)))), &mut each, &mut told);
    assert!(matches!(stopped, Err(Error::Stopped)));
    let took = asked_to.lock().expect("time").expect("asked to").elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    // Elsewhere, under the same name.
    let other = StandIn::start(|received, _| says_its_rating(received));
    let judge = Endpoint::new(EndpointSettings { url: other.url.clone(), ..settings }).expect("valid");
    let (found, tally) = rate(&judge, Some(&kept), &limits, 20);
    assert_eq!(found.iter().map(|it| rating(it.as_ref())).collect::<Vec<_>>(), ratings(20));
    assert_eq!(tally.map(|tally| (tally.reused, tally.calls)).ok(), Some((10, 10)));
}

/// Two models' answers by seed and prompt: the second one's say how good they are; to every fifth prompt both say the same.
fn answers(seeds: usize, prompts: usize) -> (Vec<String>, Vec<Vec<Vec<String>>>) {
    let texts: Vec<String> = (0..prompts).map(|i| format!("prompt {i}")).collect();
    let of = |model: usize| {
        let answer = |seed: usize, i: usize| match i % 5 {
            0 => "the same".to_string(),
            _ => format!("model {model}, seed {seed}, {i}: {}", ["worse", "better"][model * (i % 2)]),
        };
        (0..seeds).map(|seed| (0..prompts).map(|i| answer(seed, i)).collect()).collect()
    };
    (texts, vec![of(0), of(1)])
}

fn judge_pairs(judge: &dyn Judge, store: Option<&Store>, limits: &Limits) -> Result<Judged, Error> {
    let (prompts, answers) = answers(2, 10);
    let (template, stop) = (Template::named("short").expect("built in"), Stop::new());
    let court = Court { judge, template: &template, store, limits, stop: &stop };
    assert_eq!(questions(&answers, &[[0, 1]]), 32);
    pairwise(&court, &prompts, &answers, &[[0, 1]], &mut |_| {})
}

#[test]
fn pairs_are_judged_in_both_orders_and_equal_responses_need_no_judge() {
    // It prefers what is better, the first one where nothing is, and to prompt 6 it has nothing to say.
    let server = StandIn::start(|received, _| {
        let asked = received.asked();
        let better = asked.find("better\n").or_else(|| asked.find(": better"));
        let second = asked.find("[Answer B]").expect("two answers");
        match better.filter(|at| *at > asked.find("[Answer A]").expect("two answers")) {
            _ if asked.contains("prompt 6") => Does::says("Neither."),
            Some(at) if at > second => Does::says("B"),
            _ => Does::says("A"),
        }
    });
    let dir = tempfile::tempdir().expect("temporary directory");
    let (judge, kept) = (endpoint(&server.url), store(&dir));
    let judged = judge_pairs(&judge, Some(&kept), &limits()).expect("judged");
    assert_eq!((judged.pairs.len(), judged.incomplete, server.calls()), (20, 0, 32));
    assert_eq!((judged.tally.identical, judged.tally.unparsed), (4, 4));
    for pair in &judged.pairs {
        let expected = match pair.prompt {
            0 | 5 => (Choice::Tie, Choice::Tie, Some(0.5)),
            6 => (Choice::Unparsed, Choice::Unparsed, None),
            i if i % 2 == 1 => (Choice::Second, Choice::First, Some(0.0)),
            _ => (Choice::First, Choice::First, Some(0.5)),
        };
        assert_eq!((pair.forward, pair.backward, pair.points()), expected, "prompt {}", pair.prompt);
        assert_eq!(pair.models, [0, 1]);
    }
    let places: Vec<_> = judged.pairs.iter().map(|pair| (pair.prompt, pair.seed)).collect();
    assert!(places.is_sorted());
    assert_eq!(judged.pairs[3].lengths, ["model 0, seed 1, 1: worse".len(), "model 1, seed 1, 1: better".len()]);

    // A verdict that was kept serves whoever replays it, and nobody is asked.
    drop(kept);
    let path = dir.path().join("replies.jsonl");
    let replayed = judge_pairs(&Stored::open(&path, None).expect("verdicts"), None, &limits()).expect("replayed");
    assert_eq!((replayed.pairs, replayed.tally.calls, server.calls()), (judged.pairs, 0, 32));
    assert!(Stored::open(&path, Some("tiny")).is_ok());
    let said = Stored::open(&path, Some("huge")).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("no verdict in it; there are replies of tiny at http"), "{said}");

    let (prompts, mut uneven) = answers(2, 10);
    uneven[1][1].pop();
    let (template, stop) = (Template::named("short").expect("built in"), Stop::new());
    let limits = limits();
    let court = Court { judge: &judge, template: &template, store: None, limits: &limits, stop: &stop };
    let said = pairwise(&court, &prompts, &uneven, &[[0, 1]], &mut |_| {}).expect_err("uneven").to_string();
    assert!(said.contains("model 1, seed 1: 9 answers to 10 prompts"), "{said}");
}

#[test]
fn a_pair_with_half_a_verdict_is_counted_and_not_judged() {
    let server = StandIn::start(|_, before| if before == 5 { Does::status(400, "no") } else { Does::says("A") });
    let one = Limits { parallel: 1, ..limits() };
    let judged = judge_pairs(&endpoint(&server.url), None, &one).expect("judged");
    assert_eq!((judged.pairs.len(), judged.incomplete, judged.tally.failed), (19, 1, 1));
}

fn write(dir: &Path, lines: &[serde_json::Value]) -> std::path::PathBuf {
    let path = dir.join("verdicts.jsonl");
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    path
}

#[test]
fn verdicts_of_anybody_are_found_by_their_texts() {
    use serde_json::json;
    let dir = tempfile::tempdir().expect("temporary directory");
    let row = |i: usize, verdict: serde_json::Value| {
        let Case::Single { prompt, response } = single(i) else { panic!("single") };
        json!({"prompt": prompt, "response": response, "verdict": verdict, "by": "Ada"})
    };
    let path = write(dir.path(), &[row(0, json!(3)), row(1, json!("Rating: 4")), row(2, json!("good"))]);
    let (found, tally) = rate(&Stored::open(&path, None).expect("verdicts"), None, &limits(), 20);
    let found: Vec<_> = found.iter().map(|it| rating(it.as_ref())).collect();
    assert_eq!(found[..4], [Some(3.0), Some(4.0), None, None]);
    let tally = tally.expect("what is absent ends nothing");
    assert_eq!((tally.replies, tally.unparsed, tally.failed, tally.calls), (3, 1, 17, 0));
    for (line, complaint) in [
        (row(0, json!(4)), "line 2: `4` for what has the verdict `3` above"),
        (
            json!({"prompt": "p", "response": "r"}),
            "line 2: it is no verdict with the case that it is about: missing field `verdict`",
        ),
        (json!({"prompt": "p", "first": "r", "verdict": "A"}), "`prompt` goes with `first` and `second`, or with"),
        (row(1, json!(null)), "`verdict` is null"),
    ] {
        let path = write(dir.path(), &[row(0, json!(3)), line]);
        let said = Stored::open(&path, None).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.contains(complaint), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_program_judges_within_its_limits() {
    use rpo::evaluate::judge::{Program, program::Allowed};
    let allowed = Allowed { time: Duration::from_secs(20), output: 1000 };
    let ask = |command: &str, allowed: Allowed| rate(&Program::new(command, None, allowed), None, &limits(), 6);
    let (found, tally) = ask("grep -q '\"response\":\"response' && echo 8", allowed);
    assert_eq!(found.iter().map(|it| rating(it.as_ref())).collect::<Vec<_>>(), [Some(8.0); 6]);
    assert_eq!(tally.map(|tally| tally.calls).ok(), Some(6));
    let said = complaint(ask("cat > /dev/null; exit 4", allowed).1);
    assert!(
        // Those that were under way with the fifth may still be counted.
        ["5", "6"]
            .iter()
            .any(|n| said.contains(&format!("the judge `cat > /dev/null; exit 4`: {n} questions in a row")))
            && said.contains("status: 4"),
        "{said}"
    );
    let said = complaint(ask("sleep 30", Allowed { time: Duration::from_millis(200), ..allowed }).1);
    assert!(said.contains("had not ended after 0.2 s"), "{said}");
    assert!(complaint(ask("yes", allowed).1).contains("more than 1000 bytes"));
}

/// `cargo test --workspace --release --test judge -- --ignored --nocapture`: how fast and how flat ten thousand calls are.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_calls() {
    let most = std::sync::Arc::new(AtomicUsize::new(0));
    let (now, highest) = (AtomicUsize::new(0), std::sync::Arc::clone(&most));
    let server = StandIn::forgetful(move |received, _| {
        let under_way = now.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(under_way, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        says_its_rating(received)
    });
    let dir = tempfile::tempdir().expect("temporary directory");
    let (kept, limits) = (store(&dir), Limits { parallel: 32, ..limits() });
    let memory = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("VmHWM:").map(|kb| kb.trim().to_string())).unwrap_or_default()
    };
    let judge = endpoint(&server.url);
    rate(&judge, Some(&kept), &limits, 1000).1.expect("heard");
    let before = memory();
    let began = Instant::now();
    let (_, tally) = rate(&judge, Some(&kept), &limits, 11_000);
    let seconds = began.elapsed().as_secs_f64();
    let calls = tally.expect("heard").calls;
    println!(
        "{calls} calls in {seconds:.2} s: {:.0} a second, {} under way; the server's own limit is {:.0} a second; peak memory {before} \
         after 1,000 calls, {} after 11,000",
        calls as f64 / seconds,
        most.load(Ordering::SeqCst),
        32.0 / 0.005,
        memory()
    );
    assert_eq!((calls, server.calls()), (10_000, 11_000));
}
