//! The value of a prompt as a random intercept, estimated in closed form. Plain numbers: it knows no model and no loss.
//!
//! At the optimum every response of a prompt has the same `d = r - tau log-ratio`, which is `V(x)`. On the way there `d`
//! scatters about it, and prompts scatter about what their features tell of them: a linear mixed model,
//!
//! ```text
//! d_i  = V(x) + e_i,               e ~ N(0, s2)       within a prompt
//! V(x) = mu + f(x)'b + u(x),       u ~ N(0, v2)       between prompts,   b ~ N(0, w2 I)
//! ```
//!
//! whose best linear unbiased prediction (Henderson; Robinson, Statistical Science 6, 1991) is the prompt's own mean,
//! drawn towards what the other prompts tell:
//!
//! ```text
//! V_hat(x) = ( n mean_i(d_i) + lambda (mu + f(x)'b) ) / (n + lambda),      lambda = s2 / v2
//! ```
//!
//! `lambda = 0` leaves the prompt's own mean, `lambda` without bound what does not depend on its responses. With `V_hat` held
//! fixed, the gradient of `1/2 sum (d_i - V_hat)^2` in `d` is `s2` times that of the negative log-likelihood of the mixed
//! model, in which `V` is integrated out:
//!
//! ```text
//! sum_i (d_i - mean d)^2 / (2 s2)  +  n (mean d - mu)^2 / (2 (s2 + n v2))
//! ```
//!
//! `s2`, and `v2 + w2`, are found by moments (analysis of variance), the share of the features by restricted likelihood over
//! a few values. Where hardly any prompt has two responses, or none has two with different rewards, `s2` and `v2` cannot be told apart, and are taken to be equal.

/// How many responses prompts have beyond which they are counted together with others, where only weights depend on it.
const COUNTED: usize = 32;
/// `s2` is estimated from at least as many differences within prompts as the number of prompts divided by this.
const PROMPTS_PER_DIFFERENCE: usize = 8;
/// Shares of the variance between prompts that features may explain.
const SHARES: [f64; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97];

/// A prompt as the model sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prompt<'a> {
    /// Its responses.
    pub count: usize,
    /// Whether their rewards differ, so that they tell of the scatter within prompts.
    pub ranks: bool,
    /// Their mean of `d`.
    pub mean: f64,
    /// 1, then its features.
    pub design: &'a [f64],
}

/// Sums over prompts with equally many responses, of which a weighted regression is made for any variances.
struct Class {
    responses: usize,
    prompts: usize,
    /// Of the outer products of the rows of the design.
    gram: Vec<f64>,
    /// Of the rows times the means.
    products: Vec<f64>,
    /// Of the squared means.
    squares: f64,
}

/// What was estimated.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fit {
    /// `mu` and `b`.
    coefficients: Vec<f64>,
    /// `s2 / v2`; infinite if prompts do not differ.
    pub lambda: f64,
    /// `s2`.
    pub within: f64,
    /// `v2 + w2`.
    pub between: f64,
    /// `w2 / (v2 + w2)`.
    pub explained: f64,
}

impl Fit {
    /// What features tell of `V(x)`: `mu + f(x)'b`, of a row of the design.
    pub fn expected(&self, design: &[f64]) -> f64 {
        self.coefficients.iter().zip(design).map(|(b, f)| b * f).sum()
    }

    /// The same with another `lambda`.
    pub fn with_lambda(&self, lambda: f64) -> Self {
        Self { lambda, ..self.clone() }
    }

    /// `V_hat` of a prompt of which `expected` is told, and whose `n` responses have this mean of `d`.
    pub fn value(&self, n: usize, mean: f64, expected: f64) -> f64 {
        let own = match self.lambda.is_finite() {
            true => n as f64 / (n as f64 + self.lambda),
            false => 0.0,
        };
        own * mean + (1.0 - own) * expected
    }
}

