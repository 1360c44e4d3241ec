//! Stored weights: the types and quantised formats in which checkpoints hold them, converted to single precision as they are used.
//!
//! A format ([`Format`]) is one file: what its configuration says, which tensors a linear layer has, and their arithmetic. Configurations and
//! tensors are untrusted: names, types, shapes and ranges are checked when a matrix is built, so that reading rows cannot fail.

mod awq;
mod bits;
mod bitsandbytes;
mod blocks;
mod compressed_inputs;
mod compressed_tensors;
mod config;
mod floats;
mod fp8;
mod gguf;
mod gptq;
mod hqq;
mod inputs;
mod members;
mod modules;
mod mxfp4;
mod nibbles;
mod packed;
mod pages;
mod parts;
mod peak;
mod scaled;
mod sparse;

use std::fmt::Debug;
use std::ops::Range;

pub use floats::Floats;
pub use inputs::{Rounding, undefined};
pub use members::{choice, ignore};
pub use modules::Numbers;
pub use pages::{Pages, RESIDENT};
pub use parts::Parts;
pub use peak::Peak;

use crate::checkpoint::{Checkpoint, Storage};
use invarlock_error::{Error, Result};

/// The order in which a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A row for each input (GPT-2's `Conv1D`).
    InOut,
    /// A row for each output (`Linear`, and embeddings used as a projection).
    OutIn,
}

impl Layout {
    /// The shape of a tensor in this layout.
    pub fn shape(self, inputs: usize, outputs: usize) -> [usize; 2] {
        match self {
            Self::InOut => [inputs, outputs],
            Self::OutIn => [outputs, inputs],
        }
    }
}

/// A matrix that is stored in another form than as numbers.
pub trait Quantised: Debug + Send + Sync {
    /// The order of [`Quantised::fill`].
    fn layout(&self) -> Layout;

    /// The weights of some outputs in single precision, in this layout: [outputs, inputs] or [inputs, outputs], dense.
    fn fill(&self, outputs: Range<usize>, out: &mut [f32]);
}

/// The weight of a linear layer that the model needs.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'n> {
    /// The module in Hugging Face's model, which configurations name.
    pub module: &'n str,
    /// The module as the checkpoint names it.
    pub stored: &'n str,
    pub inputs: usize,
    pub outputs: usize,
    /// The layout of the weight where it is not quantised.
    pub layout: Layout,
    /// Index and number of the slices, where a tensor holds one for each expert.
    pub slice: Option<(usize, usize)>,
    /// Whether the module may be plain although the configuration does not exclude it: routers, the output projection.
    pub may_be_plain: bool,
}

/// A quantised storage format, as `quantization_config` describes it.
pub trait Format: Debug + Send + Sync {
    /// In words, for reports: method, bits, groups.
    fn describe(&self) -> String;

    /// Whether the configuration says that this module is quantised.
    fn covers(&self, wanted: &Wanted<'_>, parts: &Parts<'_>) -> bool;

    /// A tensor that the module has exactly if it is quantised.
    fn marker(&self, wanted: &Wanted<'_>, parts: &Parts<'_>) -> String;

    /// The module's weight.
    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>>;

    /// What the configuration asks to be done with the inputs of layers, in words.
    fn activations(&self) -> Option<String> {
        None
    }

    /// How the inputs of the module are quantised.
    ///
    /// # Errors
    /// The configuration asks for more than it defines, or a tensor is missing or wrong.
    fn inputs(&self, _wanted: &Wanted<'_>, _parts: &mut Parts<'_>) -> Result<Option<Rounding>> {
        Ok(None)
    }
}

/// The format of a checkpoint's weights. None where all are plain numbers.
pub fn format(checkpoint: &Checkpoint) -> Result<Option<Box<dyn Format>>> {
    match checkpoint.storage {
        Storage::Safetensors => config::read(&checkpoint.config),
        Storage::Gguf { adjacent_pairs } => {
            Ok(Some(Box::new(gguf::Gguf::new(checkpoint, &checkpoint.config, adjacent_pairs)?)))
        }
    }
}

/// The quantised weight of a module, or none where it is stored as plain numbers. An error where configuration and tensors disagree.
pub fn quantised<'a>(
    format: &dyn Format,
    wanted: &Wanted<'_>,
    parts: &mut Parts<'a>,
) -> Result<Option<Box<dyn Quantised + 'a>>> {
    let Wanted { module, may_be_plain, .. } = *wanted;
    let marker = format.marker(wanted, parts);
    match (format.covers(wanted, parts), parts.contains(&marker)) {
        (true, true) => Ok(Some(format.read(wanted, parts)?)),
        (false, false) => Ok(None),
        (true, false) if may_be_plain => Ok(None),
        (true, false) => Err(Error::input(format!(
            "{}: config.json says that {module} is quantised ({}), but the tensor {marker} is missing",
            parts.place(),
            format.describe()
        ))
        .with_hint(
            "save weights and config.json together; list modules that are not quantised in config.json",
        )),
        (false, true) => Err(Error::input(format!(
            "{}: config.json says that {module} is not quantised, but the tensor {marker} exists",
            parts.place()
        ))
        .with_hint("save weights and config.json together")),
    }
}
