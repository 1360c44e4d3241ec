//! Floating-point tensors, converted to single precision as they are read.

use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};

use crate::checkpoint::{Dtype, Tensor};
use crate::math::simd::multiversion;

/// Numbers of a tensor in their stored type.
#[derive(Debug, Clone)]
pub enum Floats<'a> {
    F64(&'a [[u8; 8]]),
    F32(&'a [f32]),
    /// Single precision at an address that is not a multiple of 4.
    UnalignedF32(&'a [[u8; 4]]),
    F16(&'a [[u8; 2]]),
    Bf16(&'a [[u8; 2]]),
    /// Bytes, and the number that each byte means.
    F8(&'a [u8], &'static [f32; 256]),
}

impl<'a> Floats<'a> {
    /// The numbers of a tensor. None where they are integers.
    pub fn new(tensor: Tensor<'a>) -> Option<Self> {
        Some(match tensor.dtype {
            Dtype::F64 => Self::F64(tensor.bytes.as_chunks().0),
            Dtype::F32 => match bytemuck::try_cast_slice(tensor.bytes) {
                Ok(numbers) if cfg!(target_endian = "little") => Self::F32(numbers),
                _ => Self::UnalignedF32(tensor.bytes.as_chunks().0),
            },
            Dtype::F16 => Self::F16(tensor.bytes.as_chunks().0),
            Dtype::Bf16 => Self::Bf16(tensor.bytes.as_chunks().0),
            Dtype::F8E4m3 => Self::F8(tensor.bytes, &E4M3),
            Dtype::F8E5m2 => Self::F8(tensor.bytes, &E5M2),
            Dtype::F8E8m0 => Self::powers_of_two(tensor.bytes),
            Dtype::I64 | Dtype::I32 | Dtype::I8 | Dtype::U8 | Dtype::Block(_) => return None,
        })
    }

    /// Numbers that are stored as E8M0.
    pub fn powers_of_two(bytes: &'a [u8]) -> Self {
        Self::F8(bytes, &E8M0)
    }

    /// Elements from `start` on, as many as `out` has.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            Self::F64(v) => {
                for (out, bytes) in out.iter_mut().zip(&v[range]) {
                    *out = f64::from_le_bytes(*bytes) as f32;
                }
            }
            Self::F32(v) => out.copy_from_slice(&v[range]),
            Self::UnalignedF32(v) => {
                for (out, bytes) in out.iter_mut().zip(&v[range]) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            Self::F16(v) => read_halves(&v[range], out),
            Self::Bf16(v) => widen(&v[range], out),
            Self::F8(v, table) => {
                for (out, byte) in out.iter_mut().zip(&v[range]) {
                    *out = table[usize::from(*byte)];
                }
            }
        }
    }

    /// Bytes of an element.
    pub fn element_bytes(&self) -> usize {
        match self {
            Self::F64(_) => 8,
            Self::F32(_) | Self::UnalignedF32(_) => 4,
            Self::F16(_) | Self::Bf16(_) => 2,
            Self::F8(..) => 1,
        }
    }

    /// One element.
    pub fn at(&self, index: usize) -> f32 {
        let mut value = [0.0];
        self.read(index, &mut value);
        value[0]
    }
}

multiversion! {
    /// bf16 to f32.
    pub fn widen(halves: &[[u8; 2]], out: &mut [f32]) {
        for (out, half) in out.iter_mut().zip(halves) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16);
        }
    }
}

/// f16 to f32, through a small aligned copy.
fn read_halves(halves: &[[u8; 2]], out: &mut [f32]) {
    let mut bits = [0u16; 512];
    for (out, halves) in out.chunks_mut(bits.len()).zip(halves.chunks(bits.len())) {
        let bits = &mut bits[..halves.len()];
        bits.iter_mut().zip(halves).for_each(|(bits, half)| *bits = u16::from_le_bytes(*half));
        let halves: &[half::f16] = bits.reinterpret_cast();
        halves.convert_to_f32_slice(out);
    }
}

