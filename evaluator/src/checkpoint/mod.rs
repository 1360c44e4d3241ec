//! Hugging Face checkpoint directories: configuration and weights, opened without trusting either.

mod config;
mod scan;
mod tensors;

use std::path::{Path, PathBuf};

pub use config::Config;
pub use scan::scan;
pub use tensors::{Dtype, Tensor, Tensors};

use invarlock_error::{Error, Result, bail};

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    /// `config.json`.
    pub config: Config,
    /// The weights, mapped.
    pub tensors: Tensors,
}

impl Checkpoint {
    /// Opens a checkpoint directory: parses its configuration and the headers of its weights, reads no weight.
    pub fn open(directory: &Path) -> Result<Self> {
        let problem =
            |e: std::io::Error| Error::input(format!("cannot open checkpoint {}: {e}", directory.display()));
        if !std::fs::metadata(directory).map_err(problem)?.is_dir() {
            bail!(
                Input,
                "checkpoint {} is not a directory: give a Hugging Face checkpoint directory",
                directory.display()
            );
        }
        if std::fs::read_dir(directory).map_err(problem)?.next().is_none() {
            bail!(
                Input,
                "checkpoint {} is empty: give a directory with config.json and *.safetensors",
                directory.display()
            );
        }
        let config = directory.join("config.json");
        if !present(&config) {
            bail!(
                Input,
                "{} is not a checkpoint: it has no config.json; give a Hugging Face checkpoint directory",
                directory.display()
            );
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

/// Whether a path exists; one that cannot be looked at exists, so that opening it says why it cannot.
pub(crate) fn present(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
