//! Rows of integers without gaps, with a scale and perhaps a zero point for each group of a row.

use std::ops::Range;

use super::scaled::shift_and_scale;
use super::{Floats, Layout, Quantised, bits};

/// A matrix [outputs, inputs].
#[derive(Debug)]
pub struct Packed<'a> {
    /// [outputs, words]: integers of `bits` bits along a row, in 32-bit words.
    pub words: &'a [[u8; 4]],
    pub bits: u32,
    /// [outputs, groups], or one for all.
    pub scales: Floats<'a>,
    pub single_scale: bool,
    /// [words, groups]: packed along the outputs. Absent where every zero point is 2^(bits - 1).
    pub zeros: Option<&'a [[u8; 4]]>,
    pub groups: usize,
    /// The group of each input, where groups are not neighbours.
    pub index: Option<Vec<u32>>,
    pub inputs: usize,
}

impl Packed<'_> {
    fn zero(&self, output: usize, group: usize) -> f32 {
        let Some(zeros) = self.zeros else { return (1u32 << (self.bits - 1)) as f32 };
        let bit = output * self.bits as usize;
        let word =
            |i: usize| zeros.get(i * self.groups + group).map_or(0, |w| u64::from(u32::from_le_bytes(*w)));
        let both = word(bit / 32) | word(bit / 32 + 1) << 32;
        ((both >> (bit % 32)) & ((1 << self.bits) - 1)) as f32
    }
}

impl Quantised for Packed<'_> {
    fn layout(&self) -> Layout {
        Layout::OutIn
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let words = words(self.inputs, self.bits);
        let mut scales = vec![0.0; self.groups];
        if self.single_scale {
            scales.fill(self.scales.at(0));
        }
        for (output, row) in outputs.zip(out.chunks_exact_mut(self.inputs)) {
            bits::unpack(self.bits, self.words[output * words..][..words].as_flattened(), 0, row);
            if !self.single_scale {
                self.scales.read(output * self.groups, &mut scales);
            }
            match &self.index {
                Some(index) => {
                    for (value, group) in row.iter_mut().zip(index) {
                        let group = *group as usize;
                        *value = (*value - self.zero(output, group)) * scales[group];
                    }
                }
                None => {
                    let size = self.inputs / self.groups;
                    for (group, values) in row.chunks_exact_mut(size).enumerate() {
                        shift_and_scale(values, self.zero(output, group), scales[group]);
                    }
                }
            }
        }
    }
}

/// 32-bit words of a row of integers.
pub fn words(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(32)
}
