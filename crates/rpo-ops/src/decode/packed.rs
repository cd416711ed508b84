//! Matrices of weights as decoding reads them: every byte once a step, in order, whatever the number of rows.
//!
//! Outputs are parted into panels of [`PANEL`]; a panel holds, for each input, the weights of its outputs side by side. Rows are
//! parted into tiles, which hold, for each input, the values of their rows side by side. A panel times a tile is then a loop over
//! the inputs in which nothing is gathered and whose sums stay in registers; what comes after the panel in memory is fetched
//! meanwhile. Each output is the sum over the inputs in their order, whatever else is computed beside it: a row's result does
//! not depend on its neighbours.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::bytes::{self, Bytes, Group, Rounded};
use super::held::{self, Held, Pairs, Whole};
use super::lines::{Ahead, Arena, LINE, Lines};
use crate::dither::{bf16_above, threshold};

/// Outputs of a panel.
pub(super) const PANEL: usize = 32;
/// Most rows of a tile.
pub(super) const ROWS: usize = 12;

/// What the weights of linear maps are held in. All else is computed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16 (by [`dither`](crate::dither)), as are the keys and values that are kept: half the memory.
    Bf16,
    /// Integers of eight bits with a scale for each output, multiplied by rows that are rounded to as many bits with a scale
    /// each: a quarter of the memory. Keys and values are kept in bfloat16.
    Int8,
}

/// How matrices are packed, and where they are put.
pub(super) struct Packer {
    precision: Precision,
    arena: Arena,
}

impl From<Precision> for Packer {
    fn from(precision: Precision) -> Self {
        Self { precision, arena: Arena::default() }
    }
}

/// A matrix `(outputs, inputs)` in panels; what is missing in the last one is zero.
pub(super) struct Packed {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

enum Panels {
    /// `[panel][input][output]`.
    Whole(Lines),
    /// The same in pairs.
    Pairs(Lines),
    Bytes(Bytes),
}

/// Rows in tiles, `[tile][input][row]`.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Floats(&'a [f32]),
    /// Rounded, with what is to be known of each row; the inputs are groups of four.
    Bytes(&'a [Group], &'a [Rounded]),
}

/// How rows are parted into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    rows: usize,
    /// Rows of a tile, of which the last may have fewer.
    each: usize,
    /// Rows for which a tile has places: those beyond its own are computed for nothing.
    places: usize,
}

impl Tiling {
    /// As few tiles as there can be, all alike, of no more rows than this processor has registers for.
    pub(super) fn of(rows: usize) -> Self {
        let most = Arch::new().dispatch(Most);
        let each = rows.div_ceil(rows.div_ceil(most).max(1));
        let places = PLACES.into_iter().find(|places| *places >= each).unwrap_or(ROWS);
        Self { rows, each, places }
    }

    pub(super) fn tiles(self) -> usize {
        self.rows.div_ceil(self.each.max(1))
    }

    /// Values of a tile of so many inputs.
    pub(super) fn size(self, inputs: usize) -> usize {
        self.places * inputs
    }

    /// Whether a row by itself is its tile.
    pub(super) fn is_row(self) -> bool {
        self.rows == 1
    }

    /// Fills the part of a tile for some of the inputs of `x`, `(rows, inputs)`.
    pub(super) fn fill<T: Copy>(self, x: &[T], inputs: usize, tile: usize, some: Range<usize>, part: &mut [T]) {
        let first = tile * self.each;
        let last = self.each.min(self.rows - first) - 1;
        for place in 0..self.places {
            let row = &x[(first + place.min(last)) * inputs..][some.clone()];
            part[place..].iter_mut().step_by(self.places).zip(row).for_each(|(part, x)| *part = *x);
        }
    }
}

/// Sizes of tiles.
const PLACES: [usize; 8] = [1, 2, 3, 4, 6, 8, 10, 12];

/// The sums of a panel times a tile: by row.
pub(super) type Sums = [[f32; PANEL]; ROWS];

/// The outputs of `value` that a panel has, for each input, panel by panel; zero where there are none.
fn columns(outputs: usize, inputs: usize, value: impl Fn(usize, usize) -> f32) -> impl Iterator<Item = [f32; PANEL]> {
    let places = (0..outputs.div_ceil(PANEL)).flat_map(move |panel| (0..inputs).map(move |input| (panel, input)));
    let value = move |output, input| if output < outputs { value(output, input) } else { 0.0 };
    places.map(move |(panel, input)| std::array::from_fn(|o| value(panel * PANEL + o, input)))
}

