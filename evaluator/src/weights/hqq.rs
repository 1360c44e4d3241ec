//! HQQ: (value - zero) · scale on the matrix of groups, whose rows or columns are groups of consecutive weights.
//!
//! Source: hqq 0.2. With 4 bits a byte holds a value of the first half of the rows in its high bits and one of the second half in its low bits;
//! fewer bits continue this.

use std::ops::Range;

use super::modules::Modules;
use super::{Floats, Format, Layout, Parts, Quantised, Wanted};
use crate::checkpoint::{Config, Dtype};
use crate::limits;
use invarlock_error::{Result, bail};

/// Tensors that repeat the configuration.
const REPEATED: &[&str] = &[
    "channel_wise",
    "compute_dtype",
    "encoded_state_dict",
    "offload_meta",
    "optimize",
    "packing",
    "quant_scale",
    "quant_zero",
    "round_zero",
    "stores_quant_config",
    "unpack_view_dtype",
    "view_as_float",
];

/// `quantization_config` of HQQ.
#[derive(Debug)]
pub struct Hqq {
    bits: usize,
    group: usize,
    /// Whether groups are columns of the matrix of groups (`axis` 0).
    columns: bool,
    plain: Modules,
}

impl Hqq {
    /// Reads the members.
    pub fn read(config: &Config) -> Result<Self> {
        super::members::ignore(config, &["quant_method"]);
        let plain = Modules::transformers(config, "skip_modules")?;
        let Some(all) = config.object("quant_config")? else {
            bail!(Input, "{}: `{}` is missing", config.name(), config.member("quant_config"));
        };
        let Some(weights) = all.object("weight_quant_params")? else {
            bail!(Unsupported, "{}: `{}` is missing", config.name(), all.member("weight_quant_params"));
        };
        super::members::ignore(&weights, &["channel_wise", "optimize", "round_zero"]);
        let bits = weights.required_size("nbits", 8)?;
        let axis = weights.get("axis").and_then(serde_json::Value::as_u64);
        let group = weights.required_size("group_size", limits::WIDTH)?;
        if ![1, 2, 4, 8].contains(&bits) || !matches!(axis, Some(0 | 1)) {
            bail!(
                Unsupported,
                "{}: `{}` {bits} with `axis` {axis:?} is not supported; supported: 1, 2, 4, 8 with 0 or 1",
                config.name(),
                weights.member("nbits")
            );
        }
        for object in [&weights, &all] {
            object.reject_unread(&object.keys().collect::<Vec<_>>())?;
        }
        Ok(Self { bits, group, columns: axis == Some(0), plain })
    }
}

impl Format for Hqq {
    fn describe(&self) -> String {
        format!("hqq: int{}, groups of {}", self.bits, self.group)
    }

    fn covers(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> bool {
        wanted.layout == Layout::OutIn && !self.plain.contains("Linear", wanted.module)
    }

    fn marker(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> String {
        format!("{}.W_q", wanted.stored)
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { module, stored, inputs, outputs, .. } = *wanted;
        let name = |part: &str| format!("{stored}.{part}");
        let in_byte = 8 / self.bits;
        let count = inputs * outputs;
        let (rows, columns) = match self.columns {
            true => (self.group, count / self.group),
            false => (count / self.group, self.group),
        };
        if !count.is_multiple_of(self.group) || !rows.is_multiple_of(in_byte) {
            bail!(
                Input,
                "{}: {module} has {count} weights, which do not make whole groups of {} in bytes of {in_byte}",
                parts.place(),
                self.group
            );
        }
        let expected = [
            ("shape", &[2][..], vec![outputs as i64, inputs as i64]),
            ("nbits", &[], vec![self.bits as i64]),
            ("group_size", &[], vec![self.group as i64]),
            ("axis", &[], vec![i64::from(!self.columns)]),
        ];
        for (part, shape, expected) in expected {
            let found = parts.integers(&name(part), shape)?;
            if found != expected {
                bail!(
                    Input,
                    "{}: tensor {} says {found:?}, but config.json requires {expected:?}",
                    parts.place(),
                    name(part)
                );
            }
        }
        for part in REPEATED {
            parts.skip(&name(part));
        }
        let scales: &[usize] = if self.columns { &[1, columns] } else { &[rows, 1] };
        Ok(Box::new(Matrix {
            codes: parts.take_of(&name("W_q"), &[Dtype::U8], &[&[rows / in_byte, columns]])?.bytes,
            scales: parts.floats(&name("scale"), &[scales])?,
            zeros: parts.floats(&name("zero"), &[scales])?,
            bits: self.bits,
            rows,
            columns,
            by_column: self.columns,
            inputs,
        }))
    }
}

/// A matrix [outputs, inputs], stored as a matrix [rows, columns] with as many elements in the same order.
#[derive(Debug)]
struct Matrix<'a> {
    /// [rows · bits / 8, columns].
    codes: &'a [u8],
    /// `[columns]` or `[rows]`.
    scales: Floats<'a>,
    zeros: Floats<'a>,
    bits: usize,
    rows: usize,
    columns: usize,
    by_column: bool,
    inputs: usize,
}

impl Quantised for Matrix<'_> {
    fn layout(&self) -> Layout {
        Layout::OutIn
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let stored_rows = self.rows * self.bits / 8;
        let mask = (1u32 << self.bits) - 1;
        let mut next = outputs.start * self.inputs;
        let mut rest = out;
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (row, column) = (next / self.columns, next % self.columns);
            let n = (self.columns - column).min(rest.len());
            let (values, others) = rest.split_at_mut(n);
            let shift = 8 - self.bits * (row / stored_rows + 1);
            let codes = &self.codes[row % stored_rows * self.columns + column..][..n];
            for (value, code) in values.iter_mut().zip(codes) {
                *value = ((u32::from(*code) >> shift) & mask) as i32 as f32;
            }
            if self.by_column {
                scales.resize(n, 0.0);
                zeros.resize(n, 0.0);
                self.scales.read(column, &mut scales);
                self.zeros.read(column, &mut zeros);
                for ((value, zero), scale) in values.iter_mut().zip(&zeros).zip(&scales) {
                    *value = (*value - zero) * scale;
                }
            } else {
                super::scaled::shift_and_scale(values, self.zeros.at(row), self.scales.at(row));
            }
            rest = others;
            next += n;
        }
    }
}
