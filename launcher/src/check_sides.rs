//! The check of both sides before anything is hashed or measured. The evaluator opens in a container what a measurement would open:
//! configuration, headers of the weights, tokenizer, dataset. It selects the windows and computes nothing.

use crate::error::{Context as _, Error, Kind, Result};
use crate::evaluator_run::EvaluatorRun;
use crate::measure_side::{check_plausible, keep_log, log_of, only_file};
use crate::plan::Opened;
use crate::policy::Policy;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_evidence::format::check_report::{CHECK_CONTRACT, CheckReport};
use invarlock_evidence::format::warning::Warning;
use invarlock_evidence::job::{Role, Task};
use invarlock_evidence::run_report::BaselineWindows;
use invarlock_runtime::Outcome;

/// What an interrupted check leaves.
const KEPT: &str = "nothing was written";

/// The check of both sides.
pub struct Check<'a> {
    /// Everything that is checked.
    pub opened: &'a Opened,
    /// The policy.
    pub policy: &'a Policy,
    /// Whether what a failed evaluator printed may be kept in `--out`.
    pub keep_logs: bool,
}

/// What the check of both sides found.
pub struct Checked {
    /// Warnings about both checkpoints.
    pub warnings: Vec<Warning>,
    /// Numbers of preview and final windows that are measured; fewer than requested where rows of the dataset repeat.
    pub windows: [usize; 2],
}

impl Check<'_> {
    /// Checks the baseline, then the subject with the baseline's windows.
    pub fn both(&self, ui: &Ui, signals: &Signals) -> Result<Checked> {
        let baseline = self.side(Role::Baseline, None, ui, signals)?;
        let subject = self.side(Role::Subject, Some(&baseline.windows), ui, signals)?;
        let warnings = [&baseline, &subject].map(|side| Warning::of_checkpoint(side.role, &side.checkpoint));
        Ok(Checked { warnings: warnings.concat(), windows: baseline.windows.counts() })
    }

    /// Checks one side; the subject needs the baseline's windows.
    pub fn side(
        &self,
        role: Role,
        windows: Option<&BaselineWindows>,
        ui: &Ui,
        signals: &Signals,
    ) -> Result<CheckReport> {
        let step = ui.step(&format!("checking {}", role.name()), 1, false);
        let run = EvaluatorRun {
            opened: self.opened,
            policy: self.policy,
            role,
            task: Task::Check,
            windows,
            journal: None,
        };
        let mut sink = Progress::hidden(ui, role.name());
        let checked = run.run(&mut sink, signals, KEPT).and_then(|outcome| self.report(role, &outcome));
        let report = checked.map_err(|error| self.with_log(error, role, &sink))?;
        self.opened.request.adapters.check(&report)?;
        step.done("done");
        Ok(report)
    }

    /// The check report in the output, which is untrusted.
    fn report(&self, role: Role, outcome: &Outcome) -> Result<CheckReport> {
        let read = || {
            let bytes = only_file(outcome, "check.json", &[])?;
            check_plausible("check.json", bytes, self.opened.dataset.tokens())?;
            let report: CheckReport = serde_json::from_slice(bytes)
                .map_err(|error| Error::integrity(format!("check.json: {error}")))?;
            match report.contract == CHECK_CONTRACT && report.role == role {
                true => Ok(report),
                false => Err(Error::integrity("check.json: not a check report of this side")),
            }
        };
        read()
            .map_err(|error: Error| error.with_kind(Kind::Integrity))
            .with_context(|| format!("reading what the {} container found", role.name()))
    }

    /// The error with what the evaluator printed: the path of its log or, where nothing may be written, its last line.
    fn with_log(&self, error: Error, role: Role, sink: &Progress<'_>) -> Error {
        let Some(log) = log_of(sink) else { return error };
        match self.keep_logs {
            true => keep_log(error, &self.opened.request.out, role, &log),
            false => error.with_note(format!("it printed: {}", log.lines().last().unwrap_or_default())),
        }
    }
}
