//! AWQ, GEMM version: 4-bit integers, eight outputs in a word, with scale and zero point for each group of inputs and each output.

use std::ops::Range;

use super::members::{choice, group_size, ignore};
use super::modules::Modules;
use super::parts::groups;
use super::{Floats, Format, Layout, Parts, Quantised, Wanted};
use crate::checkpoint::Config;
use crate::math::simd::multiversion;
use invarlock_error::{Result, bail};

/// The output, of eight, whose integer is at each position of a word, from the lowest bits up.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// `quantization_config` of AWQ.
#[derive(Debug)]
pub struct Awq {
    group_size: Option<usize>,
    plain: Modules,
}

impl Awq {
    /// Reads the members.
    pub fn read(config: &Config) -> Result<Self> {
        ignore(config, &["quant_method", "fuse_max_seq_len", "exllama_config", "backend", "modules_to_fuse"]);
        config.reject_options(&["do_fuse"])?;
        let bits = config.required_size("bits", super::members::MAX_BITS)?;
        let zero_point = config.flag("zero_point", true)?;
        if bits != 4 || !zero_point {
            bail!(
                Unsupported,
                "{}: `{}` {bits} with `zero_point` {zero_point} is not supported; supported: 4 with true",
                config.name(),
                config.member("bits")
            );
        }
        choice(config, "version", &["gemm", "GEMM"])?;
        Ok(Self {
            group_size: group_size(config)?,
            plain: Modules::transformers(config, "modules_to_not_convert")?,
        })
    }
}

impl Format for Awq {
    fn describe(&self) -> String {
        let groups =
            self.group_size.map_or_else(|| "one group".to_owned(), |size| format!("groups of {size}"));
        format!("awq gemm: int4, {groups}")
    }

    fn covers(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> bool {
        wanted.layout == Layout::OutIn && !self.plain.contains("Linear", wanted.module)
    }

    fn marker(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> String {
        format!("{}.qweight", wanted.stored)
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { module, stored, inputs, outputs, .. } = *wanted;
        if !outputs.is_multiple_of(8) {
            bail!(Input, "{}: {module} has {outputs} outputs, which do not fill words of 8", parts.place());
        }
        let size = self.group_size.unwrap_or(inputs);
        let groups = groups(parts.place(), module, inputs, size)?;
        let name = |part: &str| format!("{stored}.{part}");
        Ok(Box::new(Matrix {
            words: parts.words(&name("qweight"), &[inputs, outputs / 8])?,
            zeros: parts.words(&name("qzeros"), &[groups, outputs / 8])?,
            scales: parts.floats(&name("scales"), &[&[groups, outputs]])?,
            group: size,
            outputs,
        }))
    }
}

/// A matrix [inputs, outputs].
#[derive(Debug)]
struct Matrix<'a> {
    /// [inputs, outputs / 8].
    words: &'a [[u8; 4]],
    /// [groups, outputs / 8].
    zeros: &'a [[u8; 4]],
    /// [groups, outputs].
    scales: Floats<'a>,
    /// Inputs of a group.
    group: usize,
    outputs: usize,
}

impl Quantised for Matrix<'_> {
    fn layout(&self) -> Layout {
        Layout::InOut
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let width = outputs.len();
        // Whole words that contain the outputs.
        let (first, last) = (outputs.start / 8, outputs.end.div_ceil(8));
        let skip = outputs.start - first * 8;
        let row = self.outputs / 8;
        let mut zeros = vec![0.0; (last - first) * 8];
        let mut codes = zeros.clone();
        let mut scales = vec![0.0; width];
        for (input, out) in out.chunks_exact_mut(width).enumerate() {
            if input.is_multiple_of(self.group) {
                let group = input / self.group;
                unpack(&self.zeros[group * row + first..group * row + last], &mut zeros);
                self.scales.read(group * self.outputs + outputs.start, &mut scales);
            }
            unpack(&self.words[input * row + first..input * row + last], &mut codes);
            shift_and_scale(&codes[skip..], &zeros[skip..], &scales, out);
        }
    }
}

multiversion! {
    /// The integers of each word in the order of outputs.
    pub fn unpack(words: &[[u8; 4]], out: &mut [f32]) {
        for (out, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            let word = u32::from_le_bytes(*word);
            for (position, output) in ORDER.iter().enumerate() {
                out[*output] = ((word >> (4 * position)) & 15) as i32 as f32;
            }
        }
    }

    /// (code - zero) · scale.
    pub fn shift_and_scale(codes: &[f32], zeros: &[f32], scales: &[f32], out: &mut [f32]) {
        for (((out, code), zero), scale) in out.iter_mut().zip(codes).zip(zeros).zip(scales) {
            *out = (code - zero) * scale;
        }
    }
}
