//! The builder: a copy of the supervisor with one thread that enters the run's cgroup, makes its user and mount namespace, leaves the host's
//! file system behind, puts the container's together, and has libcontainer make the rest.
//!
//! libcontainer sees a small tree of ours: no cgroup hierarchy (it would kill what it finds there), nothing of the host but `/proc` and
//! five devices. Init becomes the supervisor's child, not this process's.

use crate::error::{Doing as _, Error, Result};
use crate::identity::Identity;
use crate::init::Init;
use crate::limits::Rlimit;
use crate::protocol::{self, FromBuilder, Request};
use crate::{cgroup, hooks, mounts, oci, rootfs, sys};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// Devices that libcontainer binds into every container. Init takes `tty` away again.
const HOST_DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Tree of the builder: bundle, state, layers, and what libcontainer looks at.
const DIRECTORIES: [&str; 8] = ["bundle", "state", "rootfs", "l", "proc", "dev", "sys", "sys/fs"];
const USERNS_REMEDY: &str = "let ordinary users make user namespaces: `sysctl -w user.max_user_namespaces=15000`, \
    `sysctl -w kernel.unprivileged_userns_clone=1` (Debian), or an AppArmor profile with `userns,` for this program (Ubuntu 24.04 and newer); \
    `invarlock doctor` says which";

/// Everything the builder is born with.
pub(crate) struct Builder {
    pub(crate) id: String,
    pub(crate) request: Request,
    pub(crate) identity: Identity,
    /// Standard output and error of the workload.
    pub(crate) stdio: [OwnedFd; 2],
    /// Layers, then inputs: mounts where root started the run, else the launcher's handles.
    pub(crate) handles: Vec<OwnedFd>,
    /// `tasks` of cgroups of version 1.
    pub(crate) entrances: Vec<File>,
    /// Resource limits of the workload.
    pub(crate) rlimits: Vec<Rlimit>,
    /// How many processors the workload may run on, where no cgroup says it.
    pub(crate) processors: Option<usize>,
    /// The supervisor, to notice its death.
    pub(crate) supervisor: Option<rustix::process::Pid>,
    pub(crate) socket: UnixStream,
    pub(crate) init_socket: UnixStream,
    pub(crate) workload_socket: UnixStream,
}

impl Builder {
    /// Runs in the new process and never comes back.
    pub(crate) fn run(mut self) -> ! {
        let code = match self.build() {
            Ok(()) => 0,
            Err(error) => {
                // Where the supervisor is gone there is nobody to tell.
                drop(protocol::send(&self.socket, &FromBuilder::Failed(error), &[]));
                1
            }
        };
        sys::exit_now(code)
    }

    fn build(&mut self) -> Result<()> {
        self.die_with_supervisor()?;
        hooks::step("builder: started");
        // What is made from here on is made inside the run, for a workload with another id.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        cgroup::enter(&self.entrances)?;
        self.entrances.clear();
        hooks::step("builder: cgroup entered");
        self.new_namespaces()?;
        hooks::step("builder: namespaces made");
        let handles = self.mounts()?;
        hooks::step("builder: mounts made");
        own_tree()?;
        hooks::step("builder: host left");
        let out = rootfs::assemble(&self.request, self.identity, handles)?;
        hooks::step("builder: root assembled");
        protocol::send(&self.socket, &FromBuilder::Output, &[out.as_fd()])?;
        drop(out);
        hooks::step("builder: output handed over");
        self.create()
    }

