//! Calibration: limits of the guards that follow from many runs of a model that is known to be good.
//!
//! The formulas are those of `advanced calibrate` of InvarLock 0.8 to 0.12, for their guards, and simple bounds for the guards that
//! compare with the baseline. Everything here is arithmetic on what reports say; nothing is measured or read.

pub mod null_sweep;
pub mod tables;
pub mod tiers_patch;
pub mod ve_sweep;

use serde::Serialize;
use serde_json::{Map, Value};

/// What a sweep was asked to do, as its report states it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct SweepConfig {
    /// The configuration, as the user named it.
    pub base_config: String,
    /// Name of the profile.
    pub profile: String,
    /// Names of the tiers, sorted.
    pub tiers: Vec<String>,
    /// Windows on which the variance guard tries factors, for a sweep of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<u64>>,
    /// Runs of all tiers.
    pub n_runs: usize,
}

/// A number with three decimals, rounded as Python's `round` does: half to even, from the exact value.
fn three_decimals(number: f64) -> f64 {
    format!("{number:.3}").parse().unwrap_or(number)
}

/// A share from 0 to 1; the default for another number, as InvarLock 0.12 has it.
fn share_or(number: f64, default: f64) -> f64 {
    if (0.0..=1.0).contains(&number) { number } else { default }
}

/// JSON with sorted members, indented by two spaces, and a newline.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(&sorted(crate::format::to_value(value))).unwrap_or_default();
    text.push('\n');
    text.into_bytes()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_from_their_exact_value() {
        // 1.0005 is a little less than that as a double, 2.5 thousandths are exact.
        assert_eq!(three_decimals(1.0005), 1.0);
        assert_eq!(three_decimals(0.0625), 0.062);
        assert_eq!(three_decimals(3.849 * 1.05), 4.041);
    }

    #[test]
    fn members_are_sorted_at_every_depth() {
        let text = to_json(&serde_json::json!({"b": [{"d": 1, "c": 2}], "a": null}));
        let expected =
            "{\n  \"a\": null,\n  \"b\": [\n    {\n      \"c\": 2,\n      \"d\": 1\n    }\n  ]\n}\n";
        assert_eq!(String::from_utf8_lossy(&text), expected);
    }
}
