//! Rotary frequencies from a configuration: RoPE types default, linear, dynamic, llama3, yarn and longrope, as transformers 5 defines them.

use std::f64::consts::PI;

use crate::checkpoint::Config;
use crate::limits;
use crate::math::rotary::Frequencies;
use invarlock_error::{Error, Result, bail};

/// What a family says about its rotary positions.
#[derive(Debug, Clone, Copy)]
pub struct Rope<'c> {
    /// Elements of a head.
    pub head_dim: usize,
    /// `rope_theta` where the configuration lacks it.
    pub theta: f64,
    /// `partial_rotary_factor` where the configuration lacks it.
    pub partial: f64,
    /// Tokens of a padded window. Dynamic and longrope frequencies depend on it.
    pub seq_len: usize,
    /// The kind of layer, where each kind has parameters of its own.
    pub layer_type: Option<&'c str>,
    /// Whether the type `mrope`, positions in time, height and width, is the default: for text they are equal.
    pub mrope: bool,
}

impl Rope<'_> {
    /// Heads of `head_dim` elements, rotated as a whole, with a base of 10,000.
    pub fn new(head_dim: usize, seq_len: usize) -> Self {
        Self { head_dim, theta: 10_000.0, partial: 1.0, seq_len, layer_type: None, mrope: false }
    }

    /// The frequencies of the default type with this base.
    pub fn with_theta(self, theta: f64) -> Frequencies {
        frequencies(theta, self.head_dim, |_, base| 1.0 / base, 1.0)
    }

    /// Reads the frequencies.
    pub fn read(self, config: &Config) -> Result<Frequencies> {
        let parameters = self.parameters(config)?;
        let theta = match parameters.as_ref().map(|p| p.positive_or_none("rope_theta")).transpose()?.flatten()
        {
            Some(theta) => theta,
            None => config.positive("rope_theta", self.theta)?,
        };
        let kind = match parameters.as_ref().map(rope_type).transpose()? {
            Some("mrope") if self.mrope => "default",
            kind => kind.unwrap_or("default"),
        };
        let dim = self.rotated(config, parameters.as_ref())?;
        let input = Input { config, theta, dim, seq_len: self.seq_len };
        let Some(parameters) = parameters.as_ref().filter(|_| kind != "default") else {
            return Ok(input.frequencies(|_, base| 1.0 / base, 1.0));
        };
        match KINDS.iter().find(|(name, _)| *name == kind) {
            Some((_, scaled)) => scaled(&input, parameters),
            None => {
                let supported: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
                bail!(
                    Unsupported,
                    "{}: RoPE type {kind:?} is not supported; supported: default, {}",
                    config.name(),
                    supported.join(", ")
                )
            }
        }
    }

    /// `rope_scaling`, or else `rope_parameters`, of these layers.
    fn parameters(&self, config: &Config) -> Result<Option<Config>> {
        let scaling = config.object("rope_scaling")?;
        let Some(parameters) = scaling.or(config.object("rope_parameters")?) else { return Ok(None) };
        let nested = parameters.keys().any(|key| key.ends_with("_attention"));
        match self.layer_type.filter(|_| nested) {
            Some(layer_type) => parameters.object(layer_type),
            None if nested => bail!(
                Unsupported,
                "{}: `{}` that differ by layer are not supported for this model_type",
                config.name(),
                parameters.member("").trim_end_matches('.')
            ),
            None => Ok(Some(parameters)),
        }
    }

    /// Elements of a head that are rotated.
    fn rotated(&self, config: &Config, parameters: Option<&Config>) -> Result<usize> {
        let key = "partial_rotary_factor";
        let partial = match parameters.map(|p| p.positive_or_none(key)).transpose()?.flatten() {
            Some(partial) => partial,
            None => config.positive(key, self.partial)?,
        };
        let dim = (self.head_dim as f64 * partial) as usize;
        if partial > 1.0 || dim < 2 || !dim.is_multiple_of(2) {
            bail!(
                Input,
                "{}: {dim} of the {} elements of a head are rotated; the number must be even and at least 2",
                config.name(),
                self.head_dim
            );
        }
        Ok(dim)
    }
}

/// The type in a set of parameters, which must name one unless it contains nothing else.
fn rope_type(parameters: &Config) -> Result<&str> {
    match parameters.text("rope_type")?.map_or_else(|| parameters.text("type"), |kind| Ok(Some(kind)))? {
        // Phi-3 checkpoints have both older names of longrope.
        Some("su") => Ok("longrope"),
        Some(kind) => Ok(kind),
        None if parameters.contains("factor") => Err(Error::input(format!(
            "{}: `{}` is missing",
            parameters.name(),
            parameters.member("rope_type")
        ))),
        None => Ok("default"),
    }
}

/// What every type needs.
struct Input<'c> {
    config: &'c Config,
    theta: f64,
    /// Elements that are rotated.
    dim: usize,
    seq_len: usize,
}

/// The frequency of each pair of `dim` elements: a function of its index and of theta^(2i/dim), the inverse of its unscaled frequency.
fn frequencies(theta: f64, dim: usize, frequency: impl Fn(usize, f64) -> f64, factor: f64) -> Frequencies {
    let base = |i: usize| theta.powf(2.0 * i as f64 / dim as f64);
    let inverse = (0..dim / 2).map(|i| frequency(i, base(i)) as f32).collect();
    Frequencies { inverse, factor: factor as f32 }
}

