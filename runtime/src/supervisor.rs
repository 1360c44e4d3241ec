//! The supervisor: one thread, in the host's namespaces, outside the run's cgroup. It owns the run: lock, cgroup, clock, processes,
//! observation, collection, and what is left when it is over, which is nothing.
//!
//! The launcher's death is an end of file here, so it is cleaned up after like any other end.

use crate::builder::Builder;
use crate::cgroup::RunCgroup;
use crate::collect::{self, Collected};
use crate::error::{Doing as _, Error, Result};
use crate::identity::Identity;
use crate::limits::{self, Holding};
use crate::observe::{InsideObservations, Observations, View};
use crate::protocol::{self, Done, FromBuilder, FromInit, Order, Request, Verdict};
use crate::spec::{Status, Usage};
use crate::state::{self, Lock};
use crate::sys::{self, Forked};
use crate::{host, prepare, reexec};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Between a polite request to stop and the end.
const GRACE: Duration = Duration::from_secs(3);
/// Building a container takes milliseconds; where it takes this long, something is stuck.
const BUILDING: Duration = Duration::from_secs(60);

/// The supervisor's whole life.
pub(crate) fn main() -> ! {
    // The launcher's terminal is not ours: its Ctrl-C asks the launcher, who asks us.
    _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Ok(launcher) = reexec::launcher_socket() else { sys::exit_now(125) };
    let verdict = match protocol::receive::<Request>(&launcher) {
        Ok(Some((request, fds))) => supervise(request, fds, &launcher),
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
    let id = state::new_id()?;
    let directory = state::verified(request.state.clone())?;
    // Orphans of a plain child come here to be reaped; those of a container die with its init.
    _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // What a killed supervisor left must not stop this run.
    drop(state::sweep(&directory));
    let mut cgroup = RunCgroup::plan(&id);
    let lock = Lock::take(&directory, &id, &cgroup.dirs())?;
    cgroup.create();
    let result = Run::new(request, id, &cgroup, launcher).and_then(|mut run| {
        let result = run.go(fds);
        let ended = run.end();
        let result = result.and(ended);
        result.and_then(|()| run.report())
    });
    let emptied = cgroup.kill().and_then(|()| cgroup.remove());
    let result = result.and_then(|done| emptied.map(|()| done));
    // Where the cgroup could not be removed the file stays, and the next start tries again.
    if result.is_ok() || cgroup.dirs().iter().all(|d| !d.exists()) {
        lock.release()?;
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
        let pair = || UnixStream::pair().doing(|| "making a socket".into());
        let ((builder, socket), (init, init_socket), (workload, workload_socket)) =
            (pair()?, pair()?, pair()?);
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
                    rlimits: self.holding.rlimits.clone(),
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

    fn hear_launcher(&mut self) -> Result<()> {
        let Some(launcher) = self.launcher else { return Ok(()) };
        match protocol::receive::<Order>(launcher) {
            Ok(Some((Order::Cancel, _))) => self.cancel(),
            // Dead, or confused: nobody wants the result.
            Ok(None) | Err(_) => {
                self.launcher = None;
                Err(Error::System("the launcher is gone".into()))
            }
        }
    }

    fn cancel(&mut self) -> Result<()> {
        if self.ending.is_some() {
            return Ok(());
        }
        self.ending = Some(Ending::Cancelled);
        let Some(workload) = &self.workload_pidfd else { return self.kill_now() };
        _ = rustix::process::pidfd_send_signal(workload, Signal::TERM);
        self.deadline = Instant::now() + GRACE;
        Ok(())
    }

    fn hear_builder(&mut self) -> Result<()> {
        let Some(socket) = &self.builder else { return Ok(()) };
        match protocol::receive::<FromBuilder>(socket)? {
            None => self.builder = None,
            Some((FromBuilder::WantMaps, _)) => {
                self.identity.write_maps_of(self.builder_pid)?;
                (&*socket).write_all(b"M").doing(|| "answering the builder".into())?;
            }
            Some((FromBuilder::Output, fds)) => self.out = fds.into_iter().next(),
            Some((FromBuilder::Failed(error), _)) => return Err(self.cause_in_init(error)),
        }
        Ok(())
    }

    /// Where init told its reason, that is the better one.
    fn cause_in_init(&self, error: Error) -> Error {
        let Some(init) = &self.init else { return error };
        let quiet = init.set_nonblocking(true).is_ok();
        match protocol::receive::<FromInit>(init) {
            Ok(Some((FromInit::Failed(cause), _))) if quiet => cause,
            _ => error,
        }
    }

    fn hear_init(&mut self) -> Result<()> {
        let Some(socket) = &self.init else { return Ok(()) };
        match protocol::receive::<FromInit>(socket)? {
            Some((FromInit::Ready(inside), _)) => self.inside = Some(inside),
            Some((FromInit::Failed(error), _)) => return Err(error),
            Some((FromInit::Exited { status, user_us, system_us, peak_kib }, _)) => {
                self.wall = self.started.map_or(Duration::ZERO, |s| s.elapsed());
                self.last_words()?;
                let usage = Usage {
                    cpu_user_ms: user_us / 1000,
                    cpu_system_ms: system_us / 1000,
                    peak_memory_bytes: Some(peak_kib * 1024),
                    peak_memory_by: Some("rusage".into()),
                    ..Usage::default()
                };
                self.exited = Some((status, usage));
            }
            // Init is dead, and with it everything: killed from outside, or by the kernel for memory.
            None => {
                self.init = None;
                if self.started.is_none() && self.builder.is_some() {
                    return Ok(());
                }
                self.last_words()?;
                self.kill_now()?;
            }
        }
        Ok(())
    }

    /// The workload's end may be heard before its reason.
    fn last_words(&mut self) -> Result<()> {
        match &self.workload {
            Some(socket) => {
                socket.set_nonblocking(true).doing(|| "listening to the workload".into())?;
                self.hear_workload()
            }
            None => Ok(()),
        }
    }

    fn hear_workload(&mut self) -> Result<()> {
        let Some(socket) = &self.workload else { return Ok(()) };
        match protocol::receive_ready(socket)? {
            None => self.workload = None,
            Some((b'R', pid)) => self.waiting = Some(pid),
            Some((b'E', _)) => {
                let mut errno = [0; 4];
                (&*socket).read_exact(&mut errno).doing(|| "hearing why the program did not start".into())?;
                let cause = std::io::Error::from_raw_os_error(i32::from_le_bytes(errno));
                let program = self.request.argv.first().map(String::as_str).unwrap_or_default();
                return Err(Error::Input(format!(
                    "starting {program:?} in the container: {cause}; the program must be in the image, executable, and made for this machine"
                )));
            }
            Some(_) => match protocol::receive::<FromInit>(socket)? {
                Some((FromInit::Failed(error), _)) => return Err(error),
                _ => {
                    return Err(Error::System(
                        "the workload could not be started and did not say why".into(),
                    ));
                }
            },
        }
        Ok(())
    }

    /// The workload waits, filter on. What the kernel says of it decides whether it starts.
    fn observe_and_go(&mut self) -> Result<()> {
        let (Some(pid), Some(inside), Some(socket)) =
            (self.waiting.take(), self.inside.take(), &self.workload)
        else {
            return Ok(());
        };
        let raw = rustix::process::Pid::from_raw(pid)
            .ok_or_else(|| Error::System("the workload has no process id".into()))?;
        let handle = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())
            .doing(|| "watching the workload".into())?;
        self.holding.read_back(pid)?;
        let view = View {
            pid,
            request: &self.request,
            identity: self.identity,
            limits: self.holding.rows.clone(),
            cgroup: self.cgroup,
        };
        let seen = view.take(inside)?;
        view.check(&seen)?;
        self.observations = Some(seen);
        self.workload_pidfd = Some(handle);
        let now = Instant::now();
        (self.started, self.deadline) = (Some(now), now + self.request.limits.wall);
        (&*socket).write_all(b"G").doing(|| "starting the workload".into())
    }

    fn hear_signal(&mut self, signals: &OwnedFd) -> Result<()> {
        let mut info = [0u8; 128];
        if rustix::io::read(signals, &mut info).is_ok() {
            let [a, b, c, d, ..] = info;
            if u32::from_le_bytes([a, b, c, d]) != libc::SIGCHLD as u32 {
                return self.cancel();
            }
        }
        while let Ok(Some(dead)) = sys::reap() {
            let failed = libc::WIFSIGNALED(dead.status) || libc::WEXITSTATUS(dead.status) != 0;
            if dead.pid == self.builder_pid && failed && self.started.is_none() {
                self.hear_builder()?;
                let oom = self.cgroup.counted().oom_kills.unwrap_or(0) > 0;
                return Err(match oom {
                    true => Error::Input(
                        "the memory limit is too small even to build the container; raise --memory".into(),
                    ),
                    false => Error::System(format!(
                        "the builder of the container died (wait status {:#x})",
                        dead.status
                    )),
                });
            }
        }
        Ok(())
    }

    /// Ends every process of the run and reaps it. Only then is anything of it read.
    fn end(&mut self) -> Result<()> {
        if self.wall.is_zero() {
            self.wall = self.started.map_or(Duration::ZERO, |s| s.elapsed());
        }
        (self.builder, self.init, self.workload) = (None, None, None);
        let patience = Instant::now() + Duration::from_secs(30);
        let mut killed = false;
        loop {
            match sys::reap() {
                Err(_) => return Ok(()),
                Ok(Some(_)) => continue,
                Ok(None) if Instant::now() > patience => {
                    return Err(Error::System("processes of the run do not die".into()));
                }
                Ok(None) => {}
            }
            // A run that ended by itself is dying already; give it that long before it is hit.
            if self.ending.is_some() || self.exited.is_none() || killed {
                self.cgroup.kill()?;
                own_children()?.into_iter().for_each(|pid| sys::kill_child(pid, libc::SIGKILL));
            }
            killed = true;
            wait_for_a_child(Duration::from_millis(20));
        }
    }

    /// What the launcher gets.
    fn report(&mut self) -> Result<(Done, Vec<Collected>)> {
        let Some((status, mut usage)) = self.exited.take() else {
            return Err(Error::System("the run ended without an outcome".into()));
        };
        let Some(observations) = self.observations.take() else {
            return Err(match self.ending {
                Some(Ending::Cancelled) => Error::System("cancelled before the workload was started".into()),
                _ => Error::System("the container ended before the workload was started".into()),
            });
        };
        usage.wall_ms = u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX);
        let counted = self.cgroup.counted();
        usage.oom_kills = counted.oom_kills;
        if let Some(peak) = counted.peak_memory {
            (usage.peak_memory_bytes, usage.peak_memory_by) = (Some(peak), Some("cgroup".into()));
        }
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let status = match self.ending {
            Some(Ending::TimedOut) => Status::TimedOut,
            Some(Ending::Cancelled) => Status::Cancelled,
            None if killed && counted.oom_kills.is_some_and(|n| n > 0) => Status::MemoryLimit,
            None if libc::WIFSIGNALED(status) => Status::Signaled(libc::WTERMSIG(status)),
            None => Status::Exited(libc::WEXITSTATUS(status)),
        };
        let files = match &self.out {
            Some(out) if self.request.collect_output => collect::collect(out, &self.request.limits)?,
            _ => Vec::new(),
        };
        let output = files.iter().map(|f| (f.name.clone(), f.size)).collect();
        Ok((Done { status, output, observations, usage }, files))
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

/// Every child of this process: all of them are the run's.
fn own_children() -> Result<Vec<i32>> {
    let path = "/proc/thread-self/children";
    let text = std::fs::read_to_string(path).doing(|| format!("reading {path}"))?;
    Ok(text.split_whitespace().filter_map(|n| n.parse().ok()).filter(|pid| *pid > 1).collect())
}

/// Sleeps until a child dies (SIGCHLD is blocked and would wake us), at most `longest`.
fn wait_for_a_child(longest: Duration) {
    sys::wait_for_signal(libc::SIGCHLD, longest);
}
