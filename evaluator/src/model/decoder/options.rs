//! The configurations of Llama, Mistral and Qwen2, and the defaults of each.

use serde_json::{Map, Value};

use crate::checkpoint::Config;
use crate::limits;
use crate::math::activation::Activation;
use invarlock_error::{Result, bail};

/// A decoder's configuration, every default filled in. Fields have Hugging Face's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f32,
    pub rope_theta: f64,
    pub hidden_act: Activation,
    pub tie_word_embeddings: bool,
    /// Whether `q_proj`, `k_proj` and `v_proj` have biases.
    pub qkv_bias: bool,
    /// Whether `o_proj` has a bias.
    pub o_bias: bool,
    pub mlp_bias: bool,
    /// Attention window of each layer.
    pub sliding_windows: Vec<Option<usize>>,
}

/// `sliding_window` of Mistral and Qwen2 where the configuration lacks it.
const DEFAULT_SLIDING_WINDOW: usize = 4096;
/// `max_window_layers` of Qwen2 where the configuration lacks it.
const DEFAULT_MAX_WINDOW_LAYERS: u64 = 28;

impl Options {
    /// Reads the configuration of a model whose `model_type` is `llama`, `mistral` or `qwen2`.
    pub fn read(config: &Config) -> Result<Self> {
        let model_type = config.text("model_type")?.unwrap_or_default();
        let (hidden_size, num_heads, num_kv_heads, head_dim) = attention_sizes(config, model_type)?;
        let hidden_act = config.activation("hidden_act", "silu")?;
        let attention_bias = config.flag("attention_bias", false)?;
        let mlp_bias = config.flag("mlp_bias", false)?;
        if model_type != "llama" && mlp_bias || model_type == "mistral" && attention_bias {
            let option = if mlp_bias { "mlp_bias" } else { "attention_bias" };
            bail!(Unsupported, "{}: `{option}` is not supported for {model_type}", config.name());
        }
        let num_layers = config.required_size("num_hidden_layers", limits::LAYERS)?;
        Ok(Self {
            model_type: model_type.to_owned(),
            vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
            hidden_size,
            intermediate_size: config.required_size("intermediate_size", limits::WIDTH)?,
            num_heads,
            num_kv_heads,
            head_dim,
            rms_norm_eps: config.positive("rms_norm_eps", 1e-6)? as f32,
            rope_theta: rope_theta(config)?,
            hidden_act,
            tie_word_embeddings: config.flag("tie_word_embeddings", false)?,
            qkv_bias: model_type == "qwen2" || attention_bias,
            o_bias: model_type == "llama" && attention_bias,
            mlp_bias,
            sliding_windows: sliding_windows(config, model_type, num_layers)?,
        })
    }

    /// Upstream's name of the family.
    pub fn family(&self) -> &'static str {
        match self.model_type.as_str() {
            "mistral" => "mistral",
            "qwen2" => "qwen",
            _ => "llama",
        }
    }
}

/// `hidden_size`, the numbers of query heads and of key-value heads, and `head_dim`.
fn attention_sizes(config: &Config, model_type: &str) -> Result<(usize, usize, usize, usize)> {
    let hidden_size = config.required_size("hidden_size", limits::WIDTH)?;
    let num_heads = config.required_size("num_attention_heads", limits::HEADS)?;
    let num_kv_heads = match config.size("num_key_value_heads", limits::HEADS)? {
        Some(n) => n,
        // Mistral and Qwen2 have other defaults, which differ by release of transformers.
        None if model_type == "llama" || config.contains("num_key_value_heads") => num_heads,
        None => config.required_size("num_key_value_heads", limits::HEADS)?,
    };
    let head_dim = match config.size("head_dim", limits::HEADS)? {
        Some(head_dim) => head_dim,
        None if hidden_size % num_heads == 0 => hidden_size / num_heads,
        None => bail!(
            Input,
            "{}: `hidden_size` {hidden_size} is not a multiple of `num_attention_heads` {num_heads}",
            config.name()
        ),
    };
    if num_heads % num_kv_heads != 0 {
        bail!(
            Input,
            "{}: `num_attention_heads` {num_heads} is not a multiple of `num_key_value_heads` {num_kv_heads}",
            config.name()
        );
    }
    if head_dim % 2 != 0 {
        bail!(
            Input,
            "{}: `head_dim` {head_dim} is odd; rotary embeddings require an even one",
            config.name()
        );
    }
    Ok((hidden_size, num_heads, num_kv_heads, head_dim))
}

