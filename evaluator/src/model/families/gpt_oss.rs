//! GPT-OSS.

use super::common::{sliding_window, windows};
use super::experts::Choice;
use super::llama::{self, Biases, Defaults, Sizes};
use crate::checkpoint::Config;
use crate::model::matrix::Layout;
use crate::model::profile::Profile;
use crate::model::spec::{ExpertWeights, FeedForward, Gating, Linear, Mlp, Transformer};
use invarlock_error::Result;

/// `sliding_window` where the configuration lacks it.
const DEFAULT_WINDOW: usize = 128;

/// Experts in every layer, stored together, with limited activations; a sink for each head; every other layer has a window.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let bias = config.flag("attention_bias", true)?;
    let defaults = Defaults {
        profile: Profile::GptOss,
        epsilon: ("rms_norm_eps", 1e-5),
        head_dim: Some(64),
        theta: 150_000.0,
        bias: Biases { qkv: bias, output: bias, mlp: false },
        ..Defaults::default()
    };
    let mut decoder = llama::decoder(config, seq_len, &defaults)?;
    let window = sliding_window(config, Some(DEFAULT_WINDOW))?;
    decoder.set_windows(windows(config, decoder.layers.len(), window, |i| i % 2 == 0)?);

    let Sizes { hidden_size, intermediate_size: width, .. } = Sizes::read(config, &defaults)?;
    let choice = Choice::read(config, "num_local_experts", ExpertWeights::SoftmaxOfChosen)?;
    let gating = Gating::Alternating {
        alpha: config.positive("swiglu_alpha", 1.702)? as f32,
        limit: config.positive("swiglu_limit", 7.0)? as f32,
    };
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        layer.attention.module.sinks = Some(format!("layers.{i}.self_attn.sinks"));
        let module = format!("layers.{i}.mlp");
        let stacked = |name: &str, inputs, outputs, expert| Linear {
            weight: format!("{module}.experts.{name}"),
            bias: Some(format!("{module}.experts.{name}_bias")),
            inputs,
            outputs,
            layout: Layout::InOut,
            slice: Some((expert, choice.count)),
        };
        let expert = |e: usize| Mlp {
            input: vec![stacked("gate_up_proj", hidden_size, 2 * width, e)],
            gating,
            output: stacked("down_proj", width, hidden_size, e),
        };
        let mut feed_forward = choice.feed_forward(&module, hidden_size, expert);
        if let FeedForward::Experts(experts) = &mut feed_forward {
            experts.router = Linear::new(&format!("{module}.router"), hidden_size, choice.count, true);
        }
        layer.feed_forward.module = feed_forward;
    }
    Ok(decoder)
}
