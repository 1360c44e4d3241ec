//! Phi and Phi-3.

use super::common::{plain_mlp, sliding_window};
use super::llama::{self, Biases, Defaults};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::profile::Profile;
use crate::model::spec::{
    FeedForward, Gating, HeadBias, Layer, Linear, Norm, NormKind, NormSpan, QkNorm, Transformer,
};
use invarlock_error::Result;

/// Phi: parallel layers with one layer normalisation, a plain feed-forward module, and biases everywhere.
pub fn phi(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = Defaults {
        profile: Profile::Phi,
        norm: NormKind::Layer,
        epsilon: ("layer_norm_eps", 1e-5),
        activation: ("hidden_act", "gelu_new"),
        partial: 0.5,
        bias: Biases { qkv: true, output: true, mlp: true },
        ..Defaults::default()
    };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let epsilon = llama::epsilon(config, &defaults)?;
    let width = config.required_size("intermediate_size", limits::WIDTH)?;
    let gating = Gating::None(config.activation("hidden_act", "gelu_new")?);
    let qk_norm = config.flag("qk_layernorm", false)?;
    let hidden_size = decoder.hidden_size;
    let layers = std::mem::take(&mut decoder.layers);
    let layer = |(i, layer): (usize, Layer)| {
        let name = |module: &str| format!("layers.{i}.{module}");
        let norm = |module: &str| Norm::new(name(module), NormKind::Layer, epsilon);
        let mut attention = layer.attention.module;
        let heads = attention.output.inputs;
        attention.output = Linear::new(&name("self_attn.dense"), heads, hidden_size, true);
        attention.qk_norm = qk_norm.then(|| QkNorm {
            query: norm("self_attn.q_layernorm"),
            key: norm("self_attn.k_layernorm"),
            span: NormSpan::Head,
        });
        let mlp = plain_mlp(
            Linear::new(&name("mlp.fc1"), hidden_size, width, true),
            gating,
            Linear::new(&name("mlp.fc2"), width, hidden_size, true),
        );
        Layer::parallel(norm("input_layernorm"), attention, FeedForward::Mlp(mlp))
    };
    decoder.layers = layers.into_iter().enumerate().map(layer).collect();
    decoder.norm = Some(Norm::new("final_layernorm", NormKind::Layer, epsilon));
    decoder.head.bias = HeadBias::Module;
    Ok(decoder)
}

/// Phi-3: Llama with fused projections.
pub fn phi3(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = Defaults { profile: Profile::Phi, epsilon: ("rms_norm_eps", 1e-5), ..Defaults::default() };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let window = sliding_window(config, None)?;
    let num_layers = decoder.layers.len();
    decoder.set_windows(vec![window; num_layers]);
    decoder.fuse_projections();
    Ok(decoder)
}
