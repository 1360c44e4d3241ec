//! Init: process 1 of the container.
//!
//! libcontainer calls it when the container's file system is in place and a few capabilities are left, and never gets control back.
//! Init finishes the boundary, forks the workload (`workload.rs`), drops its remaining capabilities, and reaps until the workload is dead.
//! Its own end is the end of every process of the container.

mod dev;
mod program;
mod workload;

use crate::boundary::SECURE_BITS;
use crate::failure::SystemCall as _;
use crate::identity::Identity;
use crate::observations::{HostName, InitReport};
use crate::process::{die_with, die_with_supervisor, null_device};
use crate::protocol::{self, Build, FromInit};
use crate::rlimit::Rlimit;
use crate::stdio::Streams;
use crate::sys::{self, Forked};
use crate::terminal::{self, Pty, Size};
use crate::user_mounts::RequestMount;
use crate::{cgroup, hooks, user_limits};
use invarlock_error::{Context as _, Result};
use invarlock_seccomp::Program;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// What init and the workload need. They inherit it when their process is cloned.
#[derive(Debug, Clone)]
pub(crate) struct Init {
    argv: Vec<String>,
    env: Vec<String>,
    cwd: String,
    filter: Program,
    identity: Identity,
    rlimits: Vec<Rlimit>,
    processors: Option<usize>,
    /// Whether the filter reports every call, because the profile is traced.
    trace: bool,
    /// Whether the container has the files of an OCI runtime.
    runtime_files: bool,
    /// The size of the terminal, if the workload's standard streams are one.
    terminal: Option<Size>,
    /// The targets of the mounts of the caller that the workload may write.
    writable_mounts: Vec<String>,
    /// The entries of `/dev` with the devices of the host.
    devices: Vec<String>,
    /// Whether the workload is a plain child, without ids and capabilities of its own.
    host: bool,
    /// The socket to the supervisor.
    socket: RawFd,
    /// The workload's socket to the supervisor.
    workload_socket: RawFd,
}

impl Executor for Init {
    fn validate(&self, _spec: &Spec) -> std::result::Result<(), ExecutorValidationError> {
        self.run_in_container()
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> std::result::Result<(), ExecutorSetEnvsError> {
        self.run_in_container()
    }

    fn exec(&self, _spec: &Spec) -> std::result::Result<(), ExecutorError> {
        self.run_in_container()
    }
}

impl Init {
    pub(crate) fn new(
        build: Build<'_>,
        identity: Identity,
        socket: &UnixStream,
        workload: &UnixStream,
    ) -> Self {
        let request = build.request.into_owned();
        let entry = |mount: &RequestMount| {
            let (path, _) = mount.device()?;
            path.split('/').next().map(str::to_owned)
        };
        let devices = request.mounts.iter().filter_map(entry).collect();
        Init {
            argv: request.argv,
            env: request.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            filter: request.filter,
            cwd: request.cwd,
            identity,
            rlimits: build.rlimits,
            processors: build.processors,
            runtime_files: request.runtime_files.is_some(),
            terminal: match request.streams {
                Streams::Terminal(size) => Some(size),
                Streams::Output | Streams::Input => None,
            },
            writable_mounts: {
                let writable = request.mounts.into_iter().filter(RequestMount::is_writable);
                writable.map(|mount| mount.target).collect()
            },
            devices,
            host: request.host.is_some(),
            trace: request.trace.is_some(),
            socket: socket.as_raw_fd(),
            workload_socket: workload.as_raw_fd(),
        }
    }

    /// Runs as the parent of a plain child. Never returns.
    pub(crate) fn run_on_host(&self, socket: &UnixStream, entrances: &[File], stdio: &[OwnedFd; 2]) -> ! {
        if let Err(error) = self.prepare_on_host(socket, entrances, stdio).and_then(|()| self.run()) {
            drop(protocol::send(socket, &FromInit::Failed(error), &[]));
        }
        sys::exit_now(1)
    }

    fn prepare_on_host(
        &self,
        socket: &UnixStream,
        entrances: &[File],
        [stdout, stderr]: &[OwnedFd; 2],
    ) -> Result<()> {
        const DOING: &str = "connecting the output of the program";
        die_with_supervisor(socket)?;
        hooks::step("init: host started");
        cgroup::enter(entrances)?;
        hooks::step("init: host cgroup entered");
        rustix::stdio::dup2_stdin(null_device()?).context(DOING)?;
        rustix::stdio::dup2_stdout(stdout).context(DOING)?;
        rustix::stdio::dup2_stderr(stderr).context(DOING)?;
        protocol::send(&self.connection(self.socket)?, &FromInit::Ready(None), &[])?;
        hooks::step("init: host ready said");
        Ok(())
    }

    /// Runs as process 1 of the container. Never returns.
    fn run_in_container(&self) -> ! {
        if let Err(error) = self.finish_boundary().and_then(|()| self.run())
            && let Ok(socket) = self.connection(self.socket)
        {
            drop(protocol::send(&socket, &FromInit::Failed(error), &[]));
        }
        sys::exit_now(1)
    }

    fn connection(&self, fd: RawFd) -> Result<UnixStream> {
        sys::duplicate(fd).map(UnixStream::from).context("using the socket to the supervisor")
    }

