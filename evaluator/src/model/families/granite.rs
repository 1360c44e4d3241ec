//! Granite: Llama with four factors.

use super::llama::{self, Biases, Defaults};
use crate::checkpoint::Config;
use crate::model::profile::Profile;
use crate::model::spec::Transformer;
use invarlock_error::Result;

/// Factors of embeddings, of scores, of what is added to the hidden state, and a divisor of the logits.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let bias = Biases { mlp: config.flag("mlp_bias", false)?, ..Biases::attention(config, false)? };
    let defaults = Defaults { profile: Profile::Gpt2, bias, ..Defaults::default() };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    decoder.embedding.scale = config.positive("embedding_multiplier", 1.0)? as f32;
    decoder.head.scale = (1.0 / config.positive("logits_scaling", 1.0)?) as f32;
    let residual_scale = config.positive("residual_multiplier", 1.0)? as f32;
    let scale = config.positive("attention_multiplier", 1.0)? as f32;
    for layer in &mut decoder.layers {
        layer.residual_scale = residual_scale;
        layer.attention.module.attention.scale = scale;
    }
    Ok(decoder)
}
