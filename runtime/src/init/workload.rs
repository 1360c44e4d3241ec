//! The future workload: a clone of init that drops everything, reports, installs its filter, waits, and executes the program.

use super::{Init, drop_capabilities, program};
use crate::landlock::{self, Landlock};
use crate::observations::{ContainerIds, WorkloadReport};
use crate::process::close_descriptors_on_exec;
use crate::procfs::Status;
use crate::protocol::WorkloadSocket;
use crate::sys::{self, Vector};
use crate::{core_dumps, hooks};
use invarlock_error::{Context as _, Error, Kind, Result};
use invarlock_seccomp::{Listener, TRACE_FD};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::{Gid, Uid};
use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;

impl Init {
    /// Becomes the program, or reports why not.
    pub(super) fn become_workload(&self, supervisor: &UnixStream) -> ! {
        let inherited = std::env::vars().map(|(name, value)| format!("{name}={value}"));
        let env = self.env.iter().cloned().chain(inherited.filter(|_| hooks::off("environment")));
        let env: Vec<String> = env.collect();
        let socket = WorkloadSocket(supervisor);
        let reported = self.drop_everything().and_then(|(program, landlock)| {
            let moved = self.move_for_trace(supervisor)?;
            socket.report(&report(&env, landlock)?)?;
            Ok((program, moved))
        });
        match reported {
            Ok((program, moved)) => {
                hooks::step("workload: given up everything");
                self.execute_with_filter(moved.as_ref().unwrap_or(supervisor), program, env)
            }
            Err(error) => {
                socket.failed(error);
                sys::exit_now(1)
            }
        }
    }

    /// Everything before the filter: session, signals, ids, limits, capabilities, working directory, descriptors, Landlock. Returns the path of
    /// the program.
    fn drop_everything(&self) -> Result<(String, Landlock)> {
        if !hooks::off("session") {
            rustix::process::setsid().context("creating a session for the workload")?;
        }
        if self.terminal.is_some() {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .context("making the terminal the controlling one")
                .in_control("terminal")?;
        }
        sys::reset_signals();
        if let Some(count) = self.processors.filter(|_| !hooks::off("cpu limit")) {
            restrict_processors(count).context("setting the processor affinity").in_control("limits")?;
        }
        if !self.host && !hooks::off("workload id") {
            self.change_ids().in_control("identity")?;
        }
        for limit in &self.rlimits {
            let value = rustix::process::Rlimit { current: limit.value.soft, maximum: limit.value.hard };
            rustix::process::setrlimit(limit.kind.resource(), value)
                .with_context(|| format!("setting {limit:?}"))
                .in_control("limits")?;
        }
        if !self.host && !hooks::off("capabilities") {
            drop_capabilities()?;
        }
        rustix::thread::set_no_new_privs(true).context("setting no_new_privs")?;
        // The supervisor reads this process's descriptors and namespaces. The process has no secret and no privilege.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
            .context("making the workload dumpable")?;
        // The file belongs to the workload only while it is dumpable.
        core_dumps::exclude_memory()?;
        self.enter_directory()
            .with_context(|| format!("changing to the working directory {:?} of the image", self.cwd))
            .kind(Kind::Input)?;
        let program = program::find(&self.argv, &self.env)?;
        if !self.host {
            program::reject_magic_link(&program)?;
        }
        close_descriptors_on_exec()?;
        if hooks::off("descriptors") {
            sys::keep_open_from_3().context("keeping descriptors open")?;
        }
        let landlock = if self.host { Landlock::None } else { landlock::restrict(&self.writable_mounts)? };
        Ok((program, landlock))
    }

