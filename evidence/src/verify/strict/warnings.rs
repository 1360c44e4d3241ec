//! Warnings: a report of this program contains those that follow from it.

use super::Check;
use crate::format::warning::{Warning, WarningKind};
use crate::job::Role;
use crate::run_report::RunReport;

impl Check<'_> {
    /// `baseline` is the baseline's run report, if the verifier has it.
    pub(super) fn warnings(&mut self, baseline: Option<&RunReport>) {
        if !self.own_report {
            return;
        }
        let mut expected = Warning::of_evaluator(Role::Subject, self.report.at("meta.evaluator").value());
        expected.extend(baseline.into_iter().flat_map(|report| Warning::of_run(Role::Baseline, report)));
        let provenance = self.report.get("provenance");
        let before = provenance.at("baseline.checkpoint_sha256").str();
        if before.is_some() && before == provenance.at("edited.checkpoint_sha256").str() {
            expected.push(Warning::identical_checkpoints());
        }
        let stated: Vec<(WarningKind, Option<Role>)> = (self.report.get("warnings").elements())
            .filter_map(|warning| serde_json::from_value::<Warning>(warning.value().clone()).ok())
            .map(|warning| (warning.kind, warning.side))
            .collect();
        for warning in expected.iter().filter(|warning| !stated.contains(&(warning.kind, warning.side))) {
            self.mismatch(format!("warnings mismatch: the report does not state that {}", warning.message));
        }
    }
}
