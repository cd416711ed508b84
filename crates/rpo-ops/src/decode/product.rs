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
    // SAFETY, of all that is read: it was written in another phase, and nobody writes to it in this one.
    #[expect(unsafe_code, reason = "threads share it")]
    let x = &unsafe { x.read() }[..rows * inputs];
    #[expect(unsafe_code, reason = "threads share it")]
    let input = if matrix.takes_bytes() {
        worker.phase(rows, |row| {
            // SAFETY: a row is rounded by one thread.
            let (bytes, rounded) =
                unsafe { (space.bytes.write(row * groups..(row + 1) * groups), space.rounded.write(row..row + 1)) };
            rounded[0] = bytes::round(&x[row * inputs..(row + 1) * inputs], bytes);
        });
        let (bytes, rounded) = unsafe { (space.bytes.read(), space.rounded.read()) };
        Input::Bytes(tiled(worker, tiling, bytes, groups, &space.byte_tiles), rounded)
    } else {
        Input::Floats(tiled(worker, tiling, x, inputs, &space.tiles))
    };
    worker.phase(matrix.panels(), |panel| {
        matrix.panel_times(panel, input, tiling, |first, sums| take(panel, first, sums));
    });
}

/// Rows of so many inputs in tiles.
fn tiled<'a, T: Clone + Copy + Send + Sync>(
    worker: &Worker<'_>,
    tiling: Tiling,
    x: &'a [T],
    inputs: usize,
    tiles: &'a Shared<T>,
) -> &'a [T] {
    if tiling.is_row() {
        return x;
    }
    let (parts, size) = (inputs.div_ceil(PART), tiling.size(1));
    worker.phase(tiling.tiles() * parts, |piece| {
        let (tile, first) = (piece / parts, piece % parts * PART);
        let some = first..inputs.min(first + PART);
        let at = (tile * inputs + first) * size;
        // SAFETY: a part of a tile is filled by one thread, and nobody reads it in this phase.
        #[expect(unsafe_code, reason = "threads share it")]
        let part = unsafe { tiles.write(at..at + some.len() * size) };
        tiling.fill(x, inputs, tile, some, part);
    });
    // SAFETY: the tiles were filled in another phase; the next to fill them comes after what is multiplied with them.
    #[expect(unsafe_code, reason = "threads share it")]
    unsafe {
        tiles.read()
    }
}
