//! The supervisor: one thread, in the host's namespaces, outside the run's cgroup. It owns the run: lock, cgroup, clock, processes,
//! observation, collection, and what is left when it is over, which is nothing.
//!
//! The launcher's death is an end of file here, so it is cleaned up after like any other end.

mod end;
mod hear;
mod learning;
mod refusals;
mod watch;

pub(crate) use end::own_children;
pub(crate) use watch::is_blind;

use crate::builder::Builder;
use crate::cgroup::RunCgroup;
use crate::collect::Collected;
use crate::failure::SystemCall as _;
use crate::identity::Identity;
use crate::init::Init;
use crate::limits::{self, Holding};
use crate::observe::{InputRow, Observations, SeenByInit, SeenByWorkload, expected_inputs};
use crate::protocol::{self, Build, Done, Prepare, Request, Verdict};
use crate::spec::Usage;
use crate::state::{self, Lock};
use crate::sys::{self, Forked};
use crate::{hooks, host, prepare, reexec};
use invarlock_error::{Context as _, Error, Result};
use refusals::Refusals;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::borrow::Cow;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) const NAMESPACES_REMEDY: &str = "let ordinary users make user namespaces: `sysctl -w user.max_user_namespaces=15000` (and none of \
    user.max_*_namespaces may be used up), `sysctl -w kernel.unprivileged_userns_clone=1` (Debian), or an AppArmor profile with \
    `userns,` for this program (Ubuntu 24.04 and newer); in a container, allow clone, unshare and mount; `invarlock doctor` says which";
/// Between a polite request to stop and the end.
const GRACE: Duration = Duration::from_secs(3);
/// Building a container takes milliseconds; where it takes this long, something is stuck.
const BUILDING: Duration = Duration::from_secs(60);

/// Longest pause inside a message.
const SENTENCE: Duration = Duration::from_secs(10);

/// The supervisor's whole life.
pub(crate) fn main() -> ! {
    let shed = reexec::shed();
    // The launcher's terminal is not ours: its Ctrl-C asks the launcher, who asks us.
    _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Ok(launcher) = reexec::launcher_socket() else { sys::exit_now(125) };
    // Let go only when the launcher has its answer, because it takes the kernel a while: the run's mounts, which nobody else has any more.
    let mut mounts = None;
    let verdict = match shed.and_then(|()| protocol::receive::<Prepare>(&launcher)) {
        Ok(Some((prepare, _))) => {
            prepare.hooks.clone().set();
            hooks::share_timeline().and_then(|()| supervise(&prepare, &launcher, &mut mounts))
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
    drop(mounts);
    sys::exit_now(0)
}

/// Everything that must be undone, with the run inside; `mounts` gets the handle of its mount namespace.
fn supervise(
    prepare: &Prepare,
    launcher: &UnixStream,
    mounts: &mut Option<OwnedFd>,
) -> Result<(Done, Vec<Collected>)> {
    hooks::step("supervisor: started");
    let id = state::new_id()?;
    let directory = state::verified(prepare.state.clone())?;
    // Orphans of a plain child come here to be reaped; those of a container die with its init.
    _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // What a killed supervisor left must not stop this run.
    drop(state::sweep(&directory));
    let mut cgroup = RunCgroup::plan(&id);
    let lock = Lock::take(&directory, &id, &cgroup.dirs())?;
    cgroup.create();
    hooks::step("supervisor: cgroup made");
    let result = Run::new(prepare.host, &cgroup, launcher).and_then(|mut run| {
        let result = run.go();
        hooks::step("supervisor: workload ended");
        let ended = run.end();
        hooks::step("supervisor: all dead");
        *mounts = run.mounts.take();
        let result = result.map_err(|e| run.cause(e)).and(ended);
        result.and_then(|()| run.report())
    });
    hooks::step("supervisor: output collected");
    let emptied = cgroup.remove();
    hooks::step("supervisor: cgroup removed");
    let result = result.and_then(|done| emptied.map(|()| done));
    // Where the cgroup could not be removed the file stays, and the next start tries again.
    if result.is_ok() || cgroup.dirs().iter().all(|d| !d.exists()) {
        lock.release()?;
        hooks::step("supervisor: lock released");
    }
    result
}

/// Namespaces that a container's first process is cloned into. The cgroup namespace it makes itself, when it is in its cgroup.
fn namespaces() -> libc::c_int {
    let others = [
        ("pid namespace", libc::CLONE_NEWPID),
        ("network namespace", libc::CLONE_NEWNET),
        ("ipc namespace", libc::CLONE_NEWIPC),
        ("uts namespace", libc::CLONE_NEWUTS),
    ];
    others
        .into_iter()
        .filter(|(name, _)| !hooks::off(name))
        .fold(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, |all, (_, flag)| all | flag)
}

/// Why a run is being ended before its time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    TimedOut,
    Cancelled,
    OverMemory,
}

struct Run<'a> {
    host: bool,
    identity: Identity,
    cgroup: &'a RunCgroup,
    launcher: Option<&'a UnixStream>,
    /// What is to be run and how its limits are held, as soon as the launcher has said it.
    told: Option<RunRequest>,
    /// The run's first process, once there is one.
    init_pid: Option<i32>,
    init: Option<UnixStream>,
    workload: Option<UnixStream>,
    workload_pidfd: Option<OwnedFd>,
    /// How init failed before the workload was started, as `wait(2)` encodes it.
    early_end: Option<i32>,
    out: Option<OwnedFd>,
    /// The run's mount namespace.
    mounts: Option<OwnedFd>,
    /// Its `/tmp`, to see at the end whether it is full.
    tmp: Option<OwnedFd>,
    /// Where no cgroup holds the memory.
    watch: Option<watch::Memory>,
    /// What init saw, once it has said that it is ready.
    inside: Option<Option<SeenByInit>>,
    /// What the workload-to-be saw.
    own: Option<SeenByWorkload>,
    observations: Option<Observations>,
    /// The workload's process id and the number of its listener, while it waits for Go.
    waiting: Option<(i32, Option<RawFd>)>,
    /// What it was refused; none where the filter is not heard.
    refusals: Option<Refusals>,
    started: Option<Instant>,
    deadline: Option<Instant>,
    ending: Option<Ending>,
    /// `wait` status and usage of the workload.
    exited: Option<(i32, Usage)>,
    wall: Duration,
}

