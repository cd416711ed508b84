//! What holds of any row of logits and any settings: which tokens may be drawn.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::processors::{Edited, Place};
use super::*;

/// The same cases in every run, unless the environment asks for others.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// Logits no two of which are alike but those that are banned; sometimes more than are looked at first.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![9 => -12.0..12.0f32, 1 => Just(f32::NEG_INFINITY)];
    prop_oneof![4 => 1..60usize, 1 => 300..700usize].prop_flat_map(move |n| vec(logit.clone(), n)).prop_filter(
        "distinct",
        |logits| {
            let mut finite: Vec<f32> = logits.iter().copied().filter(|l| l.is_finite()).collect();
            finite.sort_by(f32::total_cmp);
            !finite.is_empty() && finite.windows(2).all(|pair| pair[1] - pair[0] > 1e-6)
        },
    )
}

/// Settings of which any may be off.
fn processors() -> impl Strategy<Value = Processors> {
    let share = || prop_oneof![Just(1.0f32), 0.05..1.0f32];
    let cutoff = || prop_oneof![Just(0.0f32), 0.001..0.3f32];
    let top_k = prop_oneof![Just(0usize), 1..50usize, 300..400usize];
    (top_k, share(), cutoff(), share(), cutoff(), cutoff(), 0.3..3.0f32).prop_map(
        |(top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, temperature)| Processors {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            epsilon_cutoff,
            eta_cutoff,
            ..Processors::default()
        },
    )
}

fn tokens(kept: &Kept) -> Vec<u32> {
    kept.iter().map(|(token, _)| *token).collect()
}

/// Probabilities of all tokens at a temperature.
fn probabilities(logits: &[f32], temperature: f32) -> Vec<f64> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|l| (f64::from(l - best) / f64::from(temperature)).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_kept_can_be_drawn_and_nothing_else(logits in logits(), processors in processors(), seed: u64) {
        prop_assert!(processors.validate().is_ok());
        let kept = processors.kept(&logits);
        let tokens = tokens(&kept);
        prop_assert!(!tokens.is_empty() && tokens.is_sorted() && tokens.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(tokens.iter().all(|&token| logits[token as usize].is_finite()));
        let (log_probs, entropy) = normalised(&kept);
        let sum: f64 = log_probs.iter().map(|l| f64::from(l.exp())).sum();
        prop_assert!((sum - 1.0).abs() < 1e-4 && entropy > -1e-4, "{sum} {entropy}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..20 {
            let drawn = processors.draw(&logits, &mut rng).expect("a token");
            prop_assert!(tokens.contains(&drawn), "{drawn} of {tokens:?}");
        }
    }

    #[test]
    fn the_order_of_the_vocabulary_does_not_matter(logits in logits(), processors in processors(), turn in 0..700usize) {
        let turn = turn % logits.len();
        let mut turned = logits.clone();
        turned.rotate_left(turn);
        let back = |token: u32| ((token as usize + turn) % logits.len()) as u32;
        let mut of_turned: Vec<u32> = tokens(&processors.kept(&turned)).into_iter().map(back).collect();
        of_turned.sort_unstable();
        prop_assert_eq!(tokens(&processors.kept(&logits)), of_turned);
    }

    #[test]
    fn each_filter_keeps_what_its_definition_says(logits in logits(), k in 1..50usize, p in 0.05..0.999f32, temperature in 0.3..3.0f32) {
        let of = |processors: Processors| tokens(&Processors { temperature, ..processors }.kept(&logits));
        let none = Processors::default;
        let finite = logits.iter().filter(|l| l.is_finite()).count();
        let least = |kept: &[u32]| kept.iter().map(|&t| logits[t as usize]).fold(f32::INFINITY, f32::min);
        let likelier = |bound: f32| (0u32..).zip(&logits).filter(|(_, l)| **l >= bound).map(|(t, _)| t).collect::<Vec<_>>();

        let top_k = of(Processors { top_k: k, ..none() });
        prop_assert_eq!(top_k.len(), k.min(finite));
        prop_assert_eq!(&top_k, &likelier(least(&top_k)));

        let probabilities = probabilities(&logits, temperature);
        let mass = |tokens: &[u32]| tokens.iter().map(|&t| probabilities[t as usize]).sum::<f64>();
        let top_p = of(Processors { top_p: p, ..none() });
        let bound = least(&top_p);
        prop_assert_eq!(&top_p, &likelier(bound));
        let without: Vec<u32> = top_p.iter().copied().filter(|&t| logits[t as usize] > bound).collect();
        prop_assert!(mass(&top_p) >= f64::from(p) - 1e-4 && mass(&without) < f64::from(p) + 1e-4);

        let best = probabilities.iter().copied().fold(0.0, f64::max);
        for (kept, bound) in [
            (of(Processors { min_p: p, ..none() }), f64::from(p) * best),
            (of(Processors { epsilon_cutoff: p, ..none() }), f64::from(p).min(best)),
        ] {
            for (token, probability) in (0..).zip(&probabilities) {
                let on_the_bound = (probability / bound - 1.0).abs() < 1e-4;
                prop_assert!(on_the_bound || kept.contains(&token) == (*probability > bound), "{token}: {probability} {bound}");
            }
        }
    }

    #[test]
    fn an_answer_that_is_too_short_cannot_end(logits in vec(-12.0..12.0f32, 3..40), end in 0..3u32, done in 0..4usize, may_end: bool) {
        let mut row = logits.clone();
        let ids = vec![2; done + 1];
        let mut edited = Edited::new(&mut row);
        Processors::default().edit(&Place { ids: &ids, done, ends: &[end], may_end, last: false }, &mut edited);
        for (token, (now, before)) in (0..).zip(edited.logits().iter().zip(&logits)) {
            let banned = token == end && !may_end;
            prop_assert_eq!(*now, if banned { f32::NEG_INFINITY } else { *before });
            prop_assert_eq!(edited.original(token), *before);
        }
    }
}
