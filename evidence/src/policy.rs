//! Profiles and tiers: how much is measured and the limits for a subject, as in InvarLock 0.12.
//!
//! The verifier takes its thresholds from here, never from the report that it verifies.

use crate::format::evaluation_report::{AccuracyPolicy, MetricsPolicy, RatioPolicy, TailPolicy};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much is measured and how strictly evidence is verified; the most lenient first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Any number of windows; the ratio and the invariants are gated, and nothing else.
    Dev,
    /// `evaluate` measures 120 + 120 windows. The gates are those of dev, and `verify` requires no number of windows.
    #[serde(rename = "ci_cpu")]
    CiCpu,
    /// 240 + 240 windows, gated.
    Ci,
    /// 400 + 400 windows, gated, all guards required.
    Release,
}

impl Profile {
    /// Every profile, the most lenient first.
    pub const ALL: [Profile; 4] = [Profile::Dev, Profile::CiCpu, Profile::Ci, Profile::Release];

    /// The name on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Dev => "dev",
            Profile::CiCpu => "ci_cpu",
            Profile::Ci => "ci",
            Profile::Release => "release",
        }
    }

    /// Windows to measure in the preview and the final arm; `None`: as configured.
    pub fn window_counts(self) -> Option<(usize, usize)> {
        match self {
            Profile::Dev => None,
            Profile::CiCpu => Some((120, 120)),
            Profile::Ci => Some((240, 240)),
            Profile::Release => Some((400, 400)),
        }
    }

    /// Bootstrap replicates.
    pub fn replicates(self) -> usize {
        match self {
            Profile::Dev | Profile::CiCpu => 1000,
            Profile::Ci => 1200,
            Profile::Release => 3200,
        }
    }

    /// Band that final/preview perplexity must stay in.
    pub fn drift_band(self) -> (f64, f64) {
        match self {
            Profile::Dev | Profile::CiCpu | Profile::Release => (0.95, 1.05),
            Profile::Ci => (0.95, 1.07),
        }
    }

    /// Whether every gate and the floors of windows, tokens and replicates are enforced.
    pub fn gated(self) -> bool {
        self >= Profile::Ci
    }

    /// The flags of `validation` that decide under this profile, if their gates were evaluated.
    ///
    /// With few windows, drift is random and there is no tail, so the profiles dev and ci_cpu decide on the ratio and the invariants only.
    pub fn deciding_flags(self) -> &'static [&'static str] {
        const ALL: [&str; 7] = [
            "primary_metric_acceptable",
            "invariants_pass",
            "preview_final_drift_acceptable",
            "primary_metric_tail_acceptable",
            "spectral_stable",
            "rmt_stable",
            "guard_overhead_acceptable",
        ];
        if self.gated() { &ALL } else { &ALL[..2] }
    }

    /// Whether a flag of `validation` decides under this profile.
    pub fn decides(self, flag: &str) -> bool {
        self.deciding_flags().contains(&flag)
    }

    /// Whether evidence that contradicts itself has the exit code 3, and not 1.
    pub fn has_integrity_code(self) -> bool {
        self != Profile::Dev
    }

    /// Whether every guard must have been evaluated.
    pub fn needs_all_guards(self) -> bool {
        self == Profile::Release
    }
}

/// One minus the confidence level of every profile.
pub const ALPHA: f64 = 0.05;

/// Name of the interval's method in reports.
pub const BOOTSTRAP_METHOD: &str = "bca_paired_delta_log";

/// Recorded beside the bootstrap settings; upstream never uses it.
pub const CI_BAND: f64 = 0.10;

/// Width of the ratio's interval up to which confidence is high.
pub const CONFIDENCE_WIDTH: f64 = 0.03;

/// Added to the dataset's seed for the interval of the comparison.
pub const PAIRED_SEED_OFFSET: u64 = 503;

/// How much worse than its baseline a subject may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The tightest.
    Conservative,
    /// The default.
    Balanced,
    /// For research.
    Aggressive,
}

/// Windows and replicates that a gated profile needs at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoverageFloor {
    /// Preview windows.
    pub preview: usize,
    /// Final windows.
    pub final_: usize,
    /// Bootstrap replicates.
    pub replicates: usize,
}

impl Tier {
    /// Every tier, the tightest first.
    pub const ALL: [Tier; 3] = [Tier::Conservative, Tier::Balanced, Tier::Aggressive];

