//! Checks which controls of the boundary this machine supports, by trying each with real system calls in a new process.

use crate::cgroup::{self, Controller};
use crate::identity::Identity;
use crate::place::Place;
use crate::protocol::Reply;
use crate::spec::Limits;
use crate::sys::{self, Forked};
use crate::{core_dumps, executable, hints, mounts, prepare, seal, state};
use serde::Serialize;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// The result for one control of the boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ControlCheck {
    /// Name of the control.
    pub control: String,
    /// Whether this machine supports it.
    pub available: bool,
    /// Whether a run with the default boundary fails without it.
    pub required: bool,
    /// What was tried, and the result.
    pub detail: String,
    /// What the administrator can do if it is not available.
    pub remedy: Option<String>,
}

/// Oldest supported kernel.
const KERNEL: (u32, u32) = (5, 15);

/// The result of a control that is tried in new namespaces. Without the ids of a run there are none.
fn checked_inside(
    control: &str,
    required: bool,
    has_ids: bool,
    tried: impl FnOnce() -> Result<String, String>,
    remedy: &str,
) -> ControlCheck {
    match has_ids {
        true => checked(control, required, tried(), remedy),
        false => checked(control, required, Err("not tried: it needs the control `ids`".into()), "see `ids`"),
    }
}

fn ids(identity: &Identity) -> ControlCheck {
    let refused = identity.check();
    let remedy = refused.as_ref().err().and_then(|error| error.hint()).unwrap_or_default().to_owned();
    let tried = refused.map(|()| format!("the workload of a run has the id {} here", identity.host_uid));
    checked("ids", true, tried.map_err(|error| error.to_string()), &remedy)
}

fn checked(control: &str, required: bool, tried: Result<String, String>, remedy: &str) -> ControlCheck {
    let available = tried.is_ok();
    let detail = tried.unwrap_or_else(|why| why);
    ControlCheck {
        control: control.into(),
        available,
        required,
        detail,
        remedy: (!available).then(|| remedy.into()),
    }
}

/// Checks every control. Changes nothing on this machine and leaves nothing behind.
pub fn check() -> Vec<ControlCheck> {
    let identity = Identity::of_own_run();
    let ids = ids(&identity);
    let has_ids = ids.available;
    let mut checks = vec![
        checked("kernel", true, kernel(), "install Linux 5.15 or newer"),
        ids,
        checked_inside("user namespaces", true, has_ids, user_namespaces, user_namespace_remedy()),
        checked_inside(
            "mount namespace",
            true,
            has_ids,
            || {
                let done = "mounted a private tmpfs and made a directory of it read-only";
                in_namespace(|| Ok(done.into()), mounting)
            },
            NAMESPACES_REMEDY,
        ),
        checked_inside(
            "overlay",
            false,
            has_ids,
            || in_namespace(|| Ok("stacked two layers".into()), overlay),
            "images of several layers need Linux 5.11 or newer and the overlay module",
        ),
        checked_inside(
            "other namespaces",
            true,
            has_ids,
            || {
                let done = "created pid, network, ipc, uts and cgroup namespaces; enabled lo";
                in_namespace(|| Ok(done.into()), others)
            },
            NAMESPACES_REMEDY,
        ),
        checked_inside(
            "proc",
            true,
            has_ids,
            || in_namespace(|| Ok("mounted a new /proc".into()), proc),
            hints::PROC,
        ),
        checked_inside(
            "seccomp filter",
            true,
            has_ids,
            || in_namespace(|| Ok("installed a filter that reports denied calls".into()), filter),
            "use Linux 5.15 or newer with CONFIG_SECCOMP_FILTER; in a container or sandbox, allow seccomp and pidfd_getfd, and do not \
             use a seccomp filter that itself reports calls (SECCOMP_RET_USER_NOTIF)",
        ),
        checked("pidfd", true, pidfd(), "install Linux 5.15 or newer"),
        checked("core dumps", true, core_dumps::check(), CORE_DUMPS_REMEDY),
        checked("children list", true, children(), "use a kernel with CONFIG_PROC_CHILDREN"),
        checked(
            "protected executable",
            true,
            executable::protection().map(str::to_owned).map_err(|e| e.to_string()),
            hints::MEMFD,
        ),
        checked(
            "sealed inputs",
            true,
            seal::memory_file(b"x").map(|_| "created one".into()).map_err(|e| e.to_string()),
            "in a container, let its filter allow memfd_create",
        ),
        checked(
            "state directory",
            true,
            state::directory().map(|d| d.display().to_string()).map_err(|e| e.to_string()),
            state::REMEDY,
        ),
    ];
    if identity.by_root {
        checks.push(checked("id-mapped mounts", false, id_mapped(), "files that only their owner may read need a file system with id-mapped mounts (ext4, xfs, btrfs; tmpfs since Linux 6.3)"));
    }
    checks.push(open_files());
    let remedy = cgroups_remedy();
    for controller in Controller::ALL {
        let name = format!("cgroup {}", controller.name());
        checks.push(checked(&name, false, cgroup(controller), &remedy));
    }
    checks
}

