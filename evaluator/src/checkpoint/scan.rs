//! Search for weights that are NaN or infinite, before the measurement.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::dtype::Dtype;
use super::tensors::Tensor;
use crate::math::simd::multiversion;
use invarlock_error::{Result, bail};

/// Bytes in one task.
const BLOCK: usize = 1 << 20;

/// An error for the first of these tensors that contains a NaN or an infinity. Each call of `progress` gets the bytes just read.
pub fn scan(parameters: &[(String, Tensor<'_>)], progress: &(dyn Fn(&[u8]) + Sync)) -> Result<()> {
    // The first in the order of the list, so that the message does not depend on threads.
    let first = AtomicUsize::new(usize::MAX);
    let blocks = parameters.iter().enumerate().flat_map(|(i, (_, t))| {
        t.bytes.chunks(BLOCK / t.dtype.block().1 * t.dtype.block().1).map(move |b| (i, t.dtype, b))
    });
    let blocks: Vec<_> = blocks.collect();
    blocks.into_par_iter().for_each(|(i, dtype, bytes)| {
        if i <= first.load(Ordering::Relaxed) {
            let found = not_finite(dtype, bytes);
            if found {
                first.fetch_min(i, Ordering::Relaxed);
            }
        }
        progress(bytes);
    });
    match parameters.get(first.into_inner()) {
        Some((name, _)) => bail!(
            Input,
            "tensor {name} contains a NaN or an infinity: the file is damaged, or the training diverged"
        ),
        None => Ok(()),
    }
}

/// Whether any element is NaN or infinite, or becomes infinite in single precision. Integers never are.
fn not_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    match dtype {
        Dtype::F64 => bytes.as_chunks().0.iter().any(|b| !(f64::from_le_bytes(*b) as f32).is_finite()),
        Dtype::F32 => any_has_mask(bytes.as_chunks().0, 0x7f80_0000),
        Dtype::F16 => any_short_has_mask(bytes.as_chunks().0, 0x7c00),
        Dtype::Bf16 => any_short_has_mask(bytes.as_chunks().0, 0x7f80),
        Dtype::F8E4m3 => any_byte_has_mask(bytes, 0x7f),
        Dtype::F8E5m2 => any_byte_has_mask(bytes, 0x7c),
        Dtype::F8E8m0 => any_byte_has_mask(bytes, 0xff),
        Dtype::Block(block) => {
            let scale = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let infinite =
                |bytes: &[u8]| block.scales().iter().any(|at| scale(bytes, *at) & 0x7c00 == 0x7c00);
            bytes.chunks_exact(block.bytes()).any(infinite)
        }
        Dtype::I64 | Dtype::I32 | Dtype::I8 | Dtype::U8 => false,
    }
}

multiversion! {
    /// Whether any element has all bits of the mask set. With the exponent bits as the mask: a NaN or an infinity.
    pub fn any_has_mask(elements: &[[u8; 4]], mask: u32) -> bool {
        elements.iter().fold(false, |found, e| found | (u32::from_le_bytes(*e) & mask == mask))
    }

    /// The same for elements of 2 bytes.
    pub fn any_short_has_mask(elements: &[[u8; 2]], mask: u16) -> bool {
        elements.iter().fold(false, |found, e| found | (u16::from_le_bytes(*e) & mask == mask))
    }

    /// The same for elements of 1 byte.
    pub fn any_byte_has_mask(elements: &[u8], mask: u8) -> bool {
        elements.iter().fold(false, |found, e| found | (e & mask == mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_first_tensor_with_nan_or_infinity() {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let good = bytes(&[0.0, f32::MAX, f32::MIN_POSITIVE, -1.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let bad = bytes(&[1.0, 2.0, bad]);
            let tensor = |b| Tensor { dtype: Dtype::F32, shape: &[], bytes: b };
            let list = [
                ("a".to_owned(), tensor(&good[..])),
                ("b".to_owned(), tensor(&bad[..])),
                ("c".to_owned(), tensor(&bad[..])),
            ];
            assert!(scan(&list[..1], &|_| ()).is_ok());
            assert!(scan(&list, &|_| ()).expect_err("not finite").to_string().starts_with("tensor b "));
        }
        for (dtype, bits, bad) in [
            (Dtype::F16, 0x7bffu64, false),
            (Dtype::F16, 0x7c00, true),
            (Dtype::F16, 0xfe01, true),
            (Dtype::Bf16, 0x7f7f, false),
            (Dtype::Bf16, 0xff80, true),
            (Dtype::F8E4m3, 0x7e, false),
            (Dtype::F8E4m3, 0xff, true),
            (Dtype::F8E5m2, 0x7b, false),
            (Dtype::F8E5m2, 0xfd, true),
            (Dtype::F8E8m0, 0xfe, false),
            (Dtype::F8E8m0, 0xff, true),
            (Dtype::F64, 1e38f64.to_bits(), false),
            (Dtype::F64, 1e39f64.to_bits(), true),
            (Dtype::F64, f64::NAN.to_bits(), true),
            (Dtype::I8, 0xff, false),
        ] {
            let bytes = &bits.to_le_bytes()[..dtype.block().1];
            let list = [("h".to_owned(), Tensor { dtype, shape: &[], bytes })];
            assert_eq!(scan(&list, &|_| ()).is_err(), bad, "{dtype:?} {bits:x}");
        }
    }
}
