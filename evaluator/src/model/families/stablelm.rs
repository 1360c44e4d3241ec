//! StableLM.

use super::llama::{self, Biases, Defaults};
use crate::checkpoint::Config;
use crate::model::profile::Profile;
use crate::model::spec::{Norm, NormKind, NormSpan, QkNorm, Transformer};
use invarlock_error::Result;

/// Llama with layer normalisation, a rotated quarter of each head, and perhaps parallel layers or a normalisation of each head.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = Defaults {
        profile: Profile::Gpt2,
        norm: NormKind::Layer,
        epsilon: ("layer_norm_eps", 1e-5),
        kv_heads_default: false,
        partial: 0.25,
        bias: Biases { qkv: config.flag("use_qkv_bias", false)?, ..Biases::default() },
        ..Defaults::default()
    };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let epsilon = llama::epsilon(config, &defaults)?;
    let parallel = config.flag("use_parallel_residual", false)?;
    let qk_norm = config.flag("qk_layernorm", false)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        if parallel {
            layer.parallel = true;
            layer.feed_forward.before = None;
        }
        let norm = |name: &str| {
            Norm::new(format!("layers.{i}.self_attn.{name}.norms"), NormKind::LayerWeight, epsilon)
        };
        layer.attention.module.qk_norm = qk_norm.then(|| QkNorm {
            query: norm("q_layernorm"),
            key: norm("k_layernorm"),
            span: NormSpan::HeadModules,
        });
    }
    Ok(decoder)
}
