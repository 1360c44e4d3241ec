//! Init: process 1 of the container, ours, and the workload up to its first instruction.
//!
//! libcontainer calls it when the container's file system is in place and a few capabilities are left, and never gets control back.
//! It finishes the boundary, forks the workload, gives up what it has left, and reaps until the workload is
//! dead; its own end is the end of every process of the container.

use crate::builder::die_with_supervisor;
use crate::failure::SystemCall as _;
use crate::hooks;
use crate::identity::Identity;
use crate::limits::Rlimit;
use crate::observe::{DEVICES, HostName, IdsInside, SeenByInit, SeenByWorkload, status_numbers};
use crate::protocol::{self, FromInit};
use crate::sys::{self, Forked, Vector};
use invarlock_error::{Context as _, Error, Kind, Result};
use invarlock_seccomp::{LEARNING_FD, Listener, Program};
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags};
use rustix::mount::UnmountFlags;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid};
use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// The secure bits of the workload: neither id 0 nor an ambient set gives it a capability, and nobody can change that.
pub(crate) const SECURE_BITS: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED);

/// What init and the workload need to know. It crosses into them by being copied with the process.
#[derive(Debug, Clone)]
pub(crate) struct Init {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) filter: Program,
    pub(crate) identity: Identity,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) processors: Option<usize>,
    /// The filter asks about every call.
    pub(crate) learning: bool,
    /// A plain child: no identity or capability of its own.
    pub(crate) host: bool,
    /// To the supervisor.
    pub(crate) socket: RawFd,
    /// The workload's to the supervisor.
    pub(crate) workload_socket: RawFd,
}

impl Executor for Init {
    fn validate(&self, _spec: &Spec) -> std::result::Result<(), ExecutorValidationError> {
        self.stay()
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> std::result::Result<(), ExecutorSetEnvsError> {
        self.stay()
    }

    fn exec(&self, _spec: &Spec) -> std::result::Result<(), ExecutorError> {
        self.stay()
    }
}

impl Init {
    fn connection(&self, fd: RawFd) -> Result<UnixStream> {
        sys::duplicate(fd).map(UnixStream::from).context("using the socket to the supervisor")
    }

    /// Init's whole life.
    fn stay(&self) -> ! {
        if let Err(error) = self.finish_boundary().and_then(|()| self.run())
            && let Ok(socket) = self.connection(self.socket)
        {
            drop(protocol::send(&socket, &FromInit::Failed(error), &[]));
        }
        sys::exit_now(1)
    }

    fn finish_boundary(&self) -> Result<()> {
        hooks::step("init: file system there");
        // libcontainer changed capabilities, by which the kernel may have forgotten it.
        die_with_supervisor(&self.connection(self.socket)?)?;
        let closed = match hooks::off("init not dumpable") {
            true => DumpableBehavior::Dumpable,
            false => DumpableBehavior::NotDumpable,
        };
        rustix::process::set_dumpable_behavior(closed).context("closing init to inspection")?;
        clear_dev().in_control("/dev")?;
        let ready = FromInit::Ready(Some(seen_by_init()?));
        hooks::step("init: boundary finished");
        protocol::send(&self.connection(self.socket)?, &ready, &[])?;
        hooks::step("init: ready said");
        Ok(())
    }

    /// Host execution: the same, without a boundary to finish.
    pub(crate) fn run_on_host(&self) -> Result<()> {
        protocol::send(&self.connection(self.socket)?, &FromInit::Ready(None), &[])?;
        hooks::step("init: host ready said");
        self.run()
    }

