//! `--tiers FILE`: limits in the shape of `tiers.yaml` of InvarLock 0.12, as `advanced calibrate` recommends them.

use crate::error::{Context as _, Error, Result};
use crate::inputs;
use crate::preset_sections::check_members;
use invarlock_evidence::format::tiers::{TierLimits, Tiers, TiersFile};
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::Tier;
use serde::Deserialize;
use serde_norway::Value;
use std::path::Path;

const MAX_BYTES: u64 = 1 << 20;
/// The guards of a tier. The comparison with the baseline takes its limits from `compare` in the first two.
const GUARDS: [&str; 4] = ["spectral_guard", "rmt_guard", "variance_guard", "metrics"];

/// `spectral_guard.compare`.
#[derive(Debug, Default, Deserialize)]
struct Spectral {
    norm_ratio_max: Option<f64>,
    correlation_min: Option<f64>,
}

/// `rmt_guard.compare`.
#[derive(Debug, Default, Deserialize)]
struct Rmt {
    epsilon: Option<f64>,
}

/// Reads the limits of all tiers.
pub fn read(path: &Path) -> Result<TiersFile> {
    let bytes = inputs::read_small("--tiers", path, MAX_BYTES)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::input("not UTF-8 text"));
    let limits = text.and_then(parse).with_context(|| format!("--tiers {}", path.display()));
    let limits = limits.hint("`invarlock advanced calibrate null-sweep --subject DIR` writes such a file")?;
    Ok(TiersFile { sha256: sha256_hex(&bytes), limits })
}

/// The limits of one tier; an error if the file has none.
pub fn for_tier(path: &Path, tier: Tier) -> Result<Tiers> {
    let file = read(path)?;
    file.of(tier.as_str())
        .ok_or_else(|| {
            let message = format!(
                "--tiers {}: no limit of the comparison with the baseline for tier {tier}",
                path.display()
            );
            Error::input(message)
        })
        .hint("the limits are spectral_guard.compare and rmt_guard.compare of the tier")
}

fn parse(text: &str) -> Result<std::collections::BTreeMap<String, TierLimits>> {
    let tiers: Value =
        serde_norway::from_str(text).map_err(|why| Error::input(format!("not valid YAML: {why}")))?;
    if !tiers.is_mapping() {
        return Err(Error::input("not a mapping of tiers to limits"));
    }
    check_members("tiers", &tiers, &Tier::ALL.map(Tier::as_str))?;
    let named = Tier::ALL.into_iter().filter_map(|tier| Some((tier.as_str(), tiers.get(tier.as_str())?)));
    let mut limits = std::collections::BTreeMap::new();
    for (tier, guards) in named {
        check_members(tier, guards, &GUARDS)?;
        if let Some(found) = of_tier(guards).with_context(|| format!("tier {tier}"))? {
            limits.insert(tier.to_owned(), found);
        }
    }
    Ok(limits)
}

/// None without a limit of the comparison with the baseline.
fn of_tier(guards: &Value) -> Result<Option<TierLimits>> {
    let compare = |guard: &str| guards.get(guard).and_then(|guard| guard.get("compare"));
    let (spectral, rmt) = (compare("spectral_guard"), compare("rmt_guard"));
    if spectral.is_none() && rmt.is_none() {
        return Ok(None);
    }
    let Spectral { norm_ratio_max, correlation_min } =
        typed("spectral_guard.compare", spectral, &["norm_ratio_max", "correlation_min"])?;
    let Rmt { epsilon } = typed("rmt_guard.compare", rmt, &["epsilon"])?;
    let limits = TierLimits { norm_ratio_max, correlation_min, epsilon };
    limits.check()?;
    Ok(Some(limits))
}

fn typed<T: Default + serde::de::DeserializeOwned>(
    name: &str,
    value: Option<&Value>,
    known: &[&str],
) -> Result<T> {
    let Some(value) = value else { return Ok(T::default()) };
    check_members(name, value, known)?;
    serde_norway::from_value(value.clone()).map_err(|why| Error::input(format!("{name}: {why}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_limits_of_the_comparison_are_read() {
        let limits = parse(
            "balanced:\n  spectral_guard: {max_caps: 5, family_caps: {ffn: 4}, compare: {norm_ratio_max: 1.2}}\n  \
             rmt_guard: {epsilon_default: 0.01, compare: {epsilon: 0.1}}\nconservative: {spectral_guard: {max_caps: 3}}\n",
        )
        .unwrap();
        let expected = TierLimits { norm_ratio_max: Some(1.2), correlation_min: None, epsilon: Some(0.1) };
        assert_eq!(limits.into_iter().collect::<Vec<_>>(), [("balanced".to_owned(), expected)]);
    }

    #[test]
    fn faults_are_named() {
        for (text, word) in [
            ("[]", "not a mapping"),
            ("a: [", "not valid YAML"),
            ("balance: {}", "did you mean balanced?"),
            ("balanced: {spectral: {}}", "balanced.spectral is not a known setting"),
            ("balanced: {rmt_guard: {compare: {epsilon_default: 1}}}", "rmt_guard.compare.epsilon_default"),
            ("balanced: {rmt_guard: {compare: {epsilon: x}}}", "rmt_guard.compare"),
            ("balanced: {rmt_guard: {compare: {epsilon: -1}}}", "epsilon is -1"),
        ] {
            let error = parse(text).unwrap_err();
            let all = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(all.contains(word), "{text}: {all}");
        }
    }
}
