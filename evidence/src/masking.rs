//! Masks of the windows of a masked language model, as InvarLock 0.12 makes them.
//!
//! Which tokens are predicted depends on CPython's global random numbers: seeded with the dataset's seed, one number discarded, then one
//! number for each token that may be predicted, in order. A pass over all windows looks for equal ones, and a second pass gives the
//! windows that are measured. The verifier makes the masks again with the same code.

use crate::format::masking::{Masked, Masking};
use crate::numerics::NOT_PREDICTED;
use crate::numerics::python_random::PythonRandom;
use invarlock_error::{Result, bail};

/// The most random numbers that are drawn: a few passes over the largest dataset.
const MAX_DRAWS: u64 = 1 << 26;
/// The most tokens that are predicted, in all passes. Each needs a random number of its own seed, which takes microseconds.
const MAX_PREDICTED: u64 = 1 << 21;
/// Added to the seed for the random token that replaces a predicted one.
const REPLACEMENT_SEED: u64 = 17;

/// Masks windows, one after the other.
#[derive(Debug)]
pub struct Masker<'a> {
    settings: Masking,
    mask_token_id: u32,
    special: &'a [u32],
    vocab_size: u32,
    stream: PythonRandom,
    draws: u64,
    predicted: u64,
}

impl<'a> Masker<'a> {
    /// A masker at the start of the random numbers. `seed` is the dataset's; random tokens are below `vocab_size`.
    ///
    /// # Errors
    /// The settings are out of range, or there are no tokens.
    pub fn new(masked: &'a Masked, vocab_size: u64, seed: u64) -> Result<Self> {
        masked.settings.check()?;
        let Ok(vocab_size @ 1..) = u32::try_from(vocab_size) else {
            bail!(Input, "a vocabulary of {vocab_size} tokens");
        };
        let mut stream = PythonRandom::new(seed);
        stream.random();
        let Masked { settings, mask_token_id, special_token_ids, .. } = masked;
        let special = special_token_ids.as_slice();
        Ok(Self {
            settings: *settings,
            mask_token_id: *mask_token_id,
            special,
            vocab_size,
            stream,
            draws: 1,
            predicted: 0,
        })
    }

    /// Random numbers that were drawn.
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// Draws until `draws` numbers were drawn.
    ///
    /// # Errors
    /// They are too many, or more were drawn already.
    pub fn skip_to(&mut self, draws: u64) -> Result<()> {
        if !(self.draws..=MAX_DRAWS).contains(&draws) {
            bail!(
                Integrity,
                "{draws} random numbers before masking; {} to {MAX_DRAWS} are possible",
                self.draws
            );
        }
        while self.draws < draws {
            self.draw();
        }
        Ok(())
    }

    fn draw(&mut self) -> f64 {
        self.draws += 1;
        self.stream.random()
    }

    /// Masks the tokens of the window at `index` of the arm `arm`, without padding, and gives their labels: the tokens that are
    /// predicted, and [`NOT_PREDICTED`] elsewhere. No token is predicted of a window of special tokens.
    ///
    /// # Errors
    /// More than `MAX_DRAWS` random numbers are needed, or more than `MAX_PREDICTED` tokens are predicted.
    pub fn mask(&mut self, arm: &str, index: usize, tokens: &mut [u32]) -> Result<Vec<i64>> {
        let eligible = eligible(tokens, self.special);
        if self.draws + eligible.len() as u64 > MAX_DRAWS {
            bail!(Input, "masking needs more than {MAX_DRAWS} random numbers: too many windows are equal");
        }
        let mut chosen: Vec<usize> =
            eligible.iter().copied().filter(|_| self.draw() < self.settings.mask_prob).collect();
        if chosen.is_empty() {
            chosen.extend(eligible.get(eligible.len() / 2));
        }
        self.predicted += chosen.len() as u64;
        if self.predicted > MAX_PREDICTED {
            bail!(
                Input,
                "more than {MAX_PREDICTED} tokens are masked: use fewer windows, or a lower mask_prob"
            );
        }
        let mut labels = vec![NOT_PREDICTED; tokens.len()];
        for position in chosen {
            labels[position] = i64::from(tokens[position]);
            if let Some(token) = self.replacement(&format!("{arm}:{index}:{position}")) {
                tokens[position] = token;
            }
        }
        Ok(labels)
    }

