//! The metric that the user names: by option, or by metric or loss of a preset. All places must agree.

use crate::error::{Error, Result};
use invarlock_evidence::format::metrics::{self, Metric, MetricKind};

/// A metric, and the place that names it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice(Option<(String, MetricKind)>);

impl Choice {
    /// The metric; none where the models decide.
    pub fn kind(&self) -> Option<MetricKind> {
        self.0.as_ref().map(|(_, kind)| *kind)
    }

    /// Takes the value of a place that names a metric.
    pub fn metric(&mut self, place: &str, value: &str) -> Result<()> {
        self.add(place, value, |metric| metric.name, "metric")
    }

    /// Takes the value of a place that names a kind of loss.
    pub fn loss(&mut self, place: &str, value: &str) -> Result<()> {
        self.add(place, value, |metric| metric.loss_type(), "loss")
    }

    /// Takes the metric that a setting of another kind implies.
    pub fn implied(&mut self, place: &str, kind: MetricKind) -> Result<()> {
        self.merge(Self(Some((place.to_owned(), kind))))
    }

    fn add(
        &mut self,
        place: &str,
        value: &str,
        name: impl Fn(&Metric) -> &'static str,
        what: &str,
    ) -> Result<()> {
        if value == "auto" {
            return Ok(());
        }
        let Some(metric) = metrics::TABLE.iter().find(|metric| name(metric) == value) else {
            let known: Vec<&str> = metrics::TABLE.iter().map(&name).collect();
            let message = format!(
                "{place} {value}: this {what} is not supported; supported: auto, {}",
                known.join(", ")
            );
            return Err(Error::unsupported(message).with_hint(format!("use {place} auto")));
        };
        self.merge(Self(Some((format!("{place} {value}"), metric.kind))))
    }

    /// Takes what another choice names.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        match (&self.0, other.0) {
            (Some((one, kind)), Some((place, named))) if *kind != named => {
                Err(Error::input(format!("{place} contradicts {one}: they are different metrics"))
                    .with_hint("name the metric once, or leave it to the checkpoints"))
            }
            (Some(_), _) => Ok(()),
            (None, named) => {
                self.0 = named;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn places_that_agree_are_accepted() {
        let mut choice = Choice::default();
        choice.metric("--metric", "auto").unwrap();
        assert_eq!(choice.kind(), None);
        choice.loss("eval.loss.type", "mlm").unwrap();
        choice.metric("eval.metric.kind", "ppl_mlm").unwrap();
        assert_eq!(choice.kind(), Some(MetricKind::PplMlm));
        let error = choice.metric("--metric", "ppl_causal").unwrap_err();
        assert!(error.message().contains("--metric ppl_causal contradicts eval.loss.type mlm"), "{error}");
    }

    #[test]
    fn others_are_refused_by_name() {
        let error = Choice::default().metric("--metric", "bleu").unwrap_err();
        assert!(
            error.message().contains("--metric bleu") && error.message().contains("ppl_seq2seq"),
            "{error}"
        );
    }
}
