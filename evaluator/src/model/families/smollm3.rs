//! SmolLM3: Llama in which some layers have no rotation.

use serde_json::Value;

use super::common::{sliding_window, windows};
use super::llama::{self, Biases, Defaults};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::profile::Profile;
use crate::model::spec::Transformer;
use invarlock_error::Result;

/// `no_rope_layers` is 1 for each layer that rotates; by default all but every `no_rope_layer_interval`-th do.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let bias = Biases { mlp: config.flag("mlp_bias", false)?, ..Biases::attention(config, false)? };
    let defaults = Defaults {
        profile: Profile::Gpt2,
        tied: true,
        theta: 2_000_000.0,
        kv_heads_default: false,
        bias,
        ..Defaults::default()
    };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let num_layers = decoder.layers.len();
    let interval = config.size("no_rope_layer_interval", limits::LAYERS)?.unwrap_or(4);
    let rotates = match config.list("no_rope_layers", num_layers, "numbers 0 or 1", Value::as_u64)? {
        Some(layers) => layers.into_iter().map(|rotates| rotates != 0).collect(),
        None => (1..=num_layers).map(|i| i % interval != 0).collect::<Vec<bool>>(),
    };
    let window = match config.flag("use_sliding_window", false)? {
        true => sliding_window(config, None)?,
        false => None,
    };
    decoder.set_windows(windows(config, num_layers, window, |i| window.is_some() && !rotates[i])?);
    for (layer, rotates) in decoder.layers.iter_mut().zip(rotates) {
        if !rotates {
            layer.attention.module.rotary = None;
        }
    }
    Ok(decoder)
}
