//! Operands as the matrix unit reads them: pairs of bfloat16 numbers in tiles.
#![allow(unsafe_code, reason = "vector loads and conversions")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::kernel::{Line, PANEL, STEP, STEP_LINES, TILE};

/// An operand: rows of the left matrix, or columns of the right one, whose element `index` is `data[line * stride + index * step]`.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    pub data: &'a [f32],
    /// Number of rows or columns.
    pub lines: usize,
    /// Elements of each.
    pub depth: usize,
    pub stride: usize,
    pub step: usize,
    /// Factor of each element.
    pub scale: f32,
}

/// The order of the pairs of elements 2i and 2i + 1 in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A row of the tile has the pairs of one line: the left operand.
    Lines,
    /// A row of the tile has one pair of each line: the right operand.
    Pairs,
}

/// A tile.
type Tile = [Line; TILE];

/// Writes the panels of some lines and elements into `out`. What lies beyond the operand is zero.
///
/// # Safety
/// The processor has AVX-512 with bfloat16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub fn panels(
    operand: Operand<'_>,
    lines: Range<usize>,
    depth: Range<usize>,
    order: Order,
    out: &mut Vec<Line>,
) {
    let (panels, steps) = (lines.len().div_ceil(PANEL), depth.len().div_ceil(STEP));
    let len = panels * steps * STEP_LINES;
    if out.len() < len {
        out.resize(len, Line([0; 32]));
    }
    let (tiles, _) = out[..len].as_chunks_mut::<TILE>();
    let (pairs, _) = tiles.as_chunks_mut::<2>();
    for (number, tiles) in pairs.iter_mut().enumerate() {
        // A panel has two pairs of tiles for each step.
        let (panel, step, half) = (number / (2 * steps), number / 2 % steps, number % 2);
        let first = (lines.start + panel * PANEL + half * TILE).min(lines.end);
        let index = depth.start + step * STEP;
        let block = (first..lines.end.min(first + TILE), index..depth.end.min(index + STEP));
        let found = match (operand.step, operand.stride) {
            (1, _) => operand.consecutive(block, tiles),
            (_, 1) => operand.interleaved(block, tiles),
            _ => operand.gathered(block, tiles),
        };
        if found != order {
            tiles.iter_mut().for_each(|tile| transpose(tile));
        }
    }
}

/// Lines and elements of a tile.
type Block = (Range<usize>, Range<usize>);

impl Operand<'_> {
    /// Writes high and low parts of a block. The elements of a line are consecutive.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn consecutive(self, (lines, elements): Block, [high, low]: &mut [Tile; 2]) -> Order {
        for (row, (high, low)) in high.iter_mut().zip(low).enumerate() {
            let line = lines.start + row;
            let elements = match line < lines.end {
                true => &self.data[line * self.stride + elements.start..][..elements.len()],
                false => &[],
            };
            let (first, second) = elements.split_at(elements.len().min(TILE));
            let [upper, rest] = self.split(load(first), load(second));
            store(high, upper);
            store(low, rest);
        }
        Order::Lines
    }

    /// The same where an element of all lines is consecutive.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn interleaved(self, (lines, elements): Block, [high, low]: &mut [Tile; 2]) -> Order {
        let all = |index: usize| match index < elements.end && !lines.is_empty() {
            true => &self.data[index * self.step + lines.start..][..lines.len()],
            false => &[],
        };
        for (row, (high, low)) in high.iter_mut().zip(low).enumerate() {
            let index = elements.start + 2 * row;
            let [upper, rest] = self.split(load(all(index)), load(all(index + 1)));
            store(high, interleave(upper));
            store(low, interleave(rest));
        }
        Order::Pairs
    }

    /// The same where neither is consecutive.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn gathered(self, (lines, elements): Block, [high, low]: &mut [Tile; 2]) -> Order {
        for (row, (high, low)) in high.iter_mut().zip(low).enumerate() {
            let line = lines.start + row;
            let mut copy = [0f32; STEP];
            if line < lines.end {
                for (copy, index) in copy.iter_mut().zip(elements.clone()) {
                    *copy = self.data[line * self.stride + index * self.step];
                }
            }
            let [upper, rest] = self.split(load(&copy[..TILE]), load(&copy[TILE..]));
            store(high, upper);
            store(low, rest);
        }
        Order::Lines
    }

    /// High and low parts of 32 scaled numbers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn split(self, first: __m512, second: __m512) -> [__m512i; 2] {
        let scale = _mm512_set1_ps(self.scale);
        let (first, second) = (_mm512_mul_ps(first, scale), _mm512_mul_ps(second, scale));
        let high = rounded(first, second);
        let first = _mm512_sub_ps(first, single(_mm512_castsi512_si256(high)));
        let second = _mm512_sub_ps(second, single(_mm512_extracti64x4_epi64::<1>(high)));
        [high, rounded(first, second)]
    }
}