    /// The second half: starts the workload and waits for its end.
    fn run(&self) -> Result<()> {
        // Handles of the host end here; init keeps its two sockets.
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
        let signals = sys::signalfd(&[libc::SIGCHLD]).context("watching the workload")?;
        if !self.host && !hooks::off("secure bits") {
            lock_root_out()?;
        }
        let init = rustix::process::getpid();
        let pid = match sys::clone_process(0, None).or_no_process(|| "forking the workload".into())? {
            Forked::Child => {
                // Init's socket and signals are init's alone: its death must show at once.
                let kept = workload_socket.as_raw_fd();
                // A plain child has no pid namespace that would end it with its parent.
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
            no_capabilities()?;
        }
        // Init holds no end of the workload's pipes.
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
            .context("opening /dev/null")?;
        rustix::stdio::dup2_stdout(&null).context("closing init's output")?;
        rustix::stdio::dup2_stderr(&null).context("closing init's output")?;
        drop(null);
        self.reap(pid, socket, &signals)
    }

    /// Reaps until the workload is dead, and says so. Ends at once when the supervisor is gone.
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
                let last = FromInit::Exited { status, user_us, system_us, peak_kib: dead.peak_kib };
                drop(protocol::send(socket, &last, &[]));
                sys::exit_now(0);
            }
        }
    }

    /// The workload-to-be: gives up everything, says what it has, puts the filter on, waits for Go, becomes the program.
    fn become_workload(&self, supervisor: &UnixStream) -> ! {
        let inherited = std::env::vars().map(|(name, value)| format!("{name}={value}"));
        let env = self.env.iter().cloned().chain(inherited.filter(|_| hooks::off("environment")));
        let env: Vec<String> = env.collect();
        let moved = match self.give_up().and_then(|()| self.to_be_heard(supervisor)) {
            Ok(moved) => moved,
            Err(error) => Init::not_ready(supervisor, error),
        };
        if let Err(error) = seen_by_workload(&env).and_then(|seen| {
            (&*supervisor).write_all(b"S").context("saying what the workload has")?;
            protocol::send(supervisor, &seen, &[])
        }) {
            Init::not_ready(supervisor, error);
        }
        hooks::step("workload: given up everything");
        self.filtered(moved.as_ref().unwrap_or(supervisor), env)
    }

    fn not_ready(supervisor: &UnixStream, error: Error) -> ! {
        // Before the filter, so the reason can be told in words: init's socket is closed here, standard error is not.
        drop((&*supervisor).write_all(b"X"));
        drop(protocol::send(supervisor, &FromInit::Failed(error), &[]));
        sys::exit_now(1)
    }

    fn give_up(&self) -> Result<()> {
        if !hooks::off("session") {
            rustix::process::setsid().context("making a session for the workload")?;
        }
        sys::reset_signals();
        if let Some(count) = self.processors.filter(|_| !hooks::off("cpu limit")) {
            keep_processors(count)?;
        }
        if !self.host && !hooks::off("workload id") {
            self.change_ids()?;
        }
        for limit in &self.rlimits {
            let value = rustix::process::Rlimit { current: Some(limit.value), maximum: Some(limit.value) };
            rustix::process::setrlimit(limit.kind.resource(), value)
                .with_context(|| format!("row \"limits\": setting {limit:?}"))?;
        }
        if !self.host && !hooks::off("capabilities") {
            no_capabilities()?;
        }
        rustix::thread::set_no_new_privs(true).context("setting no_new_privs")?;
        // The supervisor looks at this process's descriptors and namespaces; it holds no secret and has no privilege.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
            .context("opening the workload to inspection")?;
        rustix::process::chdir(self.cwd.as_str()).map_err(|e| {
            Error::input(format!("the working directory {:?} of the image cannot be entered: {e}", self.cwd))
        })?;
        crate::reexec::keep_descriptors()?;
        match hooks::off("descriptors") {
            true => sys::keep_open_from_3().context("keeping descriptors open"),
            false => Ok(()),
        }
    }

    fn change_ids(&self) -> Result<()> {
        // Supplementary groups are gone since before the user namespace was made; in it setgroups is denied.
        let (uid, gid) = (Uid::from_raw(self.identity.inside), Gid::from_raw(self.identity.inside));
        rustix::thread::set_thread_res_gid(gid, gid, gid).context("row \"identity\": changing the group")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).context("row \"identity\": changing the user")?;
        Ok(())
    }

    /// Gives the listener, where the filter is one whose refused calls are heard.
    fn put_filter_on(&self) -> invarlock_seccomp::Result<Option<Listener>> {
        if hooks::off("filter") {
            return Ok(None);
        }
        // Nothing is freed under the filter.
        let ready = std::mem::ManuallyDrop::new(self.filter.ready()?);
        match ready.is_heard() {
            true => ready.install_heard().map(Some),
            false => ready.install().map(|()| None),
        }
    }

    /// Where a profile is learned, the socket to the supervisor is moved to the descriptor of which the filter does not ask.
    fn to_be_heard(&self, supervisor: &UnixStream) -> Result<Option<UnixStream>> {
        if !self.learning {
            return Ok(None);
        }
        let fail = || "moving the socket to the supervisor, so that its profile can be learned".to_owned();
        let number = LEARNING_FD as RawFd;
        let moved = rustix::io::fcntl_dupfd_cloexec(supervisor, number).with_context(fail)?;
        match moved.as_raw_fd() == number {
            true => Ok(Some(moved.into())),
            false => Err(Error::system(format!("{}: descriptor {number} is taken", fail()))),
        }
    }

    /// Everything after the filter: only reads, writes, execve and exit, on memory made before.
    fn filtered(&self, supervisor: &UnixStream, env: Vec<String>) -> ! {
        let prepared = (|| {
            let program = CString::new(self.argv.first().map(String::as_str).unwrap_or_default()).ok()?;
            Some((program, Vector::new(self.argv.clone()).ok()?, Vector::new(env).ok()?))
        })();
        let Some((program, argv, env)) = prepared else { sys::exit_now(1) };
        // The listener stays open here until execve closes it; the supervisor takes its own before it says Go.
        let listener = match self.put_filter_on() {
            Ok(listener) => listener,
            Err(error) => {
                // Where a first filter is on already, this may be refused; the supervisor then says that the container ended.
                _ = rustix::io::write(supervisor, b"X");
                drop(protocol::send(supervisor, &FromInit::Failed(no_filter(error)), &[]));
                sys::exit_now(1);
            }
        };
        let mut message = [b'R', 0, 0, 0, 0];
        let number = listener.as_ref().map_or(-1, |listener| listener.as_fd().as_raw_fd());
        message[1..].copy_from_slice(&number.to_le_bytes());
        // read(2) and write(2), which every profile allows; std sends with sendto(2).
        let go = rustix::io::write(supervisor, &message).and_then(|_| rustix::io::read(supervisor, &mut [0]));
        if go != Ok(1) {
            sys::exit_now(1);
        }
        let error = sys::execve(&program, &argv, &env);
        let mut message = [b'E', 0, 0, 0, 0];
        message[1..].copy_from_slice(&error.raw_os_error().unwrap_or(0).to_le_bytes());
        _ = rustix::io::write(supervisor, &message);
        sys::exit_now(127)
    }
}

