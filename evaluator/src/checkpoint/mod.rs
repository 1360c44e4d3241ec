//! Hugging Face checkpoint directories: configuration and weights, both untrusted.

mod adapter;
mod block;
mod config;
mod dtype;
mod gguf;
mod header_error;
mod scan;
mod tensors;

use std::path::{Path, PathBuf};

pub use adapter::Adapter;
pub(crate) use adapter::CONFIG as ADAPTER_CONFIG;
pub use block::Block;
pub use config::Config;
pub use dtype::Dtype;
pub use gguf::{EmbeddedTokenizer, Gguf};
pub use scan::scan;
pub(crate) use tensors::FLOAT_WEIGHTS;
pub use tensors::{Tensor, Tensors};

use invarlock_error::{Context as _, Error, Kind, Result};

/// The configuration of a checkpoint.
pub(crate) const CONFIG: &str = "config.json";

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    /// `config.json`.
    pub config: Config,
    /// The weights, mapped into memory.
    pub tensors: Tensors,
    /// How weights are stored in files that have their configuration with them.
    pub storage: Storage,
    /// The tokenizer in a GGUF file, or why it cannot be used.
    pub tokenizer: Option<Result<EmbeddedTokenizer>>,
    /// An adapter that changes the weights.
    pub adapter: Option<Adapter>,
}

/// The kind of file in which weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// safetensors; `config.json` says how weights are quantised.
    Safetensors,
    /// GGUF.
    Gguf {
        /// Whether the rows of queries and keys are reordered.
        adjacent_pairs: bool,
    },
}

impl Checkpoint {
    /// Opens a checkpoint directory. Parses its configuration and the headers of its weights; reads no weights.
    pub fn open(directory: &Path) -> Result<Self> {
        let wrong = |what: &str| {
            Error::input(format!("{}: {what}", directory.display()))
                .with_hint("use a Hugging Face checkpoint directory with config.json and *.safetensors")
        };
        let failed = || format!("{}: cannot open the checkpoint", directory.display());
        let metadata = std::fs::metadata(directory).with_context(failed).kind(Kind::Input)?;
        if !metadata.is_dir() {
            return Err(wrong("not a directory"));
        }
        if std::fs::read_dir(directory).with_context(failed).kind(Kind::Input)?.next().is_none() {
            return Err(wrong("the directory is empty"));
        }
        if let Some(path) = gguf_file(directory)? {
            let (tensors, Gguf { config, adjacent_pairs, tokenizer, .. }) = Tensors::open_gguf(&path)?;
            let storage = Storage::Gguf { adjacent_pairs };
            return Ok(Self {
                directory: directory.to_owned(),
                config,
                tensors,
                storage,
                tokenizer: Some(tokenizer),
                adapter: None,
            });
        }
        let config = directory.join(CONFIG);
        if !exists(&config) && exists(&directory.join(adapter::CONFIG)) {
            return Err(adapter::without_base(directory));
        }
        if !exists(&config) {
            return Err(wrong("no config.json"));
        }
        let config = Config::open(&config)?;
        let tensors = Tensors::open(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            config,
            tensors,
            storage: Storage::Safetensors,
            tokenizer: None,
            adapter: None,
        })
    }

    /// Opens a checkpoint directory and the folder of an adapter over it.
    pub fn open_with_adapter(base: &Path, adapter: &Path) -> Result<Self> {
        let mut checkpoint = Self::open(base)?;
        checkpoint.adapter = Some(Adapter::open(adapter, &mut checkpoint.tensors)?);
        Ok(checkpoint)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The GGUF file of a directory without safetensors files.
fn gguf_file(directory: &Path) -> Result<Option<PathBuf>> {
    if exists(&directory.join(tensors::SINGLE)) || exists(&directory.join(tensors::INDEX)) {
        return Ok(None);
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    match files.len() {
        0 | 1 => Ok(files.pop()),
        n => Err(Error::input(format!("{}: {n} GGUF files", directory.display()))
            .with_hint("use a directory with one GGUF file; merge parts with llama-gguf-split --merge")),
    }
}

/// Whether a path exists. When that is unknown the answer is true, so that opening the path reports the reason.
pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
