//! RPO worked by hand.

use super::super::testing::{problem, scores, scores_of};
use super::*;

fn prepared(config: RpoConfig, split: &Split, references: &References) -> Rpo {
    let mut rpo = Rpo::new(config).expect("valid");
    rpo.prepare(split, references).expect("defined");
    rpo
}

fn loss(rpo: &Rpo, log_probs: &[f32], rows: &[usize]) -> f64 {
    f64::from(
        rpo.loss(&scores(log_probs, rows), Step { rows, mismatched: &[] }).expect("readable").sum.into_scalar::<f32>(),
    )
}

fn raw(tau: f64) -> RpoConfig {
    RpoConfig { tau, log_prob: LogProb::Sum, standardize_rewards: false, ..RpoConfig::published() }
}

fn target(rpo: &Rpo, row: usize) -> f64 {
    let t = rpo.targets[row].expect("used");
    t.reference + (t.reward - t.partition) / rpo.config.tau
}

#[test]
fn the_loss_by_hand() {
    // exp(ell_ref + r / tau): 1/2 * e^(0) = 1/2 and 1/4 * e^(ln 2) = 1/2, so Z = 1, V_hat = 0 and the targets are ln 1/2.
    let (split, reference) = problem(&[&[(0.5f32.ln(), 0.0), (0.25f32.ln(), 2.0 * 2f64.ln())]]);
    let rpo = prepared(raw(2.0), &split, &reference);
    let half = 0.5f64.ln();
    assert!((target(&rpo, 0) - half).abs() < 1e-6 && (target(&rpo, 1) - half).abs() < 1e-6);
    let want = 0.5 * ((-1.0 - half).powi(2) + (-3.0 - half).powi(2));
    assert!((loss(&rpo, &[-1.0, -3.0], &[0, 1]) - want).abs() < 1e-5);
}

#[test]
fn targets_are_a_log_softmax_over_the_prompts_responses() {
    let rows: &[(f32, f64)] = &[(-3.0, 1.0), (-7.5, 4.0), (-1.0, -2.0)];
    let (split, reference) = problem(&[rows, &[(-2.0, 0.5), (-4.0, 0.0)]]);
    for log_prob in [LogProb::Sum, LogProb::Mean] {
        let rpo = prepared(RpoConfig { log_prob, ..raw(0.7) }, &split, &reference);
        let logit = |(l, r): (f32, f64)| f64::from(l) / if log_prob == LogProb::Mean { 2.0 } else { 1.0 } + r / 0.7;
        let z: f64 = rows.iter().map(|&x| logit(x).exp()).sum();
        for (i, &x) in rows.iter().enumerate() {
            assert!((target(&rpo, i) - (logit(x) - z.ln())).abs() < 1e-6);
        }
        let total: f64 = (0..3).map(|i| target(&rpo, i).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "the targets are a distribution: {total}");
    }
}

#[test]
fn the_mean_partition_is_less_by_tau_log_n() {
    let (split, reference) = problem(&[&[(-3.0, 1.0), (-7.5, 4.0), (-1.0, -2.0)]]);
    let sum = prepared(raw(0.7), &split, &reference);
    let mean = prepared(RpoConfig { partition: Partition::Mean, ..raw(0.7) }, &split, &reference);
    assert!((target(&mean, 1) - target(&sum, 1) - 3f64.ln()).abs() < 1e-6);
}

#[test]
fn the_sampled_partition_weighs_copies_and_not_the_reference() {
    let (mut split, reference) = problem(&[&[(-3.0, 1.0), (-7.5, 4.0)]]);
    split.train.groups[0].responses[0].copies = 3;
    let sampled = prepared(RpoConfig { partition: Partition::Sampled, ..raw(2.0) }, &split, &reference);
    let v_hat = 2.0 * ((3.0 * 0.5f64.exp() + 2f64.exp()) / 4.0).ln();
    assert!((target(&sampled, 1) - (-7.5 + (4.0 - v_hat) / 2.0)).abs() < 1e-6);
}

