//! Blocks of GGUF files, converted to single precision.
//!
//! Source of the arithmetic: `ggml-quants.c` of llama.cpp (`dequantize_row_*`).

use crate::checkpoint::Block;

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
fn half(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(*q as i8) * d;
    }
}

/// Low halves of bytes are the first 16 elements, high halves the others.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (i, q) in block[2..].iter().enumerate() {
        out[i] = f32::from((q & 15) as i8 - 8) * d;
        out[i + 16] = f32::from((q >> 4) as i8 - 8) * d;
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, q) in block[4..].iter().enumerate() {
        out[i] = f32::from(q & 15) * d + m;
        out[i + 16] = f32::from(q >> 4) * d + m;
    }
}

/// The fifth bits of all elements.
fn high_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (half(block, 0), high_bits(block, 2));
    for (i, q) in block[6..].iter().enumerate() {
        let bit = |i: usize| ((high >> i & 1) << 4) as u8;
        out[i] = f32::from((q & 15 | bit(i)) as i8 - 16) * d;
        out[i + 16] = f32::from((q >> 4 | bit(i + 16)) as i8 - 16) * d;
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (half(block, 0), half(block, 2), high_bits(block, 4));
    for (i, q) in block[8..].iter().enumerate() {
        let bit = |i: usize| ((high >> i & 1) << 4) as u8;
        out[i] = f32::from(q & 15 | bit(i)) * d + m;
        out[i + 16] = f32::from(q >> 4 | bit(i + 16)) * d + m;
    }
}

/// 16 sub-blocks of 16 elements, each with a 4-bit scale and a 4-bit minimum.
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, min) = (d * f32::from(scales[sub] & 15), dmin * f32::from(scales[sub] >> 4));
        let (shift, first) = (sub % 8 / 2 * 2, sub / 8 * 32 + sub % 2 * 16);
        for (out, q) in out.iter_mut().zip(&quants[first..]) {
            *out = scale * f32::from(q >> shift & 3) - min;
        }
    }
}

/// 16 sub-blocks of 16 elements with a signed 6-bit scale each; an element without its high bit is less by 4.
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (masks, quants, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(block, 108);
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = if sub < 8 { scales[sub] & 15 } else { scales[sub - 8] >> 4 };
        let high = scales[8 + sub % 4] >> (sub / 4 * 2) & 3;
        let scale = d * f32::from((low | high << 4) as i8 - 32);
        let (shift, half) = (sub % 8 / 2, sub % 2 * 16);
        let quants = &quants[sub / 8 * 32 + half..];
        for ((out, q), mask) in out.iter_mut().zip(quants).zip(&masks[half..]) {
            let high = mask >> (sub / 8 * 4 + shift) & 1;
            *out = scale * f32::from((q >> (2 * shift) & 3) as i8 - 4 * (1 - high as i8));
        }
    }
}

/// The 6-bit scale and minimum of a sub-block of Q4_K and Q5_K, in 12 bytes.
fn scale_and_min(scales: &[u8], sub: usize) -> (f32, f32) {
    let (scale, min) = match sub {
        0..4 => (scales[sub] & 63, scales[sub + 4] & 63),
        _ => (scales[sub + 4] & 15 | scales[sub - 4] >> 6 << 4, scales[sub + 4] >> 4 | scales[sub] >> 6 << 4),
    };
    (f32::from(scale), f32::from(min))
}

/// 8 sub-blocks of 32 elements; two share 32 bytes.
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], sub);
        let (scale, min) = (d * scale, dmin * min);
        let shift = sub % 2 * 4;
        for (out, q) in out.iter_mut().zip(&block[16 + sub / 2 * 32..]) {
            *out = scale * f32::from(q >> shift & 15) - min;
        }
    }
}

fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], sub);
        let (scale, min) = (d * scale, dmin * min);
        let shift = sub % 2 * 4;
        for ((out, q), high) in out.iter_mut().zip(&block[48 + sub / 2 * 32..]).zip(&block[16..48]) {
            *out = scale * f32::from(q >> shift & 15 | (high >> sub & 1) << 4) - min;
        }
    }
}

/// Sub-blocks of 16 elements with a signed 8-bit scale each.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(block, 208);
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (part, quarter) = (sub / 4, sub % 4);
        let low = &low[part * 64 + quarter % 2 * 32..];
        let high = &high[part * 32..];
        for (i, ((out, low), high)) in out.iter_mut().zip(low).zip(high).enumerate() {
            let q = low >> (quarter / 2 * 4) & 15 | (high >> (2 * quarter) & 3) << 4;
            let scale = d * f32::from(scales[part * 8 + quarter * 2 + i / 16] as i8);
            *out = scale * f32::from(q as i8 - 32);
        }
    }
}
