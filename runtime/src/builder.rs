//! The builder: the first process of the run. It builds the container around itself and becomes its init.
//!
//! It is cloned into new user, pid, mount, network, ipc and uts namespaces, enters the run's cgroup, leaves the host's file system,
//! assembles the container's, and calls libcontainer. Steps that do not depend on the run are done before the run is known, while the
//! launcher still reads the image.
//!
//! Only libcontainer's init is used, the part that runs inside: mounts, devices, pivot_root, masks, capabilities. The other part would
//! fork twice more, kill every process in a cgroup of the run's name, and keep a state file. It runs in a small file system of the
//! builder: without a cgroup hierarchy, and with nothing of the host but the devices.

use crate::failure::SystemCall as _;
use crate::identity::Identity;
use crate::init::Init;
use crate::process::{die_with_supervisor, null_device};
use crate::protocol::{self, Build, FromInit, Reply};
use crate::topology::Topology;
use crate::{boundary, cgroup, hints, hooks, mounts, oci, rootfs, stdio, sys, user_limits, user_mounts};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use libcontainer::notify_socket::NotifyListener;
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::{channel, init};
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::Mode;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

/// Devices that libcontainer binds into every container. Init removes `tty` again, unless the container has a terminal.
const HOST_DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Directories of the builder's file system: layers, the root, and those that libcontainer reads.
const DIRECTORIES: [&str; 5] = ["state", "rootfs", "l", "proc", "dev"];

/// What the builder inherits from the supervisor.
pub(crate) struct Builder {
    pub(crate) identity: Identity,
    /// `tasks` of cgroups of version 1.
    pub(crate) entrances: Vec<File>,
    /// The socket to the supervisor.
    pub(crate) socket: UnixStream,
    /// The workload's socket to the supervisor.
    pub(crate) workload_socket: UnixStream,
}

/// The workload's standard streams.
struct Streams {
    input: OwnedFd,
    output: OwnedFd,
    error: OwnedFd,
}

impl Streams {
    /// Init makes those of a terminal; until then they are `/dev/null`.
    fn of(streams: stdio::Streams, fds: &mut impl Iterator<Item = OwnedFd>) -> Result<Self> {
        let mut next = || {
            fds.next().ok_or_else(|| Error::system("the supervisor's message came without its descriptors"))
        };
        if streams.are_terminal() {
            return Ok(Streams { input: null_device()?, output: null_device()?, error: null_device()? });
        }
        let (output, error) = (next()?, next()?);
        let input = if streams == stdio::Streams::Input { next()? } else { null_device()? };
        Ok(Streams { input, output, error })
    }
}

impl Builder {
    /// Runs in the new process. Never returns.
    pub(crate) fn run(mut self) -> ! {
        let Err(error) = self.build();
        // Fails only if the supervisor is gone.
        drop(protocol::send(&self.socket, &FromInit::Failed(error), &[]));
        sys::exit_now(1)
    }

    fn build(&mut self) -> Result<std::convert::Infallible> {
        die_with_supervisor(&self.socket)?;
        hooks::step("builder: started");
        // Files created from here on are for a workload with another id.
        rustix::process::umask(Mode::from_raw_mode(boundary::UMASK));
        cgroup::enter(&self.entrances)?;
        self.entrances.clear();
        hooks::step("builder: cgroup entered");
        self.finish_namespaces()?;
        hooks::step("builder: namespaces made");
        let own_root = create_own_root().in_control("root file system")?;
        user_limits::set("proc")?;
        // The host's sysfs is not visible later, and there is time to write the copy until the request arrives.
        let topology = Topology::of_host();
        topology.write_at("l/sys")?;
        hooks::step("builder: tree prepared");
        let Some((build, fds)) = protocol::receive::<Build<'_>>(&self.socket)? else { sys::exit_now(1) };
        hooks::step("builder: told what to build");
        let mut fds = fds.into_iter();
        let streams = Streams::of(build.request.streams, &mut fds)?;
        let handles = fds.collect();
        let handles = self.mounts(&build, handles).in_control("root file system")?;
        hooks::step("builder: mounts made");
        leave_host(own_root).in_control("root file system")?;
        hooks::step("builder: host left");
        let system = match &build.request.runtime_files {
            None => None,
            Some(_) if topology.has_more_than(build.processors) => {
                topology.limited(build.processors).write_at("/l/limited-sys")?;
                Some("/l/limited-sys")
            }
            Some(_) => Some("/l/sys"),
        };
        let out = rootfs::assemble(&build.request, self.identity, handles, system)
            .in_control("root file system")?;
        hooks::step("builder: root assembled");
        protocol::send(&self.socket, &FromInit::Output, &[out.as_fd()])?;
        drop(out);
        hooks::step("builder: output handed over");
        self.become_init(build, streams)
    }

