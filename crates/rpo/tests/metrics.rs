//! Metrics of texts against sacrebleu, rouge-score, NLTK and alt-profanity-check. The values were made by
//! `scripts/metric_goldens.py`.
//!
//! WordNet is looked for where `RPO_WORDNET` says and where Debian's `wordnet-base` puts it, the model of abusive words below
//! `RPO_ASSETS`. What needs them says that it was skipped if they are not there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rpo::evaluate::metric::{Case, Files, Metric, USUAL_WORDNET, text};
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join("metrics.json")).expect("golden file")).expect("JSON")
}

fn cases(golden: &Value) -> Vec<Case> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let case = |case: &Value| Case {
        prompt: String::new(),
        response: text(&case["response"]),
        references: case["references"].as_array().expect("list").iter().map(text).collect(),
    };
    golden["cases"].as_array().expect("list").iter().map(case).collect()
}

fn assert_close(found: Option<f64>, wanted: &Value, what: &str) {
    match (found, wanted.as_f64()) {
        (Some(found), Some(wanted)) => {
            assert!((found - wanted).abs() <= 1e-10 * wanted.abs(), "{what}: {found} instead of {wanted}");
        }
        (found, wanted) => assert_eq!(found, wanted, "{what}"),
    }
}

fn check(metric: &dyn Metric, golden: &Value, name: &str) {
    let cases = cases(golden);
    assert!(cases.len() > 60);
    let (wanted, found) = (&golden["metrics"][name], metric.measure(&cases).expect("measured"));
    assert!(wanted.is_object(), "no values of {name}");
    assert_close(found.of(0..cases.len()), &wanted["all"], name);
    if let Some(each) = wanted["each"].as_array() {
        for ((found, wanted), case) in found.each().into_iter().zip(each).zip(&cases) {
            assert_close(found, wanted, &format!("{name} of {:?} beside {:?}", case.response, case.references));
        }
    }
    let estimate = found.estimate().expect("defined");
    assert!(
        estimate.interval.low <= estimate.interval.mean && estimate.interval.mean <= estimate.interval.high,
        "{name}"
    );
}

#[test]
fn values_equal_the_references() {
    let golden = golden();
    let names = golden["metrics"].as_object().expect("metrics").keys();
    // What has a test of its own, as it needs files.
    let apart = BTreeSet::from(["meteor", "meteor-of-goldens", "abusive-words", "abusive-words-of-goldens"]);
    let names: Vec<&String> = names.filter(|name| !apart.contains(name.as_str())).collect();
    assert_eq!(names.len(), 26, "{names:?}");
    for name in names {
        let metric = text(name, &Files::default()).expect("a metric");
        assert_eq!(metric.about().name, *name);
        check(metric.as_ref(), &golden, name);
    }
}

#[test]
fn meteor_equals_nltk_with_a_dictionary_of_ours_and_with_wordnet() {
    let golden = golden();
    let with =
        |wordnet: PathBuf| text("meteor", &Files { wordnet: Some(wordnet), ..Files::default() }).expect("a dictionary");
    check(with(goldens().join("wordnet")).as_ref(), &golden, "meteor-of-goldens");
    let wordnet = std::env::var_os("RPO_WORDNET").map_or(USUAL_WORDNET.into(), PathBuf::from);
    if !wordnet.join("data.noun").exists() {
        return eprintln!(
            "skipped: no WordNet at {} (apt-get install wordnet-base, or RPO_WORDNET)",
            wordnet.display()
        );
    }
    let meteor = with(wordnet);
    assert!(meteor.about().version.contains("WordNet 3.0"), "{}", meteor.about().version);
    check(meteor.as_ref(), &golden, "meteor");
}

#[test]
fn abusive_words_equal_the_formula_and_the_package() {
    let golden = golden();
    let with = |path: PathBuf| {
        text("abusive-words", &Files { abusive_words: Some(path), ..Files::default() }).expect("a model of words")
    };
    check(with(goldens().join("abusive_words.json")).as_ref(), &golden, "abusive-words-of-goldens");
    let Some(assets) = std::env::var_os("RPO_ASSETS").map(PathBuf::from) else {
        return eprintln!("skipped: RPO_ASSETS is not set");
    };
    let path = assets.join("metrics/toxicity.json");
    if !path.exists() {
        return eprintln!("skipped: no {}", path.display());
    }
    // Its numbers are written with seven digits.
    let metric = with(path);
    let cases = cases(&golden);
    let found = metric.measure(&cases).expect("measured").each();
    for (found, wanted) in found.into_iter().zip(golden["metrics"]["abusive-words"]["each"].as_array().expect("values"))
    {
        assert!((found.expect("known") - wanted.as_f64().expect("a number")).abs() < 1e-6);
    }
}
