//! What a policy is worth: how it ranks rated responses, and, on a problem that can be solved exactly, how far it is from the
//! optimum.
//!
//! ```
//! use rpo::evaluate::Estimate;
//!
//! let wins = Estimate::wins(&[2.0, 1.0, 3.0], &[1.0, 1.0, 2.0]).expect("three pairs");
//! assert!((wins.interval.mean - 2.5 / 3.0).abs() < 1e-12, "a tie counts half");
//! ```

pub mod card;
mod entrant;
pub mod evaluation;
pub mod finite;
pub mod judge;
pub mod metric;
pub mod preference;
mod ranking;

pub use entrant::Entrant;
pub use ranking::{Estimate, log_probs, mean_of_rows, mean_tau, mean_tau_of, of, pooled_spearman, tau_of_prompts};
