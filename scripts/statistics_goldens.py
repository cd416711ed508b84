#!/usr/bin/env python3
"""Makes `crates/rpo/tests/goldens/statistics.json`: what scipy, statsmodels, scikit-learn, krippendorff and alpaca_eval compute,
or plain enumeration, for the tests of `crates/rpo/src/statistics` and `crates/rpo/src/evaluate/preference`.

    pip install "numpy==2.*" "scipy==1.*" "statsmodels==0.15.*" "scikit-learn==1.9.*" krippendorff==0.9.* alpaca_eval==0.6.6
    python statistics_goldens.py
"""
import json
import warnings
from itertools import combinations
from math import comb, sqrt
from pathlib import Path

import alpaca_eval
import krippendorff
import numpy as np
import pandas as pd
from alpaca_eval.metrics.glm_winrate import fit_LogisticRegressionCV
from scipy import stats
from scipy.optimize import least_squares
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests

warnings.filterwarnings("ignore")
OUT = Path(__file__).parents[1] / "crates/rpo/tests/goldens/statistics.json"
random = np.random.default_rng(7)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sign_tests():
    cases = [(8, 2), (30, 12), (0, 9), (11, 12), (250, 190), (1, 0)]
    return [[w, l, stats.binomtest(w, w + l).pvalue] for w, l in cases]


def pairing_tests():
    """Every placing of the firsts among the places of the pairs."""
    cases = []
    for pairs, firsts in [(4, 3), (5, 5), (6, 8), (7, 7), (8, 10)]:
        counts = [0] * (pairs + 1)
        for chosen in combinations(range(2 * pairs), firsts):
            seen = [0] * pairs
            for place in chosen:
                seen[place // 2] += 1
            counts[seen.count(1)] += 1
        assert sum(counts) == comb(2 * pairs, firsts)
        cases += [[pairs, firsts, m, sum(counts[m:]) / sum(counts)] for m in range(0, pairs + 1) if counts[m]]
    return cases


def corrections():
    p = [0.001, 0.04, 0.03, 0.2, 0.04, 0.9, 0.012]
    return dict(p=p, holm=list(multipletests(p, method="holm")[1]), benjamini_hochberg=list(multipletests(p, method="fdr_bh")[1]))


def permutation_tests():
    def p(values, resamples):
        return stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=resamples, random_state=1).pvalue

    few, many = [0.5, -0.2, 1.1, 0.3, 0.3, -0.4, 0.9, 0.0, 0.7], [round(float(x), 3) for x in random.normal(0.15, 1, 80)]
    return dict(few=few, few_p=[p(few, np.inf)], many=many, many_p=[p(many, 200_000)])


def kappas():
    cases = []
    for table in [[20, 5, 10, 15], [30, 4, 2, 3, 12, 5, 1, 6, 25]]:
        side = int(sqrt(len(table)))
        found = cohens_kappa(np.array(table).reshape(side, side))
        half = stats.norm.ppf(0.975) * found.std_kappa
        cases.append(dict(table=table, interval=[found.kappa, found.kappa - half, found.kappa + half]))
    return cases


def alphas():
    # Krippendorff's own example of four observers with what they left out, and marks of 1 to 10.
    nan = np.nan
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ]
    base = random.integers(1, 11, 30)
    marks = np.clip(base + random.integers(-2, 3, (3, 30)), 1, 10).astype(float)
    marks[1, 4] = marks[2, 4] = marks[0, 9] = nan
    cases = []
    for values in (np.array(observers, dtype=float), marks):
        alpha = {s: krippendorff.alpha(reliability_data=values, level_of_measurement=s) for s in ("nominal", "interval")}
        units = [[float(v) for v in column if not np.isnan(v)] for column in values.T]
        cases.append(dict(units=units, **alpha))
    return cases


