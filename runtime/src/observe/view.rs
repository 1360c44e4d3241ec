//! Looking at the waiting workload from outside.

use super::{
    Capabilities, Descriptor, HostIds, IdMaps, InsideObservations, LimitRow, MountRow, NAMESPACES, Namespace,
    Observations, Observer, Seccomp, Seen,
};
use crate::cgroup::RunCgroup;
use crate::error::{Doing as _, Error, Result};
use crate::identity::Identity;
use crate::protocol::Request;
use std::collections::BTreeMap;
use std::fs;

fn outside<T>(value: T) -> Seen<T> {
    Seen { observer: Observer::Supervisor, value }
}

fn inside<T>(value: T) -> Seen<T> {
    Seen { observer: Observer::Init, value }
}

/// Everything seen from outside of process `pid`, which waits for Go.
pub(crate) struct View<'a> {
    pub(crate) pid: i32,
    pub(crate) request: &'a Request,
    pub(crate) identity: Identity,
    pub(crate) limits: Vec<LimitRow>,
    pub(crate) cgroup: &'a RunCgroup,
}

impl View<'_> {
    /// Writes everything down.
    pub(crate) fn take(&self, init: InsideObservations) -> Result<Observations> {
        let status = Status::of(&format!("/proc/{}/status", self.pid))?;
        let own = Status::of("/proc/self/status")?;
        let lines = |path: &str| -> Result<Vec<String>> {
            Ok(self.read(path)?.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
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
            mounts: outside(mounts(&self.read("mountinfo")?)),
            descriptors: outside(self.descriptors()?),
            environment: inside(init.environment),
            devices: inside(init.devices),
            limits: outside(self.limits.clone()),
            cgroup: outside(lines("cgroup")?),
        })
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).doing(|| format!("observing {path}"))
    }

    fn namespaces(&self) -> Result<BTreeMap<String, Namespace>> {
        let inode = |path: String| -> Result<u64> {
            let link = fs::read_link(&path).doing(|| format!("observing {path}"))?;
            let text = link.to_string_lossy();
            let number = text.split_once('[').and_then(|(_, n)| n.strip_suffix(']')?.parse().ok());
            number.ok_or_else(|| Error::System(format!("observing {path}: {text}")))
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
        for entry in fs::read_dir(&dir).doing(|| format!("observing {dir}"))? {
            let name = entry.doing(|| format!("observing {dir}"))?.file_name();
            let Some(fd) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let info = self.read(&format!("fdinfo/{fd}"))?;
            let flags =
                info.lines().find_map(|l| l.strip_prefix("flags:")).map(str::trim).unwrap_or_default();
            if u64::from_str_radix(flags, 8).is_ok_and(|f| f & libc::O_CLOEXEC as u64 == 0) {
                let what = fs::read_link(format!("{dir}/{fd}")).doing(|| format!("observing {dir}/{fd}"))?;
                let what = what.to_string_lossy();
                found.push(Descriptor { fd, what: what.split(':').next().unwrap_or_default().to_owned() });
            }
        }
        found.sort_by_key(|d| d.fd);
        Ok(found)
    }
}

fn mounts(mountinfo: &str) -> Vec<MountRow> {
    let row = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        let target = crate::cgroup::unescape(left.next()?);
        let options = left.next()?.split(',').map(str::to_owned).collect();
        let propagation = left.map(str::to_owned).collect();
        Some(MountRow { target, kind: right.split(' ').next()?.to_owned(), options, propagation })
    };
    mountinfo.lines().filter_map(row).collect()
}

fn interfaces(dev: &str) -> Vec<String> {
    dev.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect()
}

/// `/proc/<pid>/status`.
pub(super) struct Status(String);

impl Status {
    pub(super) fn of(path: &str) -> Result<Self> {
        fs::read_to_string(path).map(Status).doing(|| format!("observing {path}"))
    }

    fn get(&self, key: &str) -> Result<&str> {
        let value = self.0.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        value
            .map(str::trim)
            .ok_or_else(|| Error::System(format!("this kernel's process status has no {key}")))
    }

    fn number(&self, key: &str) -> Result<u64> {
        self.get(key)?.parse().doing(|| format!("observing {key}"))
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Vec<u32>> {
        self.get(key)?.split_whitespace().map(|n| n.parse().doing(|| format!("observing {key}"))).collect()
    }
}
