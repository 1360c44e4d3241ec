//! Sparse matrices of compressed-tensors: the values that are not zero, and a bit for each element.

use super::{Floats, Parts, Wanted};
use invarlock_error::{Result, bail};

/// A matrix [outputs, inputs].
#[derive(Debug)]
pub struct Sparse<'a> {
    /// Values that are not zero, row by row.
    values: Floats<'a>,
    /// [outputs, inputs / 8]: a bit for each element, the first in the lowest bit.
    bits: &'a [u8],
    /// Where the values of each row start.
    starts: Vec<i64>,
    inputs: usize,
}

impl<'a> Sparse<'a> {
    /// Ending of the tensor with the values, after the name of the weight.
    pub const MARKER: &'static str = "compressed";

    /// The tensors of the weight of a module.
    pub fn read(wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Self> {
        let Wanted { stored, inputs, outputs, .. } = *wanted;
        let name = |part: &str| format!("{stored}.weight.{part}");
        let shape = parts.integers(&name("shape"), &[2])?;
        if shape != [outputs as i64, inputs as i64] {
            bail!(
                Input,
                "{}: tensor {} says {shape:?}, but config.json requires {:?}",
                parts.place(),
                name("shape"),
                [outputs, inputs]
            );
        }
        let width = inputs.div_ceil(8);
        let bits =
            parts.take_of(&name("bitmask"), &[crate::checkpoint::Dtype::U8], &[&[outputs, width]])?.bytes;
        let starts = parts.integers(&name("row_offsets"), &[outputs])?;
        let mut count = 0i64;
        for (row, (start, bits)) in starts.iter().zip(bits.chunks_exact(width)).enumerate() {
            if *start != count {
                bail!(
                    Input,
                    "{}: tensor {} has {start} for row {row}, but the bitmask has {count} values before it",
                    parts.place(),
                    name("row_offsets")
                );
            }
            if !inputs.is_multiple_of(8) && bits[width - 1] >> (inputs % 8) != 0 {
                bail!(
                    Input,
                    "{}: tensor {} has bits beyond the {inputs} columns of row {row}",
                    parts.place(),
                    name("bitmask")
                );
            }
            count += bits.iter().map(|byte| i64::from(byte.count_ones())).sum::<i64>();
        }
        let values = parts.floats(&name(Self::MARKER), &[&[count as usize]])?;
        Ok(Self { values, bits, starts, inputs })
    }

    /// One row.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        let width = self.inputs.div_ceil(8);
        let bits = &self.bits[output * width..][..width];
        let count: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        // The values are converted into the end of the row and moved to their columns from the left: a value never moves past one that
        // is still to be moved.
        let (count, start) = (count as usize, self.starts[output] as usize);
        let first = out.len() - count;
        self.values.read(start, &mut out[first..]);
        let mut next = first;
        for (column, byte) in (0..out.len()).map(|column| (column, bits[column / 8])) {
            let value = out[next.min(self.inputs - 1)];
            let present = byte >> (column % 8) & 1 == 1;
            out[column] = if present { value } else { 0.0 };
            next += usize::from(present);
        }
    }
}
