//! Weights of GGUF files: plain numbers or blocks, with the rows of queries and keys in llama.cpp's order.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Floats, Format, Layout, Parts, Quantised, Wanted, blocks};
use crate::checkpoint::{Block, Checkpoint, Config, Dtype};
use crate::limits;
use invarlock_error::Result;

/// What the file says about all weights.
#[derive(Debug)]
pub struct Gguf {
    kinds: BTreeSet<&'static str>,
    /// Heads of queries and of keys, where their rows are reordered.
    reordered: Option<[usize; 2]>,
}

impl Gguf {
    /// The format of a GGUF checkpoint.
    pub fn new(checkpoint: &Checkpoint, config: &Config, adjacent_pairs: bool) -> Result<Self> {
        let heads = |key| config.required_size(key, limits::HEADS);
        let reordered = match adjacent_pairs {
            true => Some([heads("num_attention_heads")?, heads("num_key_value_heads")?]),
            false => None,
        };
        let mut kinds = BTreeSet::new();
        for name in checkpoint.tensors.names() {
            if let Some(tensor) = checkpoint.tensors.get(name)?.filter(|tensor| tensor.shape.len() == 2) {
                kinds.insert(tensor.dtype.name());
            }
        }
        Ok(Self { kinds, reordered })
    }
}

impl Format for Gguf {
    fn describe(&self) -> String {
        format!("gguf: {}", self.kinds.iter().copied().collect::<Vec<_>>().join(", "))
    }

    fn covers(&self, _: &Wanted<'_>, _: &Parts<'_>) -> bool {
        true
    }

    fn marker(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> String {
        format!("{}.weight", wanted.stored)
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { module, inputs, outputs, .. } = *wanted;
        let name = self.marker(wanted, parts);
        let tensor = parts.take(&name, &[&[outputs, inputs]])?;
        let values = match tensor.dtype {
            Dtype::Block(block) => Values::Blocks(block, tensor.bytes),
            _ => Values::Floats(parts.as_floats(&name, tensor)?),
        };
        let heads = self.reordered.and_then(|[queries, keys]| match module.rsplit('.').next() {
            Some("q_proj") => Some(queries),
            Some("k_proj") => Some(keys),
            _ => None,
        });
        // Elements of a head; the family has checked that heads divide the outputs.
        let head_dim = heads.map(|heads| outputs / heads);
        Ok(Box::new(Matrix { values, inputs, head_dim }))
    }
}

#[derive(Debug)]
enum Values<'a> {
    Floats(Floats<'a>),
    Blocks(Block, &'a [u8]),
}

/// A matrix [outputs, inputs].
#[derive(Debug)]
struct Matrix<'a> {
    values: Values<'a>,
    inputs: usize,
    /// Elements of a head, where the halves of each head's rows alternate.
    head_dim: Option<usize>,
}

impl Matrix<'_> {
    /// Rows in the order in which they are stored.
    fn rows(&self, first: usize, out: &mut [f32]) {
        match &self.values {
            Values::Floats(floats) => floats.read(first * self.inputs, out),
            Values::Blocks(block, bytes) => {
                let row = self.inputs / block.elements() * block.bytes();
                blocks::convert(*block, &bytes[first * row..], out);
            }
        }
    }
}

impl Quantised for Matrix<'_> {
    fn layout(&self) -> Layout {
        Layout::OutIn
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let Some(head_dim) = self.head_dim else { return self.rows(outputs.start, out) };
        for (output, row) in outputs.zip(out.chunks_exact_mut(self.inputs)) {
            let (head, element) = (output / head_dim, output % head_dim);
            let (half, pair) = (element / (head_dim / 2), element % (head_dim / 2));
            self.rows(head * head_dim + 2 * pair + half, row);
        }
    }
}
