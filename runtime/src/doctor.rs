//! What this machine can and cannot give the boundary: each row of it tried with the real system calls, in a process of its own.

use crate::cgroup::{self, Controller};
use crate::identity::Identity;
use crate::mounts;
use crate::sys::{self, Forked};
use serde::Serialize;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// One control of the boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name of the control.
    pub control: String,
    /// Whether this machine gives it.
    pub available: bool,
    /// Whether a run in the default boundary fails without it.
    pub required: bool,
    /// What was tried and seen.
    pub detail: String,
    /// The administrator's step, where it is not available.
    pub remedy: Option<String>,
}

/// Oldest kernel the boundary is made for.
const KERNEL: (u32, u32) = (5, 15);

fn row(control: &str, required: bool, tried: Result<String, String>, remedy: &str) -> Row {
    let available = tried.is_ok();
    let detail = tried.unwrap_or_else(|why| why);
    Row { control: control.into(), available, required, detail, remedy: (!available).then(|| remedy.into()) }
}

/// Tries everything. Changes nothing on this machine and leaves nothing behind.
pub fn probe() -> Vec<Row> {
    let identity = Identity::of_caller();
    let mut rows = vec![
        row("kernel", true, kernel(), "install Linux 5.15 or newer"),
        row("user namespaces", true, user_namespaces(), user_namespace_remedy()),
        row(
            "mount namespace",
            true,
            in_namespace(|| Ok("a private tmpfs was mounted, and a part of it read-only".into()), mounting),
            NAMESPACES,
        ),
        row(
            "overlay",
            false,
            in_namespace(|| Ok("two layers were stacked".into()), overlay),
            "images of several layers need Linux 5.11 or newer and the overlay module",
        ),
        row(
            "other namespaces",
            true,
            in_namespace(|| Ok("pid, network, ipc, uts, cgroup; lo was raised".into()), others),
            NAMESPACES,
        ),
        row(
            "proc",
            true,
            in_namespace(|| Ok("a new /proc was mounted".into()), proc),
            crate::builder::PROC_REMEDY,
        ),
        row(
            "seccomp filter",
            true,
            in_namespace(|| Ok("a filter was installed, and what it refuses can be heard".into()), filter),
            "use Linux 5.15 or newer with CONFIG_SECCOMP_FILTER; in a container or sandbox, allow seccomp and pidfd_getfd, and do not \
             hear its refused calls",
        ),
        row("pidfd", true, pidfd(), "install Linux 5.15 or newer"),
        row("children list", true, children(), "use a kernel with CONFIG_PROC_CHILDREN"),
        row("sealed executable", true, sealed(), crate::reexec::NO_MEMFD),
        row(
            "sealed inputs",
            true,
            crate::run::sealed(b"x").map(|_| "made one".into()).map_err(|e| e.to_string()),
            "in a container, let its filter allow memfd_create",
        ),
        row(
            "state directory",
            true,
            crate::state::directory().map(|d| d.display().to_string()).map_err(|e| e.to_string()),
            "remove the directory or mend its owner and mode",
        ),
    ];
    if identity.by_root {
        rows.push(row("id-mapped mounts", false, id_mapped(), "files that only their owner may read need a file system with id-mapped mounts (ext4, xfs, btrfs; tmpfs since Linux 6.3)"));
    }
    for controller in Controller::ALL {
        let name = format!("cgroup {}", controller.name());
        rows.push(row(&name, false, cgroup(controller), CGROUPS));
    }
    rows
}

const NAMESPACES: &str = "as for user namespaces; in a container, allow unshare and mount";
const CGROUPS: &str = "rlimits and a watchdog stand in; for cgroups run as root, or delegate: systemd-run --user --scope -p Delegate=yes";

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Result<String, String> {
    let release = read("/proc/sys/kernel/osrelease").ok_or("the kernel does not say its version")?;
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= KERNEL {
        Ok(release)
    } else {
        Err(format!("{release} is older than {}.{}", KERNEL.0, KERNEL.1))
    }
}

