//! Quantised inputs of linear layers: each input is replaced by the number that its quantised form means.
//!
//! Configurations of W8A8 and FP8 checkpoints ask for it. Products stay in single precision, so a product is that of the two quantised
//! matrices up to rounding. Source of the arithmetic: compressed-tensors 0.20 (`calculate_qparams`, `_quantize`), and the kernels of DeepSeek and
//! transformers for `quant_method` fp8.

use super::Parts;
use crate::math::gemm::View;
use invarlock_error::{Error, Result, bail};

/// The largest number of float8_e4m3fn.
const E4M3_MAX: f32 = 448.0;
/// The exponents of the smallest normal number of float8_e4m3fn, and of its last bit below 1.
const E4M3_EXPONENT: i32 = -6;
const E4M3_FRACTION: i32 = 3;

/// How the inputs of a layer are quantised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounding {
    pub numbers: Numbers,
    pub scale: Scale,
}

/// What the scaled inputs are rounded to. The nearest number is taken, and the even one of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Integers of 2 to 8 bits with a sign.
    Int { bits: u32 },
    /// `float8_e4m3fn`.
    E4m3,
}

/// What the inputs are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// One number for all inputs of the layer; the zero point is added before rounding.
    Fixed { scale: f32, zero: f32 },
    /// For each `group` inputs of a token (the last group may be smaller), from their largest magnitude.
    Largest { group: usize, power_of_two: bool },
    /// For each `group` inputs of a token, from the range between the smallest and the largest, which includes zero.
    Range { group: usize },
}

impl Numbers {
    /// The smallest and the largest number.
    fn limits(self) -> (f32, f32) {
        match self {
            Self::Int { bits } => {
                let half = (1u32 << (bits - 1)) as f32;
                (-half, half - 1.0)
            }
            Self::E4m3 => (-E4M3_MAX, E4M3_MAX),
        }
    }
}

/// The nearest number of float8_e4m3fn to one of at most 448.
fn nearest_e4m3(value: f32) -> f32 {
    let exponent = ((value.to_bits() >> 23 & 0xff) as i32 - 127).max(E4M3_EXPONENT);
    // A power of two, so that the quotient and the product are exact.
    let step = f32::from_bits(((exponent - E4M3_FRACTION + 127) as u32) << 23);
    (value / step).round_ties_even() * step
}

impl Rounding {
    /// A fixed scale, from the tensors of a module.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or the scale is not a number above zero.
    pub fn fixed(
        numbers: Numbers,
        (scale, zero): (&str, Option<&str>),
        parts: &mut Parts<'_>,
    ) -> Result<Self> {
        let shapes: &[&[usize]] = &[&[], &[1]];
        let value = parts.floats(scale, shapes)?.at(0);
        if !(value.is_finite() && value > 0.0) {
            bail!(Input, "{}: tensor {scale} is {value}; a scale is a number above zero", parts.place());
        }
        let (low, high) = numbers.limits();
        let zero = match zero {
            None => 0.0,
            Some(name) => {
                let zero = parts.small_integer(name, shapes)? as f32;
                if !(low..=high).contains(&zero) {
                    bail!(
                        Input,
                        "{}: tensor {name} is {zero}; a zero point is from {low} to {high}",
                        parts.place()
                    );
                }
                zero
            }
        };
        Ok(Self { numbers, scale: Scale::Fixed { scale: value, zero } })
    }

    /// Writes the rows of `x`, rounded: [rows, inputs], dense.
    pub fn round(&self, x: View<'_>, out: &mut [f32]) {
        let width = out.len() / x.rows().max(1);
        for (index, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
            out.copy_from_slice(x.row(index));
            match self.scale {
                Scale::Fixed { scale, zero } => self.round_with(out, scale, zero),
                Scale::Largest { group, power_of_two } => {
                    for group in out.chunks_mut(group) {
                        let scale = self.of_largest(group, power_of_two);
                        self.round_with(group, scale, 0.0);
                    }
                }
                Scale::Range { group } => {
                    for group in out.chunks_mut(group) {
                        let (scale, zero) = self.of_range(group);
                        self.round_with(group, scale, zero);
                    }
                }
            }
        }
    }