    /// What replaces the predicted token at a place; none if it stays.
    fn replacement(&self, place: &str) -> Option<u32> {
        let Masking { seed, random_token_prob: random, original_token_prob: original, .. } = self.settings;
        let share = PythonRandom::new(seed_at(seed.into(), place)).random();
        if share < 1.0 - (random + original) {
            return Some(self.mask_token_id);
        }
        let other = u128::from(seed) + u128::from(REPLACEMENT_SEED);
        (share < 1.0 - original).then(|| PythonRandom::new(seed_at(other, place)).below(self.vocab_size))
    }
}

/// Positions of the tokens that may be predicted.
pub fn eligible(tokens: &[u32], special: &[u32]) -> Vec<usize> {
    (0..tokens.len()).filter(|position| special.binary_search(&tokens[*position]).is_err()).collect()
}

/// The seed of the random numbers at a place: 8 bytes of BLAKE2s, little-endian.
fn seed_at(seed: u128, place: &str) -> u64 {
    let digest = blake2s_simd::Params::new().hash_length(8).hash(format!("{seed}:{place}").as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(digest.as_bytes());
    u64::from_le_bytes(bytes)
}

/// The tokens of a window before it was masked.
///
/// # Errors
/// A label is no token.
pub fn original(tokens: &[u32], labels: &[i64]) -> Result<Vec<u32>> {
    let token = |(token, label): (&u32, &i64)| match *label {
        NOT_PREDICTED => Ok(*token),
        label => match u32::try_from(label) {
            Ok(label) => Ok(label),
            Err(_) => bail!(Integrity, "the label {label} is no token"),
        },
    };
    tokens.iter().zip(labels).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(settings: Masking) -> Masked {
        Masked { settings, mask_token_id: 4, special_token_ids: vec![0, 1, 2, 3, 4], draws_before: None }
    }

    #[test]
    fn seeds_of_places_are_upstreams() {
        assert_eq!(seed_at(42, "preview:0:5"), 17_872_303_526_579_716_721);
    }

    #[test]
    fn special_tokens_are_never_masked_and_one_token_always_is() {
        let settings = Masking { mask_prob: 1e-9, ..Masking::default() };
        let masked = masked(settings);
        let mut masker = Masker::new(&masked, 30, 43).expect("a masker");
        let mut tokens = [2, 7, 8, 9, 3];
        assert_eq!(masker.mask("final", 0, &mut tokens).expect("labels"), [-100, -100, 8, -100, -100]);
        assert_eq!(original(&tokens, &[-100, -100, 8, -100, -100]).expect("tokens"), [2, 7, 8, 9, 3]);
        assert_eq!(masker.draws(), 4);
        assert_eq!(masker.mask("final", 1, &mut [2, 3]).expect("labels"), [-100, -100]);
        assert_eq!(masker.draws(), 4);
    }

    #[test]
    fn shares_of_replacements_are_the_settings() {
        let count = |random, original| {
            let settings =
                Masking { mask_prob: 1.0, random_token_prob: random, original_token_prob: original, seed: 1 };
            let masked = masked(settings);
            let mut masker = Masker::new(&masked, 1_000_000, 0).expect("a masker");
            let mut tokens = vec![7; 3000];
            masker.mask("preview", 0, &mut tokens).expect("labels");
            let share = |token| tokens.iter().filter(|found| **found == token).count();
            (share(4), share(7))
        };
        let near = |found: usize, expected: usize| found.abs_diff(expected) < 150;
        assert_eq!(count(0.0, 0.0), (3000, 0));
        assert_eq!(count(0.0, 1.0), (0, 3000));
        let (masks, originals) = count(0.5, 0.2);
        assert!(near(masks, 900) && near(originals, 600), "{masks} {originals}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |settings: Masking| settings.check().expect_err("out of range").to_string();
        let default = Masking::default();
        assert!(refused(Masking { mask_prob: 0.0, ..default }).contains("eval.loss.mask_prob is 0"));
        assert!(refused(Masking { mask_prob: f64::NAN, ..default }).contains("mask_prob"));
        assert!(refused(Masking { random_token_prob: 1.5, ..default }).contains("random_token_prob is 1.5"));
        assert!(
            refused(Masking { random_token_prob: 0.6, original_token_prob: 0.6, ..default })
                .contains("above 1")
        );
        let masked = masked(default);
        let mut masker = Masker::new(&masked, 9, 0).expect("a masker");
        assert!(masker.skip_to(MAX_DRAWS + 1).is_err() && masker.skip_to(0).is_err());
        masker.predicted = MAX_PREDICTED;
        assert!(masker.mask("final", 0, &mut [7]).expect_err("too many").to_string().contains("are masked"));
    }
}
