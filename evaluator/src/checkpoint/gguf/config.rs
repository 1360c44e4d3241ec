//! The configuration and the names of tensors that the metadata of a GGUF file means.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, json};

use super::super::dtype::Entry;
use super::super::{Config, Dtype};
use super::reader::Value;
use invarlock_error::{Error, Result, bail};

/// Supported architectures: name in GGUF, `model_type`, whether the converter reorders queries and keys, and whether they have biases.
const ARCHITECTURES: [(&str, &str, bool, bool); 3] =
    [("llama", "llama", true, false), ("qwen2", "qwen2", false, true), ("qwen3", "qwen3", false, false)];

/// Tensors outside the layers.
const NAMES: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Modules of a layer.
const MODULES: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Divisors of the frequencies of rotary positions.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Metadata of one architecture.
struct Metadata<'m> {
    path: &'m Path,
    architecture: &'m str,
    values: &'m BTreeMap<String, Value>,
}

impl Metadata<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(&format!("{}.{key}", self.architecture))
    }

    fn wrong(&self, key: &str, expected: &str, found: Option<&Value>) -> Error {
        let Self { path, architecture, .. } = self;
        let found = found.map_or_else(|| "missing".to_owned(), |value| format!("{value:?}"));
        Error::input(format!("{}: `{architecture}.{key}` must be {expected}, but is {found}", path.display()))
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(*n as u64)),
            found => Err(self.wrong(key, "an integer", found)),
        }
    }

    fn required_size(&self, key: &str) -> Result<u64> {
        self.size(key)?.ok_or_else(|| self.wrong(key, "an integer", None))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(n)) => Ok(Some(*n)),
            found => Err(self.wrong(key, "a number", found)),
        }
    }

    /// An error where a member has another value than this one.
    fn only(&self, key: &str, supported: u64) -> Result<()> {
        match self.size(key)? {
            Some(found) if found != supported => bail!(
                Unsupported,
                "{}: `{}.{key}` {found} is not supported; supported: {supported}",
                self.path.display(),
                self.architecture
            ),
            _ => Ok(()),
        }
    }
}

/// What metadata and tensors say; see [`super::Gguf`].
pub struct Model {
    pub config: Config,
    pub tensors: BTreeMap<String, Entry>,
    pub adjacent_pairs: bool,
}

/// The model that metadata and tensors describe.
pub fn model(
    path: &Path,
    values: &BTreeMap<String, Value>,
    mut stored: BTreeMap<String, Entry>,
    bytes: &[u8],
) -> Result<Model> {
    let supported = || ARCHITECTURES.map(|(name, ..)| name).join(", ");
    let Some(Value::Text(architecture)) = values.get("general.architecture") else {
        bail!(Input, "{}: `general.architecture` is missing; supported: {}", path.display(), supported());
    };
    let known = ARCHITECTURES.iter().find(|(name, ..)| name == architecture);
    let Some((_, model_type, adjacent_pairs, bias)) = known else {
        bail!(
            Unsupported,
            "{}: architecture {architecture:?} is not supported in GGUF files; supported: {}",
            path.display(),
            supported()
        );
    };
    if values.get("split.count").is_some_and(|count| !matches!(count, Value::Unsigned(0 | 1))) {
        return Err(Error::unsupported(format!("{}: the model is split into several files", path.display()))
            .with_hint("merge them with llama-gguf-split --merge"));
    }
    if !bias && stored.keys().any(|name| name.starts_with("blk.") && name.ends_with(".bias")) {
        bail!(Unsupported, "{}: biases of architecture {architecture:?} are not supported", path.display());
    }
    let metadata = Metadata { path, architecture, values };
    for key in ["expert_count", "attention.sliding_window"] {
        metadata.only(key, 0)?;
    }
    let divisors = match stored.remove(ROPE_DIVISORS) {
        Some(entry) => Some(divisors(path, &entry, bytes)?),
        None => None,
    };
    let mut config = members(&metadata, &stored)?;
    config.insert("model_type".to_owned(), json!(model_type));
    if let Some(rope) = rope(&metadata, divisors)? {
        config.insert("rope_parameters".to_owned(), rope);
    }
    let tensors = stored.into_iter().map(|(name, entry)| (hugging_face_name(&name), entry)).collect();
    Ok(Model { config: Config::from_file(path, config), tensors, adjacent_pairs: *adjacent_pairs })
}

