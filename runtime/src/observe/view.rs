//! Observes the waiting workload from outside.

use super::Root;
use crate::boundary::NAMESPACES;
use crate::cgroup::RunCgroup;
use crate::core_dumps::CoreDumps;
use crate::identity::Identity;
use crate::landlock::Landlock;
use crate::observations::{
    Capabilities, ContainerIds, ContainerObservations, Descriptor, HostIds, IdMaps, InitObservation,
    InitReport, InputObservation, LimitObservation, MountObservation, Namespace, Observations, Observed,
    Observer, Process, Seccomp, WorkloadReport,
};
use crate::procfs::{self, Status};
use crate::protocol::Request;
use crate::rlimit::{self, Rlimit};
use crate::user_mounts::ExpectedFile;
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// Abstract sockets that are recorded. A single one already fails the check.
const MAX_SOCKETS: usize = 16;

fn outside<T>(value: T) -> Observed<T> {
    Observed { observer: Observer::Supervisor, value }
}

fn inside<T>(value: T) -> Observed<T> {
    Observed { observer: Observer::Init, value }
}

/// The workload, process `pid`, which waits for `Go`, and the values that are expected of it.
pub(crate) struct View<'a> {
    pub(crate) pid: i32,
    pub(crate) init: i32,
    pub(crate) request: &'a Request,
    pub(crate) identity: Identity,
    pub(crate) limits: Vec<LimitObservation>,
    /// All resource limits, as requested and as they were read back.
    pub(crate) requested_rlimits: &'a [Rlimit],
    pub(crate) rlimits: &'a [Rlimit],
    /// The expected files below `/in`.
    pub(crate) inputs: &'a [InputObservation],
    /// The expected files at the targets of binds.
    pub(crate) binds: &'a [ExpectedFile],
    pub(crate) cgroup: &'a RunCgroup,
}