impl Packed {
    /// Packs `outputs` rows of `inputs` values each.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn new(outputs: usize, inputs: usize, values: &[f32], packer: &mut Packer) -> Self {
        Self::together(outputs, inputs, values, |output| output, packer)
    }

    /// The same for rows of several matrices, of which each is row `row` of its own.
    ///
    /// # Panics
    /// The same.
    pub(super) fn together(
        outputs: usize,
        inputs: usize,
        values: &[f32],
        row: impl Fn(usize) -> usize,
        Packer { precision, arena }: &mut Packer,
    ) -> Self {
        assert_eq!(values.len(), outputs * inputs, "a matrix of another shape");
        let value = |output: usize, input: usize| values[output * inputs + input];
        let panels = outputs.div_ceil(PANEL);
        let panels = match precision {
            Precision::F32 => {
                let bits = columns(outputs, inputs, value).flat_map(|column| column.map(f32::to_bits));
                Panels::Whole(arena.filled(panels * inputs * PANEL / LINE, bits))
            }
            Precision::Bf16 => {
                let dithered = |o, i| bf16_above(value(o, i), threshold(row(o), i)).to_f32();
                let pairs = columns(outputs, inputs, dithered).flat_map(held::row);
                Panels::Pairs(arena.filled(panels * inputs * PANEL / 2 / LINE, pairs))
            }
            Precision::Int8 => Panels::Bytes(Bytes::new(outputs, inputs, values, arena)),
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
        let mut read = |lines: &Lines, each: usize, place: usize, shift: u32, mask: u32| {
            let places = lines.places()[panel * each * self.inputs + place..].iter().step_by(each);
            row.iter_mut().zip(places).for_each(|(value, place)| *value = f32::from_bits((*place << shift) & mask));
        };
        match &self.panels {
            Panels::Whole(lines) => read(lines, PANEL, o, 0, u32::MAX),
            Panels::Pairs(lines) => {
                let (place, shift) = held::place(o);
                read(lines, PANEL / 2, place, shift, 0xffff_0000);
            }
            Panels::Bytes(bytes) => bytes.row(output, row),
        }
    }

    /// A panel times all rows: `take` gets the first row of each tile and the sums of its rows.
    pub(super) fn panel_times(
        &self,
        panel: usize,
        input: Input<'_>,
        tiling: Tiling,
        mut take: impl FnMut(usize, &[[f32; PANEL]]),
    ) {
        let mut sums = [[0f32; PANEL]; ROWS];
        let (tiles, places) = (tiling.tiles(), tiling.places);
        for tile in 0..tiles {
            let first = tile * tiling.each;
            let n = tiling.each.min(tiling.rows - first);
            match (&self.panels, input) {
                (Panels::Whole(lines), Input::Floats(x)) => {
                    Arch::new().dispatch(self.product::<Whole>(lines, x, panel, (tile, tiles), places, &mut sums));
                }
                (Panels::Pairs(lines), Input::Floats(x)) => {
                    Arch::new().dispatch(self.product::<Pairs>(lines, x, panel, (tile, tiles), places, &mut sums));
                }
                (Panels::Bytes(bytes), Input::Bytes(x, rounded)) => {
                    let groups = tiling.size(bytes::groups(self.inputs));
                    let rows = &rounded[first..first + n];
                    bytes.panel_times(panel, &x[tile * groups..][..groups], rows, (tile, tiles), &mut sums);
                }
                _ => unreachable!("rows are rounded for matrices that take bytes alone"),
            }
            take(first, &sums[..n]);
        }
    }

    fn product<'a, H: Held>(
        &'a self,
        lines: &'a Lines,
        x: &'a [f32],
        panel: usize,
        (tile, tiles): (usize, usize),
        places: usize,
        sums: &'a mut Sums,
    ) -> Product<'a, H> {
        let (size, of_tile) = (PANEL / H::EACH * self.inputs, places * self.inputs);
        Product {
            weights: &lines.places()[panel * size..(panel + 1) * size],
            ahead: Ahead::of(lines.places(), panel, size, (tile, tiles), self.inputs),
            tile: &x[tile * of_tile..(tile + 1) * of_tile],
            places,
            sums,
            held: PhantomData,
        }
    }
}

