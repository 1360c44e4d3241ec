//! Host execution: the same program as a plain child. No container; still a filter, limits, a supervisor, and evidence that says so.

use crate::builder::{self, Builder};
use crate::error::{Doing as _, Result};
use crate::protocol::{self, FromBuilder};
use crate::{cgroup, hooks, sys};

/// The builder's part: becomes the parent of the program. Never comes back.
pub(crate) fn run(child: Builder) -> ! {
    if let Err(error) = start(&child) {
        drop(protocol::send(&child.socket, &FromBuilder::Failed(error), &[]));
    }
    sys::exit_now(1)
}

fn start(child: &Builder) -> Result<()> {
    child.die_with_supervisor()?;
    hooks::step("builder: host started");
    cgroup::enter(&child.entrances)?;
    hooks::step("builder: host cgroup entered");
    let fail = || "connecting the program's output".to_owned();
    let [out, err] = &child.stdio;
    rustix::stdio::dup2_stdin(builder::null_device()?).doing(fail)?;
    rustix::stdio::dup2_stdout(out).doing(fail)?;
    rustix::stdio::dup2_stderr(err).doing(fail)?;
    child.init().run_on_host()
}
