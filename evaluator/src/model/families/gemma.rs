//! Gemma, Gemma 2 and the text model of Gemma 3.

use std::sync::Arc;

use super::common::{sliding_window, windows};
use super::llama::{self, Biases, Defaults, Sizes};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::rotary::{Frequencies, Pairing, Rotary};
use crate::model::profile::Profile;
use crate::model::rope::Rope;
use crate::model::spec::{Norm, NormKind, NormSpan, QkNorm, Transformer};
use invarlock_error::{Result, bail};

/// `sliding_window` where the configuration lacks it.
const DEFAULT_WINDOW: usize = 4096;

fn defaults(config: &Config) -> Result<Defaults> {
    Ok(Defaults {
        profile: Profile::Named("gemma"),
        norm: NormKind::RmsPlusOne,
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        tied: true,
        head_dim: Some(256),
        kv_heads_default: false,
        bias: Biases::attention(config, false)?,
        ..Defaults::default()
    })
}

fn base(config: &Config, seq_len: usize, defaults: &Defaults) -> Result<Transformer> {
    if config.flag("use_bidirectional_attention", false)? {
        bail!(Unsupported, "{}: `use_bidirectional_attention` is not supported", config.name());
    }
    let mut decoder = llama::decoder(config, seq_len, defaults)?;
    decoder.embedding.scale = (decoder.hidden_size as f64).sqrt() as f32;
    Ok(decoder)
}

/// Gemma: embeddings are scaled, and factors of normalisations are 1 + weight.
pub fn gemma(config: &Config, seq_len: usize) -> Result<Transformer> {
    // The first checkpoints say `gelu` in `hidden_act` and were trained with its approximation by tanh.
    let named = ["hidden_activation", "hidden_act"].into_iter().find(|key| config.get(key).is_some());
    let activation = match named {
        Some(key) if config.text(key)? != Some("gelu") => (key, "gelu_pytorch_tanh"),
        _ => ("", "gelu_pytorch_tanh"),
    };
    base(config, seq_len, &Defaults { activation, ..defaults(config)? })
}

/// Gemma 2: outputs are normalised too, scores and logits are limited, every other layer has a window.
pub fn gemma2(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = second_generation(config, seq_len, &defaults(config)?)?;
    let num_layers = decoder.layers.len();
    let window = sliding_window(config, Some(DEFAULT_WINDOW))?;
    decoder.set_windows(windows(config, num_layers, window, |i| i % 2 == 0)?);
    let limit = softcap(config, "attn_logit_softcapping", Some(50.0))?;
    for layer in &mut decoder.layers {
        layer.attention.module.attention.softcap = limit;
    }
    decoder.head.softcap = softcap(config, "final_logit_softcapping", Some(30.0))?;
    Ok(decoder)
}

/// Gemma 3: as Gemma 2, with normalised queries and keys, and a rotary base of its own for layers with a window.
pub fn gemma3(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults =
        Defaults { theta: 1_000_000.0, rope_layer_type: Some("full_attention"), ..defaults(config)? };
    let mut decoder = second_generation(config, seq_len, &defaults)?;
    let num_layers = decoder.layers.len();
    let window = sliding_window(config, Some(DEFAULT_WINDOW))?;
    let pattern = config.size("sliding_window_pattern", limits::LAYERS)?.unwrap_or(6);
    decoder.set_windows(windows(config, num_layers, window, |i| (i + 1) % pattern != 0)?);
    decoder.head.softcap = softcap(config, "final_logit_softcapping", None)?;
    // transformers reads it and does not use it, in any release.
    softcap(config, "attn_logit_softcapping", None)?;

    let epsilon = llama::epsilon(config, &defaults)?;
    let head_dim = Sizes::read(config, &defaults)?.head_dim;
    let local = Arc::new(Rotary::new(local_rope(config, head_dim, seq_len)?, Pairing::Halves, seq_len));
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let module = &mut layer.attention.module;
        let norm =
            |name: &str| Norm::new(format!("layers.{i}.self_attn.{name}"), NormKind::RmsPlusOne, epsilon);
        module.qk_norm = Some(QkNorm { query: norm("q_norm"), key: norm("k_norm"), span: NormSpan::Head });
        if module.attention.sliding_window.is_some() {
            module.rotary = Some(local.clone());
        }
    }
    Ok(decoder)
}

/// Rotary frequencies of layers with a window. Older configurations name their base beside, and scale the other layers only.
fn local_rope(config: &Config, head_dim: usize, seq_len: usize) -> Result<Frequencies> {
    let rope = Rope { layer_type: Some("sliding_attention"), ..Rope::new(head_dim, seq_len) };
    match config.object("rope_parameters")? {
        Some(_) => rope.read(config),
        None => Ok(rope.with_theta(config.positive("rope_local_base_freq", 10_000.0)?)),
    }
}

/// What Gemma 2 and 3 share.
fn second_generation(config: &Config, seq_len: usize, defaults: &Defaults) -> Result<Transformer> {
    let mut decoder = base(config, seq_len, defaults)?;
    let epsilon = llama::epsilon(config, defaults)?;
    let scale = config.positive("query_pre_attn_scalar", 256.0)?.powf(-0.5) as f32;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let norm = |name: &str| Some(Norm::new(format!("layers.{i}.{name}"), NormKind::RmsPlusOne, epsilon));
        layer.attention.module.attention.scale = scale;
        layer.attention.output = norm("post_attention_layernorm");
        layer.feed_forward.before = norm("pre_feedforward_layernorm");
        layer.feed_forward.output = norm("post_feedforward_layernorm");
    }
    Ok(decoder)
}

/// A limit of scores or logits. `null` means none; an absent member means the default.
fn softcap(config: &Config, key: &str, default: Option<f64>) -> Result<Option<f32>> {
    let limit = match config.positive_or_none(key)? {
        None if !config.contains(key) => default,
        limit => limit,
    };
    Ok(limit.map(|limit| limit as f32))
}