    fn round_with(&self, values: &mut [f32], scale: f32, zero: f32) {
        // All are zero.
        if scale == 0.0 {
            return;
        }
        let (low, high) = self.numbers.limits();
        match self.numbers {
            // One loop for each, so that it is vectorised.
            Numbers::Int { .. } => {
                for value in values {
                    let code = (*value / scale + zero).clamp(low, high).round_ties_even();
                    *value = (code - zero) * scale;
                }
            }
            Numbers::E4m3 => {
                for value in values {
                    *value = nearest_e4m3((*value / scale).clamp(low, high)) * scale;
                }
            }
        }
    }

    /// Half of the range of the numbers is the largest magnitude: 127.5 of 8-bit integers, 448 of float8.
    fn of_largest(&self, values: &[f32], power_of_two: bool) -> f32 {
        let (low, high) = self.numbers.limits();
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / ((high - low) / 2.0);
        if power_of_two { next_power_of_two(scale) } else { scale }
    }

    fn of_range(&self, values: &[f32]) -> (f32, f32) {
        let (low, high) = self.numbers.limits();
        let (smallest, largest) = values
            .iter()
            .fold((0f32, 0f32), |(smallest, largest), value| (smallest.min(*value), largest.max(*value)));
        let scale = (largest - smallest) / (high - low);
        (scale, (low - smallest / scale).round_ties_even().clamp(low, high))
    }
}

/// The smallest power of two that is not smaller, of a number that is not negative.
fn next_power_of_two(value: f32) -> f32 {
    match value.to_bits() & 0x7f_ffff {
        0 => value,
        // Denormal numbers become the smallest normal one; the largest become infinite.
        fraction => f32::from_bits(value.to_bits() - fraction + (1 << 23)),
    }
}

