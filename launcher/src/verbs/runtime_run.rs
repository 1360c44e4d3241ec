//! `invarlock runtime run`: runs a command of an image in a container.

use crate::args::RunArgs;
use crate::denied_calls;
use crate::error::Result;
use crate::pass_through::PassThrough;
use crate::policy::Policy;
use crate::request;
use crate::signals::Signals;
use crate::ui;
use crate::workload::{Prepared, or_interrupted};
use serde_json::json;
use std::io::Write as _;

/// Returns the exit code of the command.
pub fn run(args: &RunArgs, policy: &Policy) -> Result<u8> {
    let signals = Signals::catch()?;
    let workload = request::of_workload(&args.workload);
    let Prepared { spec, filter, rootfs: _in_use, image } = workload.prepare(policy)?;
    let mut output = PassThrough::new(&signals);
    let outcome = policy.supervisor().and_then(|supervisor| supervisor.run(spec, signals.fd(), &mut output));
    let outcome = outcome.map_err(|error| or_interrupted(error, &signals))?;
    output.check()?;
    denied_calls::show(outcome.denied_calls.as_ref(), None);
    if args.json {
        let value = json!({
            "image": image, "status": outcome.status, "usage": outcome.usage, "refused": outcome.denied_calls,
            "seccomp": filter.as_json(),
            "observations": outcome.observations, "timings_us": outcome.timings,
        });
        drop(writeln!(std::io::stderr(), "{}", ui::ascii(&value.to_string())));
    }
    workload.exit_code(&outcome, &signals, args.json)
}
