//! Limits on untrusted input. Larger models and datasets are rejected before they are read.

/// Bytes of `config.json`, `tokenizer_config.json` and `job.json`.
pub const CONFIG_BYTES: u64 = 1 << 20;
/// Bytes of `tokenizer.json`.
pub const TOKENIZER_BYTES: u64 = 64 << 20;
/// Bytes of a SentencePiece model. Its pieces take several times their size.
pub const SENTENCE_PIECE_BYTES: u64 = 16 << 20;
/// Bytes of a piece of it, whose parts are searched for pairs. The format's own limit is 16 characters by default.
pub const PIECE_BYTES: usize = 256;
/// Sentinel tokens of T5.
pub const EXTRA_IDS: u64 = 10_000;
/// Bytes of `model.safetensors.index.json`.
pub const INDEX_BYTES: u64 = 32 << 20;
/// Files with weights.
pub const SHARDS: usize = 4096;
/// Tensors of a GGUF file.
pub const TENSORS: u64 = 1 << 20;
/// Metadata entries of a GGUF file.
pub const METADATA: u64 = 1 << 16;
/// Bytes of the file with the baseline's windows.
pub const WINDOWS_BYTES: u64 = 2 << 30;
/// Bytes of a journal: a loss of each window.
pub const JOURNAL_BYTES: u64 = 1 << 30;
/// Bytes of a line of a dataset.
pub const LINE_BYTES: usize = 16 << 20;
/// Steps of a chat template for one conversation.
pub const TEMPLATE_STEPS: u64 = 1_000_000;
/// Bytes of the texts of a dataset together.
pub const TEXT_BYTES: usize = 1 << 30;
/// Bytes of the texts of a run report together: as JSON, with its windows, they must fit in the 256 MiB that are read of it.
pub const PREDICTED_TEXT_BYTES: usize = 16 << 20;
/// Files of a dataset.
pub const DATASET_FILES: usize = 100_000;

/// Tokens of a window.
pub const SEQ_LEN: usize = 1 << 20;
/// Tokens of all windows together, padding included.
pub const TOKENS: usize = 1 << 26;
/// Worker threads.
pub const THREADS: usize = 1024;

/// Layers of a model.
pub const LAYERS: usize = 1024;
/// Attention heads, and elements of a head.
pub const HEADS: usize = 4096;
/// Experts of a layer.
pub const EXPERTS: usize = 4096;
/// Experts of all layers.
pub const ALL_EXPERTS: usize = 1 << 17;
/// `hidden_size` and `intermediate_size`.
pub const WIDTH: usize = 1 << 20;
/// Tokens of the vocabulary.
pub const VOCAB: usize = 1 << 24;
/// Positions of a model.
pub const POSITIONS: usize = 1 << 24;
