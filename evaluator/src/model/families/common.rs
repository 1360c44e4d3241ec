//! Members that the configurations of several families have.

use serde_json::Value;

use crate::checkpoint::Config;
use crate::limits;
use crate::model::matrix::Layout;
use crate::model::spec::{Gating, Linear, Mlp};
use invarlock_error::{Result, bail};

/// A number of elements that must be a multiple of the number of heads. The names are of the members.
pub fn per_head(config: &Config, size: (&str, usize), heads: (&str, usize)) -> Result<usize> {
    if !size.1.is_multiple_of(heads.1) {
        bail!(
            Input,
            "{}: `{}` {} is not a multiple of `{}` {}",
            config.name(),
            size.0,
            size.1,
            heads.0,
            heads.1
        );
    }
    Ok(size.1 / heads.1)
}

/// The id of a token, below `vocab_size`. An error when it is absent and has no default.
pub fn token_id(config: &Config, key: &str, default: Option<u32>) -> Result<u32> {
    let vocab_size = config.required_size("vocab_size", limits::VOCAB)?;
    let Some(value) = config.get(key) else {
        match default {
            Some(id) => return Ok(id),
            None => bail!(Input, "{}: `{}` is missing", config.name(), config.member(key)),
        }
    };
    match value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < vocab_size) {
        Some(id) => Ok(id),
        None => Err(config.wrong(key, &format!("a token id below `vocab_size` {vocab_size}"), value)),
    }
}

/// Sizes whose members BLOOM and Falcon name in an older and a newer way.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub hidden_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    /// The member with the number of heads.
    pub heads: &'static str,
    pub head_dim: usize,
}

impl Sizes {
    /// Reads `n_embed`, `n_layer` and `n_head`, or else `hidden_size`, `num_hidden_layers` and `num_attention_heads`.
    pub fn read(config: &Config) -> Result<Self> {
        let hidden_size = match config.size("n_embed", limits::WIDTH)? {
            Some(size) => size,
            None => config.required_size("hidden_size", limits::WIDTH)?,
        };
        let heads = if config.contains("n_head") { "n_head" } else { "num_attention_heads" };
        let layers = if config.contains("n_layer") { "n_layer" } else { "num_hidden_layers" };
        let num_heads = config.required_size(heads, limits::HEADS)?;
        Ok(Self {
            hidden_size,
            num_layers: config.required_size(layers, limits::LAYERS)?,
            num_heads,
            heads,
            head_dim: per_head(config, ("hidden_size", hidden_size), (heads, num_heads))?,
        })
    }
}

/// The attention window that `sliding_window` names. `null` means none; an absent member means the default.
pub fn sliding_window(config: &Config, default: Option<usize>) -> Result<Option<usize>> {
    match config.size("sliding_window", limits::POSITIONS)? {
        None if !config.contains("sliding_window") => Ok(default),
        window => Ok(window),
    }
}

/// Whether each layer has a sliding window, where `layer_types` lists the kinds of layers.
pub fn layer_types(config: &Config, num_layers: usize) -> Result<Option<Vec<bool>>> {
    let kinds = config.list("layer_types", num_layers, "kinds of layers", Value::as_str)?;
    let Some(kinds) = kinds else { return Ok(None) };
    let sliding = |kind: &str| match kind {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        _ => {
            bail!(Unsupported, "{}: `layer_types` contains {kind:?}, which is not supported", config.name())
        }
    };
    kinds.into_iter().map(sliding).collect::<Result<_>>().map(Some)
}

/// The window of each layer: `window` where `layer_types`, or else `default` by the number of the layer, says sliding.
pub fn windows(
    config: &Config,
    num_layers: usize,
    window: Option<usize>,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let kinds = layer_types(config, num_layers)?.unwrap_or_else(|| (0..num_layers).map(default).collect());
    if window.is_none() && kinds.contains(&true) {
        bail!(
            Input,
            "{}: `layer_types` contains sliding_attention, but no member sets the window",
            config.name()
        );
    }
    Ok(kinds.into_iter().map(|sliding| window.filter(|_| sliding)).collect())
}

/// A feed-forward module without a gate: `second` · f(`first` · x).
pub fn plain_mlp(first: Linear, gating: Gating, second: Linear) -> Mlp {
    Mlp { input: vec![first], gating, output: second }
}

/// A linear layer whose weight is stored by inputs (GPT-2's `Conv1D`), with a bias.
pub fn conv1d(module: &str, inputs: usize, outputs: usize) -> Linear {
    Linear { layout: Layout::InOut, ..Linear::new(module, inputs, outputs, true) }
}