#[test]
fn the_fitted_partition_by_hand_and_as_the_policy_moves() {
    // Rewards 1, 3 and 5, 9: the means 2 and 7 about 4.5, lambda 1/2 (`intercept` has the arithmetic).
    let (split, reference) = problem(&[&[(-3.0, 1.0), (-4.0, 3.0)], &[(-2.0, 5.0), (-6.0, 9.0)]]);
    let mut fitted = prepared(RpoConfig { partition: Partition::Fitted, ..raw(2.0) }, &split, &reference);
    // The policy moves by log-ratios 0.5 and -0.5 in the first prompt: d = 0 and 4, V_hat = (2 * 2 + 4.5 / 2) / 2.5 = 2.5.
    let ells = [-2.5, -4.5, -2.0, -6.0];
    let d: [f64; 4] = [0.0, 4.0, 5.0, 9.0];
    let likelihood = |lambda: f64, mu: f64| {
        let pair = |a: f64, b: f64| {
            let mean = f64::midpoint(a, b);
            (a - mean).powi(2) + (b - mean).powi(2) + 2.0 * lambda / (2.0 + lambda) * (mean - mu).powi(2)
        };
        0.5 * (pair(d[0], d[1]) + pair(d[2], d[3])) / 4.0
    };
    let loss = |rpo: &Rpo| {
        rpo.loss(&scores_of(&ells, &[0, 1, 2, 3], &[0, 0, 1, 1]), Step { rows: &[0, 1, 2, 3], mismatched: &[] })
            .expect("readable")
    };
    let sum = |rpo: &Rpo| f64::from(loss(rpo).sum.into_scalar::<f32>());
    let got = sum(&fitted);
    assert!((got - likelihood(0.5, 4.5)).abs() < 1e-5, "{got}");
    let residuals = |v: [f64; 2]| (d[0] - v[0]).abs() + (d[1] - v[0]).abs() + (d[2] - v[1]).abs() + (d[3] - v[1]).abs();
    let told = loss(&fitted).metrics;
    assert!((told[1].1 - residuals([2.5, (2.0 * 7.0 + 0.5 * 4.5) / 2.5]) / 2.0).abs() < 1e-5, "{told:?}");
    // After the step it is fitted again: squares within 8 + 8 over 2, between 25 = 8 + 2 v2, lambda = 8 / 8.5.
    let seen: Vec<Seen> = ells.iter().enumerate().map(|(row, &log_prob)| Seen { row, log_prob }).collect();
    fitted.follow(&seen);
    let got = sum(&fitted);
    assert!((got - likelihood(8.0 / 8.5, 4.5)).abs() < 1e-5, "{got}");
    // What it remembers makes another one equal.
    let mut other = prepared(RpoConfig { partition: Partition::Fitted, ..raw(2.0) }, &split, &reference);
    other.recall(fitted.memory());
    assert_eq!(sum(&other), got);
}

