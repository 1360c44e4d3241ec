//! The supervisor: a process with one thread, in the host's namespaces, outside the run's cgroup. It owns the run: lock, cgroup, time
//! limit, processes, observation, collection of the output, and removal of everything.
//!
//! The launcher's death is an end of file on its socket, and the run is then cleaned up like at any other end.
//!
//! | file | content |
//! |---|---|
//! | `state.rs` | the states of a run, each with its data |
//! | `start.rs` | starts the first process; from `Preparing` to `Building` |
//! | `events.rs` | the event loop |
//! | `go.rs` | observes the waiting workload and lets it go; from `Building` to `Running` |
//! | `terminal.rs` | the caller's terminal, which a killed launcher cannot restore |
//! | `end.rs` | kills and reaps every process; from `Ended` to the outcome |

mod end;
mod events;
mod first_process;
mod go;
mod memory_watchdog;
mod profile_trace;
mod seccomp_notify;
mod start;
mod state;
mod terminal;

use crate::cgroup::RunCgroup;
use crate::protocol::{self, Answer, Prepare};
use crate::state::Lock;
use crate::{hooks, state as lock, sys};
use end::Report;
use invarlock_error::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use state::Run;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

/// Runs the supervisor's process.
pub(crate) fn main() -> ! {
    let reset = reset_process();
    // A signal from the launcher's terminal goes to the launcher, which then cancels the run.
    _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let Ok(launcher) = launcher_socket() else { sys::exit_now(125) };
    let result = match reset.and_then(|()| protocol::receive::<Prepare>(&launcher)) {
        Ok(Some((prepare, _))) => {
            prepare.hooks.clone().set();
            hooks::share_timeline().and_then(|()| supervise(&prepare, &launcher))
        }
        Ok(None) => sys::exit_now(125),
        Err(error) => Err(error),
    };
    // The handle of the run's mount namespace stays open until the launcher has its answer, because unmounting takes the kernel a while.
    let (answer, files, _mounts) = match result {
        Ok(Report { done, files, mounts }) => (Answer::Done(Box::new(done)), files, mounts),
        Err(error) => (Answer::Failed(error), Vec::new(), None),
    };
    let fds: Vec<_> = files.iter().map(|f| f.file.as_fd()).collect();
    // Fails only if the launcher is gone.
    drop(protocol::send(&launcher, &answer, &fds));
    terminal::restore(&launcher);
    sys::exit_now(0)
}

/// Undoes what the caller left open or ignored. With SIGCHLD ignored the kernel would reap the run's processes by itself, and their status
/// would be lost.
fn reset_process() -> Result<()> {
    sys::close_all_but(&[]).context("closing inherited descriptors")?;
    sys::default_action(libc::SIGCHLD);
    Ok(())
}

/// The socket to the launcher, taken from standard input, which becomes `/dev/null`.
fn launcher_socket() -> Result<UnixStream> {
    const DOING: &str = "taking over the socket to the launcher";
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).context(DOING)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context(DOING)?;
    rustix::stdio::dup2_stdin(&null).context(DOING)?;
    Ok(UnixStream::from(socket))
}

/// Creates lock and cgroup, runs the workload, and removes everything.
fn supervise(prepare: &Prepare, launcher: &UnixStream) -> Result<Report> {
    hooks::step("supervisor: started");
    let id = lock::new_id()?;
    let directory = lock::verified(prepare.state.clone())?;
    // Orphans of a plain child become children of this process; those of a container die with its init.
    _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // The remains of another run must not prevent this one.
    drop(lock::sweep(&directory));
    let mut cgroup = RunCgroup::plan(&id);
    let lock = Lock::take(&directory, &id, &cgroup.dirs())?;
    cgroup.create();
    hooks::step("supervisor: cgroup made");
    let result = Run::new(prepare.host, prepare.inside, &cgroup, launcher).and_then(|mut run| {
        let result = run.go();
        hooks::step("supervisor: workload ended");
        let ended = run.end();
        hooks::step("supervisor: all dead");
        let result = result.map_err(|error| run.cause(error)).and(ended);
        result.and_then(|()| run.report())
    });
    hooks::step("supervisor: output collected");
    let emptied = cgroup.remove();
    hooks::step("supervisor: cgroup removed");
    let result = result.and_then(|report| emptied.map(|()| report));
    // If the cgroup could not be removed, the lock file stays, and the next run tries again.
    if result.is_ok() || cgroup.dirs().iter().all(|dir| !dir.exists()) {
        lock.release()?;
        hooks::step("supervisor: lock released");
    }
    result
}