    /// SIGKILL when the supervisor dies; and if it died before this call, at once.
    pub(crate) fn die_with_supervisor(&self) -> Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .doing(|| "tying the run to its supervisor".into())?;
        if rustix::process::getppid() != self.supervisor {
            sys::exit_now(1);
        }
        Ok(())
    }

    /// User and mount namespace. Root gives up its groups first and then becomes the run's own id 0.
    fn new_namespaces(&mut self) -> Result<()> {
        if self.identity.by_root && !hooks::off("supplementary groups") {
            rustix::thread::set_thread_groups(&[]).doing(|| "giving up supplementary groups".into())?;
        }
        sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).or_unsupported(
            || "row \"namespaces\": making a user and a mount namespace".into(),
            USERNS_REMEDY,
        )?;
        if self.identity.by_root {
            protocol::send(&self.socket, &FromBuilder::WantMaps, &[])?;
            let mut go = [0];
            (&self.socket).read_exact(&mut go).doing(|| "waiting for the id maps".into())?;
        } else {
            // Some kernels let anybody make one and only refuse to fill it in.
            self.identity.write_own_maps().or_unsupported(|| "row \"namespaces\"".into(), USERNS_REMEDY)?;
        }
        let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
        rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| "becoming the run's own group".into())?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| "becoming the run's own user".into())?;
        // Changing ids made the kernel forget it.
        self.die_with_supervisor()
    }

    /// Detached, read-only mounts. A user makes them here, where it may: by path, and only of the very files that were opened before.
    fn mounts(&mut self) -> Result<Vec<OwnedFd>> {
        let handles = std::mem::take(&mut self.handles);
        if self.identity.by_root {
            return Ok(handles);
        }
        let layers = self.request.rootfs.len();
        let mut out = Vec::new();
        for (i, handle) in handles.into_iter().enumerate() {
            let (path, attributes) = match i.checked_sub(layers).and_then(|i| self.request.inputs.get(i)) {
                Some(input) => (input.path.as_ref(), mounts::input()),
                None => (self.request.rootfs.get(i), mounts::layer()),
            };
            let Some(path) = path else {
                out.push(handle);
                continue;
            };
            let again = mounts::reopen(path, handle.as_fd())?;
            let mount =
                mounts::clone_handle(again.as_fd()).doing(|| format!("mounting {}", path.display()))?;
            mounts::restrict(&mount, attributes).doing(|| format!("making {} read-only", path.display()))?;
            out.push(mount);
        }
        Ok(out)
    }

    /// What init has to know.
    pub(crate) fn init(&self) -> Init {
        Init {
            argv: self.request.argv.clone(),
            env: self.request.env.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            filter: self.request.filter.clone(),
            cwd: self.request.cwd.clone(),
            identity: self.identity,
            rlimits: self.rlimits.clone(),
            processors: self.processors,
            host: self.request.host.is_some(),
            socket: self.init_socket.as_raw_fd(),
            workload_socket: self.workload_socket.as_raw_fd(),
        }
    }

    /// libcontainer: the other namespaces, init, `/proc`, `/dev`, masks, pivot.
    fn create(&self) -> Result<()> {
        use libcontainer::container::builder::ContainerBuilder;
        use libcontainer::syscall::syscall::SyscallType;
        let spec = oci::config(&self.id, &self.request)?;
        spec.save("/bundle/config.json").doing(|| "writing the container's configuration".into())?;
        hooks::step("builder: configuration written");
        let init = self.init();
        let stdio = |i: usize| {
            self.stdio
                .get(i)
                .map_or_else(null_device, |fd| fd.try_clone().doing(|| "duplicating a pipe".into()))
        };
        let mut container = ContainerBuilder::new(self.id.clone(), SyscallType::default())
            .with_root_path("/state")
            .doing(|| "naming the state directory".into())?
            .with_executor(init)
            .with_stdin(null_device()?)
            .with_stdout(stdio(0)?)
            .with_stderr(stdio(1)?)
            .as_init("/bundle")
            .with_systemd(false)
            .with_detach(true)
            .as_sibling(true)
            .build()
            .map_err(|e| creating(&e))?;
        hooks::step("builder: container made");
        container.start().map_err(|e| creating(&e))
    }
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
    Error::System(format!("creating the container: {text}"))
}

pub(crate) fn null_device() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "opening /dev/null".into())
}

/// Leaves the host's file system for a tmpfs with what libcontainer needs.
fn own_tree() -> Result<()> {
    let fail = || "leaving the host's file system".to_owned();
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(fail)?;
    let proc = mounts::clone_path("/proc", true).doing(fail)?;
    let mut devices = Vec::new();
    for name in HOST_DEVICES {
        devices.push((
            name,
            mounts::clone_path(&format!("/dev/{name}"), false)
                .doing(|| format!("{}: /dev/{name}", fail()))?,
        ));
    }
    let tree = mounts::tmpfs(
        &[("mode", "0755".into()), ("size", "16m".into())],
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
    )?;
    mounts::attach_at(&tree, "/").doing(fail)?;
    rustix::process::fchdir(&tree).doing(fail)?;
    rustix::process::pivot_root(".", ".").doing(fail)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(fail)?;
    rustix::process::chdir("/").doing(fail)?;
    for directory in DIRECTORIES {
        fs::create_dir(format!("/{directory}")).doing(fail)?;
    }
    fs::create_dir("/sys/fs/cgroup").doing(fail)?;
    mounts::attach_at(&proc, "/proc").doing(fail)?;
    // libcontainer clones `/proc` for each look into it, and taking a clone away costs a grace period of several milliseconds. What is
    // unbindable it opens as it is, which is as good here: nobody else can mount anything in this tree.
    rustix::mount::mount_change("/proc", MountPropagationFlags::UNBINDABLE).doing(fail)?;
    for (name, device) in devices {
        let path = format!("/dev/{name}");
        File::create(&path).doing(fail)?;
        mounts::attach_at(&device, &path).doing(fail)?;
    }
    Ok(())
}
