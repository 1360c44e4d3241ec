//! GGUF files, versions 2 and 3: metadata and tensors in one file. Every count and length is untrusted.

mod config;
mod reader;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;

use super::dtype::Entry;
use super::{Block, Config, Dtype};
use crate::limits;
use invarlock_error::{Error, Result, bail};
use reader::{Reader, Value};
pub use tokenizer::EmbeddedTokenizer;

/// Alignment of tensors where the metadata does not set it.
const ALIGNMENT: u64 = 32;
/// Dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// Types of tensors by their number in the file.
const TYPES: [(u32, Dtype); 14] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (2, Dtype::Block(Block::Q4_0)),
    (3, Dtype::Block(Block::Q4_1)),
    (6, Dtype::Block(Block::Q5_0)),
    (7, Dtype::Block(Block::Q5_1)),
    (8, Dtype::Block(Block::Q8_0)),
    (10, Dtype::Block(Block::Q2K)),
    (11, Dtype::Block(Block::Q3K)),
    (12, Dtype::Block(Block::Q4K)),
    (13, Dtype::Block(Block::Q5K)),
    (14, Dtype::Block(Block::Q6K)),
    (28, Dtype::F64),
    (30, Dtype::Bf16),
];

/// The content of a GGUF file but for its weights.
#[derive(Debug)]
pub struct Gguf {
    /// What `config.json` of the same model would say.
    pub config: Config,
    /// Tensors by their names in Hugging Face's model.
    pub(super) tensors: BTreeMap<String, Entry>,
    /// Whether the rows of queries and keys are reordered, as llama.cpp's converter does it for some architectures: elements that are rotated
    /// together are neighbours.
    pub adjacent_pairs: bool,
    /// The tokenizer, or why it cannot be used. A file beside the GGUF file replaces it.
    pub tokenizer: Result<EmbeddedTokenizer>,
}

impl Gguf {
    /// Parses the header of a mapped file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(path, bytes);
        let version = reader.start()?;
        if !matches!(version, 2 | 3) {
            bail!(
                Unsupported,
                "{}: GGUF version {version} is not supported; supported: 2, 3",
                path.display()
            );
        }
        let tensor_count = reader.count("tensors", limits::TENSORS)?;
        let metadata_count = reader.count("metadata entries", limits::METADATA)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..metadata_count {
            let key = reader.name("metadata key")?;
            let value = reader.value()?;
            if metadata.insert(key.clone(), value).is_some() {
                bail!(Input, "{}: metadata entry {key:?} exists twice", path.display());
            }
        }
        let mut infos = Vec::new();
        for _ in 0..tensor_count {
            infos.push(Info::read(&mut reader)?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT,
            Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n,
            Some(_) => bail!(Input, "{}: general.alignment is not a power of two", path.display()),
        };
        let data = reader.position().next_multiple_of(alignment as usize);
        let mut stored = BTreeMap::new();
        for info in infos {
            let entry = info.entry(path, data, bytes.len(), alignment)?;
            if stored.insert(info.name.clone(), entry).is_some() {
                bail!(Input, "{}: tensor {} exists twice", path.display(), info.name);
            }
        }
        let config::Model { config, tensors, adjacent_pairs } =
            config::model(path, &metadata, stored, bytes)?;
        Ok(Self { config, tensors, adjacent_pairs, tokenizer: tokenizer::read(path, bytes, &metadata) })
    }
}

/// The description of a tensor.
struct Info {
    name: String,
    /// Outermost first.
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

impl Info {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let name = reader.name("tensor name")?;
        let dimensions = reader.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(reader
                .wrong(&format!("tensor {name} has {dimensions} dimensions; supported: {MAX_DIMENSIONS}")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = reader.u64()?;
            match usize::try_from(size) {
                Ok(size) => shape.insert(0, size),
                Err(_) => return Err(reader.wrong(&format!("tensor {name} has a dimension of {size}"))),
            }
        }
        Ok(Self { name, shape, kind: reader.u32()?, offset: reader.u64()? })
    }

    /// Where the tensor is in the file, which has `length` bytes and its tensors from `data` on.
    fn entry(&self, path: &Path, data: usize, length: usize, alignment: u64) -> Result<Entry> {
        let Self { name, shape, kind, offset } = self;
        let Some((_, dtype)) = TYPES.iter().find(|(number, _)| number == kind) else {
            let supported: Vec<&str> = TYPES.iter().map(|(_, dtype)| dtype.name()).collect();
            return Err(Error::unsupported(format!(
                "{}: tensor {name} has the GGML type {kind}, which is not supported; supported: {}",
                path.display(),
                supported.join(", ")
            ))
            .with_hint("quantise the model to one of these types"));
        };
        let row = shape.last().copied().unwrap_or(1);
        let (elements, bytes) = dtype.block();
        if !row.is_multiple_of(elements) {
            bail!(
                Input,
                "{}: tensor {name} has rows of {row}, which are not whole blocks of {elements} ({})",
                path.display(),
                dtype.name()
            );
        }
        let count = shape.iter().try_fold(1usize, |count, n| count.checked_mul(*n));
        let size = count.and_then(|count| (count / elements).checked_mul(bytes));
        let start = usize::try_from(*offset).ok().and_then(|offset| offset.checked_add(data));
        let end = start.zip(size).and_then(|(start, size)| start.checked_add(size));
        match (start, end.filter(|end| *end <= length && offset.is_multiple_of(alignment))) {
            (Some(start), Some(end)) => {
                Ok(Entry { file: 0, dtype: Ok(*dtype), shape: shape.clone(), start, end })
            }
            _ => bail!(
                Input,
                "{}: tensor {name} of shape {shape:?} and type {} at offset {offset} does not lie within the file of {length} bytes",
                path.display(),
                dtype.name()
            ),
        }
    }
}
