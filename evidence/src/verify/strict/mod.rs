//! Our own checks: everything that follows from raw losses is computed again, and thresholds come from the tables of
//! [`crate::policy`], not from the report (`spec/verify.md` section 8 lists what upstream leaves open).

mod gates;
mod pairing;
mod policies;
mod windows;

use super::VerifyOptions;
use crate::compare::GENERATOR;
use crate::numerics::stats::weighted_mean;
use crate::run_report::RunReport;
use serde_json::{Value, json};

/// Work a report may ask of its verifier: windows of one arm times bootstrap replicates.
const MAX_DRAWS: usize = 200_000_000;

/// What the strict checks find.
#[derive(Default)]
pub(super) struct Found {
    /// Values that contradict each other or their recomputation.
    pub(super) mismatches: Vec<String>,
    /// Gates that the subject fails, by recomputed numbers.
    pub(super) gates: Vec<String>,
    /// Policies that are looser than the tables, and evidence that is missing.
    pub(super) failures: Vec<String>,
    pub(super) recomputed: Vec<String>,
    pub(super) not_recomputed: Vec<String>,
}

/// Losses and weights of one arm.
#[derive(Debug, Clone, PartialEq)]
struct Arm {
    ids: Vec<u64>,
    losses: Vec<f64>,
    counts: Vec<u64>,
}

impl Arm {
    fn read(value: &Value, place: &str) -> Result<Self, String> {
        let list = |name: &str| {
            value[name].as_array().ok_or_else(|| format!("{place}.{name} is missing or no list"))
        };
        let whole = |name: &str| -> Result<Vec<u64>, String> {
            let bad = |i: usize| format!("{place}.{name}[{i}] is no whole number below 2^32");
            let below = |value: &Value| value.as_u64().filter(|number| *number < 1 << 32);
            list(name)?.iter().enumerate().map(|(i, value)| below(value).ok_or_else(|| bad(i))).collect()
        };
        let losses = list("logloss")?
            .iter()
            .enumerate()
            .map(|(i, value)| value.as_f64().ok_or_else(|| format!("{place}.logloss[{i}] is no number")))
            .collect::<Result<Vec<f64>, String>>()?;
        let arm = Arm { ids: whole("window_ids")?, losses, counts: whole("token_counts")? };
        if arm.ids.is_empty() || arm.ids.len() != arm.losses.len() || arm.ids.len() != arm.counts.len() {
            return Err(format!(
                "{place} has {} window_ids, {} losses and {} token_counts; they must be equally many and not none",
                arm.ids.len(),
                arm.losses.len(),
                arm.counts.len()
            ));
        }
        Ok(arm)
    }

    fn of(arm: &crate::run_report::WindowArm) -> Self {
        Arm { ids: arm.window_ids.clone(), losses: arm.logloss.clone(), counts: arm.token_counts.clone() }
    }

    fn mean(&self) -> Option<f64> {
        weighted_mean(&self.losses, &self.counts)
    }

    fn tokens(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

struct Check<'a> {
    report: &'a Value,
    options: &'a VerifyOptions,
    /// Whether the report says that this crate made it; it must then have all that this crate writes.
    ours: bool,
    found: Found,
}

/// Whether the report says that this crate made it.
pub(super) fn is_ours(report: &Value) -> bool {
    report["report_build"]["generator"]["name"] == json!(GENERATOR)
}

/// Runs all checks. `baseline` is the run report given with `--baseline`, with the SHA-256 of its bytes.
pub(super) fn check(report: &Value, options: &VerifyOptions, baseline: Option<(&RunReport, &str)>) -> Found {
    let mut check = Check { report, options, ours: is_ours(report), found: Found::default() };
    let tier = check.tier();
    check.policies(tier);
    if report["primary_metric"]["kind"] != json!("ppl_causal") {
        let kind = report["primary_metric"]["kind"].as_str().unwrap_or_default();
        check.not(format!("primary_metric of kind {kind}: only ppl_causal is computed again"));
        check.gates(tier, None);
        return check.found;
    }
    check.metric(tier, baseline);
    check.found
}

impl Check<'_> {
    fn mismatch(&mut self, text: String) {
        self.found.mismatches.push(text);
    }

    fn fail(&mut self, text: String) {
        self.found.failures.push(text);
    }

    fn gate(&mut self, text: String) {
        self.found.gates.push(text);
    }

    fn not(&mut self, text: String) {
        self.found.not_recomputed.push(text);
    }

    fn yes(&mut self, text: impl Into<String>) {
        self.found.recomputed.push(text.into());
    }

    fn gated(&self) -> bool {
        self.options.profile.gated()
    }

    /// A recorded number against the recomputed one.
    fn number(&mut self, place: &str, recorded: &Value, computed: f64) {
        let tolerance = self.options.tolerance.max(1e-12) * computed.abs().max(1.0);
        match recorded.as_f64() {
            Some(value) if (value - computed).abs() <= tolerance => {}
            Some(value) => {
                self.mismatch(format!("{place} mismatch: recorded {value}, its raw values give {computed}"))
            }
            None => {
                self.mismatch(format!("{place} mismatch: it is not recorded, its raw values give {computed}"))
            }
        }
    }

    /// A recorded value against what it must be.
    fn same(&mut self, place: &str, recorded: &Value, computed: &Value) {
        let equal_numbers = recorded.as_f64().zip(computed.as_f64()).is_some_and(|(one, other)| one == other);
        if recorded != computed && !equal_numbers {
            self.mismatch(format!("{place} mismatch: recorded {recorded}, it must be {computed}"));
        }
    }

    /// Every leaf of `computed` must be in `recorded`.
    fn alike(&mut self, place: &str, recorded: &Value, computed: &Value) {
        match computed {
            Value::Object(members) => {
                for (name, member) in members {
                    self.alike(&format!("{place}.{name}"), &recorded[name], member);
                }
            }
            Value::Array(members)
                if recorded.as_array().is_some_and(|array| array.len() == members.len()) =>
            {
                for (i, member) in members.iter().enumerate() {
                    self.alike(&format!("{place}[{i}]"), &recorded[i], member);
                }
            }
            Value::Number(number) if number.is_f64() => {
                self.number(place, recorded, number.as_f64().unwrap_or(f64::NAN));
            }
            _ => self.same(place, recorded, computed),
        }
    }
}
