//! Every fused operation against its composed twin, values and gradients, at odd sizes; and gradients against finite
//! differences.

use burn::tensor::{Device, Tensor};

use super::*;
use crate::attention::RelativeBias;
use crate::encoder::LayerNorm;
use crate::{
    Adapter, Affine, AttentionLayer, Gate, GatedFeedForward, Prefixed, Rotary, Segments, composed, cpu, layers,
};

type Inputs = Vec<Tensor<2>>;

/// Pseudo-random numbers of variance 1, the same every time, others for every tensor.
fn random(shapes: &[[usize; 2]]) -> Inputs {
    let device = Device::flex();
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 12f32.sqrt()
    };
    let mut tensor = |[rows, columns]: [usize; 2]| {
        let values: Vec<f32> = std::iter::repeat_with(&mut next).take(rows * columns).collect();
        Tensor::<1>::from_floats(values.as_slice(), &device).reshape([rows, columns])
    };
    shapes.iter().map(|shape| tensor(*shape)).collect()
}

/// The result of `operation` and the gradients of its inputs, the result's being fixed pseudo-random numbers.
fn run(inputs: &Inputs, operation: &dyn Fn(Inputs) -> Tensor<2>) -> Vec<Vec<f32>> {
    let tracked: Inputs = inputs.iter().map(|x| Tensor::from_inner(x.clone()).require_grad()).collect();
    let result = operation(tracked.clone());
    let [rows, columns] = result.dims();
    let weights: Vec<f32> = (0..rows * columns).map(|i| ((i * 37) % 19) as f32 / 19.0 - 0.4).collect();
    let weights = Tensor::<1>::from_floats(weights.as_slice(), &result.device()).reshape([rows, columns]);
    let gradients = (result.clone() * weights).sum().backward();
    let of_inputs = tracked.iter().map(|x| x.grad(&gradients).expect("reached").into_data());
    let all = std::iter::once(result.into_data()).chain(of_inputs);
    all.map(|d| d.try_to_vec::<f32>().expect("f32")).collect()
}

/// An operation whose products are computed in one way or the other.
type Computed<'a> = &'a dyn Fn(Inputs, Compute) -> Tensor<2>;

fn compare(name: &str, inputs: &Inputs, ours: Computed<'_>, theirs: &dyn Fn(Inputs) -> Tensor<2>) {
    if multiplies_bf16() {
        compare_rounded(name, inputs, ours, theirs);
    }
    let ours = &|inputs| ours(inputs, Compute::F32);
    for (which, (a, b)) in run(inputs, ours).iter().zip(&run(inputs, theirs)).enumerate() {
        assert_eq!(a.len(), b.len(), "{name}, {which}");
        let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let worst = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        // The gradient of the keys' bias is 0, of which rounding leaves 3.4e-5 on Arm.
        let bound = if cfg!(target_arch = "aarch64") { 1e-4 } else { 3e-5 };
        assert!(worst <= bound * (1.0 + largest), "{name}, {which} (0 is the value): {worst} of {largest}");
    }
    // The gradients along a direction, by central differences of our own values.
    // Other numbers than those of the inputs: those begin with another tensor.
    let shapes = [vec![[1, 7]], inputs.iter().map(Tensor::dims).collect()].concat();
    let direction = random(&shapes).split_off(1);
    let weighted = |h: f32| -> f64 {
        let moved = inputs.iter().zip(&direction).map(|(x, d)| x.clone() + d.clone().mul_scalar(h)).collect();
        let value = run(&moved, ours).swap_remove(0);
        value.iter().enumerate().map(|(i, v)| f64::from(*v) * f64::from(((i * 37) % 19) as f32 / 19.0 - 0.4)).sum()
    };
    let want = (weighted(1e-3) - weighted(-1e-3)) / 2e-3;
    let gradients = run(inputs, ours);
    let along = gradients[1..].iter().zip(&direction).map(|(g, d)| {
        let d: Vec<f32> = d.clone().into_data().try_to_vec().expect("f32");
        g.iter().zip(d).map(|(g, d)| f64::from(g * d)).sum::<f64>()
    });
    let got: f64 = along.sum();
    assert!((got - want).abs() < 0.02 * (1.0 + want.abs()), "{name}: {got} along a direction for {want}");
}