    /// The parts that clone cannot create: the cgroup namespace, whose root is this process's current cgroup, and the id maps, which
    /// the supervisor writes.
    fn finish_namespaces(&mut self) -> Result<()> {
        if !hooks::off("cgroup namespace") {
            sys::unshare(libc::CLONE_NEWCGROUP)
                .or_unsupported(|| "creating a cgroup namespace".into(), hints::NAMESPACES)
                .in_control("namespaces")?;
        }
        Reply::IdsMapped.wait(&self.socket).context("waiting for the id maps")?;
        let own = self.identity.init_inside();
        let (uid, gid) = (rustix::process::Uid::from_raw(own.uid), rustix::process::Gid::from_raw(own.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid).context("changing to the group of the run")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).context("changing to the user of the run")?;
        // Changing ids cleared the parent death signal.
        die_with_supervisor(&self.socket)?;
        if !hooks::off("uts namespace") && !hooks::off("host name") {
            set_names().in_control("namespaces")?;
        }
        if !hooks::off("network namespace") {
            sys::raise_loopback()
                .or_unsupported(|| "enabling lo".into(), hints::NAMESPACES)
                .in_control("network")?;
        }
        Ok(())
    }

    /// Detached, restricted mounts. A user may create them only in its own namespace, by path; the files must be those opened before.
    fn mounts(&self, build: &Build<'_>, handles: Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
        if self.identity.by_root {
            return Ok(handles);
        }
        let request = &build.request;
        let layers = request.rootfs.iter().map(|path| (Some(path.as_path()), mounts::layer()));
        let inputs = request.inputs.iter().map(|input| (input.path.as_deref(), mounts::input()));
        let binds = user_mounts::binds(&request.mounts).map(|bind| (bind.path(), bind.attributes()));
        let mut out = Vec::new();
        for ((path, attributes), handle) in layers.chain(inputs).chain(binds).zip(handles) {
            let Some(path) = path else {
                out.push(handle);
                continue;
            };
            let again = mounts::reopen(path, handle.as_fd())?;
            let mount = mounts::clone_handle(again.as_fd())
                .with_context(|| format!("mounting {}", path.display()))?;
            mounts::restrict(&mount, attributes)
                .with_context(|| format!("restricting the mount of {}", path.display()))?;
            out.push(mount);
        }
        Ok(out)
    }

    /// libcontainer mounts `/proc` and `/dev`, masks paths, calls pivot_root, drops most capabilities, and calls [`Init`], which never returns.
    fn become_init(&self, build: Build<'_>, streams: Streams) -> Result<std::convert::Infallible> {
        let spec = oci::config(&build.request, self.identity.init_inside())?;
        let notify_listener = NotifyListener::new(Path::new("/state/notify"))
            .err_kind(Kind::System)
            .context("creating a socket for libcontainer")?;
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
            // For the part of libcontainer that is not used.
            cgroup_config: libcgroups::common::CgroupConfig {
                cgroup_path: "/invarlock-no-cgroup".into(),
                systemd_cgroup: false,
                container_name: boundary::HOST_NAME.into(),
            },
            detached: true,
            executor: Box::new(Init::new(build, self.identity, &self.socket, &self.workload_socket)),
            no_pivot: false,
            // libcontainer closes them after it has duplicated them.
            stdin: Some(streams.input.into_raw_fd()),
            stdout: Some(streams.output.into_raw_fd()),
            stderr: Some(streams.error.into_raw_fd()),
            as_sibling: false,
            pid_file: None,
        };
        const CHANNELS: &str = "creating the channels of libcontainer";
        let (mut main, _main_end) = channel::main_channel().err_kind(Kind::System).context(CHANNELS)?;
        let (_init_end, mut from_main) = channel::init_channel().err_kind(Kind::System).context(CHANNELS)?;
        hooks::step("builder: configuration made");
        match init::container_init_process(&args, &mut main, &mut from_main) {
            Ok(()) => Err(Error::system("creating the container: libcontainer returned before init")),
            Err(error) => Err(creation_error(&error)),
        }
    }
}