/// What the launcher wants.
struct RunRequest {
    request: Request,
    holding: Holding,
    /// What has to be below `/in`.
    inputs: Vec<InputRow>,
}

impl RunRequest {
    /// What of it init has to know.
    fn build(&self) -> Build<'_> {
        Build {
            request: Cow::Borrowed(&self.request),
            rlimits: self.holding.to_set(),
            processors: self.holding.processors,
        }
    }
}

impl<'a> Run<'a> {
    fn new(host: bool, cgroup: &'a RunCgroup, launcher: &'a UnixStream) -> Result<Self> {
        let identity = Identity::of_caller();
        if !host {
            identity.check()?;
        }
        Ok(Run {
            host,
            identity,
            cgroup,
            launcher: Some(launcher),
            told: None,
            init_pid: None,
            init: None,
            workload: None,
            workload_pidfd: None,
            early_end: None,
            out: None,
            mounts: None,
            tmp: None,
            watch: None,
            inside: None,
            own: None,
            observations: None,
            waiting: None,
            refusals: None,
            started: None,
            deadline: None,
            ending: None,
            exited: None,
            wall: Duration::ZERO,
        })
    }

    /// Starts the run and sees it to its end, which is when the workload's exit is known or nobody is left to tell it.
    fn go(&mut self) -> Result<()> {
        let signals = sys::signalfd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .context("watching the run")?;
        if !self.host {
            let (socket, workload_socket, entrances) = self.sockets()?;
            self.clone_builder(socket, workload_socket, entrances)?;
        }
        while self.exited.is_none() {
            self.turn(&signals)?;
        }
        Ok(())
    }

    /// The other ends of the sockets to init and workload, and how init enters cgroups of version 1.
    fn sockets(&mut self) -> Result<(UnixStream, UnixStream, Vec<File>)> {
        let pair = || UnixStream::pair().context("making a socket");
        let ((init, init_socket), (workload, workload_socket)) = (pair()?, pair()?);
        // Whoever falls silent in the middle of a message must not silence the supervisor.
        for socket in [&init, &workload] {
            socket.set_read_timeout(Some(SENTENCE)).context("making a socket")?;
        }
        rustix::net::sockopt::set_socket_passcred(&workload, true).context("making a socket")?;
        (self.init, self.workload) = (Some(init), Some(workload));
        Ok((init_socket, workload_socket, self.cgroup.entrances()?))
    }

    /// The container's first process, in namespaces of its own from its first instruction.
    fn clone_builder(
        &mut self,
        socket: UnixStream,
        workload_socket: UnixStream,
        mut entrances: Vec<File>,
    ) -> Result<()> {
        if self.identity.by_root && !hooks::off("supplementary groups") {
            // Inside, nobody can give them up any more.
            rustix::thread::set_thread_groups(&[]).context("giving up supplementary groups")?;
        }
        let target = self.cgroup_target(&mut entrances)?;
        let cloned = sys::clone_process(namespaces(), target.as_ref().map(std::os::fd::AsFd::as_fd))
            .or_unsupported(|| "row \"namespaces\": making the run's namespaces".into(), NAMESPACES_REMEDY)?;
        let pid = match cloned {
            Forked::Child => {
                drop((self.init.take(), self.workload.take()));
                Builder { identity: self.identity, entrances, socket, workload_socket }.run()
            }
            Forked::Parent(pid, _) => pid,
        };
        self.init_pid = Some(pid);
        hooks::step("supervisor: builder cloned");
        // Some kernels let anybody make a user namespace and only refuse to fill it in.
        let mapped = self
            .identity
            .write_maps_of(pid)
            .or_unsupported(|| "row \"namespaces\"".into(), NAMESPACES_REMEDY);
        let told = mapped.and_then(|()| match &self.init {
            Some(init) => (&*init).write_all(b"M").context("telling the builder of its ids"),
            None => Ok(()),
        });
        self.or_its_reason(told)
    }

