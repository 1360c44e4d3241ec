//! What the three model types may say in their configurations, and what each means by saying nothing.

use serde_json::{Map, Value};

use crate::checkpoint::Config;
use crate::limits;
use crate::math::activation::Activation;
use invarlock_error::{Result, bail};

/// A decoder's configuration, every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub model_type: String,
    pub vocab: usize,
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head: usize,
    pub epsilon: f32,
    pub theta: f64,
    pub activation: Activation,
    pub tied: bool,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    /// Attention window of each layer.
    pub windows: Vec<Option<usize>>,
}

/// The window Mistral and Qwen2 have when the configuration does not say.
const DEFAULT_WINDOW: usize = 4096;
/// The first layer with a window in Qwen2 when the configuration does not say.
const DEFAULT_WINDOW_LAYERS: u64 = 28;

impl Options {
    /// Reads a configuration whose `model_type` is one of ours.
    pub fn read(config: &Config) -> Result<Self> {
        let model_type = config.text("model_type")?.unwrap_or_default();
        let width = config.required_size("hidden_size", limits::WIDTH)?;
        let heads = config.required_size("num_attention_heads", limits::HEADS)?;
        let kv_heads = match config.size("num_key_value_heads", limits::HEADS)? {
            Some(n) => n,
            // Mistral and Qwen2 have their own defaults, which nobody should rely on.
            None if model_type == "llama" || config.is_written("num_key_value_heads") => heads,
            None => config.required_size("num_key_value_heads", limits::HEADS)?,
        };
        let head = match config.size("head_dim", limits::HEADS)? {
            Some(head) => head,
            None if width % heads == 0 => width / heads,
            None => bail!(
                Input,
                "{}: `hidden_size` {width} is not a multiple of `num_attention_heads` {heads}",
                config.name()
            ),
        };
        if heads % kv_heads != 0 {
            bail!(
                Input,
                "{}: `num_attention_heads` {heads} is not a multiple of `num_key_value_heads` {kv_heads}",
                config.name()
            );
        }
        if head % 2 != 0 {
            bail!(
                Input,
                "{}: a head of {head} elements cannot be rotated; `head_dim` must be even",
                config.name()
            );
        }
        let name = config.text("hidden_act")?.unwrap_or("silu");
        let Some(activation) = Activation::by_name(name) else {
            bail!(
                Unsupported,
                "{}: hidden_act {name:?} is not implemented; known: {}",
                config.name(),
                Activation::KNOWN
            );
        };
        let attention_bias = config.flag("attention_bias", false)?;
        let mlp_bias = config.flag("mlp_bias", false)?;
        if model_type != "llama" && mlp_bias || model_type == "mistral" && attention_bias {
            let option = if mlp_bias { "mlp_bias" } else { "attention_bias" };
            bail!(Unsupported, "{}: {model_type} has no `{option}`", config.name());
        }
        Ok(Self {
            model_type: model_type.to_owned(),
            vocab: config.required_size("vocab_size", limits::VOCAB)?,
            width,
            inner: config.required_size("intermediate_size", limits::WIDTH)?,
            heads,
            kv_heads,
            head,
            epsilon: config.positive("rms_norm_eps", 1e-6)? as f32,
            theta: rope_theta(config)?,
            activation,
            tied: config.flag("tie_word_embeddings", false)?,
            qkv_bias: model_type == "qwen2" || attention_bias,
            out_bias: model_type == "llama" && attention_bias,
            mlp_bias,
            windows: windows(config, model_type, config.required_size("num_hidden_layers", limits::LAYERS)?)?,
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

/// The base of the rotary frequencies, written in the old or the new way. No other kind of RoPE is implemented.
fn rope_theta(config: &Config) -> Result<f64> {
    let partial = config.positive("partial_rotary_factor", 1.0)?;
    if partial != 1.0 {
        bail!(Unsupported, "{}: `partial_rotary_factor` {partial} is not implemented", config.name());
    }
    let old = config.positive("rope_theta", 10_000.0)?;
    let mut theta = old;
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(value) = config.get(key) else { continue };
        let Value::Object(members) = value else {
            bail!(Input, "{}: `{key}` must be an object", config.name());
        };
        if members.values().any(Value::is_object) {
            bail!(Unsupported, "{}: `{key}` that differ by layer are not implemented", config.name());
        }
        let kind = ["rope_type", "type"].iter().find_map(|k| members.get(*k).filter(|v| !v.is_null()));
        match kind {
            Some(Value::String(kind)) if kind == "default" => {}
            None if key == "rope_parameters" => {}
            Some(Value::String(kind)) => bail!(
                Unsupported,
                "{}: `{key}` of RoPE type {kind:?} is not implemented; only \"default\" is",
                config.name()
            ),
            _ => bail!(Unsupported, "{}: `{key}` without a RoPE type is not understood", config.name()),
        }
        if members.get("partial_rotary_factor").is_some_and(|v| v.as_f64() != Some(1.0) && !v.is_null()) {
            bail!(Unsupported, "{}: `{key}.partial_rotary_factor` is not implemented", config.name());
        }
        theta = base(config, key, members)?.unwrap_or(theta);
    }
    Ok(theta)
}

fn base(config: &Config, key: &str, members: &Map<String, Value>) -> Result<Option<f64>> {
    match members.get("rope_theta").filter(|v| !v.is_null()) {
        None => Ok(None),
        Some(v) => match v.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
            Some(v) => Ok(Some(v)),
            None => bail!(Input, "{}: `{key}.rope_theta` must be a number above 0", config.name()),
        },
    }
}

/// The attention window of each layer.
fn windows(config: &Config, model_type: &str, layers: usize) -> Result<Vec<Option<usize>>> {
    let given = |key: &str| -> Result<Option<usize>> {
        match config.size(key, limits::POSITIONS)? {
            None if !config.is_written(key) => Ok(Some(DEFAULT_WINDOW)),
            size => Ok(size),
        }
    };
    let types = layer_types(config, layers)?;
    if model_type == "qwen2" {
        let window = if config.flag("use_sliding_window", false)? { given("sliding_window")? } else { None };
        if let Some(sliding) = types {
            if window.is_none() && sliding.contains(&true) {
                bail!(
                    Input,
                    "{}: `layer_types` names sliding_attention, but `use_sliding_window` and `sliding_window` give no window",
                    config.name()
                );
            }
            return Ok(sliding.into_iter().map(|s| window.filter(|_| s)).collect());
        }
        let first = match config.get("max_window_layers") {
            None => DEFAULT_WINDOW_LAYERS,
            Some(v) => match v.as_u64() {
                Some(v) => v,
                None => bail!(Input, "{}: `max_window_layers` must be a whole number", config.name()),
            },
        };
        return Ok((0..layers as u64).map(|i| window.filter(|_| i >= first)).collect());
    }
    let window = if model_type == "mistral" { given("sliding_window")? } else { None };
    // These two have one kind of layer; a list that says so is harmless.
    if types.is_some_and(|sliding| sliding.iter().any(|s| *s != window.is_some())) {
        bail!(
            Unsupported,
            "{}: `layer_types` of different kinds are not implemented for {model_type}",
            config.name()
        );
    }
    Ok(vec![window; layers])
}

/// Whether each layer slides, where the configuration lists it.
fn layer_types(config: &Config, layers: usize) -> Result<Option<Vec<bool>>> {
    let Some(value) = config.get("layer_types") else { return Ok(None) };
    let kinds = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if kinds.len() != layers {
        bail!(Input, "{}: `layer_types` must list {layers} layers", config.name());
    }
    let mut sliding = Vec::with_capacity(layers);
    for kind in kinds {
        match kind.as_str() {
            Some("full_attention") => sliding.push(false),
            Some("sliding_attention") => sliding.push(true),
            _ => {
                bail!(Unsupported, "{}: `layer_types` names {kind}, which is not implemented", config.name())
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

    fn unsupported(changes: Value, words: &[&str]) {
        match read(changes) {
            Err(m) if m.kind() == Kind::Unsupported && words.iter().all(|w| m.message().contains(w)) => {}
            other => panic!("{other:?} without {words:?}"),
        }
    }

    #[test]
    fn defaults() {
        let o = read(json!({})).expect("read");
        assert_eq!(
            (o.head, o.theta, o.tied, o.qkv_bias, o.activation),
            (8, 10_000.0, false, false, Activation::Silu)
        );
        assert_eq!(o.windows, [None; 4]);
        assert_eq!(read(json!({"num_key_value_heads": null})).expect("read").kv_heads, 4);
        assert_eq!(read(json!({"head_dim": 12})).expect("read").head, 12);
        assert_eq!(read(json!({"model_type": "mistral"})).expect("read").windows, [Some(4096); 4]);
        assert_eq!(
            read(json!({"model_type": "mistral", "sliding_window": null})).expect("read").windows,
            [None; 4]
        );
        let q = read(json!({"model_type": "qwen2"})).expect("read");
        assert_eq!((q.qkv_bias, q.out_bias, q.windows), (true, false, vec![None; 4]));
    }

    #[test]
    fn qwen2_windows() {
        let on = json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 1});
        assert_eq!(read(on.clone()).expect("read").windows, [None, Some(7), Some(7), Some(7)]);
        let mut typed = on;
        let (s, f) = ("sliding_attention", "full_attention");
        typed["layer_types"] = json!([s, f, f, s]);
        assert_eq!(read(typed.clone()).expect("read").windows, [Some(7), None, None, Some(7)]);
        typed["use_sliding_window"] = json!(false);
        assert!(
            matches!(read(typed.clone()), Err(m) if m.kind() == Kind::Input && m.message().contains("layer_types"))
        );
        typed["layer_types"] = json!([f]);
        assert!(
            matches!(read(typed), Err(m) if m.kind() == Kind::Input && m.message().contains("must list 4"))
        );
        unsupported(
            json!({"layer_types": [f, f, f, "chunked_attention"]}),
            &["layer_types", "chunked_attention"],
        );
        unsupported(json!({"layer_types": [f, f, f, s]}), &["layer_types", "llama"]);
    }

    #[test]
    fn rope() {
        let theta = |v: Value| read(v).expect("read").theta;
        assert_eq!(theta(json!({"rope_theta": 5e5})), 5e5);
        assert_eq!(theta(json!({"rope_theta": 5e5, "rope_scaling": null})), 5e5);
        assert_eq!(theta(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}})), 7.0);
        assert_eq!(theta(json!({"rope_scaling": {"type": "default"}})), 1e4);
        unsupported(json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), &["rope_scaling", "linear"]);
        unsupported(json!({"rope_parameters": {"rope_type": "yarn"}}), &["rope_parameters", "yarn"]);
        unsupported(json!({"rope_scaling": {"factor": 2.0}}), &["rope_scaling"]);
        unsupported(
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            &["rope_parameters"],
        );
        unsupported(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor"]);
    }

    #[test]
    fn impossible_sizes_are_input_errors() {
        for bad in [
            json!({"num_key_value_heads": 3}),
            json!({"hidden_size": 34}),
            json!({"head_dim": 7}),
            json!({"num_hidden_layers": 2000}),
            json!({"vocab_size": -1}),
            json!({"rope_theta": 0}),
            json!({"rms_norm_eps": "small"}),
        ] {
            assert!(matches!(read(bad.clone()), Err(error) if error.kind() == Kind::Input), "{bad}");
        }
        unsupported(json!({"hidden_act": "xielu"}), &["hidden_act", "xielu"]);
        unsupported(json!({"model_type": "mistral", "attention_bias": true}), &["attention_bias"]);
    }
}
