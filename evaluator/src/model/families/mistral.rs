//! Mistral, Ministral and Mixtral.

use super::common::{sliding_window, windows};
use super::experts;
use super::llama::{self, Defaults, gated_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::profile::Profile;
use crate::model::spec::{ExpertWeights, Transformer};
use invarlock_error::{Result, bail};

/// `sliding_window` where the configuration lacks it.
const DEFAULT_WINDOW: usize = 4096;

fn base(config: &Config, seq_len: usize, defaults: Defaults) -> Result<Transformer> {
    llama::decoder(config, seq_len, &Defaults { kv_heads_default: false, ..defaults })
}

/// Mistral: all layers have the same window.
pub fn mistral(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder =
        base(config, seq_len, Defaults { profile: Profile::Named("mistral"), ..Defaults::default() })?;
    let window = sliding_window(config, Some(DEFAULT_WINDOW))?;
    let windows = windows(config, decoder.layers.len(), window, |_| window.is_some())?;
    if windows.iter().any(|other| *other != window) {
        bail!(
            Unsupported,
            "{}: `layer_types` of different kinds are not supported for mistral",
            config.name()
        );
    }
    decoder.set_windows(windows);
    Ok(decoder)
}

/// Ministral: the window of each layer follows `layer_types`.
pub fn ministral(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder =
        base(config, seq_len, Defaults { profile: Profile::Named("mistral"), ..Defaults::default() })?;
    let window = sliding_window(config, Some(DEFAULT_WINDOW))?;
    decoder.set_windows(windows(config, decoder.layers.len(), window, |_| window.is_some())?);
    Ok(decoder)
}

/// Mixtral: experts with the modules `w1` (gate), `w3` (up) and `w2` (down).
pub fn mixtral(config: &Config, seq_len: usize) -> Result<Transformer> {
    let defaults = Defaults {
        profile: Profile::Named("mixtral"),
        epsilon: ("rms_norm_eps", 1e-5),
        theta: 1_000_000.0,
        ..Defaults::default()
    };
    let mut decoder = base(config, seq_len, defaults)?;
    let window = sliding_window(config, None)?;
    let num_layers = decoder.layers.len();
    decoder.set_windows(vec![window; num_layers]);
    let hidden_size = decoder.hidden_size;
    let width = config.required_size("intermediate_size", limits::WIDTH)?;
    let activation = config.activation("hidden_act", "silu")?;
    let choice = experts::Choice::read(config, "num_local_experts", ExpertWeights::SoftmaxNormalised)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let module = format!("layers.{i}.block_sparse_moe");
        let expert = |e: usize| {
            let mut mlp = gated_mlp("", hidden_size, width, activation, false);
            for (linear, name) in mlp.input.iter_mut().chain([&mut mlp.output]).zip(["w1", "w3", "w2"]) {
                linear.weight = format!("{module}.experts.{e}.{name}.weight");
            }
            mlp
        };
        layer.feed_forward.module = choice.feed_forward(&module, hidden_size, expert);
    }
    Ok(decoder)
}