/// With products in bfloat16, whose factors have a relative error of up to 2^-8 each, weights of 2^-7, results and gradients stay near. Smaller
/// inputs keep attention away from a softmax that a small error turns over.
fn compare_rounded(name: &str, inputs: &Inputs, ours: Computed<'_>, theirs: &dyn Fn(Inputs) -> Tensor<2>) {
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let (ours, inputs) =
        (|inputs| ours(inputs, Compute::Bf16), &inputs.iter().map(|x| x.clone().mul_scalar(0.5)).collect());
    for (which, (a, b)) in run(inputs, &ours).iter().zip(&run(inputs, theirs)).enumerate() {
        let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let (apart, size) = (norm(&apart), norm(b));
        assert!(apart <= 0.03 * size + 0.02 * (b.len() as f64).sqrt(), "{name} in bf16, {which}: {apart} of {size}");
    }
}

/// Shapes of a map with a bias and an adapter of rank 3.
fn map_shapes([inputs, outputs]: [usize; 2]) -> [[usize; 2]; 4] {
    [[outputs, inputs], [1, outputs], [3, inputs], [outputs, 3]]
}

/// The map of the next four inputs.
fn map(x: &mut Inputs, compute: Compute) -> Affine {
    let [weight, bias, a, b] = std::array::from_fn(|_| x.remove(0));
    Affine { weight, bias: Some(row(bias)), adapter: Some(Adapter { a, b, scale: 0.2 }), compute }
}

fn row(x: Tensor<2>) -> Tensor<1> {
    let [_, n] = x.dims();
    x.reshape([n])
}

#[test]
fn pointwise_operations() {
    for (n, width) in [(1, 1), (3, 5), (70, 33), (2, 700)] {
        let x = random(&[[n, width], [7, width]]);
        let plain = |f: fn(Tensor<2>, Affine) -> Tensor<2>| {
            move |mut x: Inputs, compute| f(x.remove(0), Affine { compute, ..x.remove(0).into() })
        };
        let f32 = Compute::F32;
        compare("linear", &x, &plain(cpu::linear), &|x| plain(composed::linear)(x, f32));
        let x = random(&[[[n, width]].as_slice(), &map_shapes([width, 7])].concat());
        let full =
            |f: fn(Tensor<2>, Affine) -> Tensor<2>| move |mut x: Inputs, compute| f(x.remove(0), map(&mut x, compute));
        compare("linear with bias and adapter", &x, &full(cpu::linear), &|x| full(composed::linear)(x, f32));
        let x = random(&[[n, width], [1, width]]);
        let ours = |mut x: Inputs, _| cpu::rms_norm(x.remove(0), row(x.remove(0)), 1e-6);
        let theirs = |mut x: Inputs| composed::rms_norm(x.remove(0), row(x.remove(0)), 1e-6);
        compare("rms_norm", &x, &ours, &theirs);
    }
}

#[test]
fn layers_of_encoders() {
    for (n, width) in [(1, 2), (3, 5), (70, 33), (2, 700)] {
        let x = random(&[[n, width], [n, width], [1, width], [1, width]]);
        let norm = |x: &mut Inputs| LayerNorm { weight: row(x.remove(0)), bias: row(x.remove(0)), epsilon: 1e-3 };
        let full = |f: fn(Tensor<2>, Tensor<2>, LayerNorm) -> Tensor<2>| {
            move |mut x: Inputs| f(x.remove(0), x.remove(0), norm(&mut x))
        };
        compare("add_norm", &x, &|x, _| full(cpu::add_norm)(x), &full(composed::add_norm));
        compare("gelu", &x[..1].to_vec(), &|mut x, _| cpu::gelu(x.remove(0)), &|mut x| composed::gelu(x.remove(0)));
    }
    for (lengths, heads) in [(vec![1], 1), (vec![3, 1, 150, 7], 3)] {
        let segments = Segments::from_lengths(lengths);
        let x = random(&[[segments.total(), 5 * heads]; 3]);
        let full = |f: fn(Tensor<2>, Tensor<2>, Tensor<2>, usize, &Segments) -> Tensor<2>| {
            let segments = segments.clone();
            move |mut x: Inputs| f(x.remove(0), x.remove(0), x.remove(0), heads, &segments)
        };
        compare("attention", &x, &|x, _| full(cpu::scaled_attention)(x), &full(composed::scaled_attention));
    }
}

