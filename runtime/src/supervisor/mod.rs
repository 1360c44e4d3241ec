//! The supervisor: one thread, in the host's namespaces, outside the run's cgroup. It owns the run: lock, cgroup, clock, processes,
//! observation, collection, and what is left when it is over, which is nothing.
//!
//! The launcher's death is an end of file here, so it is cleaned up after like any other end.

mod end;
mod hear;

use crate::builder::Builder;
use crate::cgroup::RunCgroup;
use crate::collect::Collected;
use crate::error::{Doing as _, Error, Result};
use crate::identity::Identity;
use crate::limits::{self, Holding};
use crate::observe::{InsideObservations, Observations};
use crate::protocol::{self, Done, Request, Verdict};
use crate::spec::Usage;
use crate::state::{self, Lock};
use crate::sys::{self, Forked};
use crate::{hooks, host, prepare, reexec};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Between a polite request to stop and the end.
const GRACE: Duration = Duration::from_secs(3);
/// Building a container takes milliseconds; where it takes this long, something is stuck.
const BUILDING: Duration = Duration::from_secs(60);

/// Longest pause inside a message.
const SENTENCE: Duration = Duration::from_secs(10);

/// The supervisor's whole life.
pub(crate) fn main() -> ! {
    // The launcher's terminal is not ours: its Ctrl-C asks the launcher, who asks us.
    _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Ok(launcher) = reexec::launcher_socket() else { sys::exit_now(125) };
    let verdict = match protocol::receive::<Request>(&launcher) {
        Ok(Some((request, fds))) => {
            request.hooks.clone().set();
            supervise(request, fds, &launcher)
        }
        Ok(None) => sys::exit_now(125),
        Err(error) => Err(error),
    };
    let (verdict, files) = match verdict {
        Ok((done, files)) => (Verdict::Done(Box::new(done)), files),
        Err(error) => (Verdict::Failed(error), Vec::new()),
    };
    let fds: Vec<_> = files.iter().map(|f| f.file.as_fd()).collect();
    // A launcher that is gone wants no answer.
    drop(protocol::send(&launcher, &verdict, &fds));
    sys::exit_now(0)
}

/// Everything that must be undone, with the run inside.
fn supervise(request: Request, fds: Vec<OwnedFd>, launcher: &UnixStream) -> Result<(Done, Vec<Collected>)> {
    hooks::step("supervisor: request received");
    let id = state::new_id()?;
    let directory = state::verified(request.state.clone())?;
    // Orphans of a plain child come here to be reaped; those of a container die with its init.
    _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // What a killed supervisor left must not stop this run.
    drop(state::sweep(&directory));
    let mut cgroup = RunCgroup::plan(&id);
    let lock = Lock::take(&directory, &id, &cgroup.dirs())?;
    cgroup.create();
    hooks::step("supervisor: cgroup made");
    let result = Run::new(request, id, &cgroup, launcher).and_then(|mut run| {
        let result = run.go(fds);
        hooks::step("supervisor: workload ended");
        let ended = run.end();
        hooks::step("supervisor: all dead");
        let result = result.map_err(|e| run.cause(e)).and(ended);
        result.and_then(|()| run.report())
    });
    hooks::step("supervisor: output collected");
    let emptied = cgroup.kill().and_then(|()| cgroup.remove());
    hooks::step("supervisor: cgroup removed");
    let result = result.and_then(|done| emptied.map(|()| done));
    // Where the cgroup could not be removed the file stays, and the next start tries again.
    if result.is_ok() || cgroup.dirs().iter().all(|d| !d.exists()) {
        lock.release()?;
        hooks::step("supervisor: lock released");
    }
    result
}

/// Why a run is being ended before its time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    TimedOut,
    Cancelled,
}

struct Run<'a> {
    request: Request,
    id: String,
    identity: Identity,
    cgroup: &'a RunCgroup,
    holding: Holding,
    launcher: Option<&'a UnixStream>,
    builder: Option<UnixStream>,
    init: Option<UnixStream>,
    workload: Option<UnixStream>,
    workload_pidfd: Option<OwnedFd>,
    builder_pid: i32,
    /// Who of ours failed first, before the workload was started, and its `wait` status.
    early_end: Option<(&'static str, i32)>,
    out: Option<OwnedFd>,
    inside: Option<InsideObservations>,
    observations: Option<Observations>,
    waiting: Option<i32>,
    started: Option<Instant>,
    deadline: Instant,
    ending: Option<Ending>,
    /// `wait` status and usage of the workload.
    exited: Option<(i32, Usage)>,
    wall: Duration,
}

impl<'a> Run<'a> {
    fn new(request: Request, id: String, cgroup: &'a RunCgroup, launcher: &'a UnixStream) -> Result<Self> {
        let identity = Identity::of_caller();
        if request.host.is_none() {
            identity.check()?;
        }
        let holding = limits::hold(&request.limits, cgroup, request.host.is_none())?;
        holding.insist(&request.limits)?;
        hooks::step("supervisor: limits set");
        Ok(Run {
            request,
            id,
            identity,
            cgroup,
            holding,
            launcher: Some(launcher),
            builder: None,
            init: None,
            workload: None,
            workload_pidfd: None,
            builder_pid: 0,
            early_end: None,
            out: None,
            inside: None,
            observations: None,
            waiting: None,
            started: None,
            deadline: Instant::now() + BUILDING,
            ending: None,
            exited: None,
            wall: Duration::ZERO,
        })
    }

