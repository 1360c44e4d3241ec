//! Whether the windows of a run suffice for its profile and tier. This is known before anything is measured.

use super::derive;
use crate::policy::{MIN_EXAMPLES, MIN_TOKENS_TOLERANCE, Profile, Tier, token_floor};
use invarlock_error::{Error, bail};

/// The windows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Windows of the preview arm; of an accuracy, examples.
    pub preview: usize,
    /// Windows of the final arm; of an accuracy, examples.
    pub final_: usize,
    /// Tokens of both arms, without padding; none of an accuracy, which needs examples instead.
    pub tokens: Option<u64>,
}

impl Sample {
    /// Fails where no measurement of these windows could be compared, or could pass the gates of the profile.
    pub fn check(&self, profile: Profile, tier: Tier) -> Result<(), Error> {
        let (Sample { preview, final_, .. }, noun) = (*self, self.noun());
        if preview != final_ {
            bail!(
                Input,
                "the preview arm has {preview} {noun}s and the final arm {final_}; both need the same number"
            );
        }
        if final_ < 2 {
            bail!(Input, "the final arm has one {noun}; an interval needs two or more");
        }
        self.check_coverage(profile, tier)?;
        match self.tokens {
            _ if !profile.gated() => Ok(()),
            Some(tokens) => self.check_tokens(tokens, profile, tier),
            None if final_ >= MIN_EXAMPLES => Ok(()),
            None => Err(Error::input(format!(
                "the final arm has {final_} examples; profile {profile} needs {MIN_EXAMPLES} for an accuracy"
            ))
            .with_hint("use a larger dataset")),
        }
    }

    fn noun(&self) -> &'static str {
        if self.tokens.is_some() { "window" } else { "example" }
    }

    fn check_tokens(&self, tokens: u64, profile: Profile, tier: Tier) -> Result<(), Error> {
        let Sample { preview, final_, .. } = *self;
        if derive::enough_tokens(tier, tokens, preview, final_) {
            return Ok(());
        }
        let floor = |tier: Tier| token_floor(tier.min_tokens() as f64, MIN_TOKENS_TOLERANCE, true);
        let error = Error::input(format!(
            "the {preview} + {final_} windows have {tokens} tokens; profile {profile} and tier {tier} need {}",
            floor(tier)
        ));
        Err(error.with_hint("use a dataset with longer rows, or raise `seq_len`; a row gives one window of at most `seq_len` tokens"))
    }

    /// A gated profile needs the windows of the tier. It has the replicates: [`replicates`].
    pub(super) fn check_coverage(&self, profile: Profile, tier: Tier) -> Result<(), Error> {
        let floor = tier.coverage();
        let Sample { preview, final_, .. } = *self;
        let enough = preview >= floor.preview && final_ >= floor.final_;
        if enough || !profile.gated() {
            return Ok(());
        }
        Err(Error::input(format!(
            "profile {profile} and tier {tier} need {} preview and {} final {}s; the dataset gives {preview} and \
             {final_} without duplicates (upstream's code E005)",
            floor.preview,
            floor.final_,
            self.noun()
        ))
        .with_hint("use a larger dataset"))
    }
}

/// Bootstrap replicates of a profile and tier.
pub(super) fn replicates(profile: Profile, tier: Tier) -> usize {
    let least = if profile.gated() { tier.coverage().replicates } else { 0 };
    profile.replicates().max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(preview: usize, final_: usize, tokens: u64, profile: Profile) -> Result<(), String> {
        let sample = Sample { preview, final_, tokens: Some(tokens) };
        sample.check(profile, Tier::Balanced).map_err(|error| error.to_string())
    }

    #[test]
    fn too_few_tokens_are_named_with_their_floor() {
        assert_eq!(check(240, 240, 49_000, Profile::Ci), Ok(()));
        let error = check(240, 240, 41_185, Profile::Ci).expect_err("too few tokens");
        assert!(error.contains("41185 tokens") && error.contains("49000"), "{error}");
        assert_eq!(check(4, 4, 100, Profile::Dev), Ok(()));
    }

    #[test]
    fn an_accuracy_needs_examples_instead_of_tokens() {
        let check = |examples, profile| {
            let sample = Sample { preview: examples, final_: examples, tokens: None };
            sample.check(profile, Tier::Balanced).map_err(|error| error.to_string())
        };
        assert_eq!((check(200, Profile::Ci), check(2, Profile::Dev)), (Ok(()), Ok(())));
        let error = check(190, Profile::Ci).expect_err("too few examples");
        assert!(error.contains("190 examples") && error.contains("needs 200"), "{error}");
        let error = check(100, Profile::Ci).expect_err("too few examples");
        assert!(error.contains("180 final examples"), "{error}");
    }

    #[test]
    fn arms_that_cannot_be_compared_are_refused() {
        assert!(check(3, 4, 100, Profile::Dev).is_err());
        assert!(check(1, 1, 100, Profile::Dev).is_err());
        assert!(check(100, 100, 60_000, Profile::Ci).expect_err("too few windows").contains("E005"));
    }
}
