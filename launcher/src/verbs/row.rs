//! One row of the table of verbs.

use crate::error::{ExitCodes, Format, Result};
use crate::policy::{Needs, Policy};

/// Runs a verb under a policy; gives the exit code.
type Run<'a> = dyn FnOnce(&Policy) -> Result<u8> + 'a;

/// What the launcher must know of a verb to run it.
pub struct Verb<'a> {
    /// What it needs of the policy.
    pub needs: Needs,
    /// How its failures are printed.
    pub format: Format,
    /// The exit codes of its failures.
    pub exit_codes: ExitCodes,
    run: Box<Run<'a>>,
}

impl<'a> Verb<'a> {
    /// A verb without a network or containers. Its failures are printed as text; their exit codes follow from their kind.
    pub fn new(run: impl FnOnce(&Policy) -> Result<u8> + 'a) -> Self {
        Self {
            needs: Needs::default(),
            format: Format::default(),
            exit_codes: ExitCodes::default(),
            run: Box::new(run),
        }
    }

    /// Runs the verb; gives the exit code.
    pub fn run(self, policy: &Policy) -> Result<u8> {
        (self.run)(policy)
    }

    /// Failures are printed as JSON on standard output.
    pub fn json(mut self, json: bool) -> Self {
        self.format = if json { Format::Json } else { Format::Text };
        self
    }

    /// Failures are printed as JSON on standard error, because standard output belongs to the workload.
    pub fn json_on_stderr(mut self, json: bool) -> Self {
        self.format = if json { Format::JsonOnStderr } else { Format::Text };
        self
    }

    /// Failures have an exit code of their own, because the others are the workload's.
    pub fn own_exit_code(mut self) -> Self {
        self.exit_codes = ExitCodes::OwnFailure;
        self
    }

    /// A flag allows the network.
    pub fn network(mut self, allowed: bool) -> Self {
        self.needs.allow_network = allowed;
        self
    }

    /// It starts one container, with the ids of the image's user.
    pub fn workload(mut self) -> Self {
        self.needs.has_image_user = true;
        self.containers(1)
    }

    /// The number of containers that it starts.
    pub fn containers(mut self, count: usize) -> Self {
        self.needs.containers = count;
        self
    }

    /// Everything that it needs of the policy.
    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
}
