//! What holds of RPO's partitions on any data: which changes of rewards, reference and order change nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::testing::{problem, scores_of};
use super::*;

/// Of a prompt: reference log-probability, reward and the policy's log-probability of each response.
type Group = Vec<(f32, f64, f32)>;

const PARTITIONS: [Partition; 5] =
    [Partition::Fitted, Partition::Sum, Partition::Mean, Partition::Sampled, Partition::BatchMean];

/// The same cases in every run, unless the environment asks for others.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// Prompts with several responses each, the first of which ranks its responses.
fn groups() -> impl Strategy<Value = Vec<Group>> {
    let response = || (-30.0..0.0f32, -3.0..3.0f64, -30.0..0.0f32);
    vec(vec(response(), 2..5), 2..5).prop_filter("rewards that differ", |groups| groups[0][0].1 != groups[0][1].1)
}

fn settings(partition: Partition, tau: f64) -> RpoConfig {
    RpoConfig { partition, tau, log_prob: LogProb::Sum, standardize_rewards: false, ..RpoConfig::default() }
}

fn prepared(groups: &[Group], config: RpoConfig) -> Rpo {
    let pairs: Vec<Vec<(f32, f64)>> = groups.iter().map(|g| g.iter().map(|(l, r, _)| (*l, *r)).collect()).collect();
    let (split, references) = problem(&pairs.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut rpo = Rpo::new(config).expect("valid");
    rpo.prepare(&split, &references).expect("defined");
    rpo
}

/// The loss of the prompts `some`, as a part of a step over all.
fn loss_of(rpo: &Rpo, groups: &[Group], some: &[usize]) -> f64 {
    let first = |i: usize| groups[..i].iter().map(Vec::len).sum::<usize>();
    let all: Vec<usize> = (0..first(groups.len())).collect();
    let rows: Vec<usize> = some.iter().flat_map(|&i| first(i)..first(i) + groups[i].len()).collect();
    let policy: Vec<f32> = some.iter().flat_map(|&i| groups[i].iter().map(|(.., policy)| *policy)).collect();
    let prompt_of: Vec<usize> = some.iter().enumerate().flat_map(|(at, &i)| vec![at; groups[i].len()]).collect();
    let loss =
        rpo.loss(&scores_of(&policy, &rows, &prompt_of), Step { rows: &all, mismatched: &[] }).expect("readable");
    f64::from(loss.sum.into_scalar::<f32>())
}

fn loss(groups: &[Group], config: RpoConfig) -> f64 {
    loss_of(&prepared(groups, config), groups, &(0..groups.len()).collect::<Vec<_>>())
}

/// Sums of squares of 32 bits.
fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-3 * (1.0 + a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_order_of_prompts_and_responses_does_not_matter(groups in groups(), turn in 1..4usize, tau in 0.5..5.0f64) {
        let mut turned = groups.clone();
        turned.rotate_left(turn % groups.len());
        for group in &mut turned {
            let n = group.len();
            group.rotate_left(turn % n);
        }
        for partition in PARTITIONS {
            let (a, b) = (loss(&groups, settings(partition, tau)), loss(&turned, settings(partition, tau)));
            prop_assert!(close(a, b), "{partition:?}: {a} and {b}");
        }
    }

    #[test]
    fn a_reward_has_no_zero_and_tau_is_its_unit(groups in groups(), by in -50.0..50.0f64, unit in 0.5..4.0f64, tau in 0.5..5.0f64) {
        let with = |f: &dyn Fn(f64) -> f64| -> Vec<Group> {
            groups.iter().map(|g| g.iter().map(|(l, r, p)| (*l, f(*r), *p)).collect()).collect()
        };
        for partition in PARTITIONS {
            let plain = loss(&groups, settings(partition, tau));
            let shifted = loss(&with(&|r| r + by), settings(partition, tau));
            let scaled = loss(&with(&|r| r * unit), settings(partition, tau * unit));
            prop_assert!(close(plain, shifted), "{partition:?}: {plain}, shifted {shifted}");
            prop_assert!(close(plain, scaled), "{partition:?}: {plain}, scaled {scaled}");
        }
    }

    #[test]
    fn what_the_reference_says_of_all_responses_of_a_prompt_alike_cancels(groups in groups(), by in -5.0..5.0f32, tau in 0.5..5.0f64) {
        let mut shifted = groups.clone();
        shifted[0].iter_mut().for_each(|(reference, ..)| *reference += by);
        for partition in [Partition::Sum, Partition::Mean] {
            let (a, b) = (prepared(&groups, settings(partition, tau)), prepared(&shifted, settings(partition, tau)));
            for row in 0..groups[0].len() {
                let target = |rpo: &Rpo| rpo.targets[row].map(|t| t.reference + (t.reward - t.partition) / tau);
                let (a, b) = (target(&a).expect("used"), target(&b).expect("used"));
                prop_assert!((a - b).abs() < 1e-4, "{partition:?}: {a} and {b}");
            }
        }
    }

    #[test]
    fn targets_of_the_sum_are_probabilities_and_those_of_the_mean_average_to_one(groups in groups(), tau in 0.5..5.0f64) {
        for (partition, average) in [(Partition::Sum, false), (Partition::Mean, true)] {
            let rpo = prepared(&groups, settings(partition, tau));
            let mut row = 0;
            for group in &groups {
                let targets = (row..row + group.len()).filter_map(|row| rpo.targets[row]);
                let sum: f64 = targets.map(|t| (t.reference + (t.reward - t.partition) / tau).exp()).sum();
                let wanted = if average { group.len() as f64 } else { 1.0 };
                prop_assert!((sum - wanted).abs() < 1e-6 * wanted, "{partition:?}: {sum}");
                row += group.len();
            }
        }
    }

    #[test]
    fn micro_batches_add_up_to_their_step(groups in groups(), tau in 0.5..5.0f64) {
        for partition in PARTITIONS {
            let rpo = prepared(&groups, settings(partition, tau));
            let all: Vec<usize> = (0..groups.len()).collect();
            let apart: f64 = all.iter().map(|i| loss_of(&rpo, &groups, &[*i])).sum();
            let together = loss_of(&rpo, &groups, &all);
            prop_assert!(close(together, apart), "{partition:?}: {together} and {apart}");
        }
    }
}
