//! Which program this is: number, commit, cargo features and target.

use std::sync::LazyLock;

/// The features that change what the program can do, as far as they are on.
const FEATURES: [(&str, bool); 5] = [
    ("cuda", cfg!(feature = "cuda")),
    ("rocm", cfg!(feature = "rocm")),
    ("metal", cfg!(feature = "metal")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("mpi", cfg!(feature = "mpi")),
];

/// `0.1.0 (commit 1a2b3c4 of 2026-11-25, features: cpu, x86_64-unknown-linux-gnu)`.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(told);
    &VERSION
}

fn told() -> String {
    let on = FEATURES.into_iter().filter(|(_, on)| *on).map(|(name, _)| name);
    let features: Vec<&str> = std::iter::once("cpu").chain(on).collect();
    format!(
        "{} (commit {}, features: {}, {})",
        env!("CARGO_PKG_VERSION"),
        env!("RPO_COMMIT"),
        features.join(" "),
        env!("RPO_TARGET")
    )
}