    /// The name on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Conservative => "conservative",
            Tier::Balanced => "balanced",
            Tier::Aggressive => "aggressive",
        }
    }

    /// Largest PPL(subject)/PPL(baseline), before [`HYSTERESIS_RATIO`].
    pub fn ratio_limit(self) -> f64 {
        match self {
            Tier::Conservative => 1.05,
            Tier::Balanced => 1.10,
            Tier::Aggressive => 1.20,
        }
    }

    /// [`Tier::ratio_limit`] with [`HYSTERESIS_RATIO`]: the gate.
    pub fn ratio_gate(self) -> f64 {
        self.ratio_limit() + HYSTERESIS_RATIO
    }

    /// Lower end of the interval of ACC(subject) − ACC(baseline) that is accepted, in percentage points, before [`HYSTERESIS_PP`].
    pub fn accuracy_limit(self) -> f64 {
        match self {
            Tier::Conservative => -0.5,
            Tier::Balanced => -1.0,
            Tier::Aggressive => -2.0,
        }
    }

    /// [`Tier::accuracy_limit`] with [`HYSTERESIS_PP`]: the gate.
    pub fn accuracy_gate(self) -> f64 {
        self.accuracy_limit() - HYSTERESIS_PP
    }

    /// Tokens both arms together must have.
    pub fn min_tokens(self) -> u64 {
        match self {
            Tier::Conservative => 20_000,
            Tier::Balanced | Tier::Aggressive => 50_000,
        }
    }

    /// Caps the spectral guard may apply.
    pub fn spectral_caps(self) -> u64 {
        match self {
            Tier::Conservative => 3,
            Tier::Balanced => 5,
            Tier::Aggressive => 8,
        }
    }

    /// Floors of windows and replicates.
    pub fn coverage(self) -> CoverageFloor {
        match self {
            Tier::Conservative => CoverageFloor { preview: 220, final_: 220, replicates: 1500 },
            Tier::Balanced => CoverageFloor { preview: 180, final_: 180, replicates: 1200 },
            Tier::Aggressive => CoverageFloor { preview: 140, final_: 140, replicates: 800 },
        }
    }

    /// Largest allowed tail quantile of the per-window differences.
    pub fn tail_quantile_max(self) -> f64 {
        match self {
            Tier::Conservative => 0.12,
            Tier::Balanced => 0.20,
            Tier::Aggressive => 0.30,
        }
    }

    /// `resolved_policy.metrics`, from which upstream's verifier takes its limits.
    pub fn metrics_policy(self) -> MetricsPolicy {
        MetricsPolicy {
            pm_ratio: RatioPolicy {
                ratio_limit_base: self.ratio_limit(),
                min_tokens: self.min_tokens(),
                hysteresis_ratio: HYSTERESIS_RATIO,
                min_token_fraction: 0.01,
            },
            pm_tail: self.tail_policy(),
            accuracy: AccuracyPolicy {
                delta_min_pp: self.accuracy_limit(),
                min_examples: MIN_EXAMPLES as u64,
                hysteresis_delta_pp: HYSTERESIS_PP,
                min_examples_fraction: 0.01,
            },
        }
    }

    /// `pm_tail`.
    pub fn tail_policy(self) -> TailPolicy {
        TailPolicy {
            mode: "warn".to_owned(),
            min_windows: TAIL_MIN_WINDOWS,
            quantile: TAIL_QUANTILE,
            quantile_max: self.tail_quantile_max(),
            epsilon: TAIL_EPSILON,
            mass_max: TAIL_MASS_MAX,
        }
    }
}

/// Added to the ratio limit.
pub const HYSTERESIS_RATIO: f64 = 0.002;
/// Subtracted from the limit of the difference of accuracies, percentage points.
pub const HYSTERESIS_PP: f64 = 0.1;
/// Final examples that an accuracy needs under a gated profile.
pub const MIN_EXAMPLES: usize = 200;
/// The most that the accuracies of preview and final arm may differ, as upstream's verifier has it.
pub const ACCURACY_DRIFT: f64 = 0.1;
/// Width of the interval of the difference of accuracies up to which confidence is high, percentage points.
pub const CONFIDENCE_WIDTH_PP: f64 = 1.0;
/// Share of [`Tier::min_tokens`] that may be missing if the window floors are met.
pub const MIN_TOKENS_TOLERANCE: f64 = 0.02;

/// Tokens that must have been measured of the `least` that the tier asks for. The tolerance applies if the window floors are met (`covered`).
pub fn token_floor(least: f64, tolerance: f64, covered: bool) -> f64 {
    if covered { (least * (1.0 - tolerance)).floor() } else { least }
}

/// How much larger the perplexity with guards may be than without.
pub const GUARD_OVERHEAD_THRESHOLD: f64 = 0.01;
/// Largest ratio of guarded to bare perplexity.
pub const GUARD_OVERHEAD_MAX: f64 = 1.0 + GUARD_OVERHEAD_THRESHOLD;
/// Windows from which on the tail is evaluated.
pub const TAIL_MIN_WINDOWS: usize = 50;
/// The quantile that is limited.
pub const TAIL_QUANTILE: f64 = 0.95;
/// Differences above it count as tail mass.
pub const TAIL_EPSILON: f64 = 1e-4;
/// Largest tail mass.
pub const TAIL_MASS_MAX: f64 = 1.0;

/// A name that is neither a profile nor a tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{name}`: the {what}s are {known}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: String,
}

macro_rules! named {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                Self::ALL.into_iter().find(|known| known.as_str() == name).ok_or_else(|| UnknownName {
                    what: $what,
                    name: name.to_owned(),
                    known: Self::ALL.map(Self::as_str).join(", "),
                })
            }
        }
    };
}
named!(Profile, "profile");
named!(Tier, "tier");
