//! Types of stored numbers, and where tensors are in files.

use super::Block;

/// Types of stored numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 double precision.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16: the upper half of a single-precision number.
    Bf16,
    /// 4 bits of exponent, 3 of mantissa, no infinity.
    F8E4m3,
    /// 5 bits of exponent, 2 of mantissa: the upper half of a half-precision number.
    F8E5m2,
    /// A power of two: 8 bits of exponent.
    F8E8m0,
    /// Signed integers.
    I64,
    /// Signed integers.
    I32,
    /// Signed integers.
    I8,
    /// Bytes.
    U8,
    /// Blocks of a GGUF file.
    Block(Block),
}

impl Dtype {
    /// Every type of safetensors files, with its name in a header.
    pub const ALL: [(Self, safetensors::Dtype); 11] = [
        (Self::F64, safetensors::Dtype::F64),
        (Self::F32, safetensors::Dtype::F32),
        (Self::F16, safetensors::Dtype::F16),
        (Self::Bf16, safetensors::Dtype::BF16),
        (Self::F8E4m3, safetensors::Dtype::F8_E4M3),
        (Self::F8E5m2, safetensors::Dtype::F8_E5M2),
        (Self::F8E8m0, safetensors::Dtype::F8_E8M0),
        (Self::I64, safetensors::Dtype::I64),
        (Self::I32, safetensors::Dtype::I32),
        (Self::I8, safetensors::Dtype::I8),
        (Self::U8, safetensors::Dtype::U8),
    ];

    /// The type with this name in a header, or the name where the type is not supported.
    pub fn of_header(stored: safetensors::Dtype) -> Result<Self, safetensors::Dtype> {
        Self::ALL.iter().find(|(_, name)| *name == stored).map(|(dtype, _)| *dtype).ok_or(stored)
    }

    /// PyTorch's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F8E4m3 => "float8_e4m3fn",
            Self::F8E5m2 => "float8_e5m2",
            Self::F8E8m0 => "float8_e8m0fnu",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::Block(block) => block.name(),
        }
    }

    /// Elements and bytes of the smallest unit.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F64 | Self::I64 => (1, 8),
            Self::F32 | Self::I32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::F8E4m3 | Self::F8E5m2 | Self::F8E8m0 | Self::I8 | Self::U8 => (1, 1),
            Self::Block(block) => (block.elements(), block.bytes()),
        }
    }
}

/// Where a tensor is. Start and end lie within the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub file: usize,
    /// The type, or the unsupported type of a header.
    pub dtype: Result<Dtype, safetensors::Dtype>,
    pub shape: Vec<usize>,
    pub start: usize,
    pub end: usize,
}
