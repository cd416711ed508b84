//! Linear maps of the step's shapes and their gradients, in f32 and in bfloat16, alternately.
//!
//! `cargo bench --workspace --bench products -- [--rounds N] [--json FILE]`: forward `x w^T`, backward the gradients of `x` and
//! `w`; rounding and packing are counted.

mod common;

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use common::{median, option};
use rpo::burn;
use rpo::model::Compute;
use rpo_ops::{Affine, linear};
use serde_json::json;

/// Where a shape is from, and its tokens, outputs and inputs.
const SHAPES: [(&str, [usize; 3]); 13] = [
    ("small, q k v", [2048, 384, 512]),
    ("small, o", [2048, 512, 384]),
    ("small, wi", [2048, 1024, 512]),
    ("small, wo", [2048, 512, 1024]),
    ("small, head", [1024, 32128, 512]),
    ("base, wi", [2048, 2048, 768]),
    ("base, wo", [2048, 768, 2048]),
    ("large, wi", [2048, 2816, 1024]),
    ("large, wo", [2048, 1024, 2816]),
    ("smollm2, gate", [3072, 1536, 576]),
    ("smollm2, k", [3072, 192, 576]),
    ("rank 16", [2048, 16, 512]),
    ("few tokens", [37, 512, 512]),
];

fn main() {
    common::begin();
    let rounds: usize = option("--rounds").map_or(7, |rounds| rounds.parse().expect("a number"));
    println!("{}", common::machine());
    println!("{:<16} {:>18}  forward f32, bf16, ratio   backward f32, bf16, ratio   (GFLOP/s)", "", "m x n x k");
    let mut rows = Vec::new();
    for (name, shape) in SHAPES {
        let mut times: [Vec<[f64; 2]>; 2] = Default::default();
        for round in 0..=rounds {
            for (times, compute) in times.iter_mut().zip([Compute::F32, Compute::Bf16]) {
                let seconds = run(shape, compute);
                // The first warms up.
                times.extend((round > 0).then_some(seconds));
            }
        }
        let rate = |which: usize, pass: usize| {
            let seconds: Vec<f64> = times[which].iter().map(|t| t[pass]).collect();
            let [m, n, k] = shape;
            (1 + pass) as f64 * 2.0 * (m * n * k) as f64 / median(&seconds) / 1e9
        };
        let [forward, backward] = [0, 1].map(|pass| [rate(0, pass), rate(1, pass)]);
        let told = |[f32, bf16]: [f64; 2]| format!("{f32:>8.0} {bf16:>8.0} {:>6.2}", bf16 / f32);
        let [m, n, k] = shape;
        println!("{name:<16} {:>18} {}   {}", format!("{m} x {n} x {k}"), told(forward), told(backward));
        rows.push(json!({ "shape": shape, "name": name, "forward": forward, "backward": backward }));
    }
    common::write_json(json!({ "shapes": rows }));
}

/// Seconds of the forward and of the backward pass.
fn run([tokens, outputs, inputs]: [usize; 3], compute: Compute) -> [f64; 2] {
    let device = Device::flex().autodiff();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad();
    let (x, weight) = (random([tokens, inputs]), random([outputs, inputs]));
    // So that small shapes take a time that can be measured.
    let times = (1 << 28) / (tokens * outputs * inputs).max(1) + 1;
    let mut seconds = [0.0; 2];
    for _ in 0..times {
        let started = Instant::now();
        let y = linear(x.clone(), Affine { compute, ..Affine::from(weight.clone()) });
        seconds[0] += started.elapsed().as_secs_f64();
        let loss = y.sum();
        let started = Instant::now();
        let gradients = loss.backward();
        seconds[1] += started.elapsed().as_secs_f64();
        drop(gradients);
    }
    seconds.map(|s| s / times as f64)
}