/// The base of the rotary frequencies, from `rope_theta` or from `rope_parameters`. Only the default type of RoPE is
/// supported.
fn rope_theta(config: &Config) -> Result<f64> {
    let partial = config.positive("partial_rotary_factor", 1.0)?;
    if partial != 1.0 {
        bail!(Unsupported, "{}: `partial_rotary_factor` {partial} is not supported", config.name());
    }
    let mut theta = config.positive("rope_theta", 10_000.0)?;
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(value) = config.get(key) else { continue };
        let Value::Object(members) = value else {
            bail!(Input, "{}: `{key}` must be an object", config.name());
        };
        if members.values().any(Value::is_object) {
            bail!(Unsupported, "{}: `{key}` that differ by layer are not supported", config.name());
        }
        let kind = ["rope_type", "type"].iter().find_map(|k| members.get(*k).filter(|v| !v.is_null()));
        match kind {
            Some(Value::String(kind)) if kind == "default" => {}
            None if key == "rope_parameters" => {}
            Some(Value::String(kind)) => bail!(
                Unsupported,
                "{}: `{key}` of RoPE type {kind:?} is not supported; supported: \"default\"",
                config.name()
            ),
            _ => bail!(Unsupported, "{}: `{key}` has no RoPE type", config.name()),
        }
        if members.get("partial_rotary_factor").is_some_and(|v| v.as_f64() != Some(1.0) && !v.is_null()) {
            bail!(Unsupported, "{}: `{key}.partial_rotary_factor` is not supported", config.name());
        }
        theta = member_rope_theta(config, key, members)?.unwrap_or(theta);
    }
    Ok(theta)
}

/// `rope_theta` of the object `key`.
fn member_rope_theta(config: &Config, key: &str, members: &Map<String, Value>) -> Result<Option<f64>> {
    match members.get("rope_theta").filter(|v| !v.is_null()) {
        None => Ok(None),
        Some(v) => match v.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
            Some(v) => Ok(Some(v)),
            None => bail!(Input, "{}: `{key}.rope_theta` must be a number above 0", config.name()),
        },
    }
}

/// The attention window of each layer.
fn sliding_windows(config: &Config, model_type: &str, num_layers: usize) -> Result<Vec<Option<usize>>> {
    // `null` means no window; an absent member means the default.
    let sliding_window = || -> Result<Option<usize>> {
        match config.size("sliding_window", limits::POSITIONS)? {
            None if !config.contains("sliding_window") => Ok(Some(DEFAULT_SLIDING_WINDOW)),
            size => Ok(size),
        }
    };
    let types = layer_types(config, num_layers)?;
    if model_type == "qwen2" {
        let window = if config.flag("use_sliding_window", false)? { sliding_window()? } else { None };
        if let Some(sliding) = types {
            if window.is_none() && sliding.contains(&true) {
                bail!(
                    Input,
                    "{}: `layer_types` contains sliding_attention, but `use_sliding_window` and `sliding_window` set no window",
                    config.name()
                );
            }
            return Ok(sliding.into_iter().map(|s| window.filter(|_| s)).collect());
        }
        let first = match config.get("max_window_layers") {
            None => DEFAULT_MAX_WINDOW_LAYERS,
            Some(v) => match v.as_u64() {
                Some(v) => v,
                None => bail!(Input, "{}: `max_window_layers` must be a whole number", config.name()),
            },
        };
        return Ok((0..num_layers as u64).map(|i| window.filter(|_| i >= first)).collect());
    }
    let window = if model_type == "mistral" { sliding_window()? } else { None };
    // Layers of Llama and of Mistral are all of one kind; `layer_types` may say so.
    if types.is_some_and(|sliding| sliding.iter().any(|s| *s != window.is_some())) {
        bail!(
            Unsupported,
            "{}: `layer_types` of different kinds are not supported for {model_type}",
            config.name()
        );
    }
    Ok(vec![window; num_layers])
}

