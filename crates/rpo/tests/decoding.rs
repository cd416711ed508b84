//! How tokens are chosen, against Hugging Face transformers and against what must change nothing: what else is answered, how
//! many rows there are, who leaves early. The answers were made by `goldens/make_decoding.py`.

mod common;

use std::collections::BTreeMap;

use common::{data, device, goldens, load};
use rpo::generate::{Decoding, Emitted, Engine, Finish, Processors, Request, RequestId, StoredDecoding};
use rpo::model::Model;
use rpo::score::score_set;
use serde::Deserialize;
use serde_json::Value;

const MODELS: [&str; 9] = ["gated_untied", "relu_tied", "mt5", "umt5", "llama", "llama3", "qwen2", "qwen3", "yarn"];

#[derive(Deserialize)]
struct Made {
    prompts: Vec<Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    settings: Value,
    /// Of each prompt its answers.
    outputs: Vec<Vec<Vec<u32>>>,
}

fn made(model: &str) -> Made {
    let text = std::fs::read_to_string(goldens().join(model).join("decoding.json")).expect("golden file");
    serde_json::from_str(&text).expect("golden file")
}

/// The settings as a model's generation_config.json would give them, and the number of answers.
fn settings(case: &Value) -> (Decoding, usize) {
    let mut fields = case.as_object().expect("settings").clone();
    let answers = fields.remove("num_return_sequences").and_then(|n| n.as_u64()).unwrap_or(1);
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("generation_config.json"), Value::Object(fields).to_string()).expect("written");
    let stored = StoredDecoding::read(dir.path(), &Decoding::default()).expect("valid").expect("there");
    assert_eq!(stored.unsupported, Vec::<String>::new());
    (stored.decoding, answers as usize)
}

/// What was emitted of a request, answer by answer.
#[derive(Debug, Default, PartialEq)]
struct Answers(BTreeMap<usize, Vec<Emitted>>);

impl Answers {
    fn tokens(&self) -> Vec<Vec<u32>> {
        self.0.values().map(|answer| answer.iter().map(|emitted| emitted.token).collect()).collect()
    }

    fn log_probs(&self) -> Vec<f32> {
        self.0.values().map(|answer| answer.iter().map(|emitted| emitted.log_prob).sum()).collect()
    }
}

/// Takes steps until nothing is left to do. `heard` is told of each step's tokens and may cancel.
fn finish(engine: &mut Engine, mut heard: impl FnMut(&mut Engine, &[Emitted])) -> BTreeMap<RequestId, Answers> {
    let mut all: BTreeMap<RequestId, Answers> = BTreeMap::new();
    while !engine.idle() {
        let emitted = engine.step().expect("a step");
        for token in &emitted {
            all.entry(token.request).or_default().0.entry(token.answer).or_default().push(*token);
        }
        heard(engine, &emitted);
    }
    all
}

/// Answers all requests together with at most `rows` rows.
fn answer(model: &Model, rows: usize, requests: &[Request]) -> Vec<Answers> {
    let mut engine = Engine::new(model, rows).expect("an engine");
    let ids: Vec<RequestId> = requests.iter().map(|r| engine.add(r.clone()).expect("a request")).collect();
    let mut all = finish(&mut engine, |_, _| {});
    ids.iter().map(|id| all.remove(id).unwrap_or_default()).collect()
}

fn requests(prompts: &[Vec<u32>], decoding: &Decoding, answers: usize) -> Vec<Request> {
    let request = |(index, prompt): (u64, &Vec<u32>)| Request {
        prompt: prompt.clone(),
        decoding: decoding.clone(),
        index,
        answers,
    };
    (0..).zip(prompts).map(request).collect()
}

#[test]
fn answers_equal_transformers_token_for_token() {
    for name in MODELS {
        let (model, Made { prompts, cases }) = (load(name, &device()), made(name));
        assert!(cases.len() > 90);
        // Every setting's requests together, so that rows enter and leave in the middle and stand beside others' settings.
        let mut all = Vec::new();
        for case in &cases {
            let (decoding, answers) = settings(&case.settings);
            all.extend(requests(&prompts, &decoding, answers));
        }
        let wanted = || cases.iter().flat_map(|case| case.outputs.iter().map(|output| (&case.settings, output)));
        // With a single row, each is alone.
        for rows in [1000, 7, 1] {
            for (got, (settings, output)) in answer(&model, rows, &all).iter().zip(wanted()) {
                assert_eq!(&got.tokens(), output, "{name}, {rows} rows: {settings}");
            }
        }
    }
}

/// Drawn answers: published sampling, and flat enough that answers differ.
fn drawn() -> [Decoding; 3] {
    let flat = Processors { temperature: 1.5, min_p: 0.02, ..Processors::default() };
    let base = Decoding { sample: true, max_new_tokens: 12, seed: 5, ..Decoding::default() };
    let published = Decoding { max_new_tokens: 12, seed: 5, ..Decoding::published() };
    [published, Decoding { processors: flat, ..base.clone() }, base]
}