#[test]
fn feed_forward_layer() {
    let sizes = [
        (1, 1, 1, Gate::Gelu),
        (3, 5, 7, Gate::Silu),
        (70, 33, 40, Gate::Gelu),
        (70, 33, 40, Gate::Silu),
        (2, 300, 9, Gate::Silu),
    ];
    for (n, width, inner, activation) in sizes {
        let maps = [[width, inner], [width, inner], [inner, width]].map(map_shapes);
        let x = random(&[[[n, width], [1, width]].as_slice(), maps.as_flattened()].concat());
        let layer = move |mut x: Inputs, compute| {
            let [stream, norm] = std::array::from_fn(|_| x.remove(0));
            let [gate, up, down] = std::array::from_fn(|_| map(&mut x, compute));
            (stream, GatedFeedForward { norm: row(norm), epsilon: 1e-6, activation, gate, up, down })
        };
        let ours = |x: Inputs, compute| {
            let (x, layer) = layer(x, compute);
            crate::gated_feed_forward(x, layer)
        };
        let theirs = |x: Inputs| {
            let (x, layer) = layer(x, Compute::F32);
            composed::gated_feed_forward(x, layer)
        };
        compare("feed_forward", &x, &ours, &theirs);
    }
}

#[test]
fn attention_layer_of_uneven_segments() {
    let cases = [
        (vec![3, 1, 5], None),
        (vec![140], None),
        (vec![3, 1, 5], Some(vec![3, 1, 5])),
        (vec![2, 7, 1], Some(vec![5, 3, 9])),
    ];
    for (queries, keys) in cases {
        let (queries, keys) = (Segments::from_lengths(queries), keys.map(Segments::from_lengths));
        let memory = keys.as_ref().unwrap_or(&queries).total();
        let maps = [[4, 6], [4, 6], [4, 6], [6, 4]].map(map_shapes);
        let x = random(&[&[[queries.total(), 4], [1, 4], [memory, 4], [32, 2]], maps.as_flattened()].concat());
        for causal in [None, Some(false), Some(true)] {
            if causal == Some(true) && keys.is_some() {
                continue;
            }
            let run = |fused: bool| {
                let (queries, keys) = (&queries, &keys);
                move |mut x: Inputs, compute| {
                    let [stream, norm, memory, table] = std::array::from_fn(|_| x.remove(0));
                    let [q, k, v, o] = std::array::from_fn(|_| map(&mut x, compute));
                    let bias = causal.map(|c| RelativeBias::new(table.clone(), 128, c));
                    let norm = row(norm);
                    let layer = AttentionLayer { norm, epsilon: 1e-6, heads: [2, 2], q, k, v, o, head_norms: None };
                    // So that both are reached where they mean nothing.
                    let nothing = (memory.clone().sum() + table.sum()).mul_scalar(0.0).reshape([1, 1]);
                    let memory = keys.as_ref().map(|keys| (memory, keys));
                    let attention = if fused { layers::attention } else { composed::attention };
                    attention(stream, layer, queries, memory, bias.as_ref()) + nothing
                }
            };
            compare(&format!("attention, {keys:?}, {causal:?}"), &x, &run(true), &|x| run(false)(x, Compute::F32));
        }
    }
}

#[test]
fn log_probabilities_of_labels() {
    for (n, width, vocabulary) in [(1, 3, 2), (9, 5, 23), (3, 40, 501)] {
        let labels: Vec<u32> = (0..n).map(|i| ((i * 7919) % vocabulary) as u32).collect();
        let x = random(&[[n, width], [vocabulary, width]]);
        let ours = |mut x: Inputs, compute| {
            cpu::label_log_probs(x.remove(0), x.remove(0), &labels, true, compute).reshape([1, n])
        };
        let theirs = |mut x: Inputs| composed::label_log_probs(x.remove(0), x.remove(0), &labels).reshape([1, n]);
        compare("label_log_probs", &x, &ours, &theirs);
    }
}