const CORE_DUMPS_REMEDY: &str = "set kernel.core_pattern to `core`, or, if it names a program, allow a hard limit of core dumps of 1 (`ulimit -H -c`)";
const NAMESPACES_REMEDY: &str = "as for user namespaces; in a container, let its filter allow unshare, mount, sethostname and setdomainname";

/// What gives a run cgroups, or bounds it without them.
fn cgroups_remedy() -> String {
    let how = match Place::find() {
        Place::Machine | Place::Wsl2 => {
            "to use cgroups, run as root or with `systemd-run --user --scope -p Delegate=yes`"
        }
        Place::SlurmStep => {
            "the memory and the processors of the job (`--mem`, `--cpus-per-task`) bound all runs in it together"
        }
        _ => "the limits of this container bound all runs in it together",
    };
    format!(
        "not required: without cgroups, process limits (rlimits) and a check by the supervisor limit the run; {how}"
    )
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Result<String, String> {
    let release = read("/proc/sys/kernel/osrelease").ok_or("cannot read the version of the kernel")?;
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
    in_namespace(move || Ok(format!("created one; user.max_user_namespaces is {most}")), || Ok(()))
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

/// Runs `attempt` in a new process with new user and mount namespaces.
fn in_namespace(
    success: impl FnOnce() -> Result<String, String>,
    attempt: impl FnOnce() -> Result<(), String>,
) -> Result<String, String> {
    let identity = Identity::of_own_run();
    let (own_end, child_end) = UnixStream::pair().map_err(|e| e.to_string())?;
    let cloned = sys::clone_process(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, None);
    match cloned.map_err(|e| format!("cloning into new namespaces: {e}"))? {
        Forked::Child => {
            drop(own_end);
            let result = enter(&child_end).and_then(|()| attempt());
            drop((&child_end).write_all(result.err().unwrap_or_default().as_bytes()));
            sys::exit_now(0)
        }
        Forked::Parent(pid, handle) => {
            drop(child_end);
            let mut why = String::new();
            let maps = identity.write_maps_of(pid).map_err(|e| e.to_string());
            let answered = maps
                .and_then(|()| Reply::IdsMapped.send(&own_end).map_err(|e| e.to_string()))
                .and_then(|()| (&own_end).read_to_string(&mut why).map_err(|e| e.to_string()));
            // The child exits by itself, at the latest at the end of the stream.
            drop(own_end);
            let options = rustix::process::WaitIdOptions::EXITED;
            _ = rustix::process::waitid(rustix::process::WaitId::PidFd(handle.as_fd()), options);
            answered?;
            if why.is_empty() { success() } else { Err(why) }
        }
    }
}

fn enter(socket: &UnixStream) -> Result<(), String> {
    Reply::IdsMapped.wait(socket).map_err(|e| e.to_string())?;
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

/// The steps of mounting images and inputs: open below a root, clone, make permanently read-only.
fn mounting() -> Result<(), String> {
    private_tmpfs()?;
    fs::create_dir("/tmp/in").map_err(|e| e.to_string())?;
    let root = OwnedFd::from(fs::File::open("/tmp").map_err(|e| e.to_string())?);
    let found = mounts::real_directory(&root, "in").map_err(|e| e.to_string())?;
    let found = found.ok_or("a new directory does not exist")?;
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
    rustix::system::sethostname(b"doctor").map_err(|e| format!("setting the host name: {e}"))?;
    rustix::system::setdomainname(b"doctor").map_err(|e| format!("setting the domain name: {e}"))?;
    sys::raise_loopback().map_err(|e| format!("enabling lo: {e}"))
}

fn proc() -> Result<(), String> {
    private_tmpfs()?;
    sys::unshare(libc::CLONE_NEWPID).map_err(|e| format!("unshare: {e}"))?;
    fs::create_dir("/tmp/proc").map_err(|e| e.to_string())?;
    // Only a process of the new pid namespace can mount its /proc.
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

/// Installs a filter and duplicates its listener, as the supervisor does.
fn filter() -> Result<(), String> {
    let program = invarlock_seccomp::Profile::no_network().compile_notify().map_err(|e| e.to_string())?;
    let listener = program.ready().and_then(|ready| ready.install_notify()).map_err(|e| e.to_string())?;
    let (this, none) = (own_pidfd()?, rustix::process::PidfdGetfdFlags::empty());
    let taken = rustix::process::pidfd_getfd(&this, listener.as_fd().as_raw_fd(), none);
    let taken = taken.map_err(|e| format!("duplicating its listener: {e}"))?;
    invarlock_seccomp::Listener::check(taken).map(drop).map_err(|e| e.to_string())
}

/// Whether a run with the default limits can use up the open files of the machine. A mapping holds its file open without a descriptor, which
/// no limit of a run counts.
fn open_files() -> ControlCheck {
    let number = |path: &str| read(path).and_then(|text| text.parse::<u64>().ok());
    let (pids, mappings) =
        (Limits::for_machine().pids, number("/proc/sys/vm/max_map_count").unwrap_or(65_530));
    let needed = pids.saturating_mul(mappings);
    let tried = match number("/proc/sys/fs/file-max") {
        Some(most) if most >= needed => Ok(format!("fs.file-max is {most}, more than a run can hold open")),
        Some(most) => Err(format!(
            "fs.file-max is {most}: a run of {pids} processes can hold {needed} files open by mapping them, and then only root can open files"
        )),
        None => Err("cannot read fs.file-max".into()),
    };
    checked(
        "open files",
        false,
        tried,
        &format!("sysctl -w fs.file-max={needed}, or run with a lower --pids"),
    )
}

fn own_pidfd() -> Result<OwnedFd, String> {
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .map_err(|e| format!("pidfd_open: {e}"))
}

fn pidfd() -> Result<String, String> {
    let this = own_pidfd()?;
    sys::can_signal(this.as_fd()).map_err(|e| format!("pidfd_send_signal: {e}"))?;
    Ok("opened one and sent a signal through it".into())
}

fn children() -> Result<String, String> {
    fs::read_to_string("/proc/thread-self/children")
        .map(|_| "/proc/<pid>/children exists".into())
        .map_err(|e| e.to_string())
}

/// Tries the file system of the working directory, where inputs are likely to be.
fn id_mapped() -> Result<String, String> {
    let here = fs::File::open(".").map_err(|e| e.to_string())?;
    prepare::try_id_mapped(&OwnedFd::from(here))
        .map(|()| "the file system of the working directory supports them".into())
        .map_err(|e| e.to_string())
}

fn cgroup(controller: Controller) -> Result<String, String> {
    let parent = cgroup::Hierarchies::read()?.find(controller)?;
    let probe = parent.dir.join(format!("{}probe-{}", cgroup::PREFIX, std::process::id()));
    fs::create_dir(&probe).map_err(|e| format!("creating {}: {e}", probe.display()))?;
    fs::remove_dir(&probe).map_err(|e| format!("removing {}: {e}", probe.display()))?;
    Ok(format!("{:?}, below {}", parent.version, parent.dir.display()).to_lowercase())
}
