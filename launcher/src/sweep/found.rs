//! Evidence in the directory of a sweep.

use super::runs::Run;
use crate::evidence_dir::REPORT;
use crate::policy::Policy;
use crate::request;
use invarlock_evidence::sweep::{Numbers, Status};
use invarlock_evidence::verify::{REPORT_LIMIT, read_evidence, verify_report};
use std::path::Path;

/// What the evidence of a run says; none where there is none, or it does not verify. `image` is the digest that must have run.
pub fn read(run: &Run, out: &Path, image: Option<&str>, policy: &Policy) -> Option<(Status, Numbers)> {
    let path = out.join(&run.evidence).join(REPORT);
    let (profile, tier) = request::profile_and_tier(&run.args.profile, &run.args.tier).ok()?;
    let options = policy.own_evidence(profile, tier, image.map(str::to_owned));
    // A failed gate is a result and no error.
    if !verify_report(&path, &options).errors.is_empty() {
        return None;
    }
    let bytes = read_evidence(&path, REPORT_LIMIT).ok()?;
    let report = serde_json::from_slice(&bytes).ok()?;
    Some(Numbers::of(&report))
}
