//! Matrices of weights as decoding reads them: every byte once a step, in order, whatever the number of rows.
//!
//! Outputs are parted into panels of [`PANEL`], and these into strips as wide as one vector of places; a strip holds, for each
//! input, the weights of its outputs side by side, so that a strip times a few rows is a loop over the inputs in which nothing is
//! gathered and whose sums stay in registers. Each output is the sum over the inputs in their order, whatever else is computed
//! beside it: a row's result does not depend on its neighbours.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::bytes::{self, Bytes, Rounded};
use super::held::{self, Held, Pairs, Whole};

/// Outputs of a panel.
pub(super) const PANEL: usize = 32;
/// Places of a strip for an input.
pub(super) const STRIP: usize = 16;
/// Most rows that are multiplied together.
pub(super) const ROWS: usize = 24;

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
    /// `[strip][input][output]`.
    Whole(Vec<u32>),
    /// The same in pairs.
    Pairs(Vec<u32>),
    Bytes(Bytes),
}

/// Rows of activations `(rows, inputs)`.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Floats(&'a [f32]),
    /// Rounded, with what is to be known of each row; rows are [`bytes::stride`] long.
    Bytes(&'a [i8], &'a [Rounded]),
}

/// The sums of a panel times a tile: by row.
pub(super) type Sums = [[f32; PANEL]; ROWS];

impl Packed {
    /// Packs `outputs` rows of `inputs` values each.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn new(outputs: usize, inputs: usize, values: &[f32], precision: Precision) -> Self {
        assert_eq!(values.len(), outputs * inputs, "a matrix of another shape");
        let of_panels = outputs.div_ceil(PANEL) * PANEL * inputs;
        let value = |output: usize, input: usize| if output < outputs { values[output * inputs + input] } else { 0.0 };
        let panels = match precision {
            Precision::F32 => {
                let mut panels = Vec::with_capacity(of_panels);
                for first in (0..outputs.next_multiple_of(PANEL)).step_by(STRIP) {
                    for input in 0..inputs {
                        panels.extend((first..first + STRIP).map(|output| value(output, input).to_bits()));
                    }
                }
                Panels::Whole(panels)
            }
            Precision::Bf16 => {
                let mut panels = Vec::with_capacity(of_panels / 2);
                for first in (0..outputs).step_by(PANEL) {
                    for input in 0..inputs {
                        let column: [f32; PANEL] = std::array::from_fn(|i| value(first + i, input));
                        panels.extend(held::row(&column));
                    }
                }
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
        let strip = |panels: &'_ [u32], strip: usize, place: usize, shift: u32, mask: u32, row: &mut [f32]| {
            let places = panels[strip * STRIP * self.inputs + place..].iter().step_by(STRIP);
            row.iter_mut().zip(places).for_each(|(value, place)| *value = f32::from_bits((*place << shift) & mask));
        };
        match &self.panels {
            Panels::Whole(panels) => strip(panels, output / STRIP, output % STRIP, 0, u32::MAX, row),
            Panels::Pairs(panels) => {
                let (place, shift) = held::place(output % PANEL);
                strip(panels, output / PANEL, place, shift, 0xffff_0000, row);
            }
            Panels::Bytes(bytes) => bytes.row(output, row),
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
        let mut sums = [[0f32; PANEL]; ROWS];
        let most = match &self.panels {
            Panels::Whole(_) => Arch::new().dispatch(Most(PhantomData::<Whole>)),
            Panels::Pairs(_) => Arch::new().dispatch(Most(PhantomData::<Pairs>)),
            Panels::Bytes(_) => ROWS,
        };
        // As few passes as there can be, of equal numbers of rows.
        let tiles = rows.div_ceil(most);
        let tile = rows.div_ceil(tiles);
        for first in (0..rows).step_by(tile) {
            let n = tile.min(rows - first);
            match (&self.panels, input) {
                (Panels::Whole(panels), Input::Floats(x)) => {
                    let size = STRIP * self.inputs;
                    for (half, weights) in panels[2 * panel * size..].chunks_exact(size).take(2).enumerate() {
                        let (rows, sums, at) =
                            (Tile { rows: x, inputs: self.inputs, first, n }, &mut sums, half * STRIP);
                        Arch::new().dispatch(Product { weights, rows, sums, at, held: PhantomData::<Whole> });
                    }
                }
                (Panels::Pairs(panels), Input::Floats(x)) => {
                    let size = STRIP * self.inputs;
                    let (weights, rows) =
                        (&panels[panel * size..(panel + 1) * size], Tile { rows: x, inputs: self.inputs, first, n });
                    Arch::new().dispatch(Product { weights, rows, sums: &mut sums, at: 0, held: PhantomData::<Pairs> });
                }
                (Panels::Bytes(bytes), Input::Bytes(x, rounded)) => {
                    let stride = bytes::stride(self.inputs);
                    let rows = &x[first * stride..(first + n) * stride];
                    bytes.panel_times(panel, rows, &rounded[first..first + n], &mut sums);
                }
                _ => unreachable!("rows are rounded for matrices that take bytes alone"),
            }
            take(first, &sums[..n]);
        }
    }
}

/// A few rows among many.
#[derive(Clone, Copy)]
struct Tile<'a> {
    rows: &'a [f32],
    inputs: usize,
    first: usize,
    n: usize,
}