    /// Starts the run and sees it to its end, which is when the workload's exit is known or nobody is left to tell it.
    fn go(&mut self, fds: Vec<OwnedFd>) -> Result<()> {
        let signals = sys::signalfd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .doing(|| "watching the run".into())?;
        self.start(fds)?;
        while self.exited.is_none() {
            self.turn(&signals)?;
        }
        Ok(())
    }

    fn start(&mut self, mut fds: Vec<OwnedFd>) -> Result<()> {
        let expected = 2 + self.request.rootfs.len() + self.request.inputs.len();
        if fds.len() != expected {
            return Err(Error::System(format!(
                "the launcher sent {} descriptors instead of {expected}",
                fds.len()
            )));
        }
        let mut handles = fds.split_off(2);
        let stdio: [OwnedFd; 2] =
            fds.try_into().map_err(|_| Error::System("two descriptors are two".into()))?;
        if self.identity.by_root {
            handles = prepare::mounts(&self.request, self.identity, handles)?;
        }
        hooks::step("supervisor: handles prepared");
        let pair = || UnixStream::pair().doing(|| "making a socket".into());
        let ((builder, socket), (init, init_socket), (workload, workload_socket)) =
            (pair()?, pair()?, pair()?);
        // Whoever falls silent in the middle of a message must not silence the supervisor.
        for socket in [&builder, &init, &workload] {
            socket.set_read_timeout(Some(SENTENCE)).doing(|| "making a socket".into())?;
        }
        rustix::net::sockopt::set_socket_passcred(&workload, true).doing(|| "making a socket".into())?;
        let mut entrances = self.cgroup.entrances()?;
        let mut target = self.cgroup.clone_target()?;
        if target.is_some() && !sys::has_clone3() {
            target = None;
            entrances.extend(self.cgroup.slow_entrance()?);
        }
        let supervisor = Some(rustix::process::getpid());
        match sys::clone_process(target.as_ref().map(std::os::fd::AsFd::as_fd))
            .doing(|| "forking the builder".into())?
        {
            Forked::Child => {
                drop((builder, init, workload));
                let child = Builder {
                    id: self.id.clone(),
                    request: self.request.clone(),
                    identity: self.identity,
                    stdio,
                    handles,
                    entrances,
                    rlimits: self.holding.to_set(),
                    processors: self.holding.processors,
                    supervisor,
                    socket,
                    init_socket,
                    workload_socket,
                };
                match self.request.host.is_some() {
                    true => host::run(child),
                    false => child.run(),
                }
            }
            Forked::Parent(pid, _) => self.builder_pid = pid,
        }
        hooks::step("supervisor: builder forked");
        (self.builder, self.init, self.workload) = (Some(builder), Some(init), Some(workload));
        if let Some(directory) = &self.request.host {
            let flags =
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let out = rustix::fs::open(directory, flags, rustix::fs::Mode::empty());
            self.out = Some(out.doing(|| format!("opening {}", directory.display()))?);
        }
        Ok(())
    }

    /// One turn of the loop: waits for whatever comes first.
    fn turn(&mut self, signals: &OwnedFd) -> Result<()> {
        let ready = self.wait(signals)?;
        if Instant::now() >= self.deadline {
            return self.time_is_up();
        }
        if ready.contains(&Who::Launcher) {
            self.hear_launcher()?;
        }
        if ready.contains(&Who::Builder) {
            self.hear_builder()?;
        }
        if ready.contains(&Who::Init) {
            self.hear_init()?;
        }
        if self.exited.is_none() && ready.contains(&Who::Workload) {
            self.hear_workload()?;
        }
        self.hear_silence()?;
        if self.waiting.is_some() && self.inside.is_some() {
            self.observe_and_go()?;
        }
        if ready.contains(&Who::Signal) {
            self.hear_signal(signals)?;
        }
        Ok(())
    }

    fn wait(&self, signals: &OwnedFd) -> Result<Vec<Who>> {
        let sockets = [
            (Who::Launcher, self.launcher),
            (Who::Builder, self.builder.as_ref()),
            (Who::Init, self.init.as_ref()),
            (Who::Workload, self.workload.as_ref()),
        ];
        let open: Vec<_> = sockets.into_iter().filter_map(|(who, socket)| Some((who, socket?))).collect();
        let mut fds: Vec<_> = open.iter().map(|(_, socket)| PollFd::new(*socket, PollFlags::IN)).collect();
        fds.push(PollFd::new(signals, PollFlags::IN));
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().min(86_400) as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => drop(other.doing(|| "watching the run".into())?),
        }
        let who = open.iter().map(|(who, _)| *who).chain([Who::Signal]);
        Ok(fds.iter().zip(who).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, who)| who).collect())
    }

    fn time_is_up(&mut self) -> Result<()> {
        match (self.ending, self.started) {
            (None, None) => {
                Err(Error::System(format!("building the container took more than {} s", BUILDING.as_secs())))
            }
            (None, Some(_)) => {
                self.ending = Some(Ending::TimedOut);
                self.kill_now()
            }
            (Some(_), _) => self.kill_now(),
        }
    }

    /// The run has used its chances. The rest happens in `end`.
    fn kill_now(&mut self) -> Result<()> {
        self.exited = Some((libc::SIGKILL, Usage::default()));
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Launcher,
    Builder,
    Init,
    Workload,
    Signal,
}
