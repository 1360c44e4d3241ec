//! The run of the program, and how it ended.

use super::plan::Plan;
use crate::denied_calls;
use crate::error::{Context as _, Error, Result};
use crate::limits;
use crate::pass_through::PassThrough;
use crate::policy::Policy;
use crate::signals::Signals;
use crate::ui;
use invarlock_runtime::{Outcome, Sink, Status};

/// What an interrupted run leaves.
const KEPT: &str = "nothing was written";

/// Where the output of the program goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// To the standard streams.
    Both,
    /// To standard error: standard output has the JSON of this program.
    OnStderr,
    /// To standard error, and only if the program fails.
    OnFailure,
}

/// Bytes of output that is shown on failure: the last ones.
const LAST: usize = 64 << 10;

/// The last output of a program, of both streams.
#[derive(Default)]
struct LastOutput(Vec<u8>);

impl Sink for LastOutput {
    fn stdout(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * LAST {
            self.0.drain(..self.0.len() - LAST);
        }
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stdout(bytes);
    }
}

/// A planned run.
pub struct Run<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The policy, which supplies the supervisor.
    pub policy: &'a Policy,
    /// Ends the run.
    pub signals: &'a Signals,
}

impl Run<'_> {
    /// Runs the program to its end. A signal, a changed input or a reached limit is an error, an exit code is not.
    pub fn run(&self, shown: Shown) -> Result<Outcome> {
        let spec = self.plan.container()?;
        let signals = self.signals;
        let mut passed_on = match shown {
            Shown::Both => Some(PassThrough::new(signals)),
            Shown::OnStderr => Some(PassThrough::to_stderr(signals)),
            Shown::OnFailure => None,
        };
        let mut last = LastOutput::default();
        let sink = passed_on.as_mut().map_or(&mut last as &mut dyn Sink, |sink| sink);
        let outcome = self.policy.supervisor()?.run(spec, signals.fd(), sink);
        // Whatever a run reports after one of these, they are the reason for it: the user's signal, and an input that was changed.
        signals.check(KEPT)?;
        self.plan.inputs.check_unchanged().context("running the program of the image")?;
        let outcome =
            outcome.with_context(|| format!("running the program of image {}", self.plan.reference()))?;
        if let Some(passed_on) = &mut passed_on {
            passed_on.check()?;
        }
        if !matches!(outcome.status, Status::Exited(0)) && !last.0.is_empty() {
            let text = String::from_utf8_lossy(&last.0);
            ui::on_stderr(ui::printable(text.trim_end()).as_ref());
        }
        denied_calls::show(outcome.denied_calls.as_ref(), None);
        Ok(outcome)
    }
}

/// How the program ended: its exit code, or an error if something else ended it.
pub fn ran(plan: &Plan, outcome: &Outcome) -> Result<u8> {
    let reached = limits::reached(outcome);
    let doing = || format!("running the program of image {}", plan.reference());
    match outcome.status {
        Status::Exited(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        Status::TimedOut | Status::MemoryLimit => {
            let error = Error::system(limits::sentence(&reached)).context(doing());
            Err(limits::hint(&reached).into_iter().fold(error, Error::with_hint))
        }
        ref status => {
            let error = Error::system(format!("it ended with {status}")).context(doing());
            Err(limits::notices(&reached).fold(error, Error::with_note))
        }
    }
}
