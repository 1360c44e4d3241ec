//! Evidence in the directory of a sweep.

use super::runs::Run;
use crate::evidence_dir::REPORT;
use crate::policy::Policy;
use crate::request;
use invarlock_evidence::policy::Tier;
use invarlock_evidence::sweep::{Result as Numbers, Status};
use invarlock_evidence::verify::{
    REPORT_LIMIT, RuntimeProvenance, Verdict, VerifyOptions, read_evidence, verify_report,
};
use std::path::Path;

/// What the evidence of a run says; none where there is none, or it does not verify. `image` is the digest that must have run.
pub fn read(run: &Run, out: &Path, image: Option<&str>, policy: &Policy) -> Option<(Status, Numbers)> {
    let path = out.join(&run.evidence).join(REPORT);
    let (profile, tier) = request::profile_and_tier(&run.args.profile, &run.args.tier).ok()?;
    if !verified(&verify_report(&path, &options(profile, tier, image, policy))) {
        return None;
    }
    let bytes = read_evidence(&path, REPORT_LIMIT).ok()?;
    let report = serde_json::from_slice(&bytes).ok()?;
    Some(Numbers::of(&report))
}

/// A failed gate is a result.
fn verified(verdict: &Verdict) -> bool {
    verdict.errors.is_empty()
}

fn options(
    profile: invarlock_evidence::policy::Profile,
    tier: Tier,
    image: Option<&str>,
    policy: &Policy,
) -> VerifyOptions {
    VerifyOptions {
        profile,
        tier: Some(tier),
        runtime_provenance: match image {
            Some(_) => RuntimeProvenance::Container,
            None => RuntimeProvenance::Host,
        },
        expected_image_digest: image.map(str::to_owned),
        granted: policy.loosened(),
        ..VerifyOptions::default()
    }
}