/// How many rows are multiplied together at most: as many as have room for their sums in the registers.
struct Most;

impl WithSimd for Most {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        most::<S>()
    }
}

#[inline(always)]
const fn most<S: Simd>() -> usize {
    if S::F32_LANES == 16 { ROWS } else { ROWS / 2 }
}

/// `sums = tile panel`.
struct Product<'a, H> {
    weights: &'a [u32],
    ahead: Ahead<'a>,
    tile: &'a [f32],
    places: usize,
    sums: &'a mut Sums,
    held: PhantomData<H>,
}

impl<H: Held> WithSimd for Product<'_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            4 => self.sized::<S, 4>(simd),
            _ => self.sized::<S, 2>(simd),
        }
    }
}

impl<H: Held> Product<'_, H> {
    #[inline(always)]
    fn sized<S: Simd, const VECTORS: usize>(self, simd: S) {
        let most = most::<S>();
        match self.places {
            1 => self.each::<S, VECTORS, 1>(simd),
            2 => self.each::<S, VECTORS, 2>(simd),
            3 => self.each::<S, VECTORS, 3>(simd),
            4 => self.each::<S, VECTORS, 4>(simd),
            6 => self.each::<S, VECTORS, 6>(simd),
            8 if most >= 8 => self.each::<S, VECTORS, 8>(simd),
            10 if most >= 10 => self.each::<S, VECTORS, 10>(simd),
            12 if most >= 12 => self.each::<S, VECTORS, 12>(simd),
            n => unreachable!("a tile of {n} rows"),
        }
    }

    /// For `N` rows, `VECTORS` vectors of outputs at a time.
    #[inline(always)]
    fn each<S: Simd, const VECTORS: usize, const N: usize>(self, simd: S) {
        let Self { weights, ahead, tile, .. } = self;
        let (places, width) = (PANEL / H::EACH, VECTORS * S::F32_LANES / H::EACH);
        for at in (0..places).step_by(width) {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
            for (input, (weights, values)) in weights.chunks_exact(places).zip(tile.chunks_exact(N)).enumerate() {
                ahead.fetch(input);
                let weights: [S::f32s; VECTORS] = H::vectors(simd, &weights[at..at + width]);
                for (sums, value) in sums.iter_mut().zip(values) {
                    let value = simd.splat_f32s(*value);
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
    use crate::dither;

    fn values(n: usize, k: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * k) % 29) as f32 / 29.0 - 0.5).collect()
    }

    fn product(packed: &Packed, x: &[f32]) -> Vec<f32> {
        let (inputs, outputs) = (packed.inputs(), packed.outputs());
        let rows = x.len() / inputs;
        let (tiling, groups) = (Tiling::of(rows), bytes::groups(inputs));
        let mut of_rows = vec![Group::default(); rows * groups];
        let rounded: Vec<Rounded> = x
            .chunks_exact(inputs)
            .zip(of_rows.chunks_exact_mut(groups))
            .map(|(x, groups)| bytes::round(x, groups))
            .collect();
        let mut floats = vec![0f32; tiling.tiles() * tiling.size(inputs)];
        let mut bytes = vec![Group::default(); tiling.tiles() * tiling.size(groups)];
        for tile in 0..tiling.tiles() {
            tiling.fill(x, inputs, tile, 0..inputs, &mut floats[tile * tiling.size(inputs)..][..tiling.size(inputs)]);
            tiling.fill(
                &of_rows,
                groups,
                tile,
                0..groups,
                &mut bytes[tile * tiling.size(groups)..][..tiling.size(groups)],
            );
        }
        let input = if packed.takes_bytes() { Input::Bytes(&bytes, &rounded) } else { Input::Floats(&floats) };
        let mut y = vec![0.0; rows * outputs];
        for panel in 0..packed.panels() {
            let of = packed.outputs_of(panel);
            packed.panel_times(panel, input, tiling, |first, sums| {
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
                let packed = Packed::new(outputs, inputs, &weights, &mut precision.into());
                let scale = (inputs as f64).sqrt();
                let rounded: Vec<f32> = dither::to_bf16(&weights, inputs).map(f32::from).collect();
                for output in 0..outputs {
                    let mut row = vec![0.0; inputs];
                    packed.row(output, &mut row);
                    if precision == Precision::Bf16 {
                        assert_eq!(row, rounded[output * inputs..][..inputs]);
                    }
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
