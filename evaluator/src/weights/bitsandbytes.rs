//! bitsandbytes: 8-bit integers with a scale for each output, or 4-bit codes of a table with a scale for each block.

use std::ops::Range;

use serde::Deserialize;

use super::inputs::undefined;
use super::members::{choice, ignore};
use super::modules::Modules;
use super::nibbles::{First, Pairs, lookup, pairs};
use super::scaled::{Codes, Scaled, Scales};
use super::{Floats, Format, Layout, Parts, Quantised, Rounding, Wanted};
use crate::checkpoint::{Config, Dtype};
use invarlock_error::{Context as _, Foreign as _, Kind, Result, bail};

/// Integers are multiples of the largest magnitude of a row over this.
const INT8_MAX: f32 = 127.0;
/// Largest description of a 4-bit tensor.
const STATE_BYTES: usize = 4096;
/// Kinds of 4-bit codes.
const KINDS: [&str; 2] = ["nf4", "fp4"];

/// Reads the members.
pub fn read(config: &Config) -> Result<Box<dyn Format>> {
    ignore(
        config,
        &[
            "quant_method",
            "_load_in_4bit",
            "_load_in_8bit",
            "bnb_4bit_compute_dtype",
            "bnb_4bit_use_double_quant",
            "llm_int8_enable_fp32_cpu_offload",
            "llm_int8_has_fp16_weight",
            "llm_int8_threshold",
        ],
    );
    choice(config, "bnb_4bit_quant_storage", &["uint8"])?;
    let kind = choice(config, "bnb_4bit_quant_type", &["fp4", "nf4"])?;
    let plain = Modules::transformers(config, "llm_int8_skip_modules")?;
    match (config.flag("load_in_8bit", false)?, config.flag("load_in_4bit", false)?) {
        (true, false) => Ok(Box::new(Int8 { plain })),
        (false, true) => Ok(Box::new(FourBits { kind, plain })),
        (eight, four) => bail!(
            Input,
            "{}: `load_in_8bit` {eight} with `load_in_4bit` {four}: one of them must be true",
            config.name()
        ),
    }
}

/// 8-bit integers.
#[derive(Debug)]
struct Int8 {
    plain: Modules,
}

impl Format for Int8 {
    fn describe(&self) -> String {
        "bitsandbytes: int8, a scale for each output".to_owned()
    }