/// The error for a configuration that asks for inputs whose quantised numbers it does not define for a window measured by itself.
pub fn undefined(asked: &str, parts: &Parts<'_>) -> Error {
    Error::unsupported(format!("{}: config.json asks for {asked}, which is not supported", parts.place()))
        .with_hint("pass --weight-only to measure the quantised weights with inputs in float32")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(numbers: Numbers, scale: Scale, x: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; x.len()];
        Rounding { numbers, scale }.round(View::dense(x, 1, x.len()), &mut out);
        out
    }

    #[test]
    fn integers_have_the_scale_of_the_largest() {
        let largest = |group| Scale::Largest { group, power_of_two: false };
        let int8 = Numbers::Int { bits: 8 };
        // 127.5 / 127.5 = 1: halves go to the even neighbour, and the largest is out of range.
        assert_eq!(
            rounded(int8, largest(8), &[127.5, -127.5, 0.5, 1.5, -2.5, 0.49, 0.0, 3.0]),
            [127.0, -128.0, 0.0, 2.0, -2.0, 0.0, 0.0, 3.0]
        );
        // Each group has a scale: 15 / 7.5 = 2, then 7.5 / 7.5 = 1; the last group has one input.
        let int4 = Numbers::Int { bits: 4 };
        assert_eq!(rounded(int4, largest(2), &[15.0, 3.0, 7.5, 3.0, 0.0]), [14.0, 4.0, 7.0, 3.0, 0.0]);
    }

    #[test]
    fn ranges_include_zero() {
        let range = Scale::Range { group: 3 };
        let int8 = Numbers::Int { bits: 8 };
        // 0 to 255: a scale of 1 and a zero point of -128.
        assert_eq!(rounded(int8, range, &[255.0, 1.4, 100.6]), [255.0, 1.0, 101.0]);
        assert_eq!(rounded(int8, range, &[0.0, 0.0, 0.0]), [0.0, 0.0, 0.0]);
        // -100 to 155: a zero point of -28.
        assert_eq!(rounded(int8, range, &[-100.0, 155.0, 0.3]), [-100.0, 155.0, 0.0]);
    }

    #[test]
    fn fixed_scales_saturate() {
        let int8 = Numbers::Int { bits: 8 };
        let scale = Scale::Fixed { scale: 0.5, zero: 10.0 };
        // Codes -128 to 127 less the zero point: -69 to 58.5.
        assert_eq!(rounded(int8, scale, &[1000.0, -1000.0, 0.2, 1.3]), [58.5, -69.0, 0.0, 1.5]);
        let scale = Scale::Fixed { scale: 2.0, zero: 0.0 };
        assert_eq!(rounded(Numbers::E4m3, scale, &[10_000.0, -36.0]), [896.0, -36.0]);
    }

    #[test]
    fn float8_is_the_nearest_of_all_its_numbers() {
        let numbers: Vec<f32> = (0u8..0x7f)
            .map(|byte| {
                let (exponent, fraction) = (i32::from(byte >> 3), f32::from(byte & 7));
                match exponent {
                    0 => fraction * 2f32.powi(-9),
                    _ => (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
                }
            })
            .collect();
        for pair in numbers.windows(2) {
            let middle = f32::midpoint(pair[0], pair[1]);
            for sign in [1.0, -1.0] {
                assert_eq!(nearest_e4m3(sign * pair[0]), sign * pair[0]);
                assert_eq!(nearest_e4m3(sign * middle.next_down()), sign * pair[0], "below {middle}");
                assert_eq!(nearest_e4m3(sign * middle.next_up()), sign * pair[1], "above {middle}");
            }
        }
        assert_eq!(nearest_e4m3(448.0), 448.0);
        assert_eq!(nearest_e4m3(f32::midpoint(1.0, 1.125)), 1.0);
        assert!(nearest_e4m3(f32::NAN).is_nan());
    }

    #[test]
    fn powers_of_two_are_not_smaller() {
        for (value, power) in [(0.0, 0.0), (1.0, 1.0), (1.1, 2.0), (0.75, 1.0), (0.5, 0.5), (3.0, 4.0)] {
            assert_eq!(next_power_of_two(value), power, "{value}");
        }
        let scale = Scale::Largest { group: 2, power_of_two: true };
        // 900 / 448 is a little more than 2, so the scale is 4.
        assert_eq!(rounded(Numbers::E4m3, scale, &[900.0, 37.0]), [896.0, 36.0]);
    }

    #[test]
    fn numbers_that_are_not_finite_stay_visible() {
        let scale = Scale::Largest { group: 2, power_of_two: false };
        for bad in [f32::NAN, f32::INFINITY] {
            let found = rounded(Numbers::Int { bits: 8 }, scale, &[bad, 1.0]);
            assert!(found.iter().any(|value| value.is_nan()), "{bad}: {found:?}");
        }
    }

    /// `tests/reference/make_rounding.py` made them.
    const FIXTURE: &str = include_str!("../../tests/fixtures/rounding.json");

    #[derive(serde::Deserialize)]
    struct Case {
        bits: Option<u32>,
        scale: Asked,
        rounded: Vec<Vec<f32>>,
    }

    #[derive(serde::Deserialize, Clone, Copy)]
    #[serde(rename_all = "snake_case")]
    enum Asked {
        Fixed(f32, f32),
        Largest(usize),
        PowersOfTwo(usize),
        Range(usize),
    }

    #[test]
    fn numbers_are_those_of_compressed_tensors() {
        let mut cases: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(FIXTURE).expect("JSON");
        let inputs: Vec<Vec<f32>> =
            serde_json::from_value(cases.remove("inputs").expect("inputs")).expect("rows");
        assert!(cases.len() > 8);
        for (name, case) in cases {
            let case: Case = serde_json::from_value(case).expect("a case");
            let numbers = case.bits.map_or(Numbers::E4m3, |bits| Numbers::Int { bits });
            let scale = match case.scale {
                Asked::Fixed(scale, zero) => Scale::Fixed { scale, zero },
                Asked::Largest(group) => Scale::Largest { group, power_of_two: false },
                Asked::PowersOfTwo(group) => Scale::Largest { group, power_of_two: true },
                Asked::Range(group) => Scale::Range { group },
            };
            for (x, expected) in inputs.iter().zip(&case.rounded) {
                assert_eq!(&rounded(numbers, scale, x), expected, "{name}");
            }
        }
    }
}
