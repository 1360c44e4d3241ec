//! The machine: file systems, one unified cgroup hierarchy, and its users.

use invarlock_tests::USER;
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The only cgroup hierarchy.
const CGROUPS: &str = "/sys/fs/cgroup";
const CONTROLLERS: &str = "+memory +pids +cpu";

/// Who runs a case, and in which cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Root in the root cgroup, as early in a boot.
    Root,
    /// Root in a leaf cgroup, as in a session: the run's cgroup must be created beside it.
    Session,
    /// An ordinary user in a delegated part of the hierarchy.
    User,
    /// An ordinary user in a leaf cgroup owned by root.
    Outsider,
}

impl Who {
    /// All callers.
    pub const ALL: [Self; 4] = [Self::Root, Self::Session, Self::User, Self::Outsider];
    /// The callers whose runs have cgroups.
    pub const LIMITED: [Self; 3] = [Self::Root, Self::Session, Self::User];

    /// Its name on the console.
    pub fn name(self) -> &'static str {
        match self {
            Who::Root => "root",
            Who::Session => "root-in-session",
            Who::User => "user-delegated",
            Who::Outsider => "user-not-delegated",
        }
    }

    /// The caller with this name.
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|who| who.name() == name).unwrap()
    }

    /// Whether it is root.
    pub fn is_root(self) -> bool {
        matches!(self, Who::Root | Who::Session)
    }

    /// The cgroup of the caller.
    fn cgroup(self) -> String {
        match self {
            Who::Root => CGROUPS.to_owned(),
            Who::Session | Who::Outsider => format!("{CGROUPS}/system/session"),
            Who::User => format!("{CGROUPS}/user/session"),
        }
    }

    /// A program run by the caller.
    pub fn command(self, program: &Path) -> Command {
        let home = format!("/home/{}", self.name());
        let mut command = Command::new("/init");
        command.arg("as").arg(self.name()).arg(program).env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &home)
            .env("INVARLOCK_STORE", format!("{home}/store"));
        command
            .env("XDG_RUNTIME_DIR", format!("{home}/run"))
            .env("TMPDIR", format!("{home}/tmp"))
            .current_dir(home);
        command.stdin(std::process::Stdio::null());
        command
    }
}

/// Mounts the usual file systems and creates cgroups and home directories.
pub fn prepare() {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, at, flags) in [
        ("proc", "/proc", plain),
        ("sysfs", "/sys", plain),
        ("devtmpfs", "/dev", MountFlags::NOSUID),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV),
        ("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV),
        ("cgroup2", CGROUPS, plain),
    ] {
        mount(kind, at, kind, flags, None).unwrap();
    }
    mode("/tmp", 0o1777);
    mode("/run", 0o755);
    for module in fs::read_dir("/modules").into_iter().flatten().flatten() {
        rustix::system::finit_module(fs::File::open(module.path()).unwrap(), c"", 0).unwrap();
    }
    let control = |dir: &str| fs::write(format!("{dir}/cgroup.subtree_control"), CONTROLLERS).unwrap();
    control(CGROUPS);
    for name in ["system", "user"] {
        let dir = format!("{CGROUPS}/{name}");
        fs::create_dir_all(format!("{dir}/session")).unwrap();
        control(&dir);
    }
    // The files that systemd delegates with Delegate=yes.
    for name in ["user", "user/session"] {
        for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
            give(&format!("{CGROUPS}/{name}{file}"));
        }
    }
    for who in Who::ALL {
        for (dir, bits) in [("", 0o755), ("/run", 0o700), ("/tmp", 0o700)] {
            let path = format!("/home/{}{dir}", who.name());
            fs::create_dir_all(&path).unwrap();
            mode(&path, bits);
            if !who.is_root() {
                give(&path);
            }
        }
    }
}

fn give(path: &str) {
    std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
}

fn mode(path: &str, bits: u32) {
    invarlock_tests::set_mode(Path::new(path), bits);
}

/// Enters the cgroup of `who`, changes to its user, and executes the program.
pub fn become_program(who: Who, program: &[&str]) {
    fs::write(format!("{}/cgroup.procs", who.cgroup()), "0").unwrap();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]);
    if !who.is_root() {
        rustix::thread::set_thread_groups(&[]).unwrap();
        command.gid(USER).uid(USER);
    }
    panic!("{}: {}", program[0], command.exec());
}
