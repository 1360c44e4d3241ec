//! The thresholds of a comparison, as its report names them.

use super::CompareContext;
use crate::format::evaluation_report::{
    Auto, GuardPolicy, Hysteresis, InvariantsPolicy, PolicyDigest, PolicyProvenance, ResolvedPolicy,
    RmtPolicy, SpectralPolicy, UpstreamRmtPolicy, UpstreamSpectralPolicy, UpstreamVariancePolicy,
    VariancePolicy,
};
use crate::format::guard_request::{GuardMode, GuardRequest};
use crate::format::to_value;
use crate::guards::Evaluations;
use crate::numerics::digest::{compact_json_hash, spaced_json_hash};
use crate::policy::{HYSTERESIS_PP, HYSTERESIS_RATIO};
use serde_json::json;

/// The blocks of a report that name thresholds.
pub(super) struct Policy {
    pub(super) auto: Auto,
    pub(super) resolved: ResolvedPolicy,
    pub(super) provenance: PolicyProvenance,
    pub(super) digest: PolicyDigest,
}

impl Policy {
    pub(super) fn new(context: &CompareContext, guards: &Evaluations) -> Self {
        let tier = context.tier.as_str().to_owned();
        let metrics = context.tier.metrics_policy();
        let thresholds_hash = compact_json_hash(&to_value(&metrics));
        let limits = context.limits;
        let GuardRequest { mode, calibration } = context.guards;
        let evaluated =
            |name: &str| guards.observed.iter().any(|guard| guard == name).then_some(context.tier);
        let resolved = ResolvedPolicy {
            metrics,
            invariants: InvariantsPolicy::default(),
            spectral: evaluated("spectral").map(|tier| match mode {
                GuardMode::Compare => GuardPolicy::Compare(limits.spectral(SpectralPolicy::of(tier))),
                GuardMode::Upstream => GuardPolicy::Upstream(UpstreamSpectralPolicy::of(tier)),
            }),
            rmt: evaluated("rmt").map(|tier| match mode {
                GuardMode::Compare => GuardPolicy::Compare(limits.rmt(RmtPolicy::of(tier))),
                GuardMode::Upstream => GuardPolicy::Upstream(UpstreamRmtPolicy::new()),
            }),
            variance: evaluated("variance").map(|tier| match mode {
                GuardMode::Compare => GuardPolicy::Compare(VariancePolicy::of(tier)),
                GuardMode::Upstream => {
                    GuardPolicy::Upstream(UpstreamVariancePolicy::with(context.profile, tier, calibration))
                }
            }),
        };
        let digest = spaced_json_hash(&json!({"resolved_policy": to_value(&resolved), "overrides": []}));
        Policy {
            auto: Auto { tier: tier.clone(), probes_used: 0, policy_digest: digest.clone() },
            resolved,
            provenance: PolicyProvenance {
                tier: tier.clone(),
                overrides: Vec::new(),
                policy_digest: digest,
                validation_allowlist_source: "contracts".to_owned(),
                resolved_at: context.generated_at.clone(),
            },
            digest: PolicyDigest {
                policy_version: "policy-v1".to_owned(),
                tier_policy_name: tier,
                thresholds_hash,
                hysteresis: Hysteresis { ppl: HYSTERESIS_RATIO, accuracy_delta_pp: HYSTERESIS_PP },
                min_effective: 0.0,
                changed: false,
            },
        }
    }
}