    fn covers(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> bool {
        !self.plain.contains("Linear", wanted.module)
    }

    fn marker(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> String {
        format!("{}.SCB", wanted.stored)
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { stored, inputs, outputs, .. } = *wanted;
        let format = format!("{stored}.weight_format");
        if parts.contains(&format) {
            let order = parts.take_of(&format, &[Dtype::U8], &[&[], &[1]])?.bytes;
            if order != [0] {
                bail!(
                    Unsupported,
                    "{}: tensor {format} is {order:?}; supported: [0], stored by rows",
                    parts.place()
                );
            }
        }
        let codes = parts.take_of(&format!("{stored}.weight"), &[Dtype::I8], &[&[outputs, inputs]])?.bytes;
        let values = parts.floats(&format!("{stored}.SCB"), &[&[outputs], &[outputs, 1]])?;
        let scales = Scales { divisor: INT8_MAX, ..Scales::new(values, [1, inputs]) };
        Ok(Box::new(Scaled { codes: Codes::I8(codes), scales: Some(scales), inputs }))
    }

    fn activations(&self) -> Option<String> {
        Some("inputs in int8, dynamic, except outliers".to_owned())
    }

    /// Which inputs are outliers depends on all tokens that are computed together.
    fn inputs(&self, _: &Wanted<'_>, parts: &mut Parts<'_>) -> Result<Option<Rounding>> {
        Err(undefined("inputs in int8, except outliers among all tokens that are computed together", parts))
    }
}

/// 4-bit codes.
#[derive(Debug)]
struct FourBits {
    kind: &'static str,
    plain: Modules,
}

/// The description of a 4-bit tensor, JSON in a tensor of bytes.
#[derive(Debug, Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

impl FourBits {
    /// Reads and checks the description.
    fn state(&self, wanted: &Wanted<'_>, parts: &mut Parts<'_>) -> Result<State> {
        let name = self.marker(wanted, parts);
        let length = parts.get(&name)?.map_or(0, |tensor| tensor.bytes.len());
        if length > STATE_BYTES {
            bail!(Input, "{}: tensor {name} has {length} bytes; supported: {STATE_BYTES}", parts.place());
        }
        let json = parts.take_of(&name, &[Dtype::U8], &[&[length]])?.bytes;
        let state: State = serde_json::from_slice(json)
            .err_kind(Kind::Input)
            .with_context(|| format!("{}: tensor {name} is not the expected JSON", parts.place()))?;
        let shape = [wanted.outputs, wanted.inputs];
        if state.shape != shape || !name.ends_with(&state.quant_type) || !state.blocksize.is_power_of_two() {
            bail!(
                Input,
                "{}: tensor {name} says {} {:?} in blocks of {}, but config.json requires {shape:?}",
                parts.place(),
                state.quant_type,
                state.shape,
                state.blocksize
            );
        }
        if state.nested_blocksize.is_some_and(|size| !size.is_power_of_two())
            || state.nested_offset.is_some_and(|offset| !offset.is_finite())
        {
            bail!(Input, "{}: tensor {name} has an invalid nested_blocksize or nested_offset", parts.place());
        }
        Ok(state)
    }
}

impl Format for FourBits {
    fn describe(&self) -> String {
        format!("bitsandbytes: {}", self.kind)
    }

    fn covers(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> bool {
        !self.plain.contains("Linear", wanted.module)
    }

    fn marker(&self, wanted: &Wanted<'_>, parts: &Parts<'_>) -> String {
        let name = |kind: &str| format!("{}.weight.quant_state.bitsandbytes__{kind}", wanted.stored);
        // The tensor's own kind decides, as it does in the library.
        let stored = KINDS.iter().find(|kind| parts.contains(&name(kind)));
        name(stored.unwrap_or(&self.kind))
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { stored, inputs, outputs, .. } = *wanted;
        let state = self.state(wanted, parts)?;
        let name = |part: &str| format!("{stored}.weight.{part}");
        let count = inputs * outputs;
        let bytes = count.div_ceil(2);
        let blocks = count.div_ceil(state.blocksize);
        let mut table = [0.0; 16];
        parts.floats(&name("quant_map"), &[&[16]])?.read(0, &mut table);
        let shapes: [&[usize]; 3] = [&[bytes, 1], &[1, bytes], &[bytes]];
        let codes = parts.take_of(&format!("{stored}.weight"), &[Dtype::U8], &shapes)?.bytes;
        let absmax = match state.nested_blocksize {
            None => Absmax::Floats(parts.floats(&name("absmax"), &[&[blocks]])?),
            Some(size) => Absmax::Nested {
                codes: parts.take_of(&name("absmax"), &[Dtype::U8], &[&[blocks]])?.bytes,
                table: parts.floats(&name("nested_quant_map"), &[&[256]])?,
                scales: parts.floats(&name("nested_absmax"), &[&[blocks.div_ceil(size)]])?,
                size,
                offset: state.nested_offset.unwrap_or(0.0),
            },
        };
        let pairs = pairs(&table, First::High);
        Ok(Box::new(Matrix { codes, pairs, absmax, block: state.blocksize, inputs }))
    }
}

/// A matrix [outputs, inputs]. Blocks do not end with rows.
#[derive(Debug)]
struct Matrix<'a> {
    codes: &'a [u8],
    pairs: Box<Pairs>,
    absmax: Absmax<'a>,
    /// Elements of a block.
    block: usize,
    inputs: usize,
}

/// The scale of each block.
#[derive(Debug)]
enum Absmax<'a> {
    Floats(Floats<'a>),
    /// `table[code]` · scale + offset, where `size` blocks share a scale.
    Nested {
        codes: &'a [u8],
        table: Floats<'a>,
        scales: Floats<'a>,
        size: usize,
        offset: f32,
    },
}

impl Absmax<'_> {
    fn at(&self, block: usize) -> f32 {
        match self {
            Self::Floats(floats) => floats.at(block),
            Self::Nested { codes, table, scales, size, offset } => {
                table.at(usize::from(codes[block])) * scales.at(block / size) + offset
            }
        }
    }
}

impl Quantised for Matrix<'_> {
    fn layout(&self) -> Layout {
        Layout::OutIn
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let start = outputs.start * self.inputs;
        lookup(&self.pairs, self.codes, start, out);
        let mut next = start;
        let mut rest = out;
        while !rest.is_empty() {
            let block = next / self.block;
            let n = ((block + 1) * self.block - next).min(rest.len());
            let (values, others) = rest.split_at_mut(n);
            super::scaled::shift_and_scale(values, 0.0, self.absmax.at(block));
            rest = others;
            next += n;
        }
    }
}
