//! Rotary positions.

use burn::tensor::{Tensor, TensorData};

/// Rotary position embedding (RoPE, arXiv 2104.09864), in the arrangement of transformers: coordinate `i` of a head turns with
/// coordinate `i + width/2`, by `position * frequencies[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Radians a position, one for each pair of coordinates.
    pub frequencies: Vec<f32>,
    /// Both cosine and sine are multiplied by this.
    pub magnitude: f32,
}

impl Rotary {
    /// Turns every head of `x`, `(tokens, heads * width)`, by the positions of its tokens.
    pub fn turn(&self, x: Tensor<2>, positions: &[usize]) -> Tensor<2> {
        let [tokens, inner] = x.dims();
        let half = self.frequencies.len();
        let heads = inner / (2 * half);
        let device = x.device();
        let tensor = |values| Tensor::<3>::from_data(TensorData::new(values, [tokens, 1, half]), &device);
        let [cos, sin] = self.angles(positions).map(tensor);
        let x = x.reshape([tokens, heads, 2 * half]);
        let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let turned = vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin];
        Tensor::cat(turned, 2).reshape([tokens, inner])
    }

    /// Cosine and sine of every angle: `(tokens, width / 2)`.
    pub(crate) fn angles(&self, positions: &[usize]) -> [Vec<f32>; 2] {
        // The angle in single precision, as transformers has it.
        let of = |f: fn(f32) -> f32| {
            let turned = |&p: &usize| self.frequencies.iter().map(move |w| f(p as f32 * w) * self.magnitude);
            positions.iter().flat_map(turned).collect()
        };
        [of(f32::cos), of(f32::sin)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    #[test]
    fn a_quarter_turn_by_hand() {
        let rotary = Rotary { frequencies: vec![std::f32::consts::FRAC_PI_2], magnitude: 2.0 };
        let x = Tensor::<2>::from_floats([[3.0, 4.0], [3.0, 4.0]], &Device::flex());
        let want = Tensor::<2>::from_floats([[6.0, 8.0], [-8.0, 6.0]], &Device::flex());
        rotary.turn(x, &[0, 1]).into_data().assert_approx_eq::<f32>(&want.into_data(), Tolerance::absolute(1e-5));
    }
}
