//! The one way from a tensor's device to plain numbers, and back.

use burn::tensor::{Device, Tensor, TensorData};

use crate::error::{Error, Result};

/// The values of `x` in row-major order.
///
/// # Errors
/// If the device fails to compute or to return them: such numbers are never taken for empty.
pub(crate) fn host<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>> {
    x.try_into_vec_as().map_err(|problem| Error::Device(problem.to_string()))
}

/// A vector of these values on a device.
pub(crate) fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// The value of a tensor that holds one.
///
/// # Errors
/// Those of [`host`], and if it holds none.
pub(crate) fn scalar(x: Tensor<1>) -> Result<f32> {
    host(x)?.first().copied().ok_or_else(|| Error::Device("a tensor that should hold one number holds none".into()))
}

/// The values of `x` as they stand in files, little-endian.
///
/// # Errors
/// Those of [`host`].
pub(crate) fn bytes(x: Tensor<1>) -> Result<Vec<u8>> {
    Ok(host(x)?.into_iter().flat_map(f32::to_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Int;

    use super::*;

    #[test]
    fn values_come_back_whatever_their_format_and_an_empty_scalar_is_an_error() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.5]], &device);
        assert_eq!(host(x.clone()).expect("readable"), [1.0, 2.0, 3.0, 4.5]);
        let whole = Tensor::<1, Int>::from_ints([3, -1], &device).float();
        assert_eq!(host(whole).expect("readable"), [3.0, -1.0]);
        assert_eq!(scalar(x.sum()).expect("one"), 10.5);
        let none = Tensor::<1>::from_floats([0.0; 0], &device);
        assert!(scalar(none).expect_err("none").to_string().contains("cannot read"));
    }
}
