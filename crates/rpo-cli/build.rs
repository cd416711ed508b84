//! What `--version` says beyond the number: commit and features. It needs neither git nor a checkout.

use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string()).filter(|text| !text.is_empty())
    };
    // Sources that were unpacked inside of another repository are not of its commit.
    let own = std::fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).ok();
    let is_own = git(&["rev-parse", "--show-toplevel"]).is_some_and(|top| std::fs::canonicalize(top).ok() == own);
    let commit = git(&["log", "-1", "--format=%h of %cs"]).filter(|_| is_own).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=RPO_COMMIT={commit}");
    println!("cargo:rustc-env=RPO_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    // The log of HEAD changes with every commit.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| std::path::Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
}