    /// The path may lead through links of the image, but not through the magic links of `/proc`, behind which are files of other processes.
    fn enter_directory(&self) -> rustix::io::Result<()> {
        if self.host {
            return rustix::process::chdir(self.cwd.as_str());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_MAGICLINKS;
        rustix::process::fchdir(rustix::fs::openat2(CWD, &self.cwd, flags, Mode::empty(), resolve)?)
    }

    fn change_ids(&self) -> Result<()> {
        // Supplementary groups were dropped before the user namespace was created; inside it setgroups is denied.
        let (uid, gid) = (Uid::from_raw(self.identity.inside.uid), Gid::from_raw(self.identity.inside.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid).context("changing the group")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).context("changing the user")
    }

    /// To trace a profile, moves the socket to the descriptor whose use the filter does not report.
    fn move_for_trace(&self, supervisor: &UnixStream) -> Result<Option<UnixStream>> {
        if !self.trace {
            return Ok(None);
        }
        const DOING: &str = "moving the socket to the supervisor";
        let number = TRACE_FD as RawFd;
        let moved = rustix::io::fcntl_dupfd_cloexec(supervisor, number).context(DOING)?;
        match moved.as_raw_fd() == number {
            true => Ok(Some(moved.into())),
            false => Err(Error::system(format!("{DOING}: descriptor {number} is in use"))),
        }
    }

    /// Installs the filter. Returns the listener if the filter reports denied calls.
    fn install_filter(&self) -> invarlock_seccomp::Result<Option<Listener>> {
        if hooks::off("filter") {
            return Ok(None);
        }
        // Freeing memory could need a call that the filter denies.
        let ready = std::mem::ManuallyDrop::new(self.filter.ready()?);
        match ready.uses_notify() {
            true => ready.install_notify().map(Some),
            false => ready.install().map(|()| None),
        }
    }

    /// Installs the filter and executes the program. After the filter there are only read, write, execve and exit, on memory allocated
    /// before.
    fn execute_with_filter(&self, supervisor: &UnixStream, program: String, env: Vec<String>) -> ! {
        let prepared = (|| {
            Some((CString::new(program).ok()?, Vector::new(self.argv.clone()).ok()?, Vector::new(env).ok()?))
        })();
        let Some((program, argv, env)) = prepared else { sys::exit_now(1) };
        let socket = WorkloadSocket(supervisor);
        // The listener stays open until execve closes it; the supervisor duplicates it before it sends `Go`.
        let listener = match self.install_filter() {
            Ok(listener) => listener,
            Err(error) => {
                // An inherited filter may deny this; the supervisor then reports only that the process ended.
                socket.failed(filter_error(error));
                sys::exit_now(1);
            }
        };
        if !socket.ready(listener.as_ref().map(|listener| listener.as_fd().as_raw_fd())) {
            sys::exit_now(1);
        }
        let error = sys::execve(&program, &argv, &env);
        socket.exec_failed(error.raw_os_error().unwrap_or(0));
        sys::exit_now(127)
    }
}

/// The error for a filter that cannot be installed.
fn filter_error(error: Error) -> Error {
    let error = match error.kind() {
        Kind::Unsupported => error,
        _ => error.with_kind(Kind::System),
    };
    error.in_control("system calls")
}

/// What the process observes of itself.
fn report(env: &[String], landlock: Landlock) -> Result<WorkloadReport> {
    let bits = rustix::thread::capabilities_secure_bits()
        .context("reading the secure bits")
        .in_control("capabilities")?;
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let status = Status::own()?;
    Ok(WorkloadReport {
        environment: env.iter().map(name).collect(),
        secure_bits: format!("{:#x}", bits.bits()),
        landlock,
        ids: ContainerIds { uid: status.numbers("Uid")?, gid: status.numbers("Gid")? },
    })
}

/// Restricts this process to the first `count` of its processors.
fn restrict_processors(count: usize) -> Result<()> {
    let all = rustix::thread::sched_getaffinity(None)?;
    let mut some = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| all.is_set(*cpu))
        .take(count)
        .for_each(|cpu| some.set(cpu));
    Ok(rustix::thread::sched_setaffinity(None, &some)?)
}
