//! The builder: the first process of the run, which makes its container around itself and becomes its init.
//!
//! It is cloned into its own user, pid, mount, network, ipc and uts namespaces, enters the run's cgroup, leaves the host's file system
//! behind, puts the container's together, and has libcontainer finish it. What needs no knowledge of the run is done before the run is
//! known, while the launcher still looks at the image.
//!
//! Only libcontainer's inner half is used, the one that runs inside: mounts, devices, pivot, masks, capabilities. Its outer half would
//! fork twice more, kill what it finds in a cgroup of the run's name, and keep a state that nobody reads. It sees a small tree of ours:
//! no cgroup hierarchy and nothing of the host but five devices.

use crate::failure::SystemCall as _;
use crate::identity::Identity;
use crate::init::Init;
use crate::protocol::{self, Build, FromInit};
use crate::supervisor::NAMESPACES_REMEDY;
use crate::{cgroup, hooks, mounts, observe, oci, rootfs, sys};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use libcontainer::notify_socket::NotifyListener;
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::{channel, init};
use libcontainer::syscall::syscall::SyscallType;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

/// Devices that libcontainer binds into every container. Init takes `tty` away again.
const HOST_DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Tree of the builder: layers, the root, and what libcontainer looks at.
const DIRECTORIES: [&str; 5] = ["state", "rootfs", "l", "proc", "dev"];
/// What an administrator can do where there is no `/proc` for the run.
pub(crate) const PROC_REMEDY: &str = "mount /proc in full: in a container, run it with an unmasked /proc";

/// Everything the builder is born with.
pub(crate) struct Builder {
    pub(crate) identity: Identity,
    /// `tasks` of cgroups of version 1.
    pub(crate) entrances: Vec<File>,
    /// To the supervisor.
    pub(crate) socket: UnixStream,
    /// The workload's to the supervisor.
    pub(crate) workload_socket: UnixStream,
}

impl Builder {
    /// Runs in the new process and never comes back.
    pub(crate) fn run(mut self) -> ! {
        let Err(error) = self.build();
        // Where the supervisor is gone there is nobody to tell.
        drop(protocol::send(&self.socket, &FromInit::Failed(error), &[]));
        sys::exit_now(1)
    }

    fn build(&mut self) -> Result<std::convert::Infallible> {
        die_with_supervisor(&self.socket)?;
        hooks::step("builder: started");
        // What is made from here on is made inside the run, for a workload with another id.
        rustix::process::umask(Mode::from_raw_mode(observe::UMASK));
        cgroup::enter(&self.entrances)?;
        self.entrances.clear();
        hooks::step("builder: cgroup entered");
        self.finish_namespaces()?;
        hooks::step("builder: namespaces made");
        let tree = prepare_tree().in_control("root file system")?;
        hooks::step("builder: tree prepared");
        let Some((build, fds)) = protocol::receive::<Build<'_>>(&self.socket)? else { sys::exit_now(1) };
        hooks::step("builder: told what to build");
        let mut fds = fds.into_iter();
        let (Some(stdout), Some(stderr)) = (fds.next(), fds.next()) else {
            return Err(Error::system("the supervisor's message came without its descriptors"));
        };
        let handles = fds.collect();
        let handles = self.mounts(&build, handles).in_control("root file system")?;
        hooks::step("builder: mounts made");
        leave_host(tree).in_control("root file system")?;
        hooks::step("builder: host left");
        let out = rootfs::assemble(&build.request, self.identity, handles).in_control("root file system")?;
        hooks::step("builder: root assembled");
        protocol::send(&self.socket, &FromInit::Output, &[out.as_fd()])?;
        drop(out);
        hooks::step("builder: output handed over");
        self.become_init(build, stdout, stderr)
    }

