//! Hugging Face checkpoint directories: configuration and weights, both untrusted.

mod config;
mod header_error;
mod scan;
mod tensors;

use std::path::{Path, PathBuf};

pub use config::Config;
pub use scan::scan;
pub(crate) use tensors::FLOAT_WEIGHTS;
pub use tensors::{Dtype, Tensor, Tensors};

use invarlock_error::{Context as _, Error, Kind, Result};

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    /// `config.json`.
    pub config: Config,
    /// The weights, mapped into memory.
    pub tensors: Tensors,
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
        let config = directory.join("config.json");
        if !exists(&config) {
            return Err(wrong("no config.json"));
        }
        let config = Config::open(&config)?;
        let tensors = Tensors::open(directory)?;
        Ok(Self { directory: directory.to_owned(), config, tensors })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Whether a path exists. When that is unknown the answer is true, so that opening the path reports the reason.
pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