fn user_namespaces() -> Result<String, String> {
    let most = read("/proc/sys/user/max_user_namespaces").unwrap_or_else(|| "unknown".into());
    in_namespace(move || Ok(format!("made one; user.max_user_namespaces is {most}")), || Ok(()))
}

fn user_namespace_remedy() -> &'static str {
    let is = |path: &str, value: &str| read(path).as_deref() == Some(value);
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "AppArmor forbids them: add a profile with `userns,` for this program in /etc/apparmor.d, \
                or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`";
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "sysctl -w kernel.unprivileged_userns_clone=1";
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "sysctl -w user.max_user_namespaces=15000";
    }
    "use a kernel with CONFIG_USER_NS; in a container, allow unshare"
}

/// Runs `attempt` in a new user and mount namespace, in a process of its own.
fn in_namespace(
    good: impl FnOnce() -> Result<String, String>,
    attempt: impl FnOnce() -> Result<(), String>,
) -> Result<String, String> {
    let identity = Identity::of_caller();
    let (ours, theirs) = UnixStream::pair().map_err(|e| e.to_string())?;
    let cloned = sys::clone_process(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, None);
    match cloned.map_err(|e| format!("cloning into new namespaces: {e}"))? {
        Forked::Child => {
            drop(ours);
            let result = enter(&theirs).and_then(|()| attempt());
            drop((&theirs).write_all(result.err().unwrap_or_default().as_bytes()));
            sys::exit_now(0)
        }
        Forked::Parent(pid, handle) => {
            drop(theirs);
            let mut why = String::new();
            let maps = identity.write_maps_of(pid).map_err(|e| e.to_string());
            let talk = maps
                .and_then(|()| (&ours).write_all(b"M").map_err(|e| e.to_string()))
                .and_then(|()| (&ours).read_to_string(&mut why).map_err(|e| e.to_string()));
            // It ends by itself, at the latest when nobody is left to talk to.
            drop(ours);
            let options = rustix::process::WaitIdOptions::EXITED;
            _ = rustix::process::waitid(rustix::process::WaitId::PidFd(handle.as_fd()), options);
            talk?;
            if why.is_empty() { good() } else { Err(why) }
        }
    }
}

fn enter(socket: &UnixStream) -> Result<(), String> {
    (&*socket).read_exact(&mut [0]).map_err(|e| e.to_string())?;
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|e| format!("setresgid: {e}"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|e| format!("setresuid: {e}"))
}

fn private_tmpfs() -> Result<(), String> {
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .map_err(|e| format!("making mounts private: {e}"))?;
    let tmpfs = mounts::tmpfs(&[("mode", "0755".into())], mounts::scratch()).map_err(|e| e.to_string())?;
    mounts::attach_at(&tmpfs, "/tmp").map_err(|e| format!("mounting: {e}"))
}

/// As images and inputs are mounted: found below a root, cloned, made read-only for good.
fn mounting() -> Result<(), String> {
    private_tmpfs()?;
    fs::create_dir("/tmp/in").map_err(|e| e.to_string())?;
    let root = OwnedFd::from(fs::File::open("/tmp").map_err(|e| e.to_string())?);
    let found = mounts::real_directory(&root, "in").map_err(|e| e.to_string())?;
    let found = found.ok_or("a directory that was made is not there")?;
    let mount = mounts::clone_handle(found.as_fd()).map_err(|e| format!("cloning a mount: {e}"))?;
    mounts::restrict(&mount, mounts::input()).map_err(|e| format!("making a mount read-only: {e}"))
}

fn overlay() -> Result<(), String> {
    private_tmpfs()?;
    ["a", "b", "m"]
        .iter()
        .try_for_each(|d| fs::create_dir(format!("/tmp/{d}")))
        .map_err(|e| e.to_string())?;
    let flags = rustix::mount::MountFlags::RDONLY
        | rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("overlay", "/tmp/m", "overlay", flags, Some(c"lowerdir=/tmp/a:/tmp/b,userxattr"))
        .map_err(|e| format!("mounting: {e}"))
}

