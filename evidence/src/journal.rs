//! The losses of an interrupted measurement (`/in/journal.json`), from which the next one of the same plan resumes.
//!
//! They reach the launcher as events ([`Event::Losses`](crate::events::Event::Losses)) and the evaluator as this document. Both are untrusted when read.

use crate::events::{ArmName, Finished};
use invarlock_error::{Result, bail};
use serde::{Deserialize, Serialize};

/// Most losses in one event: a line of progress has at most half a MiB.
pub const EVENT_LOSSES: usize = 16_384;

/// Longest version of an evaluator and longest name of a kernel, bytes.
const NAME: usize = 1024;

/// The losses of the first windows of each arm, nats a predicted token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// Version of the evaluator that measured them.
    pub evaluator: String,
    /// Its matrix kernel: another one rounds differently.
    pub kernel: String,
    /// Losses of the first preview windows.
    pub preview: Vec<f64>,
    /// Losses of the first final windows.
    #[serde(rename = "final")]
    pub final_: Vec<f64>,
}

impl Journal {
    /// Whether it has no loss.
    pub fn is_empty(&self) -> bool {
        self.windows() == 0
    }

    /// Number of losses of both arms.
    pub fn windows(&self) -> usize {
        self.preview.len() + self.final_.len()
    }

    /// Appends finished windows of an arm that has at most `most` windows.
    ///
    /// # Errors
    /// They do not follow the last ones, are too many, or were measured by another evaluator. Nothing is appended then.
    pub fn append(&mut self, finished: &Finished, most: usize) -> Result<()> {
        let Finished { arm, first, losses, evaluator, kernel } = finished;
        if !self.is_empty() && (&self.evaluator, &self.kernel) != (evaluator, kernel) {
            bail!(Integrity, "the losses are of different evaluators or matrix kernels");
        }
        let known = match arm {
            ArmName::Preview => &mut self.preview,
            ArmName::Final => &mut self.final_,
        };
        if losses.is_empty() || *first != known.len() || losses.len() > most.saturating_sub(*first) {
            bail!(
                Integrity,
                "{} losses from window {first} do not follow {} of {most} windows",
                losses.len(),
                known.len()
            );
        }
        if evaluator.len().max(kernel.len()) > NAME {
            bail!(Integrity, "the name of the evaluator or its kernel is longer than {NAME} bytes");
        }
        if let Some(loss) = losses.iter().find(|loss| !loss.is_finite()) {
            bail!(Integrity, "a loss is {loss}");
        }
        known.extend(losses);
        (self.evaluator, self.kernel) = (evaluator.clone(), kernel.clone());
        Ok(())
    }

    /// The document. Its digest is recorded, so it is written in one way only.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Text and finite numbers: never an error.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(arm: ArmName, first: usize, losses: &[f64]) -> Finished {
        Finished { arm, first, losses: losses.to_vec(), evaluator: "1.0.0".into(), kernel: "avx2".into() }
    }

    #[test]
    fn losses_follow_each_other_and_keep_their_bits() {
        let mut journal = Journal::default();
        let losses = [0.1 + 0.2, f64::from_bits(0x4010_0000_0000_0001), 5e-324, -0.0];
        journal.append(&finished(ArmName::Final, 0, &losses[..1]), 4).expect("the first window");
        journal.append(&finished(ArmName::Final, 1, &losses[1..]), 4).expect("the next windows");
        journal.append(&finished(ArmName::Preview, 0, &[2.5]), 4).expect("another arm");
        let read: Journal = serde_json::from_slice(&journal.to_bytes()).expect("valid");
        let bits = |losses: &[f64]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
        assert_eq!((read.windows(), bits(&read.final_)), (5, bits(&losses)));
    }

    #[test]
    fn other_losses_are_refused_and_not_appended() {
        let mut journal = Journal::default();
        journal.append(&finished(ArmName::Preview, 0, &[1.0, 2.0]), 3).expect("appended");
        let kept = journal.clone();
        let other = Finished { kernel: "scalar".into(), ..finished(ArmName::Preview, 2, &[1.0]) };
        for wrong in [
            finished(ArmName::Preview, 1, &[1.0]),
            finished(ArmName::Preview, 3, &[1.0]),
            finished(ArmName::Preview, 2, &[1.0, 1.0]),
            finished(ArmName::Preview, 2, &[]),
            finished(ArmName::Preview, usize::MAX, &[1.0]),
            finished(ArmName::Preview, 2, &[f64::NAN]),
            finished(ArmName::Preview, 2, &[f64::INFINITY]),
            other,
        ] {
            journal.append(&wrong, 3).expect_err("refused");
            assert_eq!(journal, kept);
        }
    }
}