/// At most 16 numbers, and zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(numbers: &[f32]) -> __m512 {
    let mask = u16::MAX.checked_shr(16 - numbers.len().min(TILE) as u32).unwrap_or(0);
    // SAFETY: only the elements of the mask are read, which are in the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, numbers.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn read(line: &Line) -> __m512i {
    // SAFETY: a line has 64 bytes, and is aligned to as many.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, numbers: __m512i) {
    // SAFETY: a line has 64 bytes, and is aligned to as many.
    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), numbers) }
}

/// 32 numbers, rounded to bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(first: __m512, second: __m512) -> __m512i {
    let rounded = _mm512_cvtne2ps_pbh(second, first);
    // SAFETY: both types are 512 bits without an invalid value.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(rounded) }
}

/// 16 bfloat16 numbers in single precision.
#[inline]
#[target_feature(enable = "avx512f")]
fn single(numbers: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers)))
}

/// The numbers 0, 16, 1, 17 … of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave(numbers: __m512i) -> __m512i {
    const LOW: i64 = 0x0011_0001_0010_0000;
    const NEXT: i64 = 0x0002_0002_0002_0002;
    let order = |i: i64| LOW + i * NEXT;
    let orders = [0, 1, 2, 3, 4, 5, 6, 7].map(order);
    let [a, b, c, d, e, f, g, h] = orders;
    _mm512_permutexvar_epi16(_mm512_setr_epi64(a, b, c, d, e, f, g, h), numbers)
}

/// Exchanges rows and columns of 16 rows of 16 pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(tile: &mut Tile) {
    let zero = _mm512_setzero_si512();
    let mut rows = [zero; TILE];
    for (row, line) in rows.iter_mut().zip(tile.iter()) {
        *row = read(line);
    }
    let mut pairs = [zero; TILE];
    for i in (0..TILE).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Lane l of `fours[4 * g + c]` has column 4 * l + c of the rows from 4 * g on.
    let mut fours = [zero; TILE];
    for i in (0..TILE).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    // Lanes 0 and 2 of two vectors, or 1 and 3.
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xdd;
    for c in 0..4 {
        let even_upper = _mm512_shuffle_i32x4::<EVEN>(fours[c], fours[4 + c]);
        let even_lower = _mm512_shuffle_i32x4::<EVEN>(fours[8 + c], fours[12 + c]);
        let odd_upper = _mm512_shuffle_i32x4::<ODD>(fours[c], fours[4 + c]);
        let odd_lower = _mm512_shuffle_i32x4::<ODD>(fours[8 + c], fours[12 + c]);
        store(&mut tile[c], _mm512_shuffle_i32x4::<EVEN>(even_upper, even_lower));
        store(&mut tile[4 + c], _mm512_shuffle_i32x4::<EVEN>(odd_upper, odd_lower));
        store(&mut tile[8 + c], _mm512_shuffle_i32x4::<ODD>(even_upper, even_lower));
        store(&mut tile[12 + c], _mm512_shuffle_i32x4::<ODD>(odd_upper, odd_lower));
    }
}