    /// What could not be made by the clone: the cgroup namespace, whose root is where this process is now, and the ids, which the
    /// supervisor writes.
    fn finish_namespaces(&mut self) -> Result<()> {
        if !hooks::off("cgroup namespace") {
            sys::unshare(libc::CLONE_NEWCGROUP).or_unsupported(
                || "row \"namespaces\": making a cgroup namespace".into(),
                NAMESPACES_REMEDY,
            )?;
        }
        let mut mapped = [0];
        (&self.socket).read_exact(&mut mapped).context("waiting for the id maps")?;
        let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
        rustix::thread::set_thread_res_gid(gid, gid, gid).context("becoming the run's own group")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).context("becoming the run's own user")?;
        // Changing ids made the kernel forget it.
        die_with_supervisor(&self.socket)?;
        if !hooks::off("uts namespace") && !hooks::off("host name") {
            let fail = || "row \"namespaces\": naming the container".to_owned();
            // Where a security module gives new user namespaces no rights, this is the first to show it.
            rustix::system::sethostname(observe::HOST_NAME.as_bytes())
                .or_unsupported(fail, NAMESPACES_REMEDY)?;
            // A new namespace begins with the host's.
            rustix::system::setdomainname(observe::DOMAIN_NAME.as_bytes()).with_context(fail)?;
        }
        if !hooks::off("network namespace") {
            sys::raise_loopback()
                .or_unsupported(|| "row \"network\": raising lo".into(), NAMESPACES_REMEDY)?;
        }
        Ok(())
    }

    /// Detached, read-only mounts. A user makes them here, where it may: by path, and only of the very files that were opened before.
    fn mounts(&self, build: &Build<'_>, handles: Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
        if self.identity.by_root {
            return Ok(handles);
        }
        let layers = build.request.rootfs.len();
        let mut out = Vec::new();
        for (i, handle) in handles.into_iter().enumerate() {
            let (path, attributes) = match i.checked_sub(layers).and_then(|i| build.request.inputs.get(i)) {
                Some(input) => (input.path.as_ref(), mounts::input()),
                None => (build.request.rootfs.get(i), mounts::layer()),
            };
            let Some(path) = path else {
                out.push(handle);
                continue;
            };
            let again = mounts::reopen(path, handle.as_fd())?;
            let mount = mounts::clone_handle(again.as_fd())
                .with_context(|| format!("mounting {}", path.display()))?;
            mounts::restrict(&mount, attributes)
                .with_context(|| format!("making {} read-only", path.display()))?;
            out.push(mount);
        }
        Ok(out)
    }

    /// libcontainer: `/proc`, `/dev`, masks, pivot, most capabilities. Its last act is to call [`Init`], which stays.
    fn become_init(
        &self,
        build: Build<'_>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<std::convert::Infallible> {
        let spec = oci::config(&build.request)?;
        let fail = || "naming a socket for libcontainer".to_owned();
        let notify_listener =
            NotifyListener::new(Path::new("/state/notify")).err_kind(Kind::System).with_context(fail)?;
        let args = ContainerArgs {
            container_type: ContainerType::InitContainer,
            syscall: SyscallType::default(),
            spec: Rc::new(spec),
            rootfs: rootfs::ROOT.into(),
            console_socket: None,
            notify_listener,
            preserve_fds: 0,
            container: None,
            user_ns_config: None,
            // Of its outer half, which is not used.
            cgroup_config: libcgroups::common::CgroupConfig {
                cgroup_path: "/invarlock-no-cgroup".into(),
                systemd_cgroup: false,
                container_name: observe::HOST_NAME.into(),
            },
            detached: true,
            executor: Box::new(Init::new(build, self.identity, &self.socket, &self.workload_socket)),
            no_pivot: false,
            // It closes them itself when it has them in place.
            stdin: Some(null_device()?.into_raw_fd()),
            stdout: Some(stdout.into_raw_fd()),
            stderr: Some(stderr.into_raw_fd()),
            as_sibling: false,
            pid_file: None,
        };
        let fail = || "making libcontainer's channels".to_owned();
        let (mut main, _main_end) = channel::main_channel().err_kind(Kind::System).with_context(fail)?;
        let (_init_end, mut from_main) = channel::init_channel().err_kind(Kind::System).with_context(fail)?;
        hooks::step("builder: configuration made");
        match init::container_init_process(&args, &mut main, &mut from_main) {
            Ok(()) => Err(Error::system("creating the container: libcontainer ended before init did")),
            Err(error) => Err(creating(&error)),
        }
    }
}

