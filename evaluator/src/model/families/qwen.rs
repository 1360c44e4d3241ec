//! Qwen2, Qwen3 and their mixtures of experts.

use super::common::{sliding_window, windows};
use super::experts::Choice;
use super::llama::{self, Biases, Defaults, gated_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::profile::Profile;
use crate::model::spec::{FeedForward, Linear, Norm, NormKind, NormSpan, QkNorm, Transformer};
use invarlock_error::{Result, bail};

/// `sliding_window` where the configuration lacks it.
const DEFAULT_WINDOW: usize = 4096;
/// `max_window_layers` where the configuration lacks it.
const DEFAULT_MAX_WINDOW_LAYERS: u64 = 28;

fn defaults() -> Defaults {
    Defaults { profile: Profile::Named("qwen"), kv_heads_default: false, ..Defaults::default() }
}

/// Biases of queries, keys and values.
fn qwen2_defaults(qkv: bool) -> Defaults {
    Defaults { bias: Biases { qkv, ..Biases::default() }, ..defaults() }
}

/// Qwen2: layers from `max_window_layers` on may have a window.
pub fn qwen2(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = llama::decoder(config, seq_len, &qwen2_defaults(true))?;
    window_of_late_layers(config, &mut decoder)?;
    Ok(decoder)
}

/// The text model of Qwen2-VL. Its rotary positions of text are those of Qwen2: the three positions of a token are equal.
pub fn qwen2_vl(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = llama::decoder(config, seq_len, &Defaults { mrope: true, ..qwen2_defaults(true) })?;
    window_of_late_layers(config, &mut decoder)?;
    Ok(decoder)
}

/// Qwen3: queries and keys are normalised.
pub fn qwen3(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = qwen3_base(config, seq_len)?;
    window_of_late_layers(config, &mut decoder)?;
    Ok(decoder)
}

/// Qwen2 with experts, one of them for every token.
pub fn qwen2_moe(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = llama::decoder(config, seq_len, &qwen2_defaults(config.flag("qkv_bias", true)?))?;
    let (first_full, num_layers) = (max_window_layers(config)?, decoder.layers.len());
    let window = enabled_window(config)?;
    let sliding = |i: usize| window.is_some() && i.is_multiple_of(2) && (i as u64) < first_full;
    decoder.set_windows(windows(config, num_layers, window, sliding)?);

    let hidden_size = decoder.hidden_size;
    let width = config.required_size("shared_expert_intermediate_size", limits::WIDTH)?;
    let activation = config.activation("hidden_act", "silu")?;
    sparse_layers(config, &mut decoder, |module, feed_forward| {
        let FeedForward::Experts(experts) = feed_forward else { return };
        let shared = gated_mlp(&format!("{module}.shared_expert"), hidden_size, width, activation, false);
        let gate = Linear::new(&format!("{module}.shared_expert_gate"), hidden_size, 1, false);
        experts.shared = Some((shared, gate));
    })?;
    Ok(decoder)
}

/// Qwen3 with experts.
pub fn qwen3_moe(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mut decoder = qwen3_base(config, seq_len)?;
    let (window, num_layers) = (enabled_window(config)?, decoder.layers.len());
    decoder.set_windows(vec![window; num_layers]);
    sparse_layers(config, &mut decoder, |_, _| ())?;
    Ok(decoder)
}

fn qwen3_base(config: &Config, seq_len: usize) -> Result<Transformer> {
    let bias = Biases::attention(config, false)?;
    let defaults = Defaults { bias, head_dim: Some(128), ..defaults() };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let epsilon = llama::epsilon(config, &defaults)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let norm = |name: &str| Norm::new(format!("layers.{i}.self_attn.{name}"), NormKind::Rms, epsilon);
        layer.attention.module.qk_norm =
            Some(QkNorm { query: norm("q_norm"), key: norm("k_norm"), span: NormSpan::Head });
    }
    Ok(decoder)
}

/// `sliding_window`, unless `use_sliding_window` is off.
fn enabled_window(config: &Config) -> Result<Option<usize>> {
    match config.flag("use_sliding_window", false)? {
        true => sliding_window(config, Some(DEFAULT_WINDOW)),
        false => Ok(None),
    }
}

fn max_window_layers(config: &Config) -> Result<u64> {
    match config.get("max_window_layers") {
        None => Ok(DEFAULT_MAX_WINDOW_LAYERS),
        Some(v) => v.as_u64().ok_or_else(|| config.wrong("max_window_layers", "a whole number", v)),
    }
}

fn window_of_late_layers(config: &Config, decoder: &mut Transformer) -> Result<()> {
    let (window, first) = (enabled_window(config)?, max_window_layers(config)?);
    let sliding = |i: usize| window.is_some() && i as u64 >= first;
    decoder.set_windows(windows(config, decoder.layers.len(), window, sliding)?);
    Ok(())
}

/// Replaces the feed-forward modules of the layers that have experts; `change` gets each new one and its name.
fn sparse_layers(
    config: &Config,
    decoder: &mut Transformer,
    change: impl Fn(&str, &mut FeedForward),
) -> Result<()> {
    let hidden_size = decoder.hidden_size;
    let width = config.required_size("moe_intermediate_size", limits::WIDTH)?;
    let activation = config.activation("hidden_act", "silu")?;
    let choice = Choice::with_norm_flag(config, "num_experts")?;
    let step = config.size("decoder_sparse_step", limits::LAYERS)?.unwrap_or(1);
    let dense = match config.get("mlp_only_layers") {
        None => Vec::new(),
        Some(value) => match value.as_array().map(|list| list.iter().map(|v| v.as_u64()).collect()) {
            Some(Some(layers)) => layers,
            _ => bail!(Input, "{}: `mlp_only_layers` must list whole numbers", config.name()),
        },
    };
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        if dense.contains(&(i as u64)) || (i + 1) % step != 0 {
            continue;
        }
        let module = format!("layers.{i}.mlp");
        let expert =
            |e: usize| gated_mlp(&format!("{module}.experts.{e}"), hidden_size, width, activation, false);
        let mut feed_forward = choice.feed_forward(&module, hidden_size, expert);
        change(&module, &mut feed_forward);
        layer.feed_forward.module = feed_forward;
    }
    Ok(())
}
