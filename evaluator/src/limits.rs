//! Bounds on what is taken from outside. A model or a dataset beyond one of them is refused, not tried.

/// `config.json`, `tokenizer_config.json`, `job.json`.
pub const CONFIG_BYTES: u64 = 1 << 20;
/// `tokenizer.json`.
pub const TOKENIZER_BYTES: u64 = 64 << 20;
/// `model.safetensors.index.json`.
pub const INDEX_BYTES: u64 = 32 << 20;
/// Files of weights.
pub const SHARDS: usize = 4096;
/// The baseline's windows handed to a subject.
pub const WINDOWS_BYTES: u64 = 2 << 30;
/// A line of a dataset.
pub const LINE_BYTES: usize = 16 << 20;
/// Text of a dataset that is kept.
pub const TEXT_BYTES: usize = 1 << 30;
/// Files of a dataset.
pub const DATASET_FILES: usize = 100_000;

/// Tokens a window.
pub const SEQ_LEN: usize = 1 << 20;
/// Padded tokens in all windows together.
pub const TOKENS: usize = 1 << 26;
/// Worker threads.
pub const THREADS: usize = 1024;

/// Layers.
pub const LAYERS: usize = 1024;
/// Attention heads, and the size of one.
pub const HEADS: usize = 4096;
/// Width of the residual stream and of the inner layer.
pub const WIDTH: usize = 1 << 20;
/// Vocabulary.
pub const VOCAB: usize = 1 << 24;
/// Positions.
pub const POSITIONS: usize = 1 << 24;
