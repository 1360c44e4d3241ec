//! `quant_method` fp8 of transformers and DeepSeek: 8-bit floating point with a scale for each block, or for each tensor.

use super::inputs::{Numbers, Scale};
use super::members::{choice, ignore};
use super::modules::Modules;
use super::scaled::{Codes, Scaled, Scales};
use super::{Format, Layout, Parts, Quantised, Rounding, Wanted};
use crate::checkpoint::{Config, Dtype};
use crate::limits;
use invarlock_error::Result;

/// Names of the scale of a module's inputs: that of transformers first.
const INPUT_SCALES: [&str; 2] = ["activation_scale", "input_scale"];

/// `quantization_config` of fp8.
#[derive(Debug)]
pub struct Fp8 {
    /// Rows and columns of a block; the last blocks may be smaller. None: a scale for each tensor.
    block: Option<[usize; 2]>,
    activations: &'static str,
    /// Whether the scales of inputs are powers of two.
    powers_of_two: bool,
    plain: Modules,
}

impl Fp8 {
    /// Reads the members.
    pub fn read(config: &Config) -> Result<Self> {
        ignore(config, &["quant_method", "dequantize"]);
        choice(config, "fmt", &["e4m3"])?;
        let size = |v: &serde_json::Value| {
            v.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| (1..=limits::WIDTH).contains(v))
        };
        let block = config.list("weight_block_size", 2, "sizes", size)?;
        Ok(Self {
            block: block.map(|block| [block[0], block[1]]),
            activations: choice(config, "activation_scheme", &["dynamic", "static"])?,
            powers_of_two: choice(config, "scale_fmt", &["float", "ue8m0"])? == "ue8m0",
            plain: Modules::transformers(config, "modules_to_not_convert")?,
        })
    }
}

impl Format for Fp8 {
    fn describe(&self) -> String {
        match self.block {
            Some([rows, columns]) => format!("fp8: float8_e4m3fn, blocks of {rows} x {columns}"),
            None => "fp8: float8_e4m3fn, one scale".to_owned(),
        }
    }

    fn covers(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> bool {
        wanted.layout == Layout::OutIn && !self.plain.contains("Linear", wanted.module)
    }

    fn marker(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> String {
        format!("{}.weight_scale_inv", wanted.stored)
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { stored, inputs, outputs, .. } = *wanted;
        let (weight, scale) = (format!("{stored}.weight"), self.marker(wanted, parts));
        for scale in INPUT_SCALES {
            parts.skip(&format!("{stored}.{scale}"));
        }
        let shape: &[usize] = &[outputs, inputs];
        parts.take_of(&weight, &[Dtype::F8E4m3], &[shape])?;
        let codes = Codes::Float(parts.floats(&weight, &[shape])?);
        let block = self.block.unwrap_or([outputs, inputs]);
        let counts = [outputs.div_ceil(block[0]), inputs.div_ceil(block[1])];
        let shapes: &[&[usize]] = if self.block.is_some() { &[&counts] } else { &[&[], &[1]] };
        let scales = Scales::new(parts.floats(&scale, shapes)?, block);
        Ok(Box::new(Scaled { codes, scales: Some(scales), inputs }))
    }

    fn activations(&self) -> Option<String> {
        Some(format!("inputs in float8, {}", self.activations))
    }

    fn inputs(&self, wanted: &Wanted<'_>, parts: &mut Parts<'_>) -> Result<Option<Rounding>> {
        if self.activations == "static" {
            let names = INPUT_SCALES.map(|scale| format!("{}.{scale}", wanted.stored));
            let name = names.iter().find(|name| parts.contains(name)).unwrap_or(&names[0]);
            return Rounding::fixed(Numbers::E4m3, (name, None), parts).map(Some);
        }
        let group = self.block.map_or(wanted.inputs, |[_, columns]| columns);
        let scale = Scale::Largest { group, power_of_two: self.powers_of_two };
        Ok(Some(Rounding { numbers: Numbers::E4m3, scale }))
    }
}
