//! Unpacks integers of 1 to 8 bits from a stream whose first integer is in the lowest bits of the first byte.
//!
//! 32-bit little-endian words that are filled from their lowest bit up, without gaps between words, are such a stream.

use crate::math::simd::multiversion;

/// The integers from `first` on, a multiple of 8, as single-precision numbers. `stream` holds all of them.
pub fn unpack(bits: u32, stream: &[u8], first: usize, out: &mut [f32]) {
    debug_assert!(first.is_multiple_of(8));
    let stream = &stream[first / 8 * bits as usize..];
    match bits {
        1 => unpack_1(stream, out),
        2 => unpack_2(stream, out),
        3 => unpack_3(stream, out),
        4 => unpack_4(stream, out),
        5 => unpack_5(stream, out),
        6 => unpack_6(stream, out),
        7 => unpack_7(stream, out),
        _ => unpack_8(stream, out),
    }
}

multiversion! {
    pub fn unpack_1(stream: &[u8], out: &mut [f32]) { eights::<1>(stream, out) }
    pub fn unpack_2(stream: &[u8], out: &mut [f32]) { eights::<2>(stream, out) }
    pub fn unpack_3(stream: &[u8], out: &mut [f32]) { eights::<3>(stream, out) }
    pub fn unpack_4(stream: &[u8], out: &mut [f32]) { eights::<4>(stream, out) }
    pub fn unpack_5(stream: &[u8], out: &mut [f32]) { eights::<5>(stream, out) }
    pub fn unpack_6(stream: &[u8], out: &mut [f32]) { eights::<6>(stream, out) }
    pub fn unpack_7(stream: &[u8], out: &mut [f32]) { eights::<7>(stream, out) }
    pub fn unpack_8(stream: &[u8], out: &mut [f32]) {
        for (out, byte) in out.iter_mut().zip(stream) {
            *out = f32::from(*byte);
        }
    }
}

/// Eight integers have as many bytes as an integer has bits.
#[inline(always)]
fn eights<const BITS: usize>(stream: &[u8], out: &mut [f32]) {
    let mut last = [0; 8];
    for (i, out) in out.chunks_mut(8).enumerate() {
        let stream = &stream[i * BITS..];
        // A whole word is read where there is one: its further bytes are masked.
        match (stream.first_chunk::<8>(), out.as_chunks_mut::<8>().0) {
            (Some(word), [out]) => *out = eight::<BITS>(*word),
            _ => {
                let n = stream.len().min(BITS);
                last[..n].copy_from_slice(&stream[..n]);
                out.copy_from_slice(&eight::<BITS>(last)[..out.len()]);
            }
        }
    }
}

#[inline(always)]
fn eight<const BITS: usize>(word: [u8; 8]) -> [f32; 8] {
    let mask = (1 << BITS) - 1;
    let mut out = [0.0; 8];
    if BITS <= 4 {
        let word = u64::from_le_bytes(word) as u32;
        for (i, out) in out.iter_mut().enumerate() {
            *out = ((word >> (i * BITS)) & mask) as i32 as f32;
        }
    } else {
        let word = u64::from_le_bytes(word);
        for (i, out) in out.iter_mut().enumerate() {
            *out = ((word >> (i * BITS)) as u32 & mask) as i32 as f32;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit.
    fn reference(bits: u32, stream: &[u8], index: usize) -> f32 {
        let bit = |i: usize| u32::from(stream[i / 8] >> (i % 8) & 1);
        let first = index * bits as usize;
        (0..bits as usize).map(|i| bit(first + i) << i).sum::<u32>() as f32
    }

    proptest! {
        #[test]
        fn every_width_is_unpacked(bits in 1u32..=8, skip in 0usize..4, count in 1usize..100, seed: u64) {
            let needed = ((skip * 8 + count) * bits as usize).div_ceil(8);
            let stream: Vec<u8> =
                (0..needed as u64).map(|i| (seed.wrapping_mul(i * 2 + 1) >> 32) as u8).collect();
            let mut out = vec![0.0; count];
            unpack(bits, &stream, skip * 8, &mut out);
            for (i, value) in out.iter().enumerate() {
                prop_assert_eq!(*value, reference(bits, &stream, skip * 8 + i));
            }
        }
    }
}
