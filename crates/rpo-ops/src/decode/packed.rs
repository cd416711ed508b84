//! Matrices of weights as decoding reads them: every byte once a step, in order, whatever the number of rows.
//!
//! Outputs are parted into panels of [`PANEL`]; a panel holds, for each input, the weights of its outputs side by side. Rows of
//! activations are parted into tiles of [`TILE`]; a tile holds, for each input, the values of its rows side by side. A panel
//! times a tile is then a loop over the inputs in which nothing is gathered and whose sums stay in registers. Each output is
//! the sum over the inputs in their order, whatever else is computed beside it: a row's result does not depend on its
//! neighbours.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

/// Outputs of a panel.
pub(super) const PANEL: usize = 64;
/// Rows of a tile.
pub(super) const TILE: usize = 6;

/// A matrix `(outputs, inputs)` in panels; what is missing in the last one is zero.
pub(super) struct Packed {
    outputs: usize,
    inputs: usize,
    /// `[panel][input][output]`.
    panels: Vec<f32>,
}

/// The sums of a panel times a tile: by row.
pub(super) type Sums = [[f32; PANEL]; TILE];

impl Packed {
    /// Packs `outputs` rows of `inputs` values each.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn new(outputs: usize, inputs: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), outputs * inputs, "a matrix of another shape");
        let mut panels = vec![0f32; outputs.div_ceil(PANEL) * PANEL * inputs];
        for (o, row) in values.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[o / PANEL * PANEL * inputs..];
            for (value, place) in row.iter().zip(panel[o % PANEL..].iter_mut().step_by(PANEL)) {
                *place = *value;
            }
        }
        Self { outputs, inputs, panels }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many panels there are.
    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// The outputs of a panel.
    pub(super) fn outputs_of(&self, panel: usize) -> Range<usize> {
        panel * PANEL..self.outputs.min((panel + 1) * PANEL)
    }

    /// Row `output` of the matrix.
    pub(super) fn row(&self, output: usize, row: &mut [f32]) {
        let panel = &self.panels[output / PANEL * PANEL * self.inputs..];
        for (value, place) in row.iter_mut().zip(panel[output % PANEL..].iter().step_by(PANEL)) {
            *value = *place;
        }
    }

    /// A panel times every tile of `tiles`, which hold `rows` rows: `take` gets the first row of each tile, how many rows it
    /// has, and their sums.
    pub(super) fn panel_times(
        &self,
        panel: usize,
        tiles: &[f32],
        rows: usize,
        take: &mut impl FnMut(usize, &[[f32; PANEL]]),
    ) {
        let size = PANEL * self.inputs;
        let weights = &self.panels[panel * size..(panel + 1) * size];
        let mut sums = [[0f32; PANEL]; TILE];
        for (tile, values) in tiles.chunks(TILE * self.inputs).enumerate() {
            let n = TILE.min(rows - tile * TILE);
            Arch::new().dispatch(Product { weights, tile: values, rows: n, sums: &mut sums });
            take(tile * TILE, &sums[..n]);
        }
    }
}

/// Where the value of `row` for `input` stands in tiles of so many rows in all.
pub(super) fn place(row: usize, input: usize, rows: usize, inputs: usize) -> usize {
    let tile = row / TILE;
    tile * TILE * inputs + input * TILE.min(rows - tile * TILE) + row % TILE
}

/// `sums = tile weights`.
struct Product<'a> {
    weights: &'a [f32],
    tile: &'a [f32],
    rows: usize,
    sums: &'a mut Sums,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many vectors of a panel at a time as leave room in the registers.
        match (S::F32_LANES, self.rows) {
            (16, 1) => self.each::<S, 1, 4>(simd),
            (8 | 16, 2) => self.each::<S, 2, 4>(simd),
            (16, 3) => self.each::<S, 3, 4>(simd),
            (16, 4) => self.each::<S, 4, 4>(simd),
            (16, 5) => self.each::<S, 5, 4>(simd),
            (16, _) => self.each::<S, 6, 4>(simd),
            (8, 1) => self.each::<S, 1, 8>(simd),
            (4, 1) => self.each::<S, 1, 16>(simd),
            (4, 2) => self.each::<S, 2, 8>(simd),
            (_, 1) => self.each::<S, 1, 2>(simd),
            (_, 2) => self.each::<S, 2, 2>(simd),
            (_, 3) => self.each::<S, 3, 2>(simd),
            (_, 4) => self.each::<S, 4, 2>(simd),
            (_, 5) => self.each::<S, 5, 2>(simd),
            (_, _) => self.each::<S, 6, 2>(simd),
        }
    }
}

impl Product<'_> {
    /// For `ROWS` rows, `VECTORS` vectors of outputs at a time.
    #[inline(always)]
    fn each<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let width = VECTORS * S::F32_LANES;
        for first in (0..PANEL).step_by(width) {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
            for (weights, values) in self.weights.chunks_exact(PANEL).zip(self.tile.chunks_exact(ROWS)) {
                let (weights, _) = S::as_simd_f32s(&weights[first..first + width]);
                for row in 0..ROWS {
                    let value = simd.splat_f32s(values[row]);
                    for vector in 0..VECTORS {
                        sums[row][vector] = simd.mul_add_f32s(value, weights[vector], sums[row][vector]);
                    }
                }
            }
            for (sums, all) in sums.iter().zip(self.sums.iter_mut()) {
                let (places, _) = S::as_mut_simd_f32s(&mut all[first..first + width]);
                places.copy_from_slice(sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_the_same_beside_others_as_alone_and_right() {
        let values = |n: usize, k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 29) as f32 / 29.0 - 0.5).collect() };
        for (outputs, inputs) in [(1, 1), (64, 3), (100, 37), (130, 8)] {
            let weights = values(outputs * inputs, 7);
            let packed = Packed::new(outputs, inputs, &weights);
            let mut row = vec![0.0; inputs];
            packed.row(outputs - 1, &mut row);
            assert_eq!(row, weights[(outputs - 1) * inputs..]);
            let product = |x: &[f32]| {
                let rows = x.len() / inputs;
                let mut tiles = vec![0.0; x.len()];
                for (i, value) in x.iter().enumerate() {
                    tiles[place(i / inputs, i % inputs, rows, inputs)] = *value;
                }
                let mut y = vec![0.0; rows * outputs];
                for panel in 0..packed.panels() {
                    let of = packed.outputs_of(panel);
                    packed.panel_times(panel, &tiles, rows, &mut |first, sums| {
                        for (row, sums) in (first..).zip(sums) {
                            let y = &mut y[row * outputs..(row + 1) * outputs];
                            y[of.clone()].copy_from_slice(&sums[..of.len()]);
                        }
                    });
                }
                y
            };
            for rows in [1, 2, 3, 4, 5, 6, 7, 13] {
                let x = values(rows * inputs, 11);
                let all = product(&x);
                for (r, x) in x.chunks_exact(inputs).enumerate() {
                    let alone = product(x);
                    assert_eq!(alone, all[r * outputs..(r + 1) * outputs]);
                    for (o, got) in alone.iter().enumerate() {
                        let want: f64 = (0..inputs).map(|i| f64::from(x[i]) * f64::from(weights[o * inputs + i])).sum();
                        assert!((f64::from(*got) - want).abs() < 1e-4, "{got} for {want}");
                    }
                }
            }
        }
    }
}