#[test]
fn drawn_answers_depend_on_nothing_beside_them() {
    for name in ["gated_untied", "umt5", "llama", "qwen3"] {
        let (model, Made { prompts, .. }) = (load(name, &device()), made(name));
        for decoding in drawn() {
            let all = requests(&prompts, &decoding, 3);
            let together = answer(&model, 100, &all);
            for few in [1, 4] {
                assert_eq!(tokens(&answer(&model, few, &all)), tokens(&together), "{name}, {few} rows");
            }
            let mut backwards = all.clone();
            backwards.reverse();
            let mut backwards = answer(&model, 5, &backwards);
            backwards.reverse();
            assert_eq!(tokens(&backwards), tokens(&together), "{name}, in another order");
            for (request, answers) in all.iter().zip(&together) {
                assert_eq!(answers.0.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{name}: answers have numbers");
                let one = answer(&model, 1, &[Request { answers: 1, ..request.clone() }]);
                assert_eq!(one[0].tokens()[0], answers.tokens()[0], "{name}: the first of several is a single one's");
            }
            if decoding == drawn()[2] {
                let distinct = |answers: &Answers| answers.tokens().windows(2).all(|two| two[0] != two[1]);
                assert!(together.iter().all(distinct), "{name}: several answers are drawn apart");
            }
        }
    }
}

fn tokens(answers: &[Answers]) -> Vec<Vec<Vec<u32>>> {
    answers.iter().map(Answers::tokens).collect()
}

#[test]
fn log_probabilities_are_those_of_the_scorer() {
    let shaped = Processors {
        repetition_penalty: 1.3,
        no_repeat_ngram_size: 2,
        suppress_tokens: vec![5, 6],
        forced_bos_token_id: Some(9),
        forced_eos_token_id: vec![1],
        ..Processors::default()
    };
    let greedy = Decoding { max_new_tokens: 10, ..Decoding::default() };
    let beams = Decoding { num_beams: 4, ..greedy.clone() };
    let [published, flat, _] = drawn();
    let kinds = [
        (greedy.clone(), 1),
        (Decoding { processors: shaped.clone(), ..greedy }, 1),
        (beams.clone(), 4),
        (Decoding { processors: shaped, min_new_tokens: 3, ..beams }, 2),
        (published, 3),
        (flat, 3),
    ];
    for name in MODELS {
        let (model, Made { prompts, .. }) = (load(name, &device()), made(name));
        for (decoding, answers) in &kinds {
            let found = answer(&model, 9, &requests(&prompts, decoding, *answers));
            let responses: Vec<Vec<u32>> = found.iter().flat_map(Answers::tokens).collect();
            let owners: Vec<usize> = (0..prompts.len()).flat_map(|p| vec![p; *answers]).collect();
            let said: Vec<f32> = found.iter().flat_map(Answers::log_probs).collect();
            assert_eq!((responses.len(), said.len()), (owners.len(), owners.len()), "{name}: every answer came");
            let scores =
                score_set(&model, &data(&prompts, &responses, &owners), 10_000, &mut |_| Ok(())).expect("scores");
            for (row, want) in scores {
                let got = said[row];
                assert!(
                    (got - want).abs() < 1e-4 * want.abs().max(1.0),
                    "{name}, {row}: {got} for {want}, {decoding:?}"
                );
            }
        }
    }
}

#[test]
fn equal_beginnings_change_no_answer() {
    for name in ["relu_tied", "llama", "qwen2"] {
        let (model, Made { prompts, .. }) = (load(name, &device()), made(name));
        let begun = &prompts[0];
        // The same, one more token, another token, half of it, and itself once more.
        let like = [
            begun.clone(),
            [&begun[..], &[7]].concat(),
            [&begun[..begun.len() - 1], &[8]].concat(),
            begun[..begun.len() / 2].to_vec(),
            begun.clone(),
        ];
        let beams = Decoding { num_beams: 2, max_new_tokens: 10, ..Decoding::default() };
        for decoding in [Decoding { num_beams: 1, ..beams.clone() }, beams, drawn()[1].clone()] {
            let all = requests(&like, &decoding, 1);
            let alone: Vec<_> = all.iter().flat_map(|r| tokens(&answer(&model, 1, std::slice::from_ref(r)))).collect();
            for rows in [1, 3, 100] {
                assert_eq!(tokens(&answer(&model, rows, &all)), alone, "{name}, {rows} rows");
            }
        }
    }
}

#[test]
fn what_is_cancelled_changes_nothing_else() {
    for name in ["gated_untied", "llama"] {
        let (model, Made { prompts, .. }) = (load(name, &device()), made(name));
        let beams = Decoding { num_beams: 3, max_new_tokens: 12, min_new_tokens: 8, ..Decoding::default() };
        let mut all = requests(&prompts, &Decoding { min_new_tokens: 8, ..drawn()[2].clone() }, 3);
        all.extend(requests(&prompts, &beams, 1));
        let whole = answer(&model, 100, &all);
        for rows in [5, 100] {
            let mut engine = Engine::new(&model, rows).expect("an engine");
            let ids: Vec<RequestId> = all.iter().map(|r| engine.add(r.clone()).expect("a request")).collect();
            let mut steps = 0;
            let mut found = finish(&mut engine, |engine, _| {
                steps += 1;
                match steps {
                    // The second waits, where rows are few: one of its answers is never begun.
                    1 => engine.cancel(ids[1], 0),
                    4 => {
                        engine.cancel(ids[0], 1);
                        // The fourth is a search, which is ended as a whole.
                        engine.cancel(ids[3], 0);
                    }
                    5 => engine.cancel(ids[0], 1),
                    _ => {}
                }
            });
            for (i, (id, want)) in ids.iter().zip(&whole).enumerate() {
                let (got, want) = (found.remove(id).unwrap_or_default().tokens(), want.tokens());
                match i {
                    0 => assert_eq!(got, [want[0].clone(), want[1][..4].to_vec(), want[2].clone()], "{name}"),
                    1 if rows == 5 => assert_eq!(got, want[1..], "{name}"),
                    1 => assert_eq!(got, [want[0][..1].to_vec(), want[1].clone(), want[2].clone()], "{name}"),
                    3 => assert!(got.is_empty(), "{name}: {got:?}"),
                    _ => assert_eq!(got, want, "{name}, {i}"),
                }
            }
        }
    }
}

#[test]
fn answers_say_why_they_ended() {
    let model = load("gated_untied", &device());
    let Made { prompts, .. } = made("gated_untied");
    let greedy = Decoding { max_new_tokens: 6, ..Decoding::default() };
    let plain = answer(&model, 9, &requests(&prompts, &greedy, 1));
    let reasons = |answers: &Answers| answers.0[&0].iter().map(|emitted| emitted.finish).collect::<Vec<_>>();
    assert_eq!(reasons(&plain[0]), [None, None, None, None, None, Some(Finish::Length)]);
    let third = plain[0].tokens()[0][2];
    for num_beams in [1, 2] {
        let decoding = Decoding { end_ids: vec![60, third], num_beams, ..greedy.clone() };
        let ended = answer(&model, 9, &requests(&prompts, &decoding, 1));
        for answers in &ended {
            let (tokens, reasons) = (&answers.tokens()[0], reasons(answers));
            let end = tokens.iter().position(|token| decoding.end_ids.contains(token));
            let want = if end.is_some() { Finish::End } else { Finish::Length };
            assert!(end.is_none_or(|end| end + 1 == tokens.len()), "nothing follows an end: {tokens:?}");
            assert_eq!(reasons.iter().flatten().collect::<Vec<_>>(), [&want]);
            assert_eq!(reasons.last(), Some(&Some(want)));
        }
        assert!(num_beams > 1 || ended[0].tokens()[0].last() == Some(&third));
    }
}

#[test]
fn what_the_model_lacks_is_refused_by_name() {
    let model = load("gated_untied", &device());
    let mut engine = Engine::new(&model, 4).expect("an engine");
    let mut said = |processors: Processors, end_ids: Vec<u32>| {
        let decoding = Decoding { processors, end_ids, ..Decoding::default() };
        engine.add(Request { prompt: vec![3, 1], decoding, index: 0, answers: 1 }).map_err(|e| e.to_string())
    };
    let none = Processors::default;
    let beyond = |field: &str| Err(format!("{field}: token 61 is beyond the model's 61"));
    assert_eq!(said(none(), vec![1, 61]), beyond("end-ids"));
    assert_eq!(said(Processors { suppress_tokens: vec![60, 61], ..none() }, vec![]), beyond("suppress-tokens"));
    assert_eq!(said(Processors { begin_suppress_tokens: vec![61], ..none() }, vec![]), beyond("begin-suppress-tokens"));
    assert_eq!(
        said(Processors { bad_words_ids: vec![vec![5], vec![61, 4]], ..none() }, vec![]),
        beyond("bad-words-ids")
    );
    assert_eq!(said(Processors { sequence_bias: vec![(vec![61], 1.0)], ..none() }, vec![]), beyond("sequence-bias"));
    assert_eq!(said(Processors { forced_bos_token_id: Some(61), ..none() }, vec![]), beyond("forced-bos-token-id"));
    assert_eq!(said(Processors { forced_eos_token_id: vec![61], ..none() }, vec![]), beyond("forced-eos-token-id"));
    assert!(said(Processors { suppress_tokens: vec![60], ..none() }, vec![60]).is_ok());
}
