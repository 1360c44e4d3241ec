//! How a guard measures, as its report and the policy state it. InvarLock 0.12 requires that both state the same.

use crate::format::statistics::{
    ACTIVATION_ITERATIONS, ACTIVATION_TOKENS, ACTIVATION_WINDOWS, SKETCH, WEIGHT_ITERATIONS,
};
use crate::numerics::digest::spaced_json_hash;
use serde_json::{Map, Value, json};

/// The measurement of a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contract {
    /// Statistics of weights.
    Spectral,
    /// Statistics of activations.
    Rmt,
}

impl Contract {
    /// The content. Its numbers are integers, whose spelling JSON libraries agree on.
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
