//! Matrices of weights as decoding reads them: every byte once a step, in order, whatever the number of rows.
//!
//! Outputs are parted into panels of [`PANEL`]; a panel holds, for each input, the weights of its outputs side by side, so that a
//! panel times a few rows is a loop over the inputs in which nothing is gathered and whose sums stay in registers. Each output
//! is the sum over the inputs in their order, whatever else is computed beside it: a row's result does not depend on its
//! neighbours.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::bytes::{self, Bytes};
use super::held::{self, Held, Pairs, Whole, fetch};

/// Outputs of a panel.
pub(super) const PANEL: usize = 64;
/// Rows that are multiplied together.
pub(super) const TILE: usize = 6;

/// What the weights of linear maps are held in. All else is computed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16, as are the keys and values that are kept: half the memory.
    Bf16,
    /// Integers of eight bits with a scale for each output, multiplied by rows that are rounded to as many bits with a scale
    /// each: a quarter of the memory. Keys and values are kept in bfloat16.
    Int8,
}

/// A matrix `(outputs, inputs)` in panels; what is missing in the last one is zero.
pub(super) struct Packed {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

enum Panels {
    /// `[panel][input][output]`.
    Whole(Vec<u32>),
    /// The same in pairs.
    Pairs(Vec<u32>),
    Bytes(Bytes),
}

/// Rows of activations `(rows, inputs)`.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Floats(&'a [f32]),
    /// Rounded, with the scale of each row; rows are [`bytes::stride`] long.
    Bytes(&'a [u8], &'a [f32]),
}

/// The sums of a panel times a tile: by row.
pub(super) type Sums = [[f32; PANEL]; TILE];

impl Packed {
    /// Packs `outputs` rows of `inputs` values each.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn new(outputs: usize, inputs: usize, values: &[f32], precision: Precision) -> Self {
        assert_eq!(values.len(), outputs * inputs, "a matrix of another shape");
        let mut column = [0f32; PANEL];
        let mut columns = |mut take: Box<dyn FnMut(&[f32; PANEL]) + '_>| {
            for first in (0..outputs).step_by(PANEL) {
                for input in 0..inputs {
                    for (o, value) in column.iter_mut().enumerate() {
                        *value = if first + o < outputs { values[(first + o) * inputs + input] } else { 0.0 };
                    }
                    take(&column);
                }
            }
        };
        let places = outputs.div_ceil(PANEL) * PANEL * inputs;
        let panels = match precision {
            Precision::F32 => {
                let mut panels = Vec::with_capacity(places);
                columns(Box::new(|column| panels.extend(column.map(f32::to_bits))));
                Panels::Whole(panels)
            }
            Precision::Bf16 => {
                let mut panels = Vec::with_capacity(places / 2);
                columns(Box::new(|column| panels.extend(held::row(column))));
                Panels::Pairs(panels)
            }
            Precision::Int8 => Panels::Bytes(Bytes::new(outputs, inputs, values)),
        };
        Self { outputs, inputs, panels }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether rows are rounded to bytes before they are multiplied.
    pub(super) fn takes_bytes(&self) -> bool {
        matches!(self.panels, Panels::Bytes(_))
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
        let (panel, o) = (output / PANEL, output % PANEL);
        match &self.panels {
            Panels::Whole(panels) => {
                let places = panels[panel * PANEL * self.inputs + o..].iter().step_by(PANEL);
                row.iter_mut().zip(places).for_each(|(value, place)| *value = f32::from_bits(*place));
            }
            Panels::Pairs(panels) => {
                let (place, shift) = held::place(o);
                let places = panels[panel * PANEL / 2 * self.inputs + place..].iter().step_by(PANEL / 2);
                row.iter_mut()
                    .zip(places)
                    .for_each(|(value, pair)| *value = f32::from_bits((*pair << shift) & 0xffff_0000));
            }
            Panels::Bytes(bytes) => bytes.row(panel, o, row),
        }
    }

    /// A panel times all of `rows` rows: `take` gets the first of each few rows and their sums.
    pub(super) fn panel_times(
        &self,
        panel: usize,
        input: Input<'_>,
        rows: usize,
        mut take: impl FnMut(usize, &[[f32; PANEL]]),
    ) {
        let mut sums = [[0f32; PANEL]; TILE];
        let tiles = rows.div_ceil(TILE);
        for tile in 0..tiles {
            let (first, n) = (tile * TILE, TILE.min(rows - tile * TILE));
            match (&self.panels, input) {
                (Panels::Whole(panels), Input::Floats(rows)) => {
                    let (weights, ahead) = part(panels, panel, PANEL * self.inputs, tile, tiles);
                    let input = Tile { rows, inputs: self.inputs, first, n };
                    Arch::new().dispatch(Product {
                        weights,
                        ahead,
                        input,
                        sums: &mut sums,
                        held: PhantomData::<Whole>,
                    });
                }
                (Panels::Pairs(panels), Input::Floats(rows)) => {
                    let (weights, ahead) = part(panels, panel, PANEL / 2 * self.inputs, tile, tiles);
                    let input = Tile { rows, inputs: self.inputs, first, n };
                    Arch::new().dispatch(Product {
                        weights,
                        ahead,
                        input,
                        sums: &mut sums,
                        held: PhantomData::<Pairs>,
                    });
                }
                (Panels::Bytes(bytes), Input::Bytes(x, scales)) => {
                    let stride = bytes::stride(self.inputs);
                    let rows = &x[first * stride..(first + n) * stride];
                    bytes.panel_times(panel, rows, &scales[first..first + n], &mut sums);
                }
                _ => unreachable!("rows are rounded for matrices that take bytes alone"),
            }
            take(first, &sums[..n]);
        }
    }
}