impl View<'_> {
    /// Observes every control.
    pub(crate) fn observe(&self, init: Option<InitReport>, workload: WorkloadReport) -> Result<Observations> {
        let status = Status::read(&format!("/proc/{}/status", self.pid))?;
        let own = Status::own()?;
        let lines = |path: &str| -> Result<Vec<String>> {
            Ok(self.read(path)?.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
        };
        let mounts = Mounts::of(&self.read("mountinfo")?);
        let WorkloadReport { environment, secure_bits, landlock, ids } = workload;
        let container = match init {
            Some(init) => Some(self.container(&status, &mounts, init, (ids, secure_bits, landlock))?),
            None => None,
        };
        Ok(Observations {
            mode: if self.request.host.is_some() { "host-bypass" } else { "container" }.into(),
            namespaces: outside(self.namespaces()?),
            interfaces: outside(interfaces(&self.read("net/dev")?)),
            routes: outside(self.routes()?),
            seccomp: outside(Seccomp {
                mode: status.number("Seccomp")?,
                filters: status.number("Seccomp_filters").ok(),
                inherited: own.number("Seccomp_filters").ok(),
                digest: self.request.filter.digest.clone(),
            }),
            no_new_privs: outside(status.number("NoNewPrivs")? == 1),
            capabilities: outside(Capabilities {
                inheritable: status.get("CapInh")?.to_owned(),
                permitted: status.get("CapPrm")?.to_owned(),
                effective: status.get("CapEff")?.to_owned(),
                bounding: status.get("CapBnd")?.to_owned(),
                ambient: status.get("CapAmb")?.to_owned(),
            }),
            identity: outside(HostIds {
                uid: status.numbers("Uid")?,
                gid: status.numbers("Gid")?,
                groups: status.numbers("Groups")?,
            }),
            id_maps: outside(IdMaps {
                uid: lines("uid_map")?,
                gid: lines("gid_map")?,
                setgroups: self.read("setgroups")?.trim().to_owned(),
            }),
            mounts: outside(mounts.0.into_iter().map(|(_, mount)| mount).collect()),
            descriptors: outside(self.descriptors()?),
            environment: inside(environment),
            limits: outside(self.limits.clone()),
            rlimits: outside(rlimit::named(self.rlimits)),
            core_dumps: outside(CoreDumps::of(self.pid, self.rlimits)?),
            cgroup: outside(lines("cgroup")?),
            container,
        })
    }

    fn container(
        &self,
        status: &Status,
        mounts: &Mounts,
        init: InitReport,
        (ids, secure_bits, landlock): (ContainerIds, String, Landlock),
    ) -> Result<ContainerObservations> {
        let root = Root::of(self.pid)?;
        Ok(ContainerObservations {
            sockets: outside(abstract_sockets(&self.read("net/unix")?)),
            secure_bits: inside(secure_bits),
            landlock: inside(landlock),
            container_ids: inside(ids),
            host_name: inside(init.host_name),
            inputs: outside(root.inputs(self.request)?),
            user_limits: inside(init.user_limits),
            devices: outside(root.devices(self.request)?),
            proc: outside(root.proc(self.request)?),
            process: outside(self.process(status, mounts)?),
            init: outside(self.init(status)?),
            parent_death_signal: inside(init.parent_death_signal),
        })
    }

    fn process(&self, status: &Status, mounts: &Mounts) -> Result<Process> {
        let stat = Stat::of(&self.read("stat")?)?;
        let path = format!("/proc/{}/cwd", self.pid);
        let fail = || format!("observing {path}");
        let cwd = fs::read_link(&path).with_context(fail)?.to_string_lossy().into_owned();
        let handle = rustix::fs::open(
            &path,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let on = mount_id(&handle.with_context(fail)?)?;
        let cwd_mount = mounts.0.iter().find(|(id, _)| *id == on).map(|(_, mount)| mount.target.clone());
        let oom = self.read("oom_score_adj")?;
        Ok(Process {
            cwd,
            cwd_mount,
            umask: status.get("Umask")?.to_owned(),
            session_leader: stat.session == self.pid,
            group_leader: stat.group == self.pid,
            terminal: stat.terminal != 0,
            oom_score_adj: oom.trim().parse().err_kind(Kind::System).context("observing oom_score_adj")?,
        })
    }

    /// With `hidepid`, `/proc` shows an ordinary user nothing of init, which may not be inspected, so its pid is read from a pidfd.
    fn init(&self, workload: &Status) -> Result<InitObservation> {
        let fail = || "observing init".to_owned();
        let pid = rustix::process::Pid::from_raw(self.init)
            .ok_or_else(|| Error::system(format!("{}: no process id", fail())))?;
        let handle =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).with_context(fail)?;
        let info = Status::read(&format!("/proc/self/fdinfo/{}", handle.as_raw_fd()))?;
        Ok(InitObservation {
            pid: info.numbers("NSpid")?.last().copied().unwrap_or_default(),
            child_of_supervisor: procfs::own_children()?.contains(&self.init),
            parent_of_workload: workload.number("PPid")? == u64::from(self.init.unsigned_abs()),
            dumpable: self.init_is_dumpable()?,
        })
    }

    fn init_is_dumpable(&self) -> Result<bool> {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        let path = format!("/proc/{}/environ", self.init);
        match fs::metadata(&path) {
            // The kernel makes root the owner of these files if the process may not be inspected.
            Ok(file) => Ok(Status::read(&format!("/proc/{}/status", self.init))?
                .numbers("Uid")?
                .contains(&file.uid())),
            // Init exists, because it is a child of this process; its files are hidden.
            Err(e) if matches!(e.kind(), NotFound | PermissionDenied) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("observing {path}")),
        }
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        procfs::read(&path).with_context(|| format!("observing {path}"))
    }

    fn namespaces(&self) -> Result<BTreeMap<String, Namespace>> {
        let inode = |path: String| -> Result<u64> {
            let link = fs::read_link(&path).with_context(|| format!("observing {path}"))?;
            let text = link.to_string_lossy();
            let number = text.split_once('[').and_then(|(_, n)| n.strip_suffix(']')?.parse().ok());
            number.ok_or_else(|| Error::system(format!("observing {path}: {text}")))
        };
        NAMESPACES
            .into_iter()
            .map(|name| {
                let launcher = inode(format!("/proc/self/ns/{name}"))?;
                let container = inode(format!("/proc/{}/ns/{name}", self.pid))?;
                Ok((name.to_owned(), Namespace { launcher, container, new: launcher != container }))
            })
            .collect()
    }

    fn routes(&self) -> Result<Vec<String>> {
        let v4 = self.read("net/route")?;
        let v6 = self.read("net/ipv6_route").unwrap_or_default();
        let v4 = v4.lines().skip(1).filter(|l| !l.starts_with("lo\t"));
        let v6 = v6.lines().filter(|l| l.split_whitespace().next_back() != Some("lo"));
        Ok(v4.chain(v6).map(str::to_owned).collect())
    }

    /// Descriptors without `O_CLOEXEC`: the program inherits them.
    fn descriptors(&self) -> Result<Vec<Descriptor>> {
        let dir = format!("/proc/{}/fd", self.pid);
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("observing {dir}"))? {
            let name = entry.with_context(|| format!("observing {dir}"))?.file_name();
            let Some(fd) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let info = self.read(&format!("fdinfo/{fd}"))?;
            let flags =
                info.lines().find_map(|l| l.strip_prefix("flags:")).map(str::trim).unwrap_or_default();
            if u64::from_str_radix(flags, 8).is_ok_and(|f| f & libc::O_CLOEXEC as u64 == 0) {
                let target =
                    fs::read_link(format!("{dir}/{fd}")).with_context(|| format!("observing {dir}/{fd}"))?;
                let what = target.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
                found.push(Descriptor { fd, what });
            }
        }
        found.sort_by_key(|d| d.fd);
        Ok(found)
    }
}

