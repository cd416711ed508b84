#!/usr/bin/env bash
# The tests of what is unsafe, under address sanitizer: the kernels of rpo-ops with their memory, threads and instructions, and the
# models that run on them. Run it after any change to unsafe code, and before a release. It builds all dependencies anew in a
# directory of its own (some ten minutes on two cores). Inline assembly (AMX) is not looked into by the sanitizer.
#
#   scripts/sanitize.sh [FILTER...]
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
# The sanitizer is not stable yet; its runtime comes with the stable toolchain all the same.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="$PWD/target/sanitize"
# Memory of threads that live as long as the program is no leak.
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
cargo test --workspace --target "$host" --locked --lib -- "$@"
cargo test --workspace --target "$host" --locked --test goldens --test decoders --test decoding --test encoders --test precision -- "$@"
