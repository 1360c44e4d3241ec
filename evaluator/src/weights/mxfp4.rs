//! MXFP4: 4-bit floating-point numbers (E2M1) with a power of two for each 32 inputs, for the stacked experts of GPT-OSS.
//!
//! Source: OCP Microscaling Formats 1.0; names of tensors from transformers.

use std::ops::Range;

use super::modules::Modules;
use super::nibbles::{First, Pairs, lookup, pairs};
use super::parts::groups;
use super::{Floats, Format, Layout, Parts, Quantised, Wanted};
use crate::checkpoint::{Config, Dtype, Tensor};
use invarlock_error::{Result, bail};

/// Inputs with a common scale.
const GROUP: usize = 32;
/// The number of each code.
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// `quantization_config` of MXFP4.
#[derive(Debug)]
pub struct Mxfp4 {
    plain: Modules,
}

impl Mxfp4 {
    /// Reads the members.
    pub fn read(config: &Config) -> Result<Self> {
        super::members::ignore(config, &["quant_method", "dequantize"]);
        Ok(Self { plain: Modules::transformers(config, "modules_to_not_convert")? })
    }
}

impl Format for Mxfp4 {
    fn describe(&self) -> String {
        format!("mxfp4: float4 (E2M1), groups of {GROUP}")
    }

    fn covers(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> bool {
        wanted.module.contains(".experts.") && !self.plain.contains("Linear", wanted.module)
    }

    fn marker(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> String {
        format!("{}_blocks", wanted.stored)
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { module, stored, inputs, outputs, slice, .. } = *wanted;
        let Some((expert, experts)) = slice else {
            bail!(
                Unsupported,
                "{}: {module} in mxfp4 is not supported; supported: stacked experts",
                parts.place()
            );
        };
        let groups = groups(parts.place(), module, inputs, GROUP)?;
        let shape = [experts, outputs, groups];
        let blocks = [experts, outputs, groups, GROUP / 2];
        let codes = parts.take_of(&format!("{stored}_blocks"), &[Dtype::U8], &[&blocks])?;
        let scales = parts.take_of(&format!("{stored}_scales"), &[Dtype::U8, Dtype::F8E8m0], &[&shape])?;
        let of_expert = |tensor: Tensor<'a>| {
            let size = tensor.bytes.len() / experts;
            Tensor { bytes: &tensor.bytes[expert * size..(expert + 1) * size], ..tensor }
        };
        let scales = of_expert(scales);
        if let Some(position) = scales.bytes.iter().position(|byte| *byte == u8::MAX) {
            bail!(
                Input,
                "{}: tensor {stored}_scales has 255 (NaN) for expert {expert}, element {position}",
                parts.place()
            );
        }
        let scales = Floats::powers_of_two(scales.bytes);
        Ok(Box::new(Matrix {
            codes: of_expert(codes).bytes,
            scales,
            pairs: pairs(&E2M1, First::Low),
            inputs,
        }))
    }
}

/// A matrix [outputs, inputs].
#[derive(Debug)]
struct Matrix<'a> {
    /// [outputs, inputs / 2].
    codes: &'a [u8],
    /// [outputs, inputs / 32].
    scales: Floats<'a>,
    pairs: Box<Pairs>,
    inputs: usize,
}

impl Quantised for Matrix<'_> {
    fn layout(&self) -> Layout {
        Layout::OutIn
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        lookup(&self.pairs, self.codes, outputs.start * self.inputs, out);
        let first = outputs.start * (self.inputs / GROUP);
        for (group, values) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            let scale = self.scales.at(first + group);
            for value in values {
                *value *= scale;
            }
        }
    }
}