type Scaled = fn(&Input<'_>, &Config) -> Result<Frequencies>;

/// Types besides the default.
const KINDS: [(&str, Scaled); 5] =
    [("linear", linear), ("dynamic", dynamic), ("llama3", llama3), ("yarn", yarn), ("longrope", longrope)];

impl Input<'_> {
    fn frequencies(&self, frequency: impl Fn(usize, f64) -> f64, factor: f64) -> Frequencies {
        frequencies(self.theta, self.dim, frequency, factor)
    }

    fn max_positions(&self) -> Result<f64> {
        Ok(self.config.required_size("max_position_embeddings", limits::POSITIONS)? as f64)
    }

    /// Positions of the model before it was extended. The member beside the parameters wins, as Phi-3 has it there.
    fn original_positions(&self, parameters: &Config) -> Result<f64> {
        let key = "original_max_position_embeddings";
        for config in [self.config, parameters] {
            if let Some(n) = config.size(key, limits::POSITIONS)? {
                return Ok(n as f64);
            }
        }
        self.max_positions()
    }

    /// `factor`, by default the ratio of the positions.
    fn factor(&self, parameters: &Config, original: f64) -> Result<f64> {
        match parameters.positive_or_none("factor")? {
            Some(factor) => Ok(factor),
            None => Ok(self.max_positions()? / original),
        }
    }
}

fn linear(input: &Input<'_>, parameters: &Config) -> Result<Frequencies> {
    let factor = parameters.required_positive("factor")?;
    Ok(input.frequencies(|_, base| 1.0 / base / factor, 1.0))
}

/// NTK scaling: the base grows with the window beyond the positions of the model.
fn dynamic(input: &Input<'_>, parameters: &Config) -> Result<Frequencies> {
    let factor = parameters.required_positive("factor")?;
    let max_positions = input.max_positions()?;
    let dim = input.dim as f64;
    let growth = factor * (input.seq_len as f64).max(max_positions) / max_positions - (factor - 1.0);
    let theta = match growth {
        // The exponent is infinite for two elements, and nothing grows within the positions of the model.
        1.0 => input.theta,
        growth => input.theta * growth.powf(dim / (dim - 2.0)),
    };
    Ok(Input { theta, ..*input }.frequencies(|_, base| 1.0 / base, 1.0))
}

/// Llama 3.1: low frequencies are divided, high ones stay, those between are interpolated.
fn llama3(input: &Input<'_>, parameters: &Config) -> Result<Frequencies> {
    let factor = parameters.required_positive("factor")?;
    let low = parameters.required_positive("low_freq_factor")?;
    let high = parameters.required_positive("high_freq_factor")?;
    let original = input.original_positions(parameters)?;
    if low >= high {
        bail!(
            Input,
            "{}: `{}` {low} must be less than `{}` {high}",
            parameters.name(),
            parameters.member("low_freq_factor"),
            parameters.member("high_freq_factor")
        );
    }
    let scaled = |_: usize, base: f64| {
        let frequency = 1.0 / base;
        let turns = original * frequency / (2.0 * PI);
        let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 - share) * frequency / factor + share * frequency
    };
    Ok(input.frequencies(scaled, 1.0))
}

/// YaRN (arXiv 2309.00071): frequencies with few turns in the original positions are divided, those with many stay.
fn yarn(input: &Input<'_>, parameters: &Config) -> Result<Frequencies> {
    let original = input.original_positions(parameters)?;
    let factor = input.factor(parameters, original)?;
    let attention_factor = match parameters.positive_or_none("attention_factor")? {
        Some(factor) => factor,
        None => {
            let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
            let of = |key: &str| parameters.get(key).and_then(|v| v.as_f64()).filter(|v| *v != 0.0);
            match (of("mscale"), of("mscale_all_dim")) {
                (Some(mscale), Some(all)) => scale(mscale) / scale(all),
                _ => scale(1.0),
            }
        }
    };
    let beta_fast = parameters.positive("beta_fast", 32.0)?;
    let beta_slow = parameters.positive("beta_slow", 1.0)?;
    let truncate = parameters.flag("truncate", true)?;
    // The pair that turns `turns` times within the original positions.
    let pair =
        |turns: f64| input.dim as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * input.theta.ln());
    let (low, high) = (pair(beta_fast), pair(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, mut high) = (low.max(0.0), high.min(input.dim as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let scaled = |i: usize, base: f64| {
        let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        divided / (factor * base) + (1.0 - divided) / base
    };
    Ok(input.frequencies(scaled, attention_factor))
}

/// LongRoPE: each pair has a divisor of its own, one for windows within the original positions and one for longer ones.
fn longrope(input: &Input<'_>, parameters: &Config) -> Result<Frequencies> {
    let original = input.original_positions(parameters)?;
    let factor = input.factor(parameters, original)?;
    let attention_factor = match parameters.positive_or_none("attention_factor")? {
        Some(factor) => factor,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    let key = if input.seq_len as f64 > original { "long_factor" } else { "short_factor" };
    let divisors = parameters.positive_list(key, input.dim / 2)?;
    Ok(input.frequencies(|i, base| 1.0 / (divisors[i] * base), attention_factor))
}