/// Why there is no filter.
fn no_filter(error: Error) -> Error {
    match error.kind() {
        Kind::Unsupported => error.in_control("system calls"),
        _ => error.with_kind(Kind::System).context("control \"system calls\""),
    }
}

/// SIGKILL when the parent dies. False where it is dead already.
fn die_with(parent: rustix::process::Pid) -> bool {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok()
        && rustix::process::getppid() == Some(parent)
}

/// Being id 0 gives no capability from here on, not even by execve.
fn lock_root_out() -> Result<()> {
    rustix::thread::set_capabilities_secure_bits(SECURE_BITS)
        .context("row \"capabilities\": setting the secure bits")
}

fn seen_by_init() -> Result<SeenByInit> {
    let names = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let signal = rustix::process::parent_process_death_signal()
        .context("row \"life\": reading what its parent's death does to init")?;
    Ok(SeenByInit {
        host_name: HostName { host: text(names.nodename()), domain: text(names.domainname()) },
        parent_death_signal: signal.map_or(0, Signal::as_raw),
    })
}

fn seen_by_workload(env: &[String]) -> Result<SeenByWorkload> {
    let bits = rustix::thread::capabilities_secure_bits()
        .context("row \"capabilities\": reading the secure bits")?;
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    Ok(SeenByWorkload {
        environment: env.iter().map(name).collect(),
        secure_bits: format!("{:#x}", bits.bits()),
        ids: IdsInside { uid: status_numbers("Uid")?, gid: status_numbers("Gid")? },
    })
}

/// Every capability set empty.
fn no_capabilities() -> Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set()
        .context("row \"capabilities\": clearing the ambient set")?;
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).context("row \"capabilities\": clearing them")
}

/// Leaves in `/dev` the five devices that programs need, and closes it for writing.
fn clear_dev() -> Result<()> {
    let fail = || "row \"/dev\": clearing it".to_owned();
    let unwanted =
        if hooks::off("five devices") { None } else { Some(std::fs::read_dir("/dev").with_context(fail)?) };
    for entry in unwanted.into_iter().flatten() {
        let entry = entry.with_context(fail)?;
        if DEVICES.iter().any(|(name, _)| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().with_context(fail)?.is_dir() {
            return Err(Error::integrity(format!(
                "{}: {} is a directory nobody asked for",
                fail(),
                path.display()
            )));
        }
        // Not every entry is a mount.
        _ = rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        std::fs::remove_file(&path).with_context(fail)?;
    }
    let dev = rustix::fs::open(
        "/dev",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .with_context(fail)?;
    let closed = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    if !hooks::off("closed /dev") {
        sys::mount_setattr(dev.as_fd(), true, closed, None).with_context(fail)?;
    }
    Ok(())
}

/// Restricts this process to the first `count` of the processors it has.
fn keep_processors(count: usize) -> Result<()> {
    let fail = || "row \"limits\": choosing processors".to_owned();
    let all = rustix::thread::sched_getaffinity(None).with_context(fail)?;
    let mut some = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| all.is_set(*cpu))
        .take(count)
        .for_each(|cpu| some.set(cpu));
    rustix::thread::sched_setaffinity(None, &some).with_context(fail)
}
