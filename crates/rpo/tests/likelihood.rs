//! Given responses from texts in a file to their log-probabilities, against Hugging Face transformers.

mod common;

use std::path::Path;

use common::{Golden, device, load};
use rpo::feedback::{FeedbackSet, Limits, ReadOptions, Split};
use rpo::likelihood::{Given, Reading};
use rpo::reference::{Cached, ReferenceCache, TokenScores};
use rpo::tokenizer::{Cut, Tokenizer, word_level};
use rpo::world::{Alone, World, threads};

/// A tokenizer of words that stand for the ids of a golden model.
fn tokenizer(vocabulary: usize) -> Tokenizer {
    let words: Vec<String> = (3..vocabulary).map(|id| format!("t{id}")).collect();
    Tokenizer::parse(&word_level(&words.iter().map(String::as_str).collect::<Vec<_>>())).expect("valid").decoder_only()
}

fn text(ids: &[u32]) -> String {
    let word = |id: &u32| if *id == 2 { "<unk>".into() } else { format!("t{id}") };
    ids.iter().map(word).collect::<Vec<String>>().join(" ")
}

fn near(got: &[f32], want: &[f32]) -> bool {
    let scale = want.iter().fold(0f32, |most, value| most.max(value.abs()));
    got.len() == want.len() && got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5 * scale)
}

/// A file of rows of these responses under words of their ids, which repeats the first.
fn rows(data: &FeedbackSet) -> String {
    let line = |prompt: &[u32], response: &[u32]| {
        format!("{}\n", serde_json::json!({"prompt": text(prompt), "response": text(response)}))
    };
    let all = data.groups.iter().flat_map(|g| g.responses.iter().map(|r| (&g.prompt[..], &r.ids[..])));
    all.clone().chain(all.take(1)).map(|(prompt, response)| line(prompt, response)).collect()
}

fn read(path: &Path, vocabulary: usize, end: bool) -> Given {
    let limits = Limits { prompt_tokens: 512, response_tokens: 512, cut_prompts: Cut::End };
    let reading = Reading { options: &ReadOptions::default(), id: None, limits, end };
    Given::read(&path.into(), &reading, &tokenizer(vocabulary), &mut |_| ()).expect("readable")
}

#[test]
fn texts_score_as_in_transformers_whatever_is_packed_with_them() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (path, cache) = (dir.path().join("rows.jsonl"), dir.path().join("cache"));
    for name in ["llama", "llama3", "qwen2", "qwen3", "yarn"] {
        let (golden, model) = (Golden::of(name), load(name, &device()));
        let vocabulary = model.config().vocab_size();
        std::fs::write(&path, rows(&golden.data())).expect("write");
        let mut want = golden.floats("token_log_probs");
        let lengths = golden.ids("response_ids", "response_lengths").into_iter().map(|ids| ids.len());
        let mut want: Vec<Vec<f32>> = lengths.map(|n| want.drain(..n).collect()).collect();
        want.push(want[0].clone());
        let given = read(&path, vocabulary, false);
        assert_eq!((given.rows.len(), given.distinct()), (want.len(), want.len() - 1), "{name}");
        for budget in [1, 60, 4096] {
            let (scores, _) = given.score(&model, budget, true, None, &Alone, &mut |_| Ok(())).expect("scored");
            let tokens = scores.tokens.expect("asked for");
            assert!(tokens.iter().zip(&want).all(|(got, want)| near(got, want)), "{name}, {budget} tokens at once");
            let (sums, cached) = given.score(&model, budget, false, None, &Alone, &mut |_| Ok(())).expect("scored");
            assert!(
                sums.sums.iter().zip(&scores.sums).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs()) && cached.is_none()
            );
        }
        // A pass that was stopped goes on where it was.
        let kept = ReferenceCache::new(&cache, &model).expect("hashed");
        let score = |progress: &mut dyn FnMut(usize) -> rpo::Result<()>| {
            given.score(&model, 60, true, Some(&kept), &Alone, progress)
        };
        let stopped = score(&mut |done| if done > 2 { Err(rpo::Error::Stopped) } else { Ok(()) });
        assert!(matches!(stopped, Err(rpo::Error::Stopped)), "{name}");
        let whole = given.score(&model, 60, true, None, &Alone, &mut |_| Ok(())).expect("scored").0;
        assert_eq!(score(&mut |_| Ok(())).expect("gone on"), (whole, Some(Cached::Left)), "{name}");
        // With the token that ends each response: what is before it stays as it was.
        let ended = read(&path, vocabulary, true);
        let cache = ReferenceCache::new(&cache, &model).expect("hashed");
        let score = || ended.score(&model, 4096, true, Some(&cache), &Alone, &mut |_| Ok(())).expect("scored");
        let (scores, cached) = score();
        assert_eq!((cached, score()), (Some(Cached::Left), (scores.clone(), Some(Cached::Found))), "{name}");
        for (i, (got, want)) in scores.tokens.expect("asked for").iter().zip(&want).enumerate() {
            assert!(near(&got[..want.len()], want) && got.len() == want.len() + 1 && got[want.len()] < 0.0, "{name}");
            assert_eq!(ended.ids(i).last(), Some(&1), "{name}");
        }
    }
}

#[test]
fn any_number_of_ranks_scores_alike() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, rows(&Golden::of("qwen2").data())).expect("write");
    for per_token in [false, true] {
        let score = |ranks: usize, cached: bool| {
            let cache = dir.path().join(format!("{ranks}-{per_token}"));
            let on_rank = |world: &dyn World| {
                let model = load("qwen2", &device());
                let given = read(&path, model.config().vocab_size(), true);
                let cache = cached.then(|| ReferenceCache::new(&cache, &model).expect("hashed"));
                given.score(&model, 60, per_token, cache.as_ref(), world, &mut |_| Ok(())).expect("scored").0
            };
            threads::run(ranks, on_rank)
        };
        let alone = score(1, false).remove(0);
        for ranks in [2, 3] {
            // Computed and not kept, computed and kept, and found.
            for cached in [false, true, true] {
                assert_eq!(score(ranks, cached), vec![alone.clone(); ranks], "{ranks} ranks");
            }
        }
    }
}

#[test]
fn tokens_of_encoder_decoder_models_score_as_in_transformers() {
    for name in ["gated_untied", "relu_tied"] {
        let (golden, model) = (Golden::of(name), load(name, &device()));
        let split = Split { train: golden.data(), ..Split::default() };
        for budget in [1, 300, 4096] {
            let (scores, _) =
                TokenScores::cached(&model, &split, budget, None, &Alone, &mut |_| Ok(())).expect("scored");
            let got: Vec<f32> = (0..split.rows()).flat_map(|row| scores.of(row).to_vec()).collect();
            assert!(near(&got, &golden.floats("token_log_probs")), "{name}, {budget} tokens at once");
        }
    }
}
