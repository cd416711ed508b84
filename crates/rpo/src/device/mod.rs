//! Where tensors live, the CPU or a GPU that this program was built for, how precisely matrices are multiplied there, and whether
//! what comes out is what the CPU computes.
//!
//! ```
//! use rpo::device::{Subject, check};
//! use rpo::model::Config;
//!
//! let config = r#"{"model_type": "t5", "vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}"#;
//! let subject = Subject::of(Config::parse(config).expect("valid"));
//! let check = check("cpu", &subject)?;
//! assert!(check.compared.iter().all(|quantity| quantity.is_within()));
//! # Ok::<(), rpo::Error>(())
//! ```

mod check;
mod compare;
mod find;
mod precision;
mod trial;

pub use check::{Check, check};
pub use compare::{Compared, Kind, Quantity, compare};
pub use find::{NAMES, adapter, find};
pub use precision::{Arithmetic, Precision, WIDE};
pub use rpo_ops::instructions;
pub use trial::Subject;
