//! Folders of PEFT adapters: `adapter_config.json` and `adapter_model.safetensors`, which change the weights of another checkpoint.

use std::path::Path;

use super::{Config, Tensors};
use invarlock_error::{Error, Result, bail};

pub(crate) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model's modules.
const PREFIX: &str = "base_model.model.";

/// An adapter. Its tensors are among those of the checkpoint.
#[derive(Debug)]
pub struct Adapter {
    /// `adapter_config.json`.
    pub config: Config,
    /// Names of its tensors among those of the checkpoint.
    pub names: Vec<String>,
}

impl Adapter {
    /// Opens an adapter and adds its tensors to those of the base model.
    pub fn open(directory: &Path, tensors: &mut Tensors) -> Result<Self> {
        let config = Config::open(&directory.join(CONFIG))?;
        let path = directory.join(WEIGHTS);
        let names = tensors.add_adapter(&path, |base, stored| {
            let Some(name) = stored.strip_prefix(PREFIX) else {
                bail!(Input, "{}: the name of tensor {stored} does not start with {PREFIX}", path.display());
            };
            // A checkpoint that was saved from the bare model lacks the first part of names.
            let bare = name.split_once('.').map(|(_, rest)| rest).filter(|bare| base.contains(bare));
            Ok(bare.filter(|_| !base.contains(name)).unwrap_or(name).to_owned())
        })?;
        Ok(Self { config, names })
    }
}

/// The error for an adapter that is given as a checkpoint.
pub(super) fn without_base(directory: &Path) -> Error {
    Error::input(format!("{}: a PEFT adapter without the weights of its base model", directory.display()))
        .with_hint("merge the adapter into its base model and save the result")
}
