//! Mixtures of experts.

use crate::checkpoint::Config;
use crate::limits;
use crate::model::spec::{ExpertWeights, Experts, FeedForward, Linear, Mlp};
use invarlock_error::{Result, bail};

/// How many experts there are, and which of them a token gets.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub count: usize,
    pub top_k: usize,
    pub weights: ExpertWeights,
}

impl Choice {
    /// The number of experts is in the member `count`, that of a token's experts in `num_experts_per_tok`.
    pub fn read(config: &Config, count: &str, weights: ExpertWeights) -> Result<Self> {
        let experts = config.required_size(count, limits::EXPERTS)?;
        let top_k = config.required_size("num_experts_per_tok", limits::EXPERTS)?;
        let layers = config.required_size("num_hidden_layers", limits::LAYERS)?;
        if layers * experts > limits::ALL_EXPERTS {
            bail!(
                Input,
                "{}: {layers} layers of {experts} experts; supported: {} experts in all",
                config.name(),
                limits::ALL_EXPERTS
            );
        }
        if top_k > experts {
            bail!(Input, "{}: `num_experts_per_tok` {top_k} is more than `{count}` {experts}", config.name());
        }
        Ok(Self { count: experts, top_k, weights })
    }

    /// The same, with `norm_topk_prob` for the weights.
    pub fn with_norm_flag(config: &Config, count: &str) -> Result<Self> {
        let weights = match config.flag("norm_topk_prob", false)? {
            true => ExpertWeights::SoftmaxNormalised,
            false => ExpertWeights::Softmax,
        };
        Self::read(config, count, weights)
    }

    /// A module with the router `gate` and these experts.
    pub fn feed_forward(
        self,
        module: &str,
        hidden_size: usize,
        expert: impl Fn(usize) -> Mlp,
    ) -> FeedForward {
        FeedForward::Experts(Box::new(Experts {
            router: Linear::new(&format!("{module}.gate"), hidden_size, self.count, false),
            top_k: self.top_k,
            weights: self.weights,
            experts: (0..self.count).map(expert).collect(),
            shared: None,
        }))
    }
}