/// A panel of so many values, and the part of the next that is to be fetched while this tile is multiplied: for a single tile
/// the processor's own foresight is enough.
fn part(panels: &[u32], panel: usize, size: usize, tile: usize, tiles: usize) -> (&[u32], &[u32]) {
    let (weights, rest) = panels[panel * size..].split_at(size);
    let ahead = match rest.len() >= size && tiles > 1 {
        true => &rest[tile * size / tiles..(tile + 1) * size / tiles],
        false => &[],
    };
    (weights, ahead)
}

/// A few rows among many.
#[derive(Clone, Copy)]
struct Tile<'a> {
    rows: &'a [f32],
    inputs: usize,
    first: usize,
    n: usize,
}

/// `sums = tile weights`.
struct Product<'a, H> {
    weights: &'a [u32],
    ahead: &'a [u32],
    input: Tile<'a>,
    sums: &'a mut Sums,
    held: PhantomData<H>,
}

impl<H: Held> WithSimd for Product<'_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many vectors of a panel at a time as leave room in the registers.
        match (S::F32_LANES, self.input.n) {
            (16, 1) => self.each::<S, 1, 4>(simd),
            (8 | 16, 2) => self.each::<S, 2, 4>(simd),
            (16, 3) => self.each::<S, 3, 4>(simd),
            (16, 4) => self.each::<S, 4, 4>(simd),
            (16, 5) => self.each::<S, 5, 4>(simd),
            (16, _) => self.each::<S, 6, 4>(simd),
            (4 | 8, 1) => self.each::<S, 1, 8>(simd),
            (_, 1) => self.each::<S, 1, 2>(simd),
            (_, 2) => self.each::<S, 2, 2>(simd),
            (_, 3) => self.each::<S, 3, 2>(simd),
            (_, 4) => self.each::<S, 4, 2>(simd),
            (_, 5) => self.each::<S, 5, 2>(simd),
            (_, _) => self.each::<S, 6, 2>(simd),
        }
    }
}

impl<H: Held> Product<'_, H> {
    /// For `ROWS` rows, `VECTORS` vectors of outputs at a time.
    #[inline(always)]
    fn each<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let Tile { rows, inputs, first, .. } = self.input;
        let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &rows[(first + row) * inputs..][..inputs]);
        let (places, width) = (PANEL / H::EACH, VECTORS * S::F32_LANES / H::EACH);
        let step = self.ahead.len() / inputs.max(1);
        for at in (0..places).step_by(width) {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
            for (input, weights) in self.weights.chunks_exact(places).take(inputs).enumerate() {
                if let Some(place) = self.ahead.get(input * step) {
                    fetch(place);
                }
                let weights: [S::f32s; VECTORS] = H::vectors(simd, &weights[at..at + width]);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let value = simd.splat_f32s(row[input]);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = simd.mul_add_f32s(value, weights, *sum);
                    }
                }
            }
            for (sums, all) in sums.iter().zip(self.sums.iter_mut()) {
                for (vector, sum) in sums.iter().enumerate() {
                    let at = held::value::<H>(at, vector, S::F32_LANES);
                    let (places, _) = S::as_mut_simd_f32s(&mut all[at..at + S::F32_LANES]);
                    places[0] = *sum;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, k: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * k) % 29) as f32 / 29.0 - 0.5).collect()
    }

    fn product(packed: &Packed, x: &[f32]) -> Vec<f32> {
        let (inputs, outputs) = (packed.inputs(), packed.outputs());
        let rows = x.len() / inputs;
        let mut rounded = vec![0u8; rows * bytes::stride(inputs)];
        let mut scales = vec![0f32; rows];
        let of_rows = rounded.chunks_exact_mut(bytes::stride(inputs)).zip(&mut scales);
        x.chunks_exact(inputs).zip(of_rows).for_each(|(x, (bytes, scale))| *scale = bytes::round(x, bytes));
        let input = if packed.takes_bytes() { Input::Bytes(&rounded, &scales) } else { Input::Floats(x) };
        let mut y = vec![0.0; rows * outputs];
        for panel in 0..packed.panels() {
            let of = packed.outputs_of(panel);
            packed.panel_times(panel, input, rows, |first, sums| {
                for (row, sums) in (first..).zip(sums) {
                    y[row * outputs..(row + 1) * outputs][of.clone()].copy_from_slice(&sums[..of.len()]);
                }
            });
        }
        y
    }

    #[test]
    fn every_row_is_the_same_beside_others_as_alone_and_right() {
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 4e-3), (Precision::Int8, 1e-2)] {
            for (outputs, inputs) in [(1, 1), (64, 3), (100, 37), (130, 8)] {
                let weights = values(outputs * inputs, 7);
                let packed = Packed::new(outputs, inputs, &weights, precision);
                let scale = (inputs as f64).sqrt();
                for output in 0..outputs {
                    let mut row = vec![0.0; inputs];
                    packed.row(output, &mut row);
                    for (got, want) in row.iter().zip(&weights[output * inputs..]) {
                        assert!(f64::from((got - want).abs()) <= tolerance, "{precision:?}: {got} for {want}");
                    }
                }
                for rows in [1, 2, 3, 4, 5, 6, 7, 13] {
                    let x = values(rows * inputs, 11);
                    let all = product(&packed, &x);
                    for (r, x) in x.chunks_exact(inputs).enumerate() {
                        let alone = product(&packed, x);
                        assert_eq!(alone, all[r * outputs..(r + 1) * outputs]);
                        for (o, got) in alone.iter().enumerate() {
                            let term = |i: usize| f64::from(x[i]) * f64::from(weights[o * inputs + i]);
                            let want: f64 = (0..inputs).map(term).sum();
                            assert!(
                                (f64::from(*got) - want).abs() < tolerance * scale,
                                "{precision:?}: {got} for {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}
