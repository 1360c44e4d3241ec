//! GGUF files with random weights of the shape of a Llama, which llama.cpp reads too.
//!
//! Source of the layout: the specification of GGUF, version 3. Tokens are bytes, so that any text is one token for each of its bytes.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::Result;
use crate::shapes::Random;

/// Tensor data starts at a multiple of this, and so does each tensor.
const ALIGNMENT: usize = 32;
/// Elements of a block of Q8_0, which share a scale.
const BLOCK: usize = 32;
/// Types of values of metadata.
const U32: u32 = 4;
const I32: u32 = 5;
const FLOAT: u32 = 6;
const TEXT: u32 = 8;
const LIST: u32 = 9;
/// Types of tokens: a word, one that is never text, and a byte.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// How matrices are stored.
#[derive(Clone, Copy)]
pub enum Stored {
    F16,
    Q8_0,
}

impl Stored {
    /// As llama.cpp calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::Q8_0 => "Q8_0",
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => 8,
        }
    }

    fn bytes(self, elements: usize) -> usize {
        match self {
            Self::F16 => 2 * elements,
            Self::Q8_0 => elements / BLOCK * (2 + BLOCK),
        }
    }
}

/// A Llama without grouped heads.
pub struct Llama {
    pub width: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub vocab: usize,
}

impl Llama {
    /// Names and shapes, [rows, columns], or [elements] of a normalisation.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (width, wide) = (self.width, self.intermediate);
        let mut all = vec![
            ("token_embd".to_owned(), vec![self.vocab, width]),
            ("output_norm".to_owned(), vec![width]),
            ("output".to_owned(), vec![self.vocab, width]),
        ];
        for layer in 0..self.layers {
            let mut add =
                |name: &str, shape: &[usize]| all.push((format!("blk.{layer}.{name}"), shape.to_vec()));
            ["attn_norm", "ffn_norm"].iter().for_each(|name| add(name, &[width]));
            ["attn_q", "attn_k", "attn_v", "attn_output"].iter().for_each(|name| add(name, &[width, width]));
            ["ffn_gate", "ffn_up"].iter().for_each(|name| add(name, &[wide, width]));
            add("ffn_down", &[width, wide]);
        }
        all
    }

    /// Writes `model.gguf`.
    pub fn write(&self, directory: &Path, stored: Stored) -> Result<()> {
        fs::create_dir_all(directory)?;
        let tensors = self.tensors();
        let (count, metadata) = self.metadata();
        let mut header = Vec::new();
        header.extend(b"GGUF");
        header.extend(3u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((count as u64).to_le_bytes());
        header.extend(metadata);
        let mut offset = 0;
        for (name, shape) in &tensors {
            text(&mut header, &format!("{name}.weight"));
            header.extend((shape.len() as u32).to_le_bytes());
            // Columns first.
            shape.iter().rev().for_each(|size| header.extend((*size as u64).to_le_bytes()));
            header.extend(if shape.len() == 1 { 0 } else { stored.code() }.to_le_bytes());
            header.extend((offset as u64).to_le_bytes());
            offset += bytes(shape, stored).next_multiple_of(ALIGNMENT);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(directory.join("model.gguf"))?);
        file.write_all(&header)?;
        let mut random = Random(7);
        for (_, shape) in &tensors {
            let elements: usize = shape.iter().product();
            match (shape.len(), stored) {
                (1, _) => (0..elements).try_for_each(|_| file.write_all(&1f32.to_le_bytes()))?,
                (_, Stored::F16) => {
                    for _ in 0..elements {
                        file.write_all(&half::f16::from_f32(random.weight()).to_le_bytes())?;
                    }
                }
                (_, Stored::Q8_0) => (0..elements / BLOCK).try_for_each(|_| block(&mut file, &mut random))?,
            }
            let used = bytes(shape, stored);
            file.write_all(&vec![0; used.next_multiple_of(ALIGNMENT) - used])?;
        }
        Ok(file.flush()?)
    }

    /// The number of entries, and their bytes.
    fn metadata(&self) -> (usize, Vec<u8>) {
        let mut out = Vec::new();
        let mut count = 0;
        let mut entry = |key: &str, kind: u32, value: &[u8]| {
            count += 1;
            text(&mut out, key);
            out.extend(kind.to_le_bytes());
            out.extend(value);
        };
        let words = |word: &str| {
            let mut bytes = Vec::new();
            text(&mut bytes, word);
            bytes
        };
        entry("general.architecture", TEXT, &words("llama"));
        let heads = self.width / 64;
        for (key, value) in [
            ("block_count", self.layers),
            ("context_length", 4096),
            ("embedding_length", self.width),
            ("feed_forward_length", self.intermediate),
            ("attention.head_count", heads),
            ("attention.head_count_kv", heads),
            ("rope.dimension_count", 64),
            ("vocab_size", self.vocab),
        ] {
            entry(&format!("llama.{key}"), U32, &(value as u32).to_le_bytes());
        }
        entry("llama.attention.layer_norm_rms_epsilon", FLOAT, &1e-5f32.to_le_bytes());
        entry("tokenizer.ggml.model", TEXT, &words("llama"));
        for (key, id) in [("unknown", 0u32), ("bos", 1), ("eos", 2)] {
            entry(&format!("tokenizer.ggml.{key}_token_id"), U32, &id.to_le_bytes());
        }
        let token = |id: usize| match id {
            0 => ("<unk>".to_owned(), CONTROL),
            1 => ("<s>".to_owned(), CONTROL),
            2 => ("</s>".to_owned(), CONTROL),
            3..259 => (format!("<0x{:02X}>", id - 3), BYTE),
            _ => (format!("unused{id}"), NORMAL),
        };
        let list = |kind: u32, element: &dyn Fn(usize) -> Vec<u8>| {
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend((self.vocab as u64).to_le_bytes());
            (0..self.vocab).for_each(|id| bytes.extend(element(id)));
            bytes
        };
        entry("tokenizer.ggml.tokens", LIST, &list(TEXT, &|id| words(&token(id).0)));
        entry("tokenizer.ggml.scores", LIST, &list(FLOAT, &|id| (-(id as f32)).to_le_bytes().to_vec()));
        entry("tokenizer.ggml.token_type", LIST, &list(I32, &|id| token(id).1.to_le_bytes().to_vec()));
        (count, out)
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn bytes(shape: &[usize], stored: Stored) -> usize {
    match shape {
        [elements] => 4 * elements,
        _ => stored.bytes(shape.iter().product()),
    }
}

/// A scale and 32 integers.
fn block(file: &mut impl Write, random: &mut Random) -> Result<()> {
    let values: [f32; BLOCK] = std::array::from_fn(|_| random.weight());
    let scale = values.iter().fold(0f32, |largest, value| largest.max(value.abs())) / 127.0;
    file.write_all(&half::f16::from_f32(scale).to_le_bytes())?;
    let codes = values.map(|value| (value / scale).round() as i8 as u8);
    Ok(file.write_all(&codes)?)
}