#[test]
fn the_fit_looks_at_all_prompts_before_the_first_step_and_then_at_those_seen_last() {
    let groups: Vec<[(f32, f64); 1]> = (0..40).map(|i| [(-3.0, f64::from(i / 20))]).collect();
    let slices: Vec<&[(f32, f64)]> = groups.iter().map(|g| &g[..]).collect();
    let (split, reference) = problem(&slices);
    let mut rpo = Rpo::new(RpoConfig { partition: Partition::Fitted, ..raw(1.0) }).expect("valid");
    rpo.window = 4;
    rpo.prepare(&split, &reference).expect("defined");
    let expected = |rpo: &Rpo| rpo.fitted.as_ref().map(|f| f.fit.expected(&[1.0])).expect("fitted");
    assert!((expected(&rpo) - 0.5).abs() < 1e-12, "sorted data do not matter: {}", expected(&rpo));
    // Of the last four, log-ratios 1, 1, 2, 2 and rewards 0, 0, 1, 1: d = -1.
    let seen = |rows: &[usize], log_prob: f32| rows.iter().map(|&row| Seen { row, log_prob }).collect::<Vec<_>>();
    rpo.follow(&seen(&[5, 6], -2.0));
    rpo.follow(&seen(&[30, 31], -1.0));
    assert!((expected(&rpo) + 1.0).abs() < 1e-12, "{}", expected(&rpo));
    let mut other = Rpo::new(RpoConfig { partition: Partition::Fitted, ..raw(1.0) }).expect("valid");
    other.window = 4;
    other.prepare(&split, &reference).expect("defined");
    other.recall(rpo.memory());
    assert_eq!(expected(&other), expected(&rpo));
    // Both go on alike.
    for rpo in [&mut rpo, &mut other] {
        rpo.follow(&seen(&[0], -3.0));
    }
    assert_eq!(expected(&other), expected(&rpo));
    assert!((expected(&rpo) + 1.0).abs() > 0.1, "the oldest is out");
}

#[test]
fn held_out_losses_keep_to_the_variances_of_the_start() {
    let (mut split, reference) =
        problem(&[&[(-3.0, 1.0), (-4.0, 3.0)], &[(-2.0, 5.0), (-6.0, 9.0)], &[(-2.0, 0.0), (-2.0, 1.0)]]);
    split.validation.groups.push(split.train.groups.remove(2));
    let mut rpo = prepared(RpoConfig { partition: Partition::Fitted, ..raw(1.0) }, &split, &reference);
    let held_out = |rpo: &Rpo| loss(rpo, &[-2.0, -2.0], &[4, 5]);
    // lambda 1/2, mu 4.5: 1/2 (1/2 + 2 * 0.5 / 2.5 * (0.5 - 4.5)^2).
    let want = |mu: f64| 0.5 * (0.5 + 0.4 * (0.5 - mu).powi(2));
    assert!((held_out(&rpo) - want(4.5)).abs() < 1e-5, "{}", held_out(&rpo));
    // Log-ratios of training that explain their rewards: nothing scatters within, mu is the mean of 2 and 7 still.
    let by_heart = [(0, -4.0), (1, -3.0), (2, -4.0), (3, -4.0)];
    rpo.follow(&by_heart.map(|(row, log_prob)| Seen { row, log_prob }));
    assert_eq!(rpo.fitted.as_ref().map(|f| f.fit.lambda), Some(0.0));
    assert!((held_out(&rpo) - want(4.5)).abs() < 1e-5, "{}", held_out(&rpo));
}

#[test]
fn rewards_that_no_number_of_32_bits_can_hold_are_refused() {
    for (rewards, standardize_rewards) in [([1e200, -1e200], true), ([1e200, 0.0], false), ([1e30, 0.0], false)] {
        let (split, reference) = problem(&[&[(-3.0, rewards[0]), (-5.0, rewards[1])]]);
        let config = RpoConfig { standardize_rewards, ..raw(1.0) };
        let said = Rpo::new(config).expect("valid").prepare(&split, &reference).expect_err("too large").to_string();
        assert!(said.contains(&format!("{:e}", rewards[0])) && said.contains("reward column"), "{said}");
    }
}

#[test]
fn one_response_cancels_its_reward_unless_the_partition_is_pooled() {
    let (split, reference) = problem(&[&[(-3.0, 5.0)], &[(-2.0, 0.0), (-4.0, 1.0)]]);
    let with = |single_response| prepared(RpoConfig { single_response, ..raw(1.0) }, &split, &reference);
    assert!(target(&with(SingleResponse::Sft), 0).abs() < 1e-6, "plain likelihood");
    assert!(!with(SingleResponse::Drop).uses(0) && with(SingleResponse::Drop).uses(1));
    // Mean over all of exp(ell_ref + r): (e^2 + e^-2 + e^-3) / 3.
    let pooled = ((2f64.exp() + (-2f64).exp() + (-3f64).exp()) / 3.0).ln();
    assert!((target(&with(SingleResponse::Global), 0) - (-3.0 + 5.0 - pooled)).abs() < 1e-6);
}

