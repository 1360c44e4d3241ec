//! How a guard measures, as its report and the policy state it. InvarLock 0.12 requires that both state the same.

use crate::format::statistics::{
    ACTIVATION_ITERATIONS, ACTIVATION_TOKENS, ACTIVATION_WINDOWS, SKETCH, WEIGHT_ITERATIONS,
};
use crate::numerics::digest::spaced_json_hash;
use serde_json::{Map, Value, json};

/// Limits of degenerate matrices, as InvarLock 0.12 has them.
pub(super) mod degeneracy {
    use super::super::spectral::compare::Severity;
    use serde::Serialize;

    /// Limits of a ratio to the reference.
    #[derive(Debug, Clone, Copy, Serialize)]
    pub(in super::super) struct Ratios {
        /// A smaller ratio is a violation.
        pub(in super::super) warn_ratio: f64,
        /// A smaller ratio is fatal.
        pub(in super::super) fatal_ratio: f64,
    }

    impl Ratios {
        /// Severity of a ratio.
        pub(in super::super) fn severity(self, ratio: f64) -> Option<Severity> {
            match ratio {
                ratio if ratio < self.fatal_ratio => Some(Severity::Fatal),
                ratio if ratio < self.warn_ratio => Some(Severity::Budgeted),
                _ => None,
            }
        }
    }

    /// Of the stable rank.
    pub(in super::super) const STABLE_RANK: Ratios = Ratios { warn_ratio: 0.5, fatal_ratio: 0.25 };

    /// Of the shortest row or column.
    pub(in super::super) const NORM_COLLAPSE: Ratios = Ratios { warn_ratio: 0.25, fatal_ratio: 0.1 };
}

/// The measurement of a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contract {
    /// Statistics of weights.
    Spectral,
    /// Statistics of activations.
    Rmt,
    /// Of the spectral guard of InvarLock 0.12.
    UpstreamSpectral,
    /// Of its RMT guard.
    UpstreamRmt,
}

impl Contract {
    /// The content. Its numbers are integers or short fractions, whose spelling JSON libraries agree on.
    pub(super) fn content(self) -> Map<String, Value> {
        let power_iteration =
            |iterations: usize| json!({"type": "power_iter", "iters": iterations, "init": "ones"});
        let content = match self {
            Contract::Spectral => json!({
                "kind": "weights_against_baseline",
                "estimator": power_iteration(WEIGHT_ITERATIONS),
                "sketch": {"type": "count_sketch", "size": SKETCH},
            }),
            Contract::Rmt => json!({
                "kind": "activation_edge_risk_against_baseline",
                "estimator": power_iteration(ACTIVATION_ITERATIONS),
                "activation_sampling": {
                    "windows": {"count": ACTIVATION_WINDOWS, "indices_policy": "evenly_spaced"},
                    "tokens": ACTIVATION_TOKENS,
                },
            }),
            Contract::UpstreamRmt => json!({
                "kind": "activation_edge_risk",
                "estimator": power_iteration(ACTIVATION_ITERATIONS),
                "activation_sampling": {
                    "windows": {"count": ACTIVATION_WINDOWS, "indices_policy": "evenly_spaced"},
                },
            }),
            Contract::UpstreamSpectral => json!({
                "estimator": power_iteration(WEIGHT_ITERATIONS),
                "degeneracy": {
                    "enabled": true,
                    "stable_rank": degeneracy::STABLE_RANK,
                    "norm_collapse": degeneracy::NORM_COLLAPSE,
                },
            }),
        };
        match content {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// First 16 hexadecimal digits of the SHA-256 of the content.
    pub(super) fn hash(self) -> String {
        spaced_json_hash(&Value::Object(self.content()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contracts_of_upstream_have_its_digests() {
        assert_eq!(Contract::UpstreamSpectral.hash(), "14cca7884179d484");
        assert_eq!(Contract::UpstreamRmt.hash(), "7ca43124fc6a2823");
    }
}