fn others() -> Result<(), String> {
    let flags = libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    sys::unshare(flags).map_err(|e| format!("unshare: {e}"))?;
    rustix::system::sethostname(b"doctor").map_err(|e| format!("naming the host: {e}"))?;
    sys::raise_loopback().map_err(|e| format!("raising lo: {e}"))
}

fn proc() -> Result<(), String> {
    private_tmpfs()?;
    sys::unshare(libc::CLONE_NEWPID).map_err(|e| format!("unshare: {e}"))?;
    fs::create_dir("/tmp/proc").map_err(|e| e.to_string())?;
    // Only a process of the new pid namespace may mount its /proc.
    match sys::clone_process(0, None).map_err(|e| format!("forking: {e}"))? {
        Forked::Child => {
            let flags = rustix::mount::MountFlags::NOSUID
                | rustix::mount::MountFlags::NODEV
                | rustix::mount::MountFlags::NOEXEC;
            let result = rustix::mount::mount("proc", "/tmp/proc", "proc", flags, None);
            sys::exit_now(result.err().map_or(0, rustix::io::Errno::raw_os_error))
        }
        Forked::Parent(_, handle) => {
            let options = rustix::process::WaitIdOptions::EXITED;
            let dead = rustix::process::waitid(rustix::process::WaitId::PidFd(handle.as_fd()), options)
                .map_err(|e| e.to_string())?;
            match dead.and_then(|d| d.exit_status()) {
                Some(0) => Ok(()),
                Some(errno) => Err(format!("mounting: {}", std::io::Error::from_raw_os_error(errno))),
                None => Err("mounting: killed".into()),
            }
        }
    }
}

/// A filter of which somebody else takes the listener.
fn filter() -> Result<(), String> {
    let program = invarlock_seccomp::Profile::no_network().compile_heard().map_err(|e| e.to_string())?;
    let listener = program.ready().and_then(|ready| ready.install_heard()).map_err(|e| e.to_string())?;
    let (this, none) = (own_pidfd()?, rustix::process::PidfdGetfdFlags::empty());
    let taken = rustix::process::pidfd_getfd(&this, listener.as_fd().as_raw_fd(), none);
    let taken = taken.map_err(|e| format!("taking over its listener: {e}"))?;
    invarlock_seccomp::Listener::check(taken).map(drop).map_err(|e| e.to_string())
}

fn own_pidfd() -> Result<OwnedFd, String> {
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .map_err(|e| format!("pidfd_open: {e}"))
}

fn pidfd() -> Result<String, String> {
    let this = own_pidfd()?;
    sys::can_signal(this.as_fd()).map_err(|e| format!("pidfd_send_signal: {e}"))?;
    Ok("opened one, which takes signals".into())
}

fn children() -> Result<String, String> {
    fs::read_to_string("/proc/thread-self/children")
        .map(|_| "/proc/<pid>/children is there".into())
        .map_err(|e| e.to_string())
}

fn sealed() -> Result<String, String> {
    crate::reexec::protected_executable().map(|_| "made one".into()).map_err(|e| e.to_string())
}

/// Tried on the file system of the working directory, where inputs are likely to lie.
fn id_mapped() -> Result<String, String> {
    let here = fs::File::open(".").map_err(|e| e.to_string())?;
    crate::prepare::try_id_mapped(&OwnedFd::from(here))
        .map(|()| "the working directory's file system has them".into())
        .map_err(|e| e.to_string())
}

fn cgroup(controller: Controller) -> Result<String, String> {
    let place = cgroup::Hierarchies::read()?.find(controller)?;
    let probe = place.parent.join(format!("{}probe-{}", cgroup::PREFIX, std::process::id()));
    fs::create_dir(&probe).map_err(|e| format!("making {}: {e}", probe.display()))?;
    fs::remove_dir(&probe).map_err(|e| format!("removing {}: {e}", probe.display()))?;
    Ok(format!("{:?}, below {}", place.version, place.parent.display()).to_lowercase())
}
