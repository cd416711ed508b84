//! What stands for a unit where there is none: nothing of it is ever called.
#![expect(unsafe_code, reason = "as where there are units")]

use std::mem::MaybeUninit;

use half::bf16;

use super::tiles::{Factor, Pair, Stage, Tile};
use super::{Store, Unit};

const NONE: &str = "no unit was detected";

pub(super) fn detect() -> Option<Unit> {
    None
}

#[cfg(test)]
pub(super) fn units() -> Vec<Unit> {
    Vec::new()
}

pub(super) fn session(_: Unit, _: impl FnOnce()) {
    unreachable!("{NONE}");
}

pub(super) unsafe fn round<T>(_: &[T], _: &mut [MaybeUninit<u16>]) {
    unreachable!("{NONE}");
}

pub(super) unsafe fn dither(_: &[f32], _: u16, _: &mut [MaybeUninit<u16>]) {
    unreachable!("{NONE}");
}

pub(super) unsafe fn fill_along<const R: usize, const W: usize>(_: &Stage<R, W>, _: usize, _: Factor, _: &mut Tile) {
    unreachable!("{NONE}");
}

pub(super) unsafe fn fill_across<const R: usize, const W: usize>(_: &Stage<R, W>, _: usize, _: Factor, _: &mut Tile) {
    unreachable!("{NONE}");
}

pub(super) unsafe fn block(_: Unit, _: &[Pair], _: &[Pair], _: *mut f32, _: usize, _: [bool; 2], _: Store) {
    unreachable!("{NONE}");
}

pub(super) unsafe fn rounded(_: Unit, _: &[Pair], _: &[Pair], _: *mut bf16, _: usize, _: [bool; 2]) -> bool {
    unreachable!("{NONE}");
}

pub(super) unsafe fn narrow(_: &[f32], _: *mut bf16, _: usize) {
    unreachable!("{NONE}");
}