/// Whether each layer has a sliding window, where the configuration lists the types of layers.
fn layer_types(config: &Config, num_layers: usize) -> Result<Option<Vec<bool>>> {
    let Some(value) = config.get("layer_types") else { return Ok(None) };
    let kinds = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if kinds.len() != num_layers {
        bail!(Input, "{}: `layer_types` must list {num_layers} layers", config.name());
    }
    let mut sliding = Vec::with_capacity(num_layers);
    for kind in kinds {
        match kind.as_str() {
            Some("full_attention") => sliding.push(false),
            Some("sliding_attention") => sliding.push(true),
            _ => {
                bail!(Unsupported, "{}: `layer_types` contains {kind}, which is not supported", config.name())
            }
        }
    }
    Ok(Some(sliding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;
    use serde_json::json;

    fn read(changes: Value) -> Result<Options> {
        let mut members = json!({
            "model_type": "llama", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        });
        let members = members.as_object_mut().expect("an object");
        members.extend(changes.as_object().expect("an object").clone());
        Options::read(&Config::from_members(members.clone()))
    }

    #[track_caller]
    fn assert_unsupported(changes: Value, words: &[&str]) {
        let error = read(changes).expect_err("unsupported");
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
    }

    #[track_caller]
    fn assert_input_error(changes: Value, word: &str) {
        let error = read(changes).expect_err("an input error");
        assert_eq!(error.kind(), Kind::Input, "{error}");
        assert!(error.message().contains(word), "{error}");
    }

    #[test]
    fn fills_in_defaults() {
        let o = read(json!({})).expect("read");
        assert_eq!(
            (o.head_dim, o.rope_theta, o.tie_word_embeddings, o.qkv_bias, o.hidden_act),
            (8, 10_000.0, false, false, Activation::Silu)
        );
        assert_eq!(o.sliding_windows, [None; 4]);
        assert_eq!(read(json!({"num_key_value_heads": null})).expect("read").num_kv_heads, 4);
        assert_eq!(read(json!({"head_dim": 12})).expect("read").head_dim, 12);
        assert_eq!(read(json!({"model_type": "mistral"})).expect("read").sliding_windows, [Some(4096); 4]);
        assert_eq!(
            read(json!({"model_type": "mistral", "sliding_window": null})).expect("read").sliding_windows,
            [None; 4]
        );
        let q = read(json!({"model_type": "qwen2"})).expect("read");
        assert_eq!((q.qkv_bias, q.o_bias, q.sliding_windows), (true, false, vec![None; 4]));
    }

    #[test]
    fn reads_sliding_windows_of_qwen2() {
        let on = json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 1});
        assert_eq!(read(on.clone()).expect("read").sliding_windows, [None, Some(7), Some(7), Some(7)]);
        let mut typed = on;
        let (s, f) = ("sliding_attention", "full_attention");
        typed["layer_types"] = json!([s, f, f, s]);
        assert_eq!(read(typed.clone()).expect("read").sliding_windows, [Some(7), None, None, Some(7)]);
        typed["use_sliding_window"] = json!(false);
        assert_input_error(typed.clone(), "layer_types");
        typed["layer_types"] = json!([f]);
        assert_input_error(typed, "must list 4");
        assert_unsupported(
            json!({"layer_types": [f, f, f, "chunked_attention"]}),
            &["layer_types", "chunked_attention"],
        );
        assert_unsupported(json!({"layer_types": [f, f, f, s]}), &["layer_types", "llama"]);
    }

    #[test]
    fn reads_rope_theta_and_rejects_other_rope_types() {
        let theta = |v: Value| read(v).expect("read").rope_theta;
        assert_eq!(theta(json!({"rope_theta": 5e5})), 5e5);
        assert_eq!(theta(json!({"rope_theta": 5e5, "rope_scaling": null})), 5e5);
        assert_eq!(theta(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}})), 7.0);
        assert_eq!(theta(json!({"rope_scaling": {"type": "default"}})), 1e4);
        assert_unsupported(
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            &["rope_scaling", "linear"],
        );
        assert_unsupported(json!({"rope_parameters": {"rope_type": "yarn"}}), &["rope_parameters", "yarn"]);
        assert_unsupported(json!({"rope_scaling": {"factor": 2.0}}), &["rope_scaling"]);
        assert_unsupported(
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            &["rope_parameters"],
        );
        assert_unsupported(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor"]);
    }

    #[test]
    fn rejects_impossible_sizes() {
        for bad in [
            json!({"num_key_value_heads": 3}),
            json!({"hidden_size": 34}),
            json!({"head_dim": 7}),
            json!({"num_hidden_layers": 2000}),
            json!({"vocab_size": -1}),
            json!({"rope_theta": 0}),
            json!({"rms_norm_eps": "small"}),
        ] {
            assert_input_error(bad, "");
        }
        assert_unsupported(json!({"hidden_act": "xielu"}), &["hidden_act", "xielu"]);
        assert_unsupported(json!({"model_type": "mistral", "attention_bias": true}), &["attention_bias"]);
    }
}