    /// Where a new process is cloned into; without clone3(2), it enters by itself.
    fn cgroup_target(&self, entrances: &mut Vec<File>) -> Result<Option<File>> {
        let target = self.cgroup.clone_target()?;
        if target.is_some() && !sys::has_clone3() {
            entrances.extend(self.cgroup.slow_entrance()?);
            return Ok(None);
        }
        Ok(target)
    }

    /// The launcher has said what it wants.
    fn begin(&mut self, request: Request, mut fds: Vec<OwnedFd>) -> Result<()> {
        hooks::step("supervisor: request received");
        let expected = 2 + request.rootfs.len() + request.inputs.len();
        if self.told.is_some() || request.host.is_some() != self.host || fds.len() != expected {
            return Err(Error::system("the launcher's message makes no sense"));
        }
        let holding = limits::hold(&request.limits, self.cgroup, !self.host)?;
        holding.insist(&request.limits)?;
        hooks::step("supervisor: limits set");
        let handles = fds.split_off(2);
        let inputs = expected_inputs(&request, &handles[request.rootfs.len()..])?;
        let handles = match self.identity.by_root {
            true => prepare::mounts(&request, self.identity, handles).in_control("root file system")?,
            false => handles,
        };
        fds.extend(handles);
        hooks::step("supervisor: handles prepared");
        self.deadline = Some(Instant::now() + BUILDING);
        let told = self.told.insert(RunRequest { request, holding, inputs });
        match (&told.request.host, &self.init) {
            (None, Some(init)) => {
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                let told = protocol::send(init, &told.build(), &fds)
                    .map_err(|e| e.context("telling the builder what to build"));
                self.or_its_reason(told)
            }
            _ => self.fork_on_host(fds),
        }
    }

    fn fork_on_host(&mut self, fds: Vec<OwnedFd>) -> Result<()> {
        let (socket, workload_socket, mut entrances) = self.sockets()?;
        let stdio: [OwnedFd; 2] =
            fds.try_into().map_err(|_| Error::system("a plain child takes no handles"))?;
        let target = self.cgroup_target(&mut entrances)?;
        let Some(told) = &self.told else { return Ok(()) };
        match sys::clone_process(0, target.as_ref().map(std::os::fd::AsFd::as_fd))
            .or_no_process(|| "forking the program's parent".into())?
        {
            Forked::Child => {
                let init = Init::new(told.build(), self.identity, &socket, &workload_socket);
                drop((self.init.take(), self.workload.take()));
                host::run(&init, &socket, &entrances, &stdio)
            }
            Forked::Parent(pid, _) => self.init_pid = Some(pid),
        }
        hooks::step("supervisor: program's parent forked");
        if let Some(directory) = &told.request.host {
            let flags =
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let out = rustix::fs::open(directory, flags, rustix::fs::Mode::empty());
            self.out = Some(out.with_context(|| format!("opening {}", directory.display()))?);
        }
        Ok(())
    }

    /// One turn of the loop: waits for whatever comes first.
    fn turn(&mut self, signals: &OwnedFd) -> Result<()> {
        let ready = self.wait(signals)?;
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return self.time_is_up();
        }
        if let (Some(refusals), true) = (&mut self.refusals, ready.contains(&Who::Refused)) {
            refusals.answer()?;
        }
        if self.ending.is_none() && self.is_over_memory()? {
            self.ending = Some(Ending::OverMemory);
            return self.kill_now();
        }
        if ready.contains(&Who::Launcher) {
            self.hear_launcher()?;
        }
        if ready.contains(&Who::Init) {
            self.hear_init()?;
        }
        if self.exited.is_none() && ready.contains(&Who::Workload) {
            self.hear_workload()?;
        }
        self.hear_silence()?;
        if self.waiting.is_some() && self.inside.is_some() && self.own.is_some() {
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
            (Who::Init, self.init.as_ref()),
            (Who::Workload, self.workload.as_ref()),
        ];
        let open: Vec<_> = sockets.into_iter().filter_map(|(who, socket)| Some((who, socket?))).collect();
        let mut fds: Vec<_> = open.iter().map(|(_, socket)| PollFd::new(*socket, PollFlags::IN)).collect();
        fds.push(PollFd::new(signals, PollFlags::IN));
        let refused = self.refusals.as_ref().and_then(Refusals::readable);
        fds.extend(refused.map(|listener| PollFd::from_borrowed_fd(listener, PollFlags::IN)));
        let next = [self.deadline, self.watch.as_ref().map(|watch| watch.next)].into_iter().flatten().min();
        let left = next.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().min(86_400) as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => drop(other.context("watching the run")?),
        }
        let who = open.iter().map(|(who, _)| *who).chain([Who::Signal, Who::Refused]);
        Ok(fds.iter().zip(who).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, who)| who).collect())
    }

    fn time_is_up(&mut self) -> Result<()> {
        match (self.ending, self.started) {
            (None, None) => {
                Err(Error::system(format!("building the container took more than {} s", BUILDING.as_secs())))
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
    Init,
    Workload,
    Signal,
    Refused,
}
