//! How the tokens that a masked language model predicts are chosen and hidden.

use invarlock_error::{Result, bail};
use serde::{Deserialize, Serialize};

/// The settings of masking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Masking {
    /// Probability that a token is predicted, above 0 and up to 1.
    pub mask_prob: f64,
    /// Seed of what replaces the predicted tokens. Which tokens are predicted follows from the dataset's seed.
    pub seed: u64,
    /// Share of the predicted tokens that a random token replaces.
    pub random_token_prob: f64,
    /// Share of the predicted tokens that stay as they are. The mask token replaces the rest.
    pub original_token_prob: f64,
}

/// The settings of InvarLock 0.12, which are those of BERT's training.
impl Default for Masking {
    fn default() -> Self {
        Self { mask_prob: 0.15, seed: 42, random_token_prob: 0.1, original_token_prob: 0.1 }
    }
}

impl Masking {
    /// Fails where a probability is not one.
    ///
    /// # Errors
    /// The setting that is out of range, by its name in a preset.
    pub fn check(&self) -> Result<()> {
        let Self { mask_prob, random_token_prob: random, original_token_prob: original, .. } = *self;
        if !(mask_prob > 0.0 && mask_prob <= 1.0) {
            bail!(Input, "eval.loss.mask_prob is {mask_prob}; use a number above 0 and up to 1");
        }
        for (name, share) in [("random_token_prob", random), ("original_token_prob", original)] {
            if !(0.0..=1.0).contains(&share) {
                bail!(Input, "eval.loss.{name} is {share}; use a number from 0 to 1");
            }
        }
        if random + original > 1.0 {
            bail!(
                Input,
                "eval.loss.random_token_prob {random} and eval.loss.original_token_prob {original} are together above 1"
            );
        }
        Ok(())
    }
}

/// How the windows of a run were masked. With the windows and their labels, the masks follow from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Masked {
    /// The settings.
    pub settings: Masking,
    /// The token that hides a predicted one.
    pub mask_token_id: u32,
    /// Tokens that are never predicted, ascending.
    pub special_token_ids: Vec<u32>,
    /// Random numbers that were drawn before the measured windows were masked. Absent for a subject, which replays the masks of its
    /// baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draws_before: Option<u64>,
}
