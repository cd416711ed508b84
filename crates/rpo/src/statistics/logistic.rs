//! Logistic regression on shares, with the penalty and the choice of it that AlpacaEval 2 uses.

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Example<const D: usize> {
    /// What is known of it; a constant 1 among them serves as intercept.
    pub features: [f64; D],
    /// What was observed, from 0 to 1; ties are 1/2.
    pub share: f64,
    /// Observations of the same fold are held out together.
    pub fold: usize,
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn dot<const D: usize>(a: &[f64; D], b: &[f64; D]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `-share ln p - (1 - share) ln (1 - p)` at `p = sigmoid(x)`, without overflow.
fn log_loss(share: f64, x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p() - share * x
}

/// The weights that minimise `sum |w| + C sum log_loss`, as liblinear's L1-regularised logistic regression without intercept
/// (Fan et al. 2008) with observations split in two by their shares. Newton's steps, each a quadratic problem solved coordinate
/// by coordinate (Friedman, Hastie and Tibshirani 2010), shortened until the sum falls.
pub fn fit_logistic<'a, const D: usize>(examples: &(impl Iterator<Item = &'a Example<D>> + Clone), c: f64) -> [f64; D] {
    let cost = |w: &[f64; D]| -> f64 {
        let losses: f64 = examples.clone().map(|e| log_loss(e.share, dot(w, &e.features))).sum();
        w.iter().map(|w| w.abs()).sum::<f64>() + c * losses
    };
    let mut w = [0.0; D];
    let mut at = cost(&w);
    for _ in 0..100 {
        let (mut gradient, mut curvature) = ([0.0; D], [[0.0; D]; D]);
        for e in examples.clone() {
            let p = sigmoid(dot(&w, &e.features));
            for (i, x) in e.features.iter().enumerate() {
                gradient[i] += c * (p - e.share) * x;
                let weight = c * p * (1.0 - p) * x;
                curvature[i].iter_mut().zip(&e.features).for_each(|(h, other)| *h += weight * other);
            }
        }
        (0..D).for_each(|i| curvature[i][i] += 1e-9);
        let step = lasso_step(&w, &gradient, &curvature);
        let mut length = 1.0;
        let next = loop {
            let mut next = w;
            (0..D).for_each(|i| next[i] += length * step[i]);
            if cost(&next) <= at || length < 1e-6 {
                break next;
            }
            length /= 2.0;
        };
        let lower = cost(&next);
        if lower >= at - 1e-12 * at.abs() {
            break;
        }
        (w, at) = (next, lower);
    }
    w
}

/// The `d` that minimises `g d + d H d / 2 + sum |w + d|`.
fn lasso_step<const D: usize>(w: &[f64; D], gradient: &[f64; D], curvature: &[[f64; D]; D]) -> [f64; D] {
    let mut step = [0.0; D];
    for _ in 0..1000 {
        let mut moved = 0f64;
        for i in 0..D {
            let slope = gradient[i] + dot(&curvature[i], &step);
            let h = curvature[i][i];
            let target = w[i] + step[i] - slope / h;
            let change = target.signum() * (target.abs() - 1.0 / h).max(0.0) - w[i] - step[i];
            step[i] += change;
            moved = moved.max(change.abs());
        }
        if moved < 1e-12 {
            break;
        }
    }
    step
}

/// The `C` among ten from 1e-4 to 1e4 whose weights, fitted without a fold, predict the folds with the smallest mean log loss:
/// scikit-learn's `LogisticRegressionCV`.
pub fn cross_validated_penalty<const D: usize>(examples: &[Example<D>], folds: usize) -> f64 {
    let loss_without = |fold: usize, c: f64| {
        let w = fit_logistic(&examples.iter().filter(|e| e.fold != fold), c);
        let held_out: Vec<f64> = examples
            .iter()
            .filter(|e| e.fold == fold)
            // scikit-learn's probabilities are clipped at 1e-15.
            .map(|e| log_loss(e.share, dot(&w, &e.features).clamp(-34.5, 34.5)))
            .collect();
        super::mean(&held_out).unwrap_or(0.0)
    };
    let candidates = (0..10).map(|k| 10f64.powf(f64::from(k) * 8.0 / 9.0 - 4.0));
    let losses = candidates.map(|c| ((0..folds).map(|fold| loss_without(fold, c)).sum::<f64>(), c));
    losses.reduce(|best, next| if next.0 < best.0 { next } else { best }).map_or(1.0, |(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::tests::{close, golden, numbers};

    #[test]
    fn weights_by_hand() {
        // One feature 1, shares of mean 3/4, n = 4: sign(w) + C n (p - 3/4) = 0, p = 3/4 - 1 / (4 C).
        let examples: Vec<Example<1>> =
            [1.0, 1.0, 0.5, 0.5].map(|share| Example { features: [1.0], share, fold: 0 }).to_vec();
        let w = fit_logistic(&examples.iter(), 2.0);
        assert!((sigmoid(w[0]) - 0.625).abs() < 1e-9, "{w:?}");
        // Too weak to leave 0: C n |p - 1/2| = 1 at C = 1.
        assert_eq!(fit_logistic(&examples.iter(), 0.99), [0.0]);
    }

    #[test]
    fn weights_and_penalty_as_scikit_learn_has_them() {
        for case in golden()["length_controlled"].as_array().expect("cases") {
            let [difference, difficulty, share] = ["tanh", "difficulty", "share"].map(|column| numbers(&case[column]));
            let examples: Vec<Example<3>> = (0..share.len())
                .map(|i| Example { features: [difference[i], difficulty[i], 1.0], share: share[i], fold: i % 5 })
                .collect();
            let c = cross_validated_penalty(&examples, 5);
            close(&[c.ln()], &[case["c"].as_f64().expect("number").ln()], 1e-9);
            close(&fit_logistic(&examples.iter(), c), &numbers(&case["weights"]), 2e-3);
        }
    }
}