/// Estimates everything from prompts, and from the sum of the squares of what their responses differ from their means.
pub(super) fn fit(prompts: &[Prompt<'_>], squares_within: f64) -> Fit {
    let width = prompts.first().map_or(1, |p| p.design.len());
    let alike = |lambda| {
        let mut coefficients = vec![0.0; width];
        coefficients[0] = prompts.iter().map(|p| p.mean).sum::<f64>() / prompts.len().max(1) as f64;
        Fit { coefficients, lambda, ..Fit::default() }
    };
    if prompts.len() < 2 {
        return alike(0.0);
    }
    let ranks = prompts.iter().any(|p| p.ranks);
    let differences = if ranks { prompts.iter().map(|p| p.count - 1).sum() } else { 0 };
    let single = differences * PROMPTS_PER_DIFFERENCE < prompts.len();
    let within = if single { 0.0 } else { squares_within / differences as f64 };
    let between = between(prompts, within);
    let classes = classes(prompts, width);
    let shares = if width > 1 && between > 0.0 { &SHARES[..] } else { &SHARES[..1] };
    let candidates = shares.iter().filter_map(|&share| {
        let rest = (1.0 - share) * between;
        let (s2, v2) = if single { (0.5 * rest, 0.5 * rest) } else { (within, rest) };
        let (criterion, coefficients) = regress(&classes, width, s2, v2, share * between)?;
        let lambda = if v2 > 0.0 { s2 / v2 } else { f64::INFINITY };
        Some((criterion, Fit { coefficients, lambda, within: s2, between, explained: share }))
    });
    let best = candidates.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, fit)| fit);
    // Nothing scatters at all.
    best.unwrap_or_else(|| alike(if single { 1.0 } else { 0.0 }))
}