#[test]
fn extreme_scores_stay_finite() {
    let device = Device::flex().autodiff();
    let big = |n| Tensor::<2>::full([n, 2], 1e4, &device).require_grad();
    let segments = Segments::from_lengths([3]);
    let q = big(2);
    let [x, k, v, o] = [big(3), big(2), big(2), big(2)];
    let norm = Tensor::from_floats([1e4, 1e4], &device);
    let [maps_q, k, v, o] = [q.clone(), k, v, o].map(Affine::from);
    let layer = AttentionLayer { norm, epsilon: 1e-6, heads: [1, 1], q: maps_q, k, v, o, head_norms: None };
    let mixed = layers::attention(x, layer, &segments, None, None);
    let gradient = q.grad(&mixed.clone().sum().backward()).expect("reached");
    let hidden = big(2);
    let log_probs = crate::label_log_probs(
        hidden.clone(),
        Tensor::from_floats([[1.0, 1.0], [-1.0, -1.0]], &device),
        &[0, 1],
        true,
        Compute::F32,
    );
    let of_hidden = hidden.grad(&log_probs.clone().sum().backward()).expect("reached");
    for values in [mixed.into_data(), gradient.into_data(), log_probs.into_data(), of_hidden.into_data()] {
        assert!(values.try_to_vec::<f32>().expect("f32").iter().all(|v| v.is_finite()));
    }
}

#[test]
fn adamw_in_one_pass_equals_its_formula() {
    let n = 3 * 64 * 1024 + 17;
    let [value, gradient, mean, square] =
        [1, 2, 3, 4].map(|k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 101) as f32 / 101.0 + 0.01).collect() });
    let step = AdamW { scale: 0.5, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, step: 3, rate: 0.1, weight_decay: 0.2 };
    let device = Device::flex();
    let [value2, gradient2, mean2, square2] =
        [&value, &gradient, &mean, &square].map(|v| Tensor::<1>::from_floats(v.as_slice(), &device));
    let kept = value2.clone();
    let got =
        adamw(value2, gradient2.clone(), mean2, square2, step).map(|t| t.into_data().try_to_vec::<f32>().expect("f32"));
    for i in (0..n).step_by(997) {
        let [v, g, m, s] = [&value, &gradient, &mean, &square].map(|v| f64::from(v[i]));
        let g = 0.5 * g;
        let (m, s) = (0.9 * m + 0.1 * g, 0.99 * s + 0.01 * g * g);
        let change = (m / (1.0 - 0.9f64.powi(3))) / ((s / (1.0 - 0.99f64.powi(3))).sqrt() + 1e-8);
        for (got, want) in [got[0][i], got[1][i], got[2][i]].into_iter().zip([v * 0.98 - 0.1 * change, m, s]) {
            assert!((f64::from(got) - want).abs() < 1e-5, "{i}: {got} for {want}");
        }
    }
    assert_eq!(kept.into_data().try_to_vec::<f32>().expect("f32"), value, "what others hold is left alone");
    let squares: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
    assert!((sum_of_squares(gradient2) / squares - 1.0).abs() < 1e-6);
}

