//! Looking at the waiting workload from outside.

use super::{
    Capabilities, Contained, Descriptor, HostIds, IdMaps, InitRow, InputRow, LimitRow, MountRow, NAMESPACES,
    Namespace, Observations, Observer, Process, Root, Seccomp, Seen, SeenByInit, SeenByWorkload,
};
use crate::cgroup::RunCgroup;
use crate::identity::Identity;
use crate::kernel;
use crate::protocol::Request;
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// Abstract sockets that are written down; one is too many already.
const MOST_SOCKETS: usize = 16;

fn outside<T>(value: T) -> Seen<T> {
    Seen { observer: Observer::Supervisor, value }
}

fn inside<T>(value: T) -> Seen<T> {
    Seen { observer: Observer::Init, value }
}

/// Everything seen from outside of process `pid`, which waits for Go.
pub(crate) struct View<'a> {
    pub(crate) pid: i32,
    pub(crate) init: i32,
    pub(crate) request: &'a Request,
    pub(crate) identity: Identity,
    pub(crate) limits: Vec<LimitRow>,
    /// What has to be below `/in`.
    pub(crate) inputs: &'a [InputRow],
    pub(crate) cgroup: &'a RunCgroup,
}

impl View<'_> {
    /// Writes everything down.
    pub(crate) fn take(&self, init: Option<SeenByInit>, workload: SeenByWorkload) -> Result<Observations> {
        let status = Status::of(&format!("/proc/{}/status", self.pid))?;
        let own = Status::of("/proc/self/status")?;
        let lines = |path: &str| -> Result<Vec<String>> {
            Ok(self.read(path)?.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
        };
        let mounts = Mounts::of(&self.read("mountinfo")?);
        let (environment, inside_ids, secure_bits) =
            (workload.environment, workload.ids, workload.secure_bits);
        let contained = match init {
            Some(init) => Some(self.contained(&status, &mounts, init, inside_ids, secure_bits)?),
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
            mounts: outside(mounts.0.into_iter().map(|(_, row)| row).collect()),
            descriptors: outside(self.descriptors()?),
            environment: inside(environment),
            limits: outside(self.limits.clone()),
            cgroup: outside(lines("cgroup")?),
            contained,
        })
    }

    fn contained(
        &self,
        status: &Status,
        mounts: &Mounts,
        init: SeenByInit,
        ids: super::IdsInside,
        secure_bits: String,
    ) -> Result<Contained> {
        let root = Root::of(self.pid)?;
        Ok(Contained {
            sockets: outside(abstract_sockets(&self.read("net/unix")?)),
            secure_bits: inside(secure_bits),
            ids_inside: inside(ids),
            host_name: inside(init.host_name),
            inputs: outside(root.inputs(self.request)?),
            devices: outside(root.devices()?),
            proc: outside(root.proc()?),
            process: outside(self.process(status, mounts)?),
            init: outside(self.init_row(status)?),
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
        let cwd_mount = mounts.0.iter().find(|(id, _)| *id == on).map(|(_, row)| row.target.clone());
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

    /// A `/proc` that hides processes (hidepid) shows an ordinary user nothing of one that may not be inspected, as init may not be.
    fn init_row(&self, workload: &Status) -> Result<InitRow> {
        let fail = || "observing init".to_owned();
        let pid = rustix::process::Pid::from_raw(self.init)
            .ok_or_else(|| Error::system(format!("{}: it has no process id", fail())))?;
        let handle =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).with_context(fail)?;
        let info = Status::of(&format!("/proc/self/fdinfo/{}", handle.as_raw_fd()))?;
        Ok(InitRow {
            pid: info.numbers("NSpid")?.last().copied().unwrap_or_default(),
            child_of_supervisor: crate::supervisor::own_children()?.contains(&self.init),
            parent_of_workload: workload.number("PPid")? == u64::from(self.init.unsigned_abs()),
            dumpable: self.init_is_dumpable()?,
        })
    }

    fn init_is_dumpable(&self) -> Result<bool> {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        let path = format!("/proc/{}/environ", self.init);
        match fs::metadata(&path) {
            // The kernel gives the files of a process that may not be inspected to root, whoever it is.
            Ok(file) => {
                Ok(Status::of(&format!("/proc/{}/status", self.init))?.numbers("Uid")?.contains(&file.uid()))
            }
            // It is there, or it would be no child, and hidden.
            Err(e) if matches!(e.kind(), NotFound | PermissionDenied) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("observing {path}")),
        }
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        kernel::read(&path).with_context(|| format!("observing {path}"))
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

    /// Descriptors without `O_CLOEXEC`: those that the program will have.
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
                let what =
                    fs::read_link(format!("{dir}/{fd}")).with_context(|| format!("observing {dir}/{fd}"))?;
                let what = what.to_string_lossy();
                found.push(Descriptor { fd, what: what.split(':').next().unwrap_or_default().to_owned() });
            }
        }
        found.sort_by_key(|d| d.fd);
        Ok(found)
    }
}

/// The mount table: ids and rows.
struct Mounts(Vec<(u64, MountRow)>);

impl Mounts {
    fn of(mountinfo: &str) -> Self {
        let row = |line: &str| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ');
            let id = left.next()?.parse().ok()?;
            let mut left = left.skip(3);
            let target = crate::cgroup::unescape(left.next()?);
            let options = left.next()?.to_owned();
            let ties = left.collect::<Vec<_>>().join(" ");
            let propagation = if ties.is_empty() { "private".to_owned() } else { ties };
            let kind = right.split(' ').next()?.to_owned();
            Some((id, MountRow { target, kind, options, propagation }))
        };
        Mounts(mountinfo.lines().filter_map(row).collect())
    }
}

/// Which mount a descriptor of this process is on.
fn mount_id(of: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", of.as_raw_fd());
    let text = kernel::read(&path).with_context(|| format!("observing {path}"))?;
    let id = text.lines().find_map(|l| l.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::system(format!("observing {path}: it has no mnt_id")))
}

/// Names of sockets in `/proc/<pid>/net/unix` that are no files.
fn abstract_sockets(unix: &str) -> Vec<String> {
    let names = unix.lines().skip(1).filter_map(|l| l.split_whitespace().nth(7));
    names.filter(|name| name.starts_with('@')).take(MOST_SOCKETS).map(str::to_owned).collect()
}

fn interfaces(dev: &str) -> Vec<String> {
    dev.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect()
}

/// What is used of `/proc/<pid>/stat`, whose fields are numbers after a name in parentheses.
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
            _ => Err(Error::system(format!("observing the workload's stat: {text}"))),
        }
    }
}

/// Numbers of a line of this process's own status.
pub(crate) fn status_numbers(key: &str) -> Result<Vec<u32>> {
    Status::of("/proc/self/status")?.numbers(key)
}

/// `/proc/<pid>/status`.
pub(super) struct Status(String);

impl Status {
    pub(super) fn of(path: &str) -> Result<Self> {
        kernel::read(path).map(Status).with_context(|| format!("observing {path}"))
    }

    fn get(&self, key: &str) -> Result<&str> {
        let value = self.0.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        value
            .map(str::trim)
            .ok_or_else(|| Error::system(format!("this kernel's process status has no {key}")))
    }

    fn number(&self, key: &str) -> Result<u64> {
        self.get(key)?.parse().err_kind(Kind::System).with_context(|| format!("observing {key}"))
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Vec<u32>> {
        self.get(key)?
            .split_whitespace()
            .map(|n| n.parse().err_kind(Kind::System).with_context(|| format!("observing {key}")))
            .collect()
    }
}
