//! Command R (Cohere).

use super::common::{sliding_window, windows};
use super::llama::{self, Biases, Defaults};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::rotary::Pairing;
use crate::model::profile::Profile;
use crate::model::spec::{Norm, NormKind, NormSpan, QkNorm, Transformer};
use invarlock_error::Result;

/// `sliding_window` where the configuration lacks it.
const DEFAULT_WINDOW: usize = 4096;

fn defaults(config: &Config, theta: f64) -> Result<Defaults> {
    Ok(Defaults {
        profile: Profile::Gpt2,
        norm: NormKind::LayerWeight,
        epsilon: ("layer_norm_eps", 1e-5),
        tied: true,
        theta,
        pairing: Pairing::Adjacent,
        bias: Biases::attention(config, false)?,
        ..Defaults::default()
    })
}

/// Parallel layers with one layer normalisation without bias, rotation of adjacent pairs, and scaled logits.
fn base(config: &Config, seq_len: usize, defaults: &Defaults) -> Result<Transformer> {
    let mut decoder = llama::decoder(config, seq_len, defaults)?;
    decoder.head.scale = config.positive("logit_scale", 0.0625)? as f32;
    for layer in &mut decoder.layers {
        layer.parallel = true;
        layer.feed_forward.before = None;
    }
    Ok(decoder)
}

/// Command R: queries and keys may be normalised, each head with a weight of its own.
pub fn cohere(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = defaults(config, 500_000.0)?;
    let mut decoder = base(config, seq_len, &defaults)?;
    let epsilon = llama::epsilon(config, &defaults)?;
    let qk_norm = config.flag("use_qk_norm", false)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let norm =
            |name: &str| Norm::new(format!("layers.{i}.self_attn.{name}"), NormKind::LayerWeight, epsilon);
        layer.attention.module.qk_norm =
            qk_norm.then(|| QkNorm { query: norm("q_norm"), key: norm("k_norm"), span: NormSpan::HeadOwn });
    }
    Ok(decoder)
}

/// Command R7B: most layers have a window; the others do not rotate.
pub fn cohere2(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = base(config, seq_len, &defaults(config, 10_000.0)?)?;
    let window = sliding_window(config, Some(DEFAULT_WINDOW))?;
    let pattern = config.size("sliding_window_pattern", limits::LAYERS)?.unwrap_or(4);
    decoder.set_windows(windows(config, decoder.layers.len(), window, |i| (i + 1) % pattern != 0)?);
    for layer in &mut decoder.layers {
        let module = &mut layer.attention.module;
        if module.attention.sliding_window.is_none() {
            module.rotary = None;
        }
    }
    Ok(decoder)
}
