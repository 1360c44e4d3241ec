//! A run report is the one that its own values give.

use crate::compare::compare_hashed;
use crate::evaluation::Facts;
use crate::format::evaluation_report::EvaluationReport;
use crate::format::run_report::RunReport;
use crate::format::to_value;
use crate::job::Role;
use crate::measured::Measured;
use crate::measured::digests::{WindowDigests, WindowHashes};
use crate::policy::{Profile, Tier};
use crate::verify::differences::differences;
use invarlock_error::{Context as _, Error, Result};

/// Largest relative difference of a number that a run report repeats: its machine may have another mathematical library.
const TOLERANCE: f64 = 1e-9;

/// The values of a run report that they give.
pub(super) struct Consistent {
    pub(super) measured: Measured,
    pub(super) digests: WindowDigests,
}

impl Consistent {
    /// The values of the run report of one side. Where its windows are those of the other side, so are their digests.
    ///
    /// # Errors
    /// As [`consistent_run_report`].
    pub(super) fn check(role: Role, report: &RunReport, other: Option<&Self>) -> Result<Self> {
        check(&format!("{}.report", role.name()), report, TOLERANCE, other)
    }
}

/// The values of a run report, if it is the report that they give.
///
/// # Errors
/// It is not.
pub fn consistent_run_report(name: &str, report: &RunReport, tolerance: f64) -> Result<Measured> {
    check(name, report, tolerance, None).map(|consistent| consistent.measured)
}

fn check(name: &str, report: &RunReport, tolerance: f64, other: Option<&Consistent>) -> Result<Consistent> {
    let measured = Measured::read(report).with_context(|| format!("reading {name}"))?;
    let same = other.filter(|other| measured.same_windows(&other.measured));
    let digests = same.map_or_else(|| WindowDigests::of(&measured), |other| other.digests.clone());
    if measured.gives(report, &digests)? {
        return Ok(Consistent { measured, digests });
    }
    match differences(name, &to_value(report), &to_value(&measured.report()?), tolerance).first() {
        None => Ok(Consistent { measured, digests }),
        Some(first) => Err(Error::integrity(format!("{name} contradicts itself: {first}"))),
    }
}

/// Both run reports, to be compared under one or more profiles.
pub(super) struct Compared {
    pub(super) baseline: RunReport,
    pub(super) subject: RunReport,
    /// The hashes of the windows of both.
    pub(super) hashes: [WindowHashes; 2],
}

impl Compared {
    /// The evaluation report under a profile and a tier.
    ///
    /// # Errors
    /// As [`compare`](crate::compare::compare).
    pub(super) fn report(&self, facts: &Facts, profile: Profile, tier: Tier) -> Result<EvaluationReport> {
        let context = facts.compare_context(profile, tier)?;
        compare_hashed(&self.baseline, &self.subject, self.hashes.each_ref(), &context)
    }
}
