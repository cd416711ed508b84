#!/usr/bin/env bash
# The path of GPUs where there is none: `rpo doctor` and the goldens on a software Vulkan device, SwiftShader (of Debian's package
# chromium) or what VK_DRIVER_FILES names; libvulkan1 is needed too. Says so where there is no such driver. In CI it is a job of its own:
# the build takes as long as any with --features vulkan, and SwiftShader runs on the CPU.
#
# Such devices lack VK_KHR_workgroup_memory_explicit_layout, and for them cubecl-spirv 0.11.3 exchanges two types: shared memory is
# declared as a pointer to a pointer. So a copy of that crate with the types in their places is built in; the lock file stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
export VK_DRIVER_FILES="${VK_DRIVER_FILES:-/usr/lib/chromium/vk_swiftshader_icd.json}"
[ -f "$VK_DRIVER_FILES" ] || { echo "skipped: no Vulkan driver $VK_DRIVER_FILES (install chromium and libvulkan1)"; exit 0; }
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/software-vulkan}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# New times of change, so that cargo does not take what it built from another place for up to date.
mkdir "$work/rpo"
git ls-files -z | tar -c --null -T - | tar -xm -C "$work/rpo"
cargo fetch --locked --manifest-path "$work/rpo/Cargo.toml"
for crate in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cubecl-spirv-0.11.3; do
  cp -r "$crate" "$work/cubecl-spirv"
done
memory="$work/cubecl-spirv/src/ops/memory.rs"
sed -i 's/GlobalVariableOp::new(ctx, value_ty, StorageClass::Workgroup/GlobalVariableOp::new(ctx, ty, StorageClass::Workgroup/
  s/AddressOfOp::new(ctx, ty, name)/AddressOfOp::new(ctx, value_ty, name)/' "$memory"
[ "$(grep -c 'new(ctx, ty, StorageClass::Workgroup\|new(ctx, value_ty, name)' "$memory")" = 2 ] ||
  { echo "cubecl-spirv is not as it was: see whether it still needs this" >&2; exit 1; }
cd "$work/rpo"
patched=(--release --workspace --features vulkan --config "patch.crates-io.cubecl-spirv.path='$work/cubecl-spirv'")
cargo run "${patched[@]}" --bin rpo -- doctor --device vulkan
RPO_DEVICE=vulkan cargo test "${patched[@]}" --test goldens -- --test-threads 1