#[test]
fn rewards_of_ten_thousand_stay_finite() {
    let (split, reference) = problem(&[&[(-3.0, 1e4), (-900.0, -1e4), (-1.0, 0.0)]]);
    for tau in [0.01, 1.0] {
        let rpo = prepared(raw(tau), &split, &reference);
        assert!(target(&rpo, 0).abs() < 1e-6, "the best response takes all");
        assert!(loss(&rpo, &[-3.0, -900.0, -1.0], &[0, 1, 2]).is_finite());
    }
}

/// In the published script a `[B, 1]` partition meets a `[B]` residual and every response sees every prompt's partition.
#[test]
fn the_loss_of_a_prompt_does_not_depend_on_its_neighbours_in_the_batch() {
    let (split, reference) = problem(&[&[(-3.0, 1.0), (-5.0, 0.0)], &[(-9.0, -8.0), (-20.0, 3.0)]]);
    let own = prepared(raw(0.5), &split, &reference);
    let policy = [-2.0, -3.0, -4.0, -5.0];
    let apart = loss(&own, &policy[..2], &[0, 1]) + loss(&own, &policy[2..], &[2, 3]);
    assert!((loss(&own, &policy, &[0, 1, 2, 3]) - apart).abs() < 1e-3);

    let broadcast = prepared(RpoConfig { partition: Partition::BatchMean, ..raw(0.5) }, &split, &reference);
    let rows = [0, 1, 2, 3];
    let t: Vec<Target> = rows.iter().filter_map(|&r| own.targets[r]).collect();
    let mut want = 0.0;
    for (i, policy) in policy.iter().enumerate() {
        for other in &t {
            let residual = f64::from(*policy) - t[i].reference - (t[i].reward - other.partition) / 0.5;
            want += 0.5 * residual * residual / 4.0;
        }
    }
    let got = loss(&broadcast, &policy, &rows);
    assert!((got - want).abs() < 1e-3 * want, "{got} for the literal double loop's {want}");
    assert!((got - apart).abs() > 1.0, "the two differ, so this test can fail");
}

#[test]
fn rewards_are_standardised_with_the_training_split_alone() {
    let (mut split, reference) = problem(&[&[(-3.0, 1.0), (-5.0, 3.0)], &[(-9.0, 100.0), (-20.0, 0.0)]]);
    split.validation.groups.push(split.train.groups.remove(1));
    let rpo = prepared(RpoConfig { standardize_rewards: true, ..raw(1.0) }, &split, &reference);
    let reward = |row: usize| rpo.targets[row].expect("used").reward;
    assert_eq!([reward(0), reward(1), reward(2)], [-1.0, 1.0, 98.0]);
}

#[test]
fn impossible_settings_and_data_are_refused() {
    for tau in [0.0, -1.0, f64::NAN] {
        assert!(Rpo::new(raw(tau)).is_err_and(|e| e.to_string().contains("tau")));
    }
    let (split, reference) = problem(&[&[(-3.0, 1.0), (-5.0, 1.0)]]);
    let said = Rpo::new(raw(1.0)).expect("valid").prepare(&split, &reference).expect_err("nothing to prefer");
    assert!(said.to_string().contains("rewards equal 1"), "{said}");
    let (split, reference) = problem(&[&[(-3.0, 1.0)], &[(-5.0, 2.0)]]);
    let drop = RpoConfig { single_response: SingleResponse::Drop, ..raw(1.0) };
    let said = Rpo::new(drop).expect("valid").prepare(&split, &reference).expect_err("nothing left");
    assert!(said.to_string().contains("single"), "{said}");
}