/// How many rows are multiplied together at most.
struct Most<H>(PhantomData<H>);

impl<H: Held> WithSimd for Most<H> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        most::<S, H>()
    }
}

/// As many as have room for their sums in the registers.
#[inline(always)]
const fn most<S: Simd, H: Held>() -> usize {
    match S::F32_LANES {
        16 => 24 / H::EACH,
        8 if H::EACH == 2 => 2,
        4 if H::EACH == 2 => 3,
        _ => 6,
    }
}

/// `sums = rows strip`, for the outputs from `at` on.
struct Product<'a, H> {
    weights: &'a [u32],
    rows: Tile<'a>,
    sums: &'a mut Sums,
    at: usize,
    held: PhantomData<H>,
}

impl<H: Held> WithSimd for Product<'_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (S::F32_LANES, H::EACH) {
            (16, 1) => self.sized::<S, 1>(simd),
            (16, _) | (8, 1) => self.sized::<S, 2>(simd),
            (8, _) | (4, 1) => self.sized::<S, 4>(simd),
            (4, _) => self.sized::<S, 8>(simd),
            (_, 1) => self.sized::<S, STRIP>(simd),
            _ => self.sized::<S, PANEL>(simd),
        }
    }
}

impl<H: Held> Product<'_, H> {
    /// For as many rows as there are or a few more, which are computed for nothing.
    #[inline(always)]
    fn sized<S: Simd, const VECTORS: usize>(self, simd: S) {
        let most = most::<S, H>();
        match self.rows.n {
            1 => self.each::<S, VECTORS, 1>(simd),
            2 => self.each::<S, VECTORS, 2>(simd),
            3 => self.each::<S, VECTORS, 3>(simd),
            4 if most >= 4 => self.each::<S, VECTORS, 4>(simd),
            5..=6 if most >= 6 => self.each::<S, VECTORS, 6>(simd),
            7..=8 if most >= 8 => self.each::<S, VECTORS, 8>(simd),
            9..=10 if most >= 10 => self.each::<S, VECTORS, 10>(simd),
            11..=12 if most >= 12 => self.each::<S, VECTORS, 12>(simd),
            13..=16 if most >= 16 => self.each::<S, VECTORS, 16>(simd),
            17..=20 if most >= 20 => self.each::<S, VECTORS, 20>(simd),
            _ if most >= 24 => self.each::<S, VECTORS, 24>(simd),
            n => unreachable!("{n} rows together"),
        }
    }

    /// For `N` rows.
    #[inline(always)]
    fn each<S: Simd, const VECTORS: usize, const N: usize>(self, simd: S) {
        let Tile { rows, inputs, first, n } = self.rows;
        let rows: [&[f32]; N] = std::array::from_fn(|row| &rows[(first + row.min(n - 1)) * inputs..][..inputs]);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
        for (input, weights) in self.weights.chunks_exact(STRIP).take(inputs).enumerate() {
            let weights: [S::f32s; VECTORS] = H::vectors(simd, weights);
            for (sums, row) in sums.iter_mut().zip(rows) {
                let value = simd.splat_f32s(row[input]);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = simd.mul_add_f32s(value, weights, *sum);
                }
            }
        }
        for (sums, all) in sums.iter().zip(self.sums.iter_mut()) {
            for (vector, sum) in sums.iter().enumerate() {
                let at = self.at + held::value::<H>(0, vector, S::F32_LANES);
                let (places, _) = S::as_mut_simd_f32s(&mut all[at..at + S::F32_LANES]);
                places[0] = *sum;
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
        let mut bytes = vec![0i8; rows * bytes::stride(inputs)];
        let of_rows = x.chunks_exact(inputs).zip(bytes.chunks_exact_mut(bytes::stride(inputs)));
        let rounded: Vec<Rounded> = of_rows.map(|(x, bytes)| bytes::round(x, bytes)).collect();
        let input = if packed.takes_bytes() { Input::Bytes(&bytes, &rounded) } else { Input::Floats(x) };
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
                for rows in [1, 2, 3, 4, 5, 7, 9, 11, 13, 17, 21, 24, 25, 50] {
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
