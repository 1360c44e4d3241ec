//! GLM and GLM-4.

use super::llama::{self, Biases, Defaults};
use crate::checkpoint::Config;
use crate::math::rotary::Pairing;
use crate::model::profile::Profile;
use crate::model::spec::{Norm, NormKind, Transformer};
use invarlock_error::Result;

fn defaults(config: &Config, bias: bool) -> Result<Defaults> {
    Ok(Defaults {
        profile: Profile::Gpt2,
        epsilon: ("rms_norm_eps", 1.5625e-7),
        head_dim: Some(128),
        kv_heads_default: false,
        partial: 0.5,
        pairing: Pairing::Adjacent,
        bias: Biases { qkv: config.flag("attention_bias", bias)?, ..Biases::default() },
        ..Defaults::default()
    })
}

/// GLM: Llama with a rotated half of each head in adjacent pairs, and a fused feed-forward projection.
pub fn glm(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = llama::decoder(config, seq_len, &defaults(config, true)?)?;
    decoder.fuse_gate_and_up();
    Ok(decoder)
}

/// GLM-4: outputs are normalised, too.
pub fn glm4(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = defaults(config, false)?;
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    decoder.fuse_gate_and_up();
    let epsilon = llama::epsilon(config, &defaults)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let norm = |name: &str| Some(Norm::new(format!("layers.{i}.{name}"), NormKind::Rms, epsilon));
        layer.attention.output = norm("post_self_attn_layernorm");
        layer.feed_forward.output = norm("post_mlp_layernorm");
    }
    Ok(decoder)
}