def bradley_terry():
    """Logistic regression on the difference of strengths, without a penalty."""
    tables = [
        [[0, 7, 9.5], [3, 0, 6], [0.5, 4, 0]],
        [[0, 12, 0, 30], [8, 0, 11, 0], [0, 9, 0, 2.5], [10, 0, 7.5, 0]],
    ]
    cases = []
    for points in tables:
        n = len(points)
        rows = [(i, j, points[i][j]) for i in range(n) for j in range(n) if points[i][j] > 0]
        x = np.zeros((2 * len(rows), n))
        for k, (i, j, _) in enumerate(rows):
            x[k, [i, j]] = 1, -1
            x[k + len(rows), [i, j]] = -1, 1
        y, weight = [1] * len(rows) + [0] * len(rows), [w for _, _, w in rows] * 2
        fit = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-12, max_iter=100_000, solver="newton-cg")
        strengths = fit.fit(x, y, sample_weight=weight).coef_[0]
        cases.append(dict(points=points, logarithms=list(strengths - strengths.mean())))
    return cases


def power():
    """Number of prompts by Connor's formula, and the exact power of the sign test there, ties drawn too."""
    cases = []
    for rate, ties in [(0.55, 0.0), (0.6, 0.0), (0.6, 0.3), (0.65, 0.5), (0.55, 0.6)]:
        s, d = 1 - ties, 2 * rate - 1
        n = int(np.ceil((stats.norm.ppf(0.975) * sqrt(s) + stats.norm.ppf(0.8) * sqrt(s - d * d)) ** 2 / d**2))
        win = (s + d) / 2 / s
        found = 0.0
        for untied in range(n + 1):
            # The largest number of the rarer side that the test still calls significant.
            k = int(stats.binom.ppf(0.025, untied, 0.5)) + 1
            while k >= 0 and 2 * stats.binom.cdf(k, untied, 0.5) > 0.05:
                k -= 1
            if k >= 0:
                rejected = stats.binom.cdf(k, untied, win) + stats.binom.sf(untied - k - 1, untied, win)
                found += stats.binom.pmf(untied, n, s) * rejected
        cases.append([rate, ties, n, found])
    return cases


def length_controlled():
    """What alpaca_eval's own function fits to judgements made up here, with its folds, and the win rate at equal length."""
    cases = []
    for n, theta, phi, psi in [(400, 0.6, 1.5, 0.0), (150, -0.4, 1.0, 0.8), (805, 0.1, 2.0, 0.5)]:
        # Lengths in characters; ours are longer.
        lengths = np.stack([random.normal(900, 250, n), random.normal(700, 250, n)]).clip(20).astype(int)
        delta = lengths[0] - lengths[1]
        tanh = np.tanh(delta / pd.Series(delta).std())
        difficulty = random.normal(size=n).round(3)
        drawn = random.random((2, n)) < sigmoid(theta + phi * tanh + psi * difficulty)
        share = drawn.mean(axis=0)
        data = pd.DataFrame(dict(tanh=tanh, difficulty=difficulty, one=1.0, preference=share))
        # The folds that the function makes of the observations, each of which it splits in two.
        groups = np.tile(np.arange(n), 2)
        folds = np.zeros(n, dtype=int)
        for fold, (_, held_out) in enumerate(GroupKFold(5).split(np.zeros(2 * n), groups=groups)):
            folds[groups[held_out]] = fold
        fit = fit_LogisticRegressionCV(data, "preference", n_splits=5, tol=1e-9, max_iter=100_000)
        weights = fit.coef_[0]
        rate = sigmoid(weights[1] * difficulty + weights[2]).mean()
        cases.append(dict(lengths=lengths.tolist(), tanh=list(tanh), difficulty=list(difficulty), share=list(share), fold=folds.tolist(),
                          c=float(fit.C_[0]), weights=list(weights), rate=float(rate)))
    return cases


