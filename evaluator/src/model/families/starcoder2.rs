//! StarCoder2: Llama with layer normalisation and a plain feed-forward module.

use super::common::{plain_mlp, sliding_window};
use super::llama::{self, Biases, Defaults};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::profile::Profile;
use crate::model::spec::{FeedForward, Gating, Linear, NormKind, Transformer};
use invarlock_error::Result;

/// All layers have the same window, if any.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let bias = config.flag("use_bias", true)?;
    let defaults = Defaults {
        profile: Profile::Gpt2,
        norm: NormKind::Layer,
        epsilon: ("norm_epsilon", 1e-5),
        activation: ("hidden_act", "gelu_pytorch_tanh"),
        tied: true,
        kv_heads_default: false,
        bias: Biases { qkv: bias, output: bias, mlp: bias },
        ..Defaults::default()
    };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let window = sliding_window(config, None)?;
    let num_layers = decoder.layers.len();
    decoder.set_windows(vec![window; num_layers]);
    let hidden_size = decoder.hidden_size;
    let width = config.required_size("intermediate_size", limits::WIDTH)?;
    let gating = Gating::None(config.activation("hidden_act", "gelu_pytorch_tanh")?);
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        layer.feed_forward.module = FeedForward::Mlp(plain_mlp(
            Linear::new(&format!("layers.{i}.mlp.c_fc"), hidden_size, width, bias),
            gating,
            Linear::new(&format!("layers.{i}.mlp.c_proj"), width, hidden_size, bias),
        ));
    }
    Ok(decoder)
}
