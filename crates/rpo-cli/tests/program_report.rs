//! The report of a comparison as the program writes it: one file that asks for nothing, holds every answer, and says where it
//! comes from.

#![cfg(unix)]

#[path = "common/browser.rs"]
mod browser;
mod common;

use std::path::Path;

use browser::{Browser, SCREENS};
use common::Place;

/// Runs the program; an argument may hold spaces.
fn rpo(place: &Place, arguments: &[&str]) {
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace(' ', "\u{a0}")).collect();
    place.ok(&arguments.join(" "));
}

/// A tiny model and rated answers to prompts, some of which look like a page of their own.
fn place() -> Place {
    let place = Place::with_model();
    let row = |i: usize| {
        let prompt = format!("<script>alert({i})</script> {}", "say ".repeat(i + 1));
        let responses = serde_json::json!([{"text": "yes please", "reward": 1}, {"text": "no", "reward": 0}]);
        format!("{}\n", serde_json::json!({"prompt": prompt, "responses": responses}))
    };
    place.write("data.jsonl", &(0..20).map(row).collect::<String>());
    place.write("judge.sh", "while read -r line; do echo ${#line}; done");
    place
}

const COMPARE: [&str; 13] = [
    "compare",
    "--model",
    "model",
    "--data",
    "data.jsonl",
    "--max-steps",
    "12",
    "--validate-every",
    "4",
    "--validation-fraction",
    "0.5",
    "--objectives",
    "sft,rpo",
];

#[test]
fn a_report_needs_nothing_else_and_shows_every_answer() {
    let place = place();
    let with = [&COMPARE[..], &["--out", "judged", "--max-new-tokens", "4", "--judge", "sh judge.sh", "--seeds", "2"]];
    rpo(&place, &with.concat());
    let page = std::fs::read_to_string(place.path("judged/report.html")).expect("report");
    for outside in ["http://", "https://", " src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let links: Vec<&str> = page.split("href=\"").skip(1).collect();
    assert!(links.len() >= 5 && links.iter().all(|link| link.starts_with('#')), "{links:?}");
    assert!(page.contains("default-src 'none'"));
    // The user's markup is text, in the table of answers and elsewhere.
    assert_eq!(page.matches("<script>").count(), 1, "the page's own");
    assert!(page.contains("&lt;script&gt;alert("));

    // Each held-out prompt is shown, with two answers of each of the three models, and all are there as data too.
    let (cards, data) = page.split_once("<script type=\"application/json\" id=\"generations-data\">").expect("data");
    assert_eq!((cards.matches("<article").count(), cards.matches("class=\"answer ").count()), (10, 2 * 3 * 10));
    assert_eq!(cards.matches("<span>reward ").count(), 2 * 3 * 10);
    let data: serde_json::Value = serde_json::from_str(data.split("</script>").next().expect("data")).expect("JSON");
    let json = std::fs::read_to_string(place.path("judged/compare.json")).expect("figures");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let rewards = json["models"][1]["rewards"].as_array().expect("rewards");
    for (i, mean) in rewards.iter().enumerate() {
        let of = |draw: usize| data["prompts"][i]["a"][1][draw][1].as_f64().expect("a reward");
        assert_eq!(mean.as_f64(), Some(f64::midpoint(of(0), of(1))));
    }

    // Bars with the start's value and a level of one half, and losses raw and smoothed.
    for shown in [
        "Mean reward of drawn answers",
        "as good as the start",
        "class=\"whisker\"",
        "training, mean of 3 steps",
        "class=\"median\"",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    looked_at(&place.path("judged/report.html"), 10);
    let start = std::fs::read_to_string(place.path("judged/start.json")).expect("start");
    let start: serde_json::Value = serde_json::from_str(&start).expect("JSON");
    let fingerprint = start["basis"]["data-fingerprint"].as_str().expect("a fingerprint");
    for origin in [
        concat!("rpo ", env!("CARGO_PKG_VERSION")),
        "rpo compare --model model",
        "--judge &#39;sh judge.sh&#39;",
        fingerprint,
        " UTC</dd>",
        "Settings of rpo</summary>",
        "validation-fraction = 0.5",
    ] {
        assert!(page.contains(origin), "{origin}");
    }
}

/// In a browser, if one is installed: all of so many prompts are found.
fn looked_at(report: &Path, prompts: usize) {
    let Some(mut browser) = Browser::start() else { return };
    for screen in SCREENS {
        browser.open(report, "#p7", screen);
        browser.wait("document.activeElement.id === 'p7'");
        assert_eq!(browser.overflow(), (0.0, String::new()), "{screen:?}");
        assert_eq!(browser.faint(), [] as [String; 0], "{screen:?}");
        let counted = browser.text("document.querySelector('.controls output').textContent");
        assert!(counted.starts_with(&format!("{prompts} of {prompts} prompts")), "{counted}");
    }
    assert_eq!(browser.problems(), [] as [String; 0]);
}

#[test]
fn the_page_of_an_evaluation_fits_its_screens_and_finds_what_a_judge_said() {
    let place = Place::new();
    let answers = |name: &str| -> String {
        let row = |i: usize| {
            let response = format!("{name} {} <b>{i}</b>", "says ".repeat(1 + (i * 7 + name.len()) % 5));
            format!("{}\n", serde_json::json!({"prompt": format!("<script>alert({i})</script>"), "response": response}))
        };
        (0..30).map(row).collect()
    };
    place.write("a.jsonl", &answers("the-first-of-models"));
    place.write("b.jsonl", &answers("another"));
    place.write("judge.sh", "read -r line; case \"$line\" in *'\"first\":\"another'*) echo A;; *) echo B;; esac");
    place.write("place.sh", "echo A");
    let evaluate =
        ["evaluate", "--outputs", "a.jsonl", "--outputs", "b.jsonl", "--references", "b.jsonl", "--out", "eval"];
    rpo(&place, &[&evaluate[..], &["--judge-command", "sh judge.sh", "--judge-command", "sh place.sh"]].concat());
    let report = place.path("eval/report.html");
    let page = std::fs::read_to_string(&report).expect("report");
    assert_eq!(page.matches("<script>").count(), 1, "the page's own");
    assert!(page.contains("not to be trusted") && page.contains("Wins of a, by sh judge.sh"));
    looked_at(&report, 30);
}

#[test]
fn ranks_are_not_drawn_where_they_do_not_exist() {
    let place = place();
    let train = ["train", "sft", "--model", "model", "--data", "data.jsonl", "--out", "run", "--max-steps", "3"];
    rpo(&place, &train);
    let from_run = COMPARE.map(|argument| if argument == "model" { "run/last" } else { argument });
    rpo(&place, &[&from_run[..], &["--out", "ranked"]].concat());
    let page = std::fs::read_to_string(place.path("ranked/report.html")).expect("report");
    let chart = page.split("<b>Ranking of the rated responses</b>").last().expect("chart");
    let described = chart.split("aria-label=\"").nth(1).and_then(|label| label.split('"').next()).expect("label");
    // The start ranks nothing: the first value is that of the first validation after it.
    assert!(described.contains("rpo: from ") && described.contains(" at 4 to "), "{described}");
    assert!(!described.contains("at 0"), "{described}");
    // Held-out losses do begin at the start.
    assert!(page.contains("<title>held out: ") && page.contains(" at 0</title>"));
    assert!(page.contains("Settings of the run that made the start") && page.contains("max-steps = 3\n"));
    // Without a judge there is nothing to say of rewards and answers.
    for absent in ["Mean reward", "Wins against", "id=\"generations\"", "How answers are drawn"] {
        assert!(!page.contains(absent), "{absent}");
    }
}
