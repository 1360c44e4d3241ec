//! What the readers of older tokenizer files take and give.

use std::path::Path;

use serde_json::{Map, Value};

use invarlock_error::Error;

/// What the parts of a definition are made from.
pub(super) struct Source<'s> {
    /// Directory of the checkpoint.
    pub directory: &'s Path,
    /// The file of the vocabulary.
    pub path: &'s Path,
    /// Name of the tokenizer's class in transformers, without `Fast`.
    pub class: &'s str,
    /// `tokenizer_config.json`, with what other files say of special tokens.
    pub settings: &'s Map<String, Value>,
}

/// A definition without its added tokens.
pub(super) struct Built {
    /// `normalizer`, `pre_tokenizer`, `model`, `post_processor`, `decoder`.
    pub members: Value,
    /// The id of each token of the model.
    pub ids: Vec<(String, u32)>,
    /// Added tokens that the file itself names: id, token, whether it is special.
    pub added: Vec<(u32, String, bool)>,
    /// Special tokens of the class, where the settings name none: `(name, token)`.
    pub defaults: Vec<(&'static str, &'static str)>,
}

/// The error for a tokenizer that cannot be read.
pub(super) fn unsupported(path: &Path, what: &str) -> Error {
    Error::unsupported(format!("{}: {what} is not supported", path.display())).with_hint(
        "load the tokenizer with AutoTokenizer of transformers and save it with `save_pretrained`, which writes tokenizer.json",
    )
}
