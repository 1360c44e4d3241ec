//! OLMo, OLMo 2 and OLMoE.

use super::experts::Choice;
use super::llama::{self, Biases, Defaults, gated_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::profile::Profile;
use crate::model::spec::{Norm, NormKind, NormSpan, QkNorm, Transformer};
use invarlock_error::Result;

/// OLMo: normalisations have no parameters; queries, keys and values may be limited.
pub fn olmo(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = Defaults {
        profile: Profile::Named("olmo"),
        norm: NormKind::LayerPlain,
        // No member sets it.
        epsilon: ("", 1e-5),
        bias: Biases::attention(config, false)?,
        ..Defaults::default()
    };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    limit_qkv(config, &mut decoder)?;
    Ok(decoder)
}

/// What OLMo 2 and OLMoE share.
fn rms_defaults(config: &Config, name: &'static str) -> Result<Defaults> {
    Ok(Defaults {
        profile: Profile::Named(name),
        epsilon: ("rms_norm_eps", 1e-5),
        bias: Biases::attention(config, false)?,
        ..Defaults::default()
    })
}

/// OLMo 2: outputs are normalised in place of inputs, queries and keys of all heads together.
pub fn olmo2(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = rms_defaults(config, "olmo")?;
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let epsilon = llama::epsilon(config, &defaults)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let norm = |name: &str| Some(Norm::new(format!("layers.{i}.{name}"), NormKind::Rms, epsilon));
        layer.attention.before = None;
        layer.attention.output = norm("post_attention_layernorm");
        layer.feed_forward.before = None;
        layer.feed_forward.output = norm("post_feedforward_layernorm");
    }
    normalise_all_heads(&mut decoder, epsilon);
    Ok(decoder)
}

/// OLMoE: experts in every layer, queries and keys of all heads normalised together.
pub fn olmoe(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = rms_defaults(config, "olmoe")?;
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    normalise_all_heads(&mut decoder, llama::epsilon(config, &defaults)?);
    limit_qkv(config, &mut decoder)?;
    let hidden_size = decoder.hidden_size;
    let width = config.required_size("intermediate_size", limits::WIDTH)?;
    let activation = config.activation("hidden_act", "silu")?;
    let choice = Choice::with_norm_flag(config, "num_experts")?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let module = format!("layers.{i}.mlp");
        layer.feed_forward.module = choice.feed_forward(&module, hidden_size, |e| {
            gated_mlp(&format!("{module}.experts.{e}"), hidden_size, width, activation, false)
        });
    }
    Ok(decoder)
}

fn limit_qkv(config: &Config, decoder: &mut Transformer) -> Result<()> {
    let limit = config.positive_or_none("clip_qkv")?.map(|limit| limit as f32);
    for layer in &mut decoder.layers {
        layer.attention.module.clip = limit;
    }
    Ok(())
}

fn normalise_all_heads(decoder: &mut Transformer, epsilon: f32) {
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let norm = |name: &str| Norm::new(format!("layers.{i}.self_attn.{name}"), NormKind::Rms, epsilon);
        layer.attention.module.qk_norm =
            Some(QkNorm { query: norm("q_norm"), key: norm("k_norm"), span: NormSpan::All });
    }
}
