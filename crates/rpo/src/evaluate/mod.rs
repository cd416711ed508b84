//! What a policy is worth: how it ranks rated responses, and, on a problem that can be solved exactly, how far it is from the
//! optimum.

pub mod finite;
mod ranking;

pub use ranking::{Estimate, log_probs, mean_of_rows, mean_tau, of, pooled_spearman, tau_of_prompts};