#[test]
fn attention_with_a_shared_prefix() {
    let rotary = Rotary { frequencies: vec![1.0, 0.3, 0.02], magnitude: 1.1 };
    for (prompts, responses, prompt_of) in [
        (vec![3, 1, 140], vec![2, 150, 1, 5], vec![0, 0, 1, 2]),
        (vec![2, 4], vec![], vec![]),
        (vec![1], vec![1], vec![0]),
    ] {
        let view = Prefixed {
            prompts: Segments::from_lengths(prompts),
            responses: Segments::from_lengths(responses),
            prompt_of,
        };
        let n = view.prompts.total() + view.responses.total();
        for [heads, key_heads] in [[4, 2], [3, 3], [2, 1]] {
            let (inner, keys) = (heads * 6, key_heads * 6);
            let maps = [[5, inner], [5, keys], [5, keys], [inner, 5]].map(map_shapes);
            let x = random(&[[[n, 5], [1, 5], [1, 6], [1, 6]].as_slice(), maps.as_flattened()].concat());
            let attend = |fused: bool, normed: bool| {
                let (view, rotary) = (view.clone(), rotary.clone());
                move |mut x: Inputs, compute| {
                    let [stream, norm, of_q, of_k] = std::array::from_fn(|_| x.remove(0));
                    // So that both are reached where they mean nothing.
                    let nothing = (of_q.clone() + of_k.clone()).sum().mul_scalar(0.0).reshape([1, 1]);
                    let head_norms = normed.then(|| [row(of_q), row(of_k)]);
                    let [q, k, v, o] = std::array::from_fn(|_| map(&mut x, compute));
                    let norm = row(norm);
                    let layer =
                        AttentionLayer { norm, epsilon: 1e-6, heads: [heads, key_heads], q, k, v, o, head_norms };
                    let attention =
                        if fused { crate::prefixed_self_attention } else { composed::prefixed_self_attention };
                    attention(stream, layer, &view, &rotary) + nothing
                }
            };
            for normed in [false, true] {
                compare("prefixed attention", &x, &attend(true, normed), &|x| attend(false, normed)(x, Compute::F32));
            }
        }
    }
}

/// With parameters that are not trained, the other gradients stay what they are.
#[test]
fn frozen_parameters_get_no_gradient_and_change_no_other() {
    let maps = [[6, 8], [6, 8], [8, 6], [6, 4], [6, 4], [6, 4], [4, 6]].map(map_shapes);
    let x = random(&[[[9, 6], [1, 6], [32, 2], [11, 6]].as_slice(), maps.as_flattened()].concat());
    let segments = Segments::from_lengths([4, 5]);
    let of = |frozen: &dyn Fn(usize) -> bool| -> Vec<Option<Vec<f32>>> {
        let freeze = |(i, x): (usize, &Tensor<2>)| {
            let x = Tensor::from_inner(x.clone());
            if frozen(i) { x } else { x.require_grad() }
        };
        let tracked: Inputs = x.iter().enumerate().map(freeze).collect();
        let mut inputs = tracked.clone();
        let [x, norm, table, head] = std::array::from_fn(|_| inputs.remove(0));
        let [gate, up, down] = std::array::from_fn(|_| map(&mut inputs, Compute::F32));
        let [q, k, v, o] = std::array::from_fn(|_| map(&mut inputs, Compute::F32));
        let feed_forward =
            GatedFeedForward { norm: row(norm.clone()), epsilon: 1e-6, activation: Gate::Gelu, gate, up, down };
        let attention = AttentionLayer { norm: row(norm), epsilon: 1e-6, heads: [2, 2], q, k, v, o, head_norms: None };
        let bias = crate::RelativeBias::new(table, 128, true);
        let y = crate::self_attention(crate::gated_feed_forward(x, feed_forward), attention, &segments, &bias);
        let labels = [0, 10, 3, 4, 5, 6, 7, 8, 9];
        let gradients = crate::label_log_probs(y, head, &labels, true, Compute::F32).sum().backward();
        let host = |x: &Tensor<2>| x.grad(&gradients).map(|g| g.into_data().try_to_vec().expect("f32"));
        tracked.iter().map(host).collect()
    };
    let all = of(&|_| false);
    // All but the adapters, as in LoRA; and all matrices.
    let adapter = |i: usize| i >= 4 && (i - 4) % 4 >= 2;
    for frozen in
        [&|i| i > 0 && !adapter(i), &|i: usize| i >= 3 && (i < 4 || (i - 4) % 4 != 1)] as [&dyn Fn(usize) -> bool; 2]
    {
        for (i, (all, some)) in all.iter().zip(of(frozen)).enumerate() {
            match frozen(i) {
                true => assert!(all.is_some() && some.is_none(), "{i}"),
                false => assert_eq!(all, &some, "{i}"),
            }
        }
    }
}