fn set_names() -> Result<()> {
    // If a security module restricts new user namespaces, this is the first call that fails.
    rustix::system::sethostname(boundary::HOST_NAME.as_bytes())
        .or_unsupported(|| "setting the host name of the container".to_owned(), hints::NAMESPACES)?;
    // A new UTS namespace inherits the host's domain name.
    rustix::system::setdomainname(boundary::DOMAIN_NAME.as_bytes())
        .or_unsupported(|| "setting the domain name of the container".to_owned(), hints::NAMESPACES)
}

/// The error with libcontainer's whole chain of causes, which its own text omits.
fn creation_error(error: &dyn std::error::Error) -> Error {
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

/// A tmpfs with the files that libcontainer needs, mounted over the host's root, as working directory of this process: relative paths are in
/// it, absolute paths are still the host's.
fn create_own_root() -> Result<OwnedFd> {
    let doing = || "preparing to leave the host's file system".to_owned();
    if !hooks::off("private mounts") {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .or_unsupported(doing, hints::NAMESPACES)?;
    }
    let own_root = mounts::tmpfs(
        &[("mode", "0755".into()), ("size", "128m".into())],
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
    )?;
    mounts::attach_at(&own_root, "/").with_context(doing)?;
    rustix::process::fchdir(&own_root).with_context(doing)?;
    for directory in DIRECTORIES {
        fs::create_dir(directory).with_context(doing)?;
    }
    // A new /proc shows the processes of this pid namespace only.
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if hooks::off("pid namespace") {
        // The kernel mounts a new /proc only for a new pid namespace.
        mounts::attach_at(&mounts::clone_path("/proc", true).with_context(doing)?, "proc")
            .with_context(doing)?;
    } else {
        let proc = mounts::filesystem("proc", &[], attributes).map_err(no_proc)?;
        mounts::attach_at(&proc, "proc").with_context(doing)?;
        // libcontainer clones `/proc` for each access, and unmounting a clone is slow. If it cannot be bound, libcontainer opens it
        // directly, which is equally safe: no other process can mount anything in this file system.
        rustix::mount::mount_change("proc", MountPropagationFlags::UNBINDABLE).with_context(doing)?;
    }
    for name in HOST_DEVICES {
        let doing = || format!("{}: /dev/{name}", doing());
        let device = mounts::clone_path(&format!("/dev/{name}"), false).with_context(doing)?;
        // libcontainer masks files of `/proc` with clones of the null device. In a container of another engine it is a file of a tmpfs, which is
        // observed as a mask only if it is read-only. A device can be written all the same.
        let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
        mounts::restrict(&device, attributes).with_context(doing)?;
        let path = format!("dev/{name}");
        File::create(&path).with_context(doing)?;
        mounts::attach_at(&device, &path).with_context(doing)?;
    }
    Ok(own_root)
}

/// The kernel mounts a new `/proc` only if the caller's `/proc` is not masked.
fn no_proc(error: Error) -> Error {
    match error.kind() {
        Kind::System => error.with_kind(Kind::Unsupported).in_control("/proc").with_hint(hints::PROC),
        _ => error,
    }
}

/// Makes the builder's file system the root and unmounts the host's.
fn leave_host(own_root: OwnedFd) -> Result<()> {
    let doing = || "leaving the host's file system".to_owned();
    rustix::process::fchdir(&own_root).with_context(doing)?;
    rustix::process::pivot_root(".", ".").with_context(doing)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).with_context(doing)?;
    rustix::process::chdir("/").with_context(doing)
}
