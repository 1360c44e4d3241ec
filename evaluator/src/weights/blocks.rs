//! Blocks of GGUF files, converted to single precision.
//!
//! Source of the arithmetic: `ggml-quants.c` of llama.cpp (`dequantize_row_*`).

use crate::checkpoint::Block;
use crate::math::simd::multiversion;

multiversion! {
/// Converts whole blocks.
pub fn convert(block: Block, bytes: &[u8], out: &mut [f32]) {
    match block {
        Block::Q4_0 => each(bytes, out, q4_0),
        Block::Q4_1 => each(bytes, out, q4_1),
        Block::Q5_0 => each(bytes, out, q5_0),
        Block::Q5_1 => each(bytes, out, q5_1),
        Block::Q8_0 => each(bytes, out, q8_0),
        Block::Q2K => each(bytes, out, q2_k),
        Block::Q3K => each(bytes, out, q3_k),
        Block::Q4K => each(bytes, out, q4_k),
        Block::Q5K => each(bytes, out, q5_k),
        Block::Q6K => each(bytes, out, q6_k),
    }
}
}

#[inline(always)]
fn each<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    convert: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        convert(block, out);
    }
}

/// The half-precision number at a position.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Bytes from a position on. A known length lets the compiler use vectors.
#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&block[at..at + N]);
    part
}

/// Some bits of a byte. 32-bit numbers, because processors have no shifts of bytes.
#[inline(always)]
fn bits(byte: u8, shift: usize, mask: u32) -> u32 {
    u32::from(byte) >> shift & mask
}

#[inline(always)]
fn number(value: u32) -> f32 {
    value as i32 as f32
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (out, q) in out.iter_mut().zip(part::<32>(block, 2)) {
        *out = f32::from(q as i8) * d;
    }
}

/// Low halves of bytes are the first 16 elements, high halves the others.
#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (i, q) in part::<16>(block, 2).into_iter().enumerate() {
        out[i] = (number(bits(q, 0, 15)) - 8.0) * d;
        out[i + 16] = (number(bits(q, 4, 15)) - 8.0) * d;
    }
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, q) in part::<16>(block, 4).into_iter().enumerate() {
        out[i] = number(bits(q, 0, 15)) * d + m;
        out[i + 16] = number(bits(q, 4, 15)) * d + m;
    }
}

/// The numbers of a block of 5 bits; the fifth bits of all elements are together, from `at` on.
#[inline(always)]
fn five_bits(block: &[u8], at: usize) -> [f32; 32] {
    let high = u32::from_le_bytes(part(block, at));
    let mut out = [0.0; 32];
    for (i, q) in part::<16>(block, at + 4).into_iter().enumerate() {
        out[i] = number(bits(q, 0, 15) | (high >> i & 1) << 4);
        out[i + 16] = number(bits(q, 4, 15) | (high >> (i + 16) & 1) << 4);
    }
    out
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (out, q) in out.iter_mut().zip(five_bits(block, 2)) {
        *out = (q - 16.0) * d;
    }
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (out, q) in out.iter_mut().zip(five_bits(block, 4)) {
        *out = q * d + m;
    }
}

/// 16 sub-blocks of 16 elements, each with a 4-bit scale and a 4-bit minimum.
#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, min) = (d * number(bits(block[sub], 0, 15)), dmin * number(bits(block[sub], 4, 15)));
        let (shift, first) = (sub % 8 / 2 * 2, sub / 8 * 32 + sub % 2 * 16);
        for (out, q) in out.iter_mut().zip(part::<16>(block, 16 + first)) {
            *out = scale * number(bits(q, shift, 3)) - min;
        }
    }
}

/// 16 sub-blocks of 16 elements with a signed 6-bit scale each; an element without its high bit is less by 4.
#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let scales: [u8; 12] = part(block, 96);
    let d = half(block, 108);
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = bits(scales[sub % 8], sub / 8 * 4, 15);
        let high = bits(scales[8 + sub % 4], sub / 4 * 2, 3);
        let scale = d * (number(low | high << 4) - 32.0);
        let (shift, first) = (sub % 8 / 2, sub % 2 * 16);
        let quants = part::<16>(block, 32 + sub / 8 * 32 + first);
        for ((out, q), high) in out.iter_mut().zip(quants).zip(part::<16>(block, first)) {
            let high = bits(high, sub / 8 * 4 + shift, 1);
            *out = scale * (number(bits(q, 2 * shift, 3) | high << 2) - 4.0);
        }
    }
}

/// The 6-bit scale and minimum of a sub-block of Q4_K and Q5_K, in 12 bytes.
#[inline(always)]
fn scale_and_min(scales: [u8; 12], sub: usize) -> (f32, f32) {
    let (scale, min) = match sub {
        0..4 => (scales[sub] & 63, scales[sub + 4] & 63),
        _ => (scales[sub + 4] & 15 | scales[sub - 4] >> 6 << 4, scales[sub + 4] >> 4 | scales[sub] >> 6 << 4),
    };
    (f32::from(scale), f32::from(min))
}

/// 8 sub-blocks of 32 elements; two share 32 bytes.
#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(part(block, 4), sub);
        let (scale, min) = (d * scale, dmin * min);
        for (out, q) in out.iter_mut().zip(part::<32>(block, 16 + sub / 2 * 32)) {
            *out = scale * number(bits(q, sub % 2 * 4, 15)) - min;
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let high: [u8; 32] = part(block, 16);
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(part(block, 4), sub);
        let (scale, min) = (d * scale, dmin * min);
        for ((out, q), high) in out.iter_mut().zip(part::<32>(block, 48 + sub / 2 * 32)).zip(high) {
            *out = scale * number(bits(q, sub % 2 * 4, 15) | bits(high, sub, 1) << 4) - min;
        }
    }
}

/// 16 sub-blocks of 16 elements with a signed 8-bit scale each.
#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, quarter, first) = (sub / 8, sub % 8 / 2, sub % 2 * 16);
        let low = part::<16>(block, half * 64 + quarter % 2 * 32 + first);
        let high = part::<16>(block, 128 + half * 32 + first);
        let scale = d * f32::from(block[192 + sub] as i8);
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            let q = bits(low, quarter / 2 * 4, 15) | bits(high, 2 * quarter, 3) << 4;
            *out = scale * (number(q) - 32.0);
        }
    }
}