# model: psi and theta as alpaca_eval publishes them in `metrics/weights/weighted_alpaca_eval_gpt4_turbo/length_controlled_v1`; not
# Shopee-SlimMoA-v1, whose published rate is 0.7 points from what its weights imply.
PUBLISHED = """
Qwen1.5-72B-Chat,1.0054356999126142,-0.6274683163756027
gpt4_0314,0.9488894918300894,-0.6979541187358145
claude-3-sonnet-20240229,1.0465239548163705,-0.7406263647309234
gpt4_0613,0.8150202748700113,-0.9832327944321382
Mixtral-8x7B-Instruct-v0.1,1.1490632542192407,-1.6076252821367818
gpt-3.5-turbo-1106,1.0101354535205684,-1.9018508475471767
Mistral-7B-Instruct-v0.2,1.1457181187145653,-2.2399408169803903
zephyr-7b-beta,1.0472105841184596,-2.5872480742143988
vicuna-13b-v1.5,1.1135907865888532,-3.0486680858737603
text_davinci_001,0.4274629152954177,-2.4582030232368326
alpaca-7b,0.9859274836495522,-3.6907417919074890
phi-2,0.4609680776507991,-3.2866319258286127
oasst-sft-pythia-12b,0.8352440378605592,-4.1447992306227759
guanaco-7b,0.8962503484379708,-4.4121467026415724
gpt-4-turbo-2024-04-09,0.7724941900359951,0.3493152634687561
claude-3-opus-20240229,0.8954346955719651,-0.3896212886452050
Meta-Llama-3-8B-Instruct,1.0601549714712668,-1.6185347123220444
Qwen1.5-1.8B-Chat,0.9646855557741588,-4.6744303356917447
Llama-3-Instruct-8B-SimPO,0.8865274658510417,-0.1621386599809119
Storm-7B,0.6674628551824360,0.0978593995297498
gemma-2-9b-it-SimPO,0.6125150070394807,1.1709131554933978
gemma-2-9b-it-WPO-HB,0.5520236303826254,1.3895698020985046
Together-MoA,0.8453234405641900,0.9217351025640278
yi-large-preview,0.8454473244820504,0.2120258323902696
"""


def published():
    """Published weights beside the published length-controlled win rates. The difficulties of the 805 instructions are not
    part of the package: their distribution (mean, width and skew) is fitted to every other model, and predicts the rest."""
    table = pd.read_csv(Path(alpaca_eval.__file__).parent / "leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv", index_col=0)
    rows = []
    for line in PUBLISHED.split():
        name, psi, theta = line.rsplit(",", 2)
        if name in table.index:
            rows.append((float(psi), float(theta), float(table.loc[name, "length_controlled_winrate"])))
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    shares = weights / weights.sum()
    half = np.arange(len(rows)) % 2 == 0
    psi, theta, rate = np.array(rows).T

    def error(parameters):
        difficulty = parameters[0] + parameters[1] * nodes + parameters[2] * (nodes**2 - 1)
        return 100 * sigmoid(theta[:, None] + psi[:, None] * difficulty) @ shares - rate

    fitted = least_squares(lambda p: error(p)[half], [0.0, 1.0, 0.0]).x
    off = np.abs(error(fitted))
    print(f"published win rates: {len(rows)} models, three numbers fitted to {half.sum()}: off by {off[half].max():.3f} points there, "
          f"{off[~half].max():.3f} elsewhere; {fitted}")
    difficulty = fitted[0] + fitted[1] * nodes + fitted[2] * (nodes**2 - 1)
    return dict(difficulties=list(difficulty), shares=list(shares), held_out=[list(r) for r, h in zip(rows, half) if not h])


golden = dict(sign_test=sign_tests(), pairing_test=pairing_tests(), corrections=corrections(), permutation_test=permutation_tests(),
              cohen_kappa=kappas(), krippendorff_alpha=alphas(), bradley_terry=bradley_terry(), power=power(),
              length_controlled=length_controlled(), published=published())
OUT.write_text(json.dumps(golden, default=float, separators=(",", ":")) + "\n")
for key in ("pairing_test", "cohen_kappa", "bradley_terry", "power"):
    print(key, golden[key][:3])
print([(c["c"], c["weights"], c["rate"]) for c in golden["length_controlled"]])
