//! A product of rows and a packed matrix as a phase of a computation, and the memory between phases.

use super::bytes::{self, Group, Rounded};
use super::packed::{Input, PANEL, Packed, Tiling};
use super::team::{Shared, Worker};

/// Inputs of tiles that are filled together.
const PART: usize = 64;

/// Memory for what lies between phases, by row.
#[derive(Default)]
pub(super) struct Space {
    /// What a product takes: normalised or mixed.
    pub(super) narrow: Shared<f32>,
    /// The same of the feed-forward layer's last map.
    pub(super) wide: Shared<f32>,
    /// Either in tiles.
    pub(super) tiles: Shared<f32>,
    /// Either, rounded.
    pub(super) bytes: Shared<Group>,
    pub(super) rounded: Shared<Rounded>,
    pub(super) byte_tiles: Shared<Group>,
    /// Queries, keys and values.
    pub(super) inward: Shared<f32>,
    pub(super) logits: Shared<f32>,
}

/// Every panel times all rows of `x`, which are rounded before if the matrix takes bytes.
pub(super) fn product(
    worker: &Worker<'_>,
    matrix: &Packed,
    x: &Shared<f32>,
    rows: usize,
    space: &Space,
    mut take: impl FnMut(usize, usize, &[[f32; PANEL]]),
) {
    let (inputs, groups, tiling) = (matrix.inputs(), bytes::groups(matrix.inputs()), Tiling::of(rows));
    // A thread may come late to a phase: only what it does in a piece of it reads what others write.
    if matrix.takes_bytes() {
        worker.phase(rows, |row| {
            // SAFETY: the rows were written in another phase, and nobody writes to them in this one; a row is rounded by one thread.
            #[expect(unsafe_code, reason = "threads share it")]
            let (x, bytes, rounded) = unsafe {
                let bytes = space.bytes.write(row * groups..(row + 1) * groups);
                (&x.read()[row * inputs..(row + 1) * inputs], bytes, space.rounded.write(row..row + 1))
            };
            rounded[0] = bytes::round(x, bytes);
        });
        tile(worker, tiling, &space.bytes, groups, &space.byte_tiles);
    } else {
        tile(worker, tiling, x, inputs, &space.tiles);
    }
    worker.phase(matrix.panels(), |panel| {
        // SAFETY: all of it was written in other phases, and nobody writes to it in this one.
        #[expect(unsafe_code, reason = "threads share it")]
        let input = unsafe {
            match (matrix.takes_bytes(), tiling.is_row()) {
                (true, true) => Input::Bytes(space.bytes.read(), space.rounded.read()),
                (true, false) => Input::Bytes(space.byte_tiles.read(), space.rounded.read()),
                (false, true) => Input::Floats(x.read()),
                (false, false) => Input::Floats(space.tiles.read()),
            }
        };
        matrix.panel_times(panel, input, tiling, |first, sums| take(panel, first, sums));
    });
}

/// Puts rows of so many inputs into tiles; a row by itself is one.
fn tile<T: Clone + Copy + Send + Sync>(
    worker: &Worker<'_>,
    tiling: Tiling,
    x: &Shared<T>,
    inputs: usize,
    tiles: &Shared<T>,
) {
    if tiling.is_row() {
        return;
    }
    let (parts, size) = (inputs.div_ceil(PART), tiling.size(1));
    worker.phase(tiling.tiles() * parts, |piece| {
        let (tile, first) = (piece / parts, piece % parts * PART);
        let some = first..inputs.min(first + PART);
        let at = (tile * inputs + first) * size;
        // SAFETY: the rows were written in another phase; a part of a tile is filled by one thread, and nobody reads it in this
        // phase.
        #[expect(unsafe_code, reason = "threads share it")]
        let (x, part) = unsafe { (x.read(), tiles.write(at..at + some.len() * size)) };
        tiling.fill(x, inputs, tile, some, part);
    });
}
