//! Intel's and AMD's units, and what they take.
#![expect(unsafe_code, reason = "vector and tile instructions")]

mod pack;
mod products;

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use super::Unit;

pub(super) use pack::{dither, fill_across, fill_along, round};
pub(super) use products::{block, narrow, rounded, session};

/// What this processor and its system offer that is worth it: Intel's dot products of pairs run at half the rate of its
/// products in f32, AMD's at twice that rate.
pub(super) fn detect() -> Option<Unit> {
    // Tiles are packed by the instructions that come with pairs.
    if has_pairs() && tiles() {
        return Some(Unit::Tiles);
    }
    (has_pairs() && is_amd()).then_some(Unit::Pairs)
}

/// Whether there are dot products of pairs.
fn has_pairs() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

fn is_amd() -> bool {
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

/// Whether there are tiles in bfloat16 and this process may use them.
fn tiles() -> bool {
    const TILES: u32 = 1 << 24;
    const BF16: u32 = 1 << 22;
    const STATE: u64 = 0b11 << 17;
    // AVX-512 implies that these leaves and `xgetbv` are there.
    let features = __cpuid_count(7, 0).edx;
    if features & (TILES | BF16) != TILES | BF16 {
        return false;
    }
    // SAFETY: the system saves AVX's state, so that it has enabled `xgetbv`.
    if unsafe { enabled() } & STATE != STATE {
        return false;
    }
    permitted()
}

/// The states that the system saves.
#[target_feature(enable = "xsave")]
unsafe fn enabled() -> u64 {
    // SAFETY: register 0 is there wherever the instruction is.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the tiles' state, which it gives to those alone who ask.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call changes nothing but this permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// All units that are there, also those that are not worth it.
#[cfg(test)]
pub(super) fn units() -> Vec<Unit> {
    let tiles = detect().filter(|unit| *unit == Unit::Tiles);
    tiles.into_iter().chain(has_pairs().then_some(Unit::Pairs)).collect()
}
