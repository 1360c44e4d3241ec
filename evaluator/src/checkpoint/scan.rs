//! Search for weights that are NaN or infinite, before the measurement.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::tensors::{Dtype, Tensor};
use crate::math::simd::multiversion;
use invarlock_error::{Result, bail};

/// Bytes in one task.
const BLOCK: usize = 1 << 20;

/// An error for the first of these tensors that contains a NaN or an infinity. Each call of `progress` gets the number
/// of bytes just read.
pub fn scan(parameters: &[(String, Tensor<'_>)], progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    // The first in the order of the list, so that the message does not depend on threads.
    let first = AtomicUsize::new(usize::MAX);
    let blocks = parameters
        .iter()
        .enumerate()
        .flat_map(|(i, (_, t))| t.bytes.chunks(BLOCK).map(move |b| (i, t.dtype, b)));
    let blocks: Vec<_> = blocks.collect();
    blocks.into_par_iter().for_each(|(i, dtype, bytes)| {
        if i <= first.load(Ordering::Relaxed) {
            let found = match dtype {
                Dtype::F32 => any_has_mask(bytes.as_chunks().0, 0x7f80_0000),
                Dtype::F16 => any_short_has_mask(bytes.as_chunks().0, 0x7c00),
                Dtype::Bf16 => any_short_has_mask(bytes.as_chunks().0, 0x7f80),
            };
            if found {
                first.fetch_min(i, Ordering::Relaxed);
            }
        }
        progress(bytes.len() as u64);
    });
    match parameters.get(first.into_inner()) {
        Some((name, _)) => bail!(
            Input,
            "tensor {name} contains a NaN or an infinity: the file is damaged, or the training diverged"
        ),
        None => Ok(()),
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
            (Dtype::F16, 0x7bffu16, false),
            (Dtype::F16, 0x7c00, true),
            (Dtype::F16, 0xfe01, true),
            (Dtype::Bf16, 0x7f7f, false),
            (Dtype::Bf16, 0xff80, true),
        ] {
            let bytes = bits.to_le_bytes();
            let list = [("h".to_owned(), Tensor { dtype, shape: &[], bytes: &bytes })];
            assert_eq!(scan(&list, &|_| ()).is_err(), bad, "{bits:x}");
        }
    }
}