    fn finish_boundary(&self) -> Result<()> {
        hooks::step("init: file system there");
        // libcontainer changed capabilities, which can clear the parent death signal.
        die_with_supervisor(&self.connection(self.socket)?)?;
        let dumpable = match hooks::off("init not dumpable") {
            true => DumpableBehavior::Dumpable,
            false => DumpableBehavior::NotDumpable,
        };
        rustix::process::set_dumpable_behavior(dumpable).context("making init not dumpable")?;
        dev::clear(self.runtime_files, self.terminal.is_some(), &self.devices).in_control("/dev")?;
        let ready = FromInit::Ready(Some(report()?));
        hooks::step("init: boundary finished");
        let master = self.terminal.map(connect_terminal).transpose().in_control("terminal")?;
        let descriptors: Vec<_> = master.iter().map(|master| master.as_fd()).collect();
        protocol::send(&self.connection(self.socket)?, &ready, &descriptors)?;
        hooks::step("init: ready said");
        Ok(())
    }

    /// Starts the workload and waits for its end.
    fn run(&self) -> Result<()> {
        // Closes the handles of the host; init keeps its two sockets.
        let (socket, workload_socket) =
            (self.connection(self.socket)?, self.connection(self.workload_socket)?);
        sys::close_all_but(&[socket.as_raw_fd(), workload_socket.as_raw_fd()])
            .context("closing descriptors")
            .in_control("descriptors")?;
        let result = self.start_and_reap(&socket, workload_socket);
        if let Err(error) = result {
            drop(protocol::send(&socket, &FromInit::Failed(error), &[]));
            sys::exit_now(1);
        }
        Ok(())
    }

    fn start_and_reap(&self, socket: &UnixStream, workload_socket: UnixStream) -> Result<()> {
        _ = rustix::thread::set_name(c"invarlock-init");
        let signals = sys::signalfd(&[libc::SIGCHLD]).context("blocking SIGCHLD")?;
        if !self.host && !hooks::off("secure bits") {
            set_secure_bits().in_control("capabilities")?;
        }
        let init = rustix::process::getpid();
        let pid = match sys::clone_process(0, None).or_no_process(|| "forking the workload".into())? {
            Forked::Child => {
                // The workload must not keep init's socket open: the supervisor detects init's death by its end.
                let kept = workload_socket.as_raw_fd();
                // A plain child has no pid namespace that would kill it with its parent.
                let tied = !self.host || die_with(init);
                match sys::close_all_but(&[kept]) {
                    Ok(()) if tied => self.become_workload(&workload_socket),
                    _ => sys::exit_now(1),
                }
            }
            Forked::Parent(pid, _) => pid,
        };
        hooks::step("init: workload forked");
        drop(workload_socket);
        if !self.host {
            drop_capabilities()?;
        }
        // Init keeps no end of the workload's pipes: their last reader and writer is the workload.
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
            .context("opening /dev/null")?;
        rustix::stdio::dup2_stdin(&null).context("closing the standard input of init")?;
        rustix::stdio::dup2_stdout(&null).context("closing the standard output of init")?;
        rustix::stdio::dup2_stderr(&null).context("closing the standard error of init")?;
        drop(null);
        self.reap(pid, socket, &signals)
    }

    /// Reaps until the workload is dead, and reports its end. Exits at once when the supervisor is gone.
    fn reap(&self, workload: i32, socket: &UnixStream, signals: &OwnedFd) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => drop(other.context("waiting for the workload")?),
            }
            let [supervisor, children] = fds.map(|fd| fd.revents());
            if !supervisor.is_empty() {
                sys::exit_now(1);
            }
            if !children.is_empty() {
                _ = rustix::io::read(signals, &mut [0; 128]);
            }
            while let Ok(Some(dead)) = sys::reap() {
                if dead.pid != workload {
                    continue;
                }
                hooks::step("init: workload ended");
                let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                let (status, user_us, system_us) = (dead.status, us(dead.user), us(dead.system));
                let exited = FromInit::Exited { status, user_us, system_us, peak_kib: dead.peak_kib };
                drop(protocol::send(socket, &exited, &[]));
                sys::exit_now(0);
            }
        }
    }
}

/// Makes a new terminal of the container the standard streams of this process, and so of the workload. Returns its master.
fn connect_terminal(size: Size) -> Result<OwnedFd> {
    const DOING: &str = "connecting the terminal of the container";
    let Pty { master, slave } = terminal::create(size)?;
    rustix::stdio::dup2_stdin(&slave).context(DOING)?;
    rustix::stdio::dup2_stdout(&slave).context(DOING)?;
    rustix::stdio::dup2_stderr(&slave).context(DOING)?;
    Ok(master)
}

/// From here on user id 0 gives no capability, not even by execve.
fn set_secure_bits() -> Result<()> {
    rustix::thread::set_capabilities_secure_bits(SECURE_BITS).context("setting the secure bits")
}

/// Empties every capability set. The bounding set is empty since libcontainer.
fn drop_capabilities() -> Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::clear_ambient_capability_set()
        .context("clearing the ambient set")
        .and_then(|()| rustix::thread::set_capabilities(None, sets).context("clearing the sets"))
        .in_control("capabilities")
}

fn report() -> Result<InitReport> {
    let names = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let signal = rustix::process::parent_process_death_signal()
        .context("reading the parent death signal of init")
        .in_control("life")?;
    Ok(InitReport {
        host_name: HostName { host: text(names.nodename()), domain: text(names.domainname()) },
        parent_death_signal: signal.map_or(0, Signal::as_raw),
        user_limits: user_limits::read()?,
    })
}
