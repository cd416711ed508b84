#!/bin/sh
# Runs the tests of the kernels for 64-bit Arm in an emulator of a processor with BF16, on a machine of another kind:
#   scripts/arm.sh [ARGUMENTS OF cargo test]
# It needs the target (`rustup target add aarch64-unknown-linux-gnu`) and, from Debian, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and
# qemu-user. With QEMU_CPU=cortex-a72 the processor has no BF16, and products are computed in f32.
set -eu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu ${QEMU_CPU:-max} -L /usr/aarch64-linux-gnu"
cd "$(dirname "$0")/.."
exec cargo test -p rpo-ops --lib --target aarch64-unknown-linux-gnu "$@"