/// `v2 + w2` by the analysis of variance, given `s2`.
fn between(prompts: &[Prompt<'_>], within: f64) -> f64 {
    let groups = prompts.len() as f64;
    let sum = |of: &dyn Fn(&Prompt<'_>) -> f64| prompts.iter().map(of).sum::<f64>();
    let all = sum(&|p| p.count as f64);
    let grand = sum(&|p| p.count as f64 * p.mean) / all;
    let squares = sum(&|p| p.count as f64 * (p.mean - grand).powi(2));
    let size = (all - sum(&|p| (p.count as f64).powi(2)) / all) / (groups - 1.0);
    ((squares / (groups - 1.0) - within) / size).max(0.0)
}

fn classes(prompts: &[Prompt<'_>], width: usize) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for Prompt { count, mean, design, .. } in prompts {
        // Beyond `COUNTED`, powers of two.
        let responses = if *count <= COUNTED { *count } else { count.next_power_of_two() };
        let at = classes.iter().position(|c| c.responses == responses).unwrap_or_else(|| {
            let (gram, products) = (vec![0.0; width * width], vec![0.0; width]);
            classes.push(Class { responses, prompts: 0, gram, products, squares: 0.0 });
            classes.len() - 1
        });
        let class = &mut classes[at];
        class.prompts += 1;
        class.squares += mean * mean;
        class.products.iter_mut().zip(*design).for_each(|(sum, f)| *sum += f * mean);
        for (a, sums) in design.iter().zip(class.gram.chunks_mut(width)) {
            sums.iter_mut().zip(*design).for_each(|(sum, b)| *sum += a * b);
        }
    }
    classes
}

/// The coefficients at these variances, with minus twice the restricted log-likelihood; `None` if they are not determined.
fn regress(classes: &[Class], full: usize, s2: f64, v2: f64, w2: f64) -> Option<(f64, Vec<f64>)> {
    // Without features only `mu` is left.
    let width = if w2 > 0.0 { full } else { 1 };
    let mut a = vec![0.0; width * width];
    let mut b = vec![0.0; width];
    let mut criterion = 0.0;
    for class in classes {
        let variance = v2 + s2 / class.responses as f64;
        if variance <= 0.0 {
            return None;
        }
        for (row, gram) in a.chunks_mut(width).zip(class.gram.chunks(full)) {
            row.iter_mut().zip(gram).for_each(|(sum, g)| *sum += g / variance);
        }
        b.iter_mut().zip(&class.products).for_each(|(sum, p)| *sum += p / variance);
        criterion += class.prompts as f64 * variance.ln() + class.squares / variance;
    }
    for i in 1..width {
        a[i * width + i] += 1.0 / w2;
    }
    let (log_determinant, mut coefficients) = solve(&mut a, &b)?;
    criterion += log_determinant - coefficients.iter().zip(&b).map(|(x, b)| x * b).sum::<f64>();
    if w2 > 0.0 {
        criterion += (width - 1) as f64 * w2.ln();
    }
    coefficients.resize(full, 0.0);
    Some((criterion, coefficients))
}

/// Solves `a x = b` for a positive definite matrix by Cholesky's decomposition, which is left in `a`; `ln |a|` and `x`.
fn solve(a: &mut [f64], b: &[f64]) -> Option<(f64, Vec<f64>)> {
    let n = b.len();
    let mut log_determinant = 0.0;
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - dot;
            a[i * n + j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / a[j * n + j],
            };
        }
        log_determinant += 2.0 * a[i * n + i].ln();
    }
    let mut x = b.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| a[i * n + k] * x[k]).sum();
        x[i] = (x[i] - dot) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| a[k * n + i] * x[k]).sum();
        x[i] = (x[i] - dot) / a[i * n + i];
    }
    Some((log_determinant, x))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt<'a>(values: &[f64], design: &'a [f64]) -> Prompt<'a> {
        Prompt {
            count: values.len(),
            ranks: values.len() > 1,
            mean: values.iter().sum::<f64>() / values.len() as f64,
            design,
        }
    }

    fn without_features(groups: &[&[f64]]) -> Fit {
        let prompts: Vec<Prompt<'_>> = groups.iter().map(|g| prompt(g, &[1.0])).collect();
        let squares = groups.iter().zip(&prompts).flat_map(|(g, p)| g.iter().map(|d| (d - p.mean).powi(2))).sum();
        fit(&prompts, squares)
    }

    #[test]
    fn variances_and_values_by_hand() {
        // Squares within: 2 + 8 over 4 - 2. Between: means 2 and 7 about 4.5, 2 (2.5^2 + 2.5^2) / 1 = 25 = s2 + 2 v2.
        let fit = without_features(&[&[1.0, 3.0], &[5.0, 9.0]]);
        assert!((fit.within - 5.0).abs() < 1e-12 && (fit.between - 10.0).abs() < 1e-12, "{fit:?}");
        assert!((fit.lambda - 0.5).abs() < 1e-12);
        assert!((fit.expected(&[1.0]) - 4.5).abs() < 1e-12);
        assert!((fit.value(2, 2.0, 4.5) - (2.0 * 2.0 + 0.5 * 4.5) / 2.5).abs() < 1e-12);
    }

    #[test]
    fn the_limits_are_the_prompts_own_mean_and_a_constant() {
        // No scatter within: group-centred regression.
        let own = without_features(&[&[1.0, 1.0], &[5.0, 5.0]]);
        assert_eq!((own.lambda, own.value(2, 7.0, 3.0)), (0.0, 7.0));
        // Prompts alike: a constant value, the mean of all.
        let constant = without_features(&[&[0.0, 4.0], &[1.0, 3.0]]);
        assert!(constant.lambda.is_infinite() && (constant.expected(&[1.0]) - 2.0).abs() < 1e-12);
        assert_eq!(constant.value(2, 7.0, 2.0), 2.0);
        // One prompt, or nothing that scatters: its own mean.
        assert_eq!(without_features(&[&[0.0, 4.0]]).value(2, 7.0, 0.0), 7.0);
        assert_eq!(without_features(&[&[2.0, 2.0], &[2.0]]).value(2, 7.0, 0.0), 7.0);
        // Single responses: half and half.
        let single = without_features(&[&[0.0], &[4.0], &[8.0]]);
        assert!((single.expected(&[1.0]) - 4.0).abs() < 1e-12);
        assert_eq!((single.lambda, single.value(1, 0.0, 4.0)), (1.0, 2.0));
        // One pair among many single responses says as good as nothing of the scatter within.
        let values: Vec<[f64; 1]> = (0..20).map(|i| [f64::from(i)]).collect();
        let nearly: Vec<&[f64]> = values.iter().map(|v| &v[..]).chain([&[3.0, 3.0][..]]).collect();
        assert_eq!(without_features(&nearly).lambda, 1.0);
    }

    /// `1/2 (d - X b)' S^-1 (d - X b)` at the `b` that makes it least, `S` being the covariance of all responses.
    fn negative_log_likelihood(groups: &[Vec<f64>], features: &[[f64; 2]], s2: f64, v2: f64, w2: f64) -> f64 {
        let rows: Vec<(usize, f64)> =
            groups.iter().enumerate().flat_map(|(g, ds)| ds.iter().map(move |d| (g, *d))).collect();
        let n = rows.len();
        let covariance: Vec<f64> = (0..n * n)
            .map(|at| {
                let (i, j) = (at / n, at % n);
                let (a, b) = (rows[i].0, rows[j].0);
                let alike: f64 = features[a].iter().zip(&features[b]).map(|(x, y)| x * y).sum();
                w2 * alike + if a == b { v2 } else { 0.0 } + if i == j { s2 } else { 0.0 }
            })
            .collect();
        let inverse_times = |x: &[f64]| solve(&mut covariance.clone(), x).expect("positive definite").1;
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>();
        let d: Vec<f64> = rows.iter().map(|(_, d)| *d).collect();
        let ones = vec![1.0; n];
        let weights = inverse_times(&ones);
        let mu = dot(&weights, &d) / dot(&weights, &ones);
        let centred: Vec<f64> = d.iter().map(|d| d - mu).collect();
        0.5 * dot(&centred, &inverse_times(&centred))
    }

    /// What the partition rests on: with `V_hat` held fixed, the residuals are the gradient of the likelihood from which `V`
    /// is integrated out.
    #[test]
    fn residuals_are_the_gradient_of_the_marginal_likelihood() {
        let groups = vec![vec![1.0, 3.0, -2.0], vec![0.5], vec![4.0, 2.5], vec![-1.0, -3.0]];
        let features = [[0.3, -1.0], [-0.8, 0.4], [1.1, 0.9], [-0.6, -0.3]];
        let (s2, v2) = (0.7, 1.9);
        for w2 in [0.0, 0.4] {
            let design: Vec<[f64; 3]> = features.iter().map(|f| [1.0, f[0], f[1]]).collect();
            let prompts: Vec<Prompt<'_>> = groups.iter().zip(&design).map(|(g, d)| prompt(g, d)).collect();
            let (_, coefficients) = regress(&classes(&prompts, 3), 3, s2, v2, w2).expect("determined");
            let fit = Fit { coefficients, lambda: s2 / v2, ..Fit::default() };
            for (g, ds) in groups.iter().enumerate() {
                for i in 0..ds.len() {
                    let shifted = |h: f64| {
                        let mut groups = groups.clone();
                        groups[g][i] += h;
                        negative_log_likelihood(&groups, &features, s2, v2, w2)
                    };
                    let want = s2 * (shifted(1e-4) - shifted(-1e-4)) / 2e-4;
                    let got = ds[i] - fit.value(ds.len(), prompts[g].mean, fit.expected(&design[g]));
                    assert!((got - want).abs() < 1e-6, "w2 {w2}, {g} {i}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn features_explain_what_they_can() {
        let n = 60;
        let at = |i: usize, k: usize| ((i * 37 + k * 11) as f64 * 0.618).sin();
        let design: Vec<[f64; 4]> = (0..n).map(|i| [1.0, at(i, 0), at(i, 1), at(i, 2)]).collect();
        let noise = |i: usize| ((i * 71) as f64 * 1.234).cos();
        let told: Vec<f64> = (0..n).map(|i| 5.0 + 3.0 * at(i, 0) - 2.0 * at(i, 2) + 0.3 * noise(i)).collect();
        let fitted = |means: &[f64]| {
            let prompts =
                means.iter().zip(&design).map(|(m, d)| Prompt { count: 1, ranks: false, mean: *m, design: d });
            fit(&prompts.collect::<Vec<_>>(), 0.0)
        };
        let fit = fitted(&told);
        assert!(fit.explained > 0.8, "{fit:?}");
        assert!((fit.expected(&[1.0, 1.0, 0.0, -1.0]) - 10.0).abs() < 0.5, "{fit:?}");
        // Noise has nothing to do with them.
        let untold: Vec<f64> = (0..n).map(noise).collect();
        assert!(fitted(&untold).explained < 0.3);
    }
}
