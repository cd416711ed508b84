//! How positions become angles: the frequencies of rotary embeddings (RoPE, arXiv 2104.09864) and the ways to reach longer
//! contexts than a model was first trained on, as transformers' `modeling_rope_utils.py` has them.

use std::f64::consts::TAU;

use rpo_ops::Rotary;
use serde_json::{Map, Value};

use crate::model::limits;

/// What is wrong, as a sentence.
type Result<T> = std::result::Result<T, String>;

/// Numbers of a scaling that must be positive where they are given.
const FACTORS: [&str; 6] = [
    "factor",
    "attention_factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "max_position_embeddings",
];
/// The largest of them that is read, and the largest base of the frequencies.
const LARGEST: f64 = 1e15;

/// The angles by which positions turn heads of this width, of a model for texts of `context` tokens, as its `scaling` says:
///
/// - `linear` slows all frequencies down by a factor,
/// - `llama3` those that turn less than `low_freq_factor` times over the original context, and not those that turn more than
///   `high_freq_factor` times, with a ramp by turns between,
/// - `yarn` (arXiv 2309.00071) those that turn less than `beta_slow` times and not those that turn more than `beta_fast` times,
///   with a ramp by coordinates between; attention is sharpened by the angles' magnitude.
pub(super) fn rotary(width: usize, theta: f64, context: Option<f64>, scaling: &Map<String, Value>) -> Result<Rotary> {
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
    let given = |name: &str| scaling.get(name).and_then(Value::as_f64);
    let number =
        |name: &str| given(name).ok_or_else(|| format!("rope_scaling of type `{kind}` needs a number `{name}`"));
    limits::number("rope_theta", theta, f64::from(f32::MIN_POSITIVE)..=LARGEST)?;
    for name in FACTORS {
        if let Some(value) = given(name) {
            limits::number(name, value, f64::from(f32::MIN_POSITIVE)..=LARGEST)?;
        }
    }
    let plain = (0..width / 2).map(|i| theta.powf(-2.0 * i as f64 / width as f64));
    let mut magnitude = 1.0;
    let frequencies: Vec<f64> = match kind {
        "default" => plain.collect(),
        "linear" => {
            let factor = number("factor")?;
            plain.map(|frequency| frequency / factor).collect()
        }
        "llama3" => {
            let [factor, low, high] = [number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?];
            let context = number("original_max_position_embeddings")?;
            let kept = |frequency: f64| ((context * frequency / TAU - low) / (high - low)).clamp(0.0, 1.0);
            plain.map(|frequency| slowed(frequency, factor, kept(frequency))).collect()
        }
        "yarn" => {
            let factor = number("factor")?;
            let context = given("original_max_position_embeddings").or(context);
            let context = context.ok_or("rope_scaling of type `yarn` needs `original_max_position_embeddings`")?;
            magnitude = given("attention_factor").unwrap_or_else(|| {
                let sharpened = |by: f64| if factor > 1.0 { 0.1 * by * factor.ln() + 1.0 } else { 1.0 };
                match [given("mscale"), given("mscale_all_dim")].map(|by| by.filter(|by| *by != 0.0)) {
                    [Some(one), Some(all)] => sharpened(one) / sharpened(all),
                    _ => sharpened(1.0),
                }
            });
            // Which coordinate turns so many times over the context.
            let turning = |times: f64| width as f64 * (context / (times * TAU)).ln() / (2.0 * theta.ln());
            let turns = |name: &str, usual: f64| given(name).filter(|turns| *turns != 0.0).unwrap_or(usual);
            let [mut first, mut last] = [turning(turns("beta_fast", 32.0)), turning(turns("beta_slow", 1.0))];
            if scaling.get("truncate").and_then(Value::as_bool).unwrap_or(true) {
                (first, last) = (first.floor(), last.ceil());
            }
            (first, last) = (first.max(0.0), last.min(width as f64 - 1.0));
            let length = if first == last { 0.001 } else { last - first };
            let kept = |i: usize| 1.0 - ((i as f64 - first) / length).clamp(0.0, 1.0);
            plain.enumerate().map(|(i, frequency)| slowed(frequency, factor, kept(i))).collect()
        }
        other => {
            return Err(format!(
                "rope_scaling of type `{other}`; supported are `default`, `linear`, `llama3` and `yarn`"
            ));
        }
    };
    let frequencies: Vec<f32> = frequencies.into_iter().map(|frequency| frequency as f32).collect();
    let magnitude = magnitude as f32;
    match frequencies.iter().all(|frequency| frequency.is_finite()) && magnitude.is_finite() && magnitude > 0.0 {
        true => Ok(Rotary { frequencies, magnitude }),
        false => Err(format!("rope_theta and rope_scaling of type `{kind}` give angles that are no finite numbers")),
    }
}

/// A frequency of which a part is `kept` and the rest slowed down by a factor.
fn slowed(frequency: f64, factor: f64, kept: f64) -> f64 {
    (1.0 - kept) * frequency / factor + kept * frequency
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(width: usize, scaling: &str) -> Result<Rotary> {
        let Value::Object(scaling) = serde_json::from_str(scaling).expect("JSON") else { panic!("an object") };
        rotary(width, 10_000.0, None, &scaling)
    }

    #[test]
    fn frequencies_by_hand() {
        let of = |scaling: &str| of(4, scaling).map(|rotary| rotary.frequencies);
        assert_eq!(of("{}"), Ok(vec![1.0, 0.01]));
        assert_eq!(of(r#"{"type":"linear","factor":4}"#), Ok(vec![0.25, 0.0025]));
        // Over 8192 positions the first turns 1304 times, more than 4, and stays; the second 13, also.
        let llama3 = r#"{"rope_type":"llama3","factor":8,"low_freq_factor":LOW,"high_freq_factor":HIGH,
            "original_max_position_embeddings":8192}"#;
        let with = |low: &str, high: &str| of(&llama3.replace("LOW", low).replace("HIGH", high));
        assert_eq!(with("1", "4"), Ok(vec![1.0, 0.01]));
        // Slower than 20 turns: an eighth.
        assert_eq!(with("20", "40"), Ok(vec![1.0, 0.00125]));
        assert!(of(r#"{"rope_type":"longrope","factor":4}"#).expect_err("unknown").contains("`longrope`"));
        assert!(of(r#"{"rope_type":"linear"}"#).expect_err("no factor").contains("`factor`"));
        let said = of(r#"{"rope_type":"yarn","factor":4}"#).expect_err("no context");
        assert!(said.contains("`original_max_position_embeddings`"), "{said}");
    }

    #[test]
    fn yarn_by_hand() {
        // Over 4096 positions coordinate i of 64 turns 4096 / 2 pi * 10000^(-i/32) times: 32 times at 10.5, once at 22.5.
        let rotary =
            of(64, r#"{"rope_type":"yarn","factor":4,"original_max_position_embeddings":4096}"#).expect("valid");
        let plain = |i: f64| 10_000f64.powf(-i / 32.0);
        let close = |i: usize, kept: f64| {
            let want = plain(i as f64) * (kept + (1.0 - kept) / 4.0);
            assert!((f64::from(rotary.frequencies[i]) / want - 1.0).abs() < 1e-6, "{i}");
        };
        // All is kept up to 10, nothing from 23 on, and half of the ramp lies at 16.5.
        close(0, 1.0);
        close(10, 1.0);
        close(16, 7.0 / 13.0);
        close(17, 6.0 / 13.0);
        close(23, 0.0);
        close(31, 0.0);
        assert!((f64::from(rotary.magnitude) - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-6);
    }
}
