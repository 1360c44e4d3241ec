//! Block types of GGUF files: each block holds numbers of one row with their scales.

/// A type of block.
///
/// Source of sizes and fields: `ggml-common.h` of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Block {
    /// 4 bits with a scale for 32 elements.
    Q4_0,
    /// 4 bits with scale and minimum.
    Q4_1,
    /// 5 bits with a scale.
    Q5_0,
    /// 5 bits with scale and minimum.
    Q5_1,
    /// 8 bits with a scale.
    Q8_0,
    /// 2 bits with quantised scales and minima for 16 elements, 256 in a block.
    Q2K,
    /// 3 bits with quantised scales for 16 elements.
    Q3K,
    /// 4 bits with quantised scales and minima for 32 elements.
    Q4K,
    /// 5 bits with quantised scales and minima for 32 elements.
    Q5K,
    /// 6 bits with quantised scales for 16 elements.
    Q6K,
}

impl Block {
    /// Name in llama.cpp.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Numbers in a block.
    pub fn elements(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            _ => 256,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Where the half-precision scales of a block are, in bytes.
    pub fn scales(self) -> &'static [usize] {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q2K => &[80, 82],
            Self::Q3K => &[108],
            Self::Q6K => &[208],
        }
    }
}
