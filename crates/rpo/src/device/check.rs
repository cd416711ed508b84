//! Whether a device computes what the CPU does. No device is believed untested: a wrong driver or compiler gives wrong numbers without
//! a word.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn::tensor::Device;

use super::compare::{Compared, Quantity, compare};
use super::find::{adapter, find};
use super::precision::Arithmetic;
use super::trial::Subject;
use crate::error::{Error, Result};

/// What a device made of a [`Subject`], beside what was expected.
#[derive(Clone, Debug)]
pub struct Check {
    /// The device's name.
    pub device: String,
    /// What the hardware calls itself, where that is known.
    pub adapter: Option<String>,
    /// What the device computes products in.
    pub arithmetic: Arithmetic,
    /// Quantity by quantity, in the order in which they are computed.
    pub compared: Vec<Compared>,
    /// What the expected numbers took, and those of the device; the latter with whatever it compiles the first time.
    pub took: [Duration; 2],
}

/// Computes on the device called `name` the states, log-probabilities, loss, gradients and answers of a small likeness of `subject`, and
/// compares them with what the CPU computes in f32; the CPU itself, whose kernels are our own, with Burn's operations on the CPU.
///
/// # Errors
/// If there is no such device, or it fails.
pub fn check(name: &str, subject: &Subject) -> Result<Check> {
    let arithmetic = Arithmetic::on(name, subject.compute());
    let device = find(name)?;
    let exact = subject.clone().with_compute(rpo_ops::Compute::F32);
    let (expected, of_cpu) = timed(|| match name {
        "cpu" => rpo_ops::with_composed(|| exact.on(&device)),
        _ => exact.on(&Device::flex()),
    });
    let expected = expected?;
    let (found, of_device) = timed(|| guarded(|| Ok((adapter(&device), subject.on(&device)?))));
    let (adapter, found): (_, Vec<Quantity>) = found?;
    let compared = compare(&expected, &found, arithmetic);
    Ok(Check { device: name.into(), adapter, arithmetic, compared, took: [of_cpu, of_device] })
}

impl Check {
    /// That the device computed what was expected.
    ///
    /// # Errors
    /// [`Error::Untrusted`] otherwise, with what differs first and most, by how much, and what to do.
    pub fn verdict(&self) -> Result<()> {
        let beyond: Vec<&Compared> = self.compared.iter().filter(|quantity| !quantity.is_within()).collect();
        let (Some(first), worst) = (beyond.first(), beyond.iter().max_by(|a, b| a.difference.total_cmp(&b.difference)))
        else {
            return Ok(());
        };
        let said = |quantity: &Compared| {
            let Compared { name, expected, found, difference, tolerance, .. } = quantity;
            format!(
                "{name}: {found:.4e} for {expected:.4e}, a relative difference of {difference:.1e} where {tolerance:.0e} is allowed \
                 in {}",
                self.arithmetic.name()
            )
        };
        let most = worst.filter(|worst| worst.name != first.name).map(|worst| format!("; most of all {}", said(worst)));
        let problem = format!(
            "{} of {} quantities of a small test model are not those of the CPU, first {}{}",
            beyond.len(),
            self.compared.len(),
            said(first),
            most.unwrap_or_default()
        );
        Err(Error::Untrusted { device: self.device.clone(), problem })
    }
}

fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

/// Engines panic where a device cannot be opened or fails.
fn guarded<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Device(said.unwrap_or("it panicked").into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Kind;
    use crate::model::{Compute, Config, encoder};

    const T5: &str = r#"{"model_type":"t5","vocab_size":130,"d_model":48,"d_kv":16,"d_ff":80,"num_layers":2,"num_heads":3,
        "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;
    const QWEN: &str = r#"{"model_type":"qwen2","vocab_size":130,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"tie_word_embeddings":true}"#;
    const BERT: &str = r#"{"model_type":"bert","vocab_size":130,"hidden_size":64,"num_hidden_layers":4,"num_attention_heads":4,
        "intermediate_size":96,"max_position_embeddings":64,"type_vocab_size":2}"#;

    fn subjects() -> Vec<Subject> {
        let of = |text: &str| Subject::of(Config::parse(text).expect("valid"));
        vec![
            of(T5),
            of(&T5.replace("gated-gelu", "relu").replace("false", "true")),
            of(T5).with_adapters(true),
            of(QWEN),
            of(QWEN).with_adapters(false),
            Subject::encoder(encoder::Config::parse(BERT).expect("valid")),
        ]
    }

    #[test]
    fn the_cpu_computes_what_burn_does_there() {
        for subject in subjects() {
            let check = check("cpu", &subject).expect("computes");
            check.verdict().unwrap_or_else(|problem| panic!("{}: {problem}", subject.description()));
            // No quantity is trivially right.
            for quantity in check.compared.iter().filter(|quantity| !quantity.name.contains("lora_A")) {
                assert!(quantity.expected != 0.0, "{}: {} is zero", subject.description(), quantity.name);
            }
        }
    }

    #[test]
    fn products_in_bfloat16_are_within_their_tolerance() {
        if crate::device::Precision::Bf16.on(&Device::flex(), 0) != Compute::Bf16 {
            eprintln!("skipped: this processor has no products in bfloat16");
            return;
        }
        for subject in subjects() {
            let rounded = check("cpu", &subject.clone().with_compute(Compute::Bf16)).expect("computes");
            rounded.verdict().unwrap_or_else(|problem| panic!("{}: {problem}", subject.description()));
        }
    }

    /// What a wrong kernel does to one tensor, of any kind, is refused and named.
    #[test]
    fn a_wrong_tensor_is_caught_and_named() {
        let subject = Subject::of(Config::parse(T5).expect("valid"));
        let expected = subject.on(&Device::flex()).expect("computes");
        for arithmetic in [Arithmetic::F32, Arithmetic::Tf32, Arithmetic::Bf16] {
            for (i, quantity) in expected.iter().enumerate().filter(|(_, quantity)| quantity.kind != Kind::Tokens) {
                let mut found = expected.clone();
                // Each value in the place of its neighbour, as by a wrong index; one that stands alone doubled.
                match &mut found[i].values[..] {
                    [one] => *one *= 2.0,
                    several => several.rotate_left(1),
                }
                let compared = compare(&expected, &found, arithmetic);
                let check =
                    Check { device: "vulkan".into(), adapter: None, arithmetic, compared, took: [Duration::ZERO; 2] };
                let said = check.verdict().expect_err("wrong").to_string();
                assert!(said.contains(&format!("1 of {}", expected.len())), "{said}");
                assert!(said.contains(&format!("first {}:", quantity.name)), "{said}");
                assert!(said.contains("rpo doctor --device vulkan"), "{said}");
            }
        }
    }

    #[test]
    fn a_device_that_panics_is_an_error() {
        let problem = guarded::<()>(|| panic!("no adapter was found")).expect_err("it fails");
        assert!(problem.to_string().contains("no adapter was found"), "{problem}");
    }
}