/// 2^exponent, from -149 to 127.
const fn power(exponent: i32) -> f32 {
    if exponent < -126 {
        return f32::from_bits(1 << (exponent + 149));
    }
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// A number with a sign, an exponent and `mantissa` bits of mantissa, without infinities or NaN.
const fn small(byte: usize, mantissa: u32, bias: i32) -> f32 {
    let fraction = (byte & ((1 << mantissa) - 1)) as f32 * power(-(mantissa as i32));
    let exponent = ((byte & 0x7f) >> mantissa) as i32;
    let magnitude = match exponent {
        0 => fraction * power(1 - bias),
        _ => (1.0 + fraction) * power(exponent - bias),
    };
    if byte >= 128 { -magnitude } else { magnitude }
}

/// OCP 8-bit floating point, E4M3: no infinity, and NaN where all bits but the sign are set.
static E4M3: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if byte & 0x7f == 0x7f { f32::NAN } else { small(byte, 3, 7) };
        byte += 1;
    }
    table
};

/// OCP 8-bit floating point, E5M2: the exponent 31 means infinity or NaN.
static E5M2: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte & 0x7f {
            0x7c => f32::INFINITY,
            0x7d..=0x7f => f32::NAN,
            _ => small(byte, 2, 15),
        };
        if byte == 0xfc {
            table[byte] = f32::NEG_INFINITY;
        }
        byte += 1;
    }
    table
};

/// OCP E8M0: 2^(byte - 127), and NaN for 255.
static E8M0: [f32; 256] = {
    let mut table = [f32::NAN; 256];
    let mut byte = 0;
    while byte < 255 {
        table[byte] = power(byte as i32 - 127);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_numbers() {
        assert_eq!(
            [E4M3[0x00], E4M3[0x01], E4M3[0x08], E4M3[0x38], E4M3[0x7e]],
            [0.0, 0.001_953_125, 0.015_625, 1.0, 448.0]
        );
        assert_eq!((E4M3[0xfe], E4M3[0x80].to_bits()), (-448.0, 1 << 31));
        assert!(E4M3[0x7f].is_nan() && E4M3[0xff].is_nan());
        // E5M2 is the upper half of a half-precision number.
        for byte in 0..=255u8 {
            let truth = half::f16::from_bits(u16::from(byte) << 8).to_f32();
            let found = E5M2[usize::from(byte)];
            assert!(found.to_bits() == truth.to_bits() || found.is_nan() && truth.is_nan(), "{byte}");
        }
        assert_eq!(
            [E8M0[0], E8M0[1], E8M0[127], E8M0[254]],
            [f32::from_bits(1 << 22), f32::MIN_POSITIVE, 1.0, f32::from_bits(254 << 23)]
        );
        assert!(E8M0[255].is_nan());
    }

    #[test]
    fn numbers_are_read_at_any_alignment() {
        for offset in 0..4 {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let size = dtype.block().1;
                let mut bytes = vec![0; offset];
                for i in 0..1500u16 {
                    let value = f32::from(i % 200);
                    match dtype {
                        Dtype::F32 => bytes.extend(value.to_le_bytes()),
                        Dtype::F16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
                        _ => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
                    }
                }
                let tensor = Tensor { dtype, shape: &[1500], bytes: &bytes[offset..] };
                let floats = Floats::new(tensor).expect("floating-point numbers");
                assert_eq!(floats.element_bytes(), size);
                let mut out = vec![0.0; 1400];
                floats.read(100, &mut out);
                assert!(
                    out.iter().zip(100..).all(|(v, i)| *v == f32::from(i % 200u16)),
                    "{dtype:?} {offset}"
                );
            }
        }
    }

    #[test]
    fn double_precision_is_rounded() {
        let bytes: Vec<u8> = [0.1f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = Tensor { dtype: Dtype::F64, shape: &[2], bytes: &bytes };
        let floats = Floats::new(tensor).expect("floating-point numbers");
        assert_eq!([floats.at(0), floats.at(1)], [0.1, -2.0]);
    }
}