fn members(
    metadata: &Metadata<'_>,
    stored: &BTreeMap<String, Entry>,
) -> Result<Map<String, serde_json::Value>> {
    let Some(embedding) = stored.get("token_embd.weight") else {
        bail!(Input, "{}: tensor token_embd.weight is missing", metadata.path.display());
    };
    let heads = metadata.required_size("attention.head_count")?;
    let hidden_size = metadata.required_size("embedding_length")?;
    let head_dim = match metadata.size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => bail!(Input, "{}: {hidden_size} elements for {heads} heads", metadata.path.display()),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        metadata.only(key, head_dim)?;
    }
    let mut members = Map::new();
    let mut set = |key: &str, value: serde_json::Value| members.insert(key.to_owned(), value);
    set("vocab_size", json!(embedding.shape.first()));
    set("hidden_size", json!(hidden_size));
    set("head_dim", json!(head_dim));
    set("num_attention_heads", json!(heads));
    let kv_heads = metadata.size("attention.head_count_kv")?;
    set("num_key_value_heads", json!(kv_heads.unwrap_or(heads)));
    set("num_hidden_layers", json!(metadata.required_size("block_count")?));
    set("intermediate_size", json!(metadata.required_size("feed_forward_length")?));
    set("max_position_embeddings", json!(metadata.required_size("context_length")?));
    let epsilon = metadata.number("attention.layer_norm_rms_epsilon")?;
    set("rms_norm_eps", json!(epsilon.map(shortest)));
    set("rope_theta", json!(metadata.number("rope.freq_base")?.unwrap_or(10_000.0)));
    set("tie_word_embeddings", json!(!stored.contains_key("output.weight")));
    Ok(members)
}

/// The decimal number that a number of single precision stands for.
fn shortest(number: f64) -> f64 {
    (number as f32).to_string().parse().unwrap_or(number)
}

/// Scaling of rotary positions.
fn rope(metadata: &Metadata<'_>, divisors: Option<Vec<f32>>) -> Result<Option<serde_json::Value>> {
    let theta = metadata.number("rope.freq_base")?.unwrap_or(10_000.0);
    let kind = match metadata.get("rope.scaling.type") {
        None => "none",
        Some(Value::Text(kind)) => kind,
        found => return Err(metadata.wrong("rope.scaling.type", "a string", found)),
    };
    match (kind, divisors) {
        ("none", None) => Ok(None),
        // LongRoPE divides each frequency by a number of its own.
        ("none", Some(divisors)) => Ok(Some(json!({
            "rope_type": "longrope", "rope_theta": theta, "factor": 1.0, "attention_factor": 1.0,
            "short_factor": divisors, "long_factor": divisors,
        }))),
        ("linear", None) => Ok(Some(json!({
            "rope_type": "linear", "rope_theta": theta, "factor": metadata.number("rope.scaling.factor")?,
        }))),
        (kind, divisors) => bail!(
            Unsupported,
            "{}: RoPE scaling {kind:?} {} {ROPE_DIVISORS} is not supported in GGUF files; supported: none, linear",
            metadata.path.display(),
            if divisors.is_some() { "with" } else { "without" }
        ),
    }
}

fn divisors(path: &Path, entry: &Entry, bytes: &[u8]) -> Result<Vec<f32>> {
    if entry.dtype != Ok(Dtype::F32) || entry.shape.len() != 1 || entry.shape[0] > crate::limits::HEADS {
        bail!(
            Input,
            "{}: tensor {ROPE_DIVISORS} of shape {:?} is not a list of F32",
            path.display(),
            entry.shape
        );
    }
    Ok(bytes[entry.start..entry.end].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// The name of a tensor in Hugging Face's model; unknown names stay, and are reported as unused.
fn hugging_face_name(name: &str) -> String {
    if let Some((_, other)) = NAMES.iter().find(|(gguf, _)| *gguf == name) {
        return (*other).to_owned();
    }
    let of_layer = || {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (module, kind) = rest.rsplit_once('.')?;
        let (_, module) = MODULES.iter().find(|(gguf, _)| *gguf == module)?;
        Some(format!("model.layers.{layer}.{module}.{kind}"))
    };
    of_layer().unwrap_or_else(|| name.to_owned())
}