/// The mount table: ids and mounts.
struct Mounts(Vec<(u64, MountObservation)>);

impl Mounts {
    fn of(mountinfo: &str) -> Self {
        let mount = |line: &str| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ');
            let id = left.next()?.parse().ok()?;
            let mut left = left.skip(3);
            let target = procfs::unescape(left.next()?);
            let options = left.next()?.to_owned();
            let peers = left.collect::<Vec<_>>().join(" ");
            let propagation = if peers.is_empty() { "private".to_owned() } else { peers };
            let kind = right.split(' ').next()?.to_owned();
            Some((id, MountObservation { target, kind, options, propagation }))
        };
        Mounts(mountinfo.lines().filter_map(mount).collect())
    }
}

/// The id of the mount of a descriptor of this process.
fn mount_id(of: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", of.as_raw_fd());
    let text = procfs::read(&path).with_context(|| format!("observing {path}"))?;
    let id = text.lines().find_map(|l| l.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::system(format!("observing {path}: there is no mnt_id")))
}

/// Names of abstract sockets in `/proc/<pid>/net/unix`.
fn abstract_sockets(unix: &str) -> Vec<String> {
    let names = unix.lines().skip(1).filter_map(|l| l.split_whitespace().nth(7));
    names.filter(|name| name.starts_with('@')).take(MAX_SOCKETS).map(str::to_owned).collect()
}

fn interfaces(dev: &str) -> Vec<String> {
    dev.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect()
}

/// The used fields of `/proc/<pid>/stat`, which are numbers after a name in parentheses.
struct Stat {
    group: i32,
    session: i32,
    terminal: i32,
}

impl Stat {
    fn of(text: &str) -> Result<Self> {
        let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        // State and parent come first.
        let mut fields = rest.split_whitespace().skip(2).map(str::parse);
        let mut next = || fields.next().and_then(std::result::Result::ok);
        match (next(), next(), next()) {
            (Some(group), Some(session), Some(terminal)) => Ok(Stat { group, session, terminal }),
            _ => Err(Error::system(format!("observing the stat of the workload: {text}"))),
        }
    }
}