/// SIGKILL when the supervisor dies; and if it died before this call, at once.
pub(crate) fn die_with_supervisor(socket: &UnixStream) -> Result<()> {
    if !hooks::off("parent death signal") {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context("tying the run to its supervisor")?;
    }
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    rustix::event::poll(&mut fds, Some(&now)).context("looking for the supervisor")?;
    if fds[0].revents().contains(PollFlags::HUP) {
        sys::exit_now(1);
    }
    Ok(())
}

/// libcontainer's whole chain of causes: its own text drops it.
fn creating(error: &dyn std::error::Error) -> Error {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    Error::system(format!("creating the container: {text}"))
}

pub(crate) fn null_device() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("opening /dev/null")
}

/// A tmpfs with what libcontainer needs, on top of the host's root, and this process in it: names without a slash are in it, and
/// names with one still the host's.
fn prepare_tree() -> Result<OwnedFd> {
    let fail = || "preparing to leave the host's file system".to_owned();
    if !hooks::off("private mounts") {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .or_unsupported(|| format!("row \"root file system\": {}", fail()), NAMESPACES_REMEDY)?;
    }
    let tree = mounts::tmpfs(
        &[("mode", "0755".into()), ("size", "16m".into())],
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
    )?;
    mounts::attach_at(&tree, "/").with_context(fail)?;
    rustix::process::fchdir(&tree).with_context(fail)?;
    for directory in DIRECTORIES {
        fs::create_dir(directory).with_context(fail)?;
    }
    // Of this pid namespace: the host's processes are not to be seen in it.
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if hooks::off("pid namespace") {
        // The kernel gives a new one only to a new namespace.
        mounts::attach_at(&mounts::clone_path("/proc", true).with_context(fail)?, "proc")
            .with_context(fail)?;
    } else {
        let proc = mounts::filesystem("proc", &[], attributes).map_err(no_proc)?;
        mounts::attach_at(&proc, "proc").with_context(fail)?;
        // libcontainer clones `/proc` for each look into it, and taking a clone away is slow. What is unbindable it opens as it is,
        // which is as good here: nobody else can mount anything in this tree.
        rustix::mount::mount_change("proc", MountPropagationFlags::UNBINDABLE).with_context(fail)?;
    }
    for name in HOST_DEVICES {
        let fail = || format!("{}: /dev/{name}", fail());
        let device = mounts::clone_path(&format!("/dev/{name}"), false).with_context(fail)?;
        let path = format!("dev/{name}");
        File::create(&path).with_context(fail)?;
        mounts::attach_at(&device, &path).with_context(fail)?;
    }
    Ok(tree)
}

/// The kernel gives a namespace its own `/proc` only where the whole of the caller's can be seen.
fn no_proc(error: Error) -> Error {
    match error.kind() {
        Kind::System => error.with_kind(Kind::Unsupported).in_control("/proc").with_hint(PROC_REMEDY),
        _ => error,
    }
}

/// The tree becomes the root; the host's file system is gone.
fn leave_host(tree: OwnedFd) -> Result<()> {
    let fail = || "leaving the host's file system".to_owned();
    rustix::process::fchdir(&tree).with_context(fail)?;
    rustix::process::pivot_root(".", ".").with_context(fail)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).with_context(fail)?;
    rustix::process::chdir("/").with_context(fail)
}

/// What a run's init is made from, for a plain child as well.
impl Init {
    pub(crate) fn new(
        build: Build<'_>,
        identity: Identity,
        socket: &UnixStream,
        workload: &UnixStream,
    ) -> Self {
        let request = build.request.into_owned();
        Init {
            argv: request.argv,
            env: request.env.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            filter: request.filter,
            cwd: request.cwd,
            identity,
            rlimits: build.rlimits,
            processors: build.processors,
            host: request.host.is_some(),
            learning: request.learning.is_some(),
            socket: socket.as_raw_fd(),
            workload_socket: workload.as_raw_fd(),
        }
    }
}
