//! What the kernel says of the boundary, before the workload's first instruction: written down, and compared with what was asked for.

use crate::cgroup::RunCgroup;
use crate::error::{Doing as _, Error, Result};
use crate::identity::Identity;
use crate::protocol::Request;
use crate::spec::LimitName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

/// Who saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observer {
    /// Our supervisor, from outside.
    Supervisor,
    /// Our init, from inside.
    Init,
}

/// A value and who saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen<T> {
    /// Who.
    pub observer: Observer,
    /// What.
    pub value: T,
}

fn outside<T>(value: T) -> Seen<T> {
    Seen { observer: Observer::Supervisor, value }
}

fn inside<T>(value: T) -> Seen<T> {
    Seen { observer: Observer::Init, value }
}

/// The boundary as observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// `container`, or `host-bypass` for a plain child.
    pub mode: String,
    /// Namespaces by name.
    pub namespaces: Seen<BTreeMap<String, Namespace>>,
    /// Names of network interfaces.
    pub interfaces: Seen<Vec<String>>,
    /// Routes that do not belong to `lo`.
    pub routes: Seen<Vec<String>>,
    /// The filter.
    pub seccomp: Seen<Seccomp>,
    /// `NoNewPrivs`.
    pub no_new_privs: Seen<bool>,
    /// The five capability sets.
    pub capabilities: Seen<Capabilities>,
    /// Ids on the host.
    pub identity: Seen<HostIds>,
    /// Maps of the user namespace.
    pub id_maps: Seen<IdMaps>,
    /// Mount table.
    pub mounts: Seen<Vec<MountRow>>,
    /// Descriptors that the program gets.
    pub descriptors: Seen<Vec<Descriptor>>,
    /// Names of environment variables.
    pub environment: Seen<Vec<String>>,
    /// Entries of `/dev`.
    pub devices: Seen<Vec<String>>,
    /// Limits, with what holds each.
    pub limits: Seen<Vec<LimitRow>>,
    /// Lines of `/proc/<pid>/cgroup`.
    pub cgroup: Seen<Vec<String>>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number of the launcher's.
    pub launcher: u64,
    /// Inode number of the container's.
    pub container: u64,
    /// Whether they differ.
    pub new: bool,
}

/// The filter of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// 2: filters.
    pub mode: u64,
    /// Number of filters; none where the kernel does not say.
    pub filters: Option<u64>,
    /// How many of them the launcher had already.
    pub inherited: Option<u64>,
    /// Digest of ours.
    pub digest: String,
}

/// Capability sets as the kernel prints them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `CapInh`.
    pub inheritable: String,
    /// `CapPrm`.
    pub permitted: String,
    /// `CapEff`.
    pub effective: String,
    /// `CapBnd`.
    pub bounding: String,
    /// `CapAmb`.
    pub ambient: String,
}

/// Ids as the host sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    /// Real, effective, saved, file system.
    pub uid: Vec<u32>,
    /// Real, effective, saved, file system.
    pub gid: Vec<u32>,
    /// Supplementary groups; a user's run keeps the caller's, which nobody without privilege can give up.
    pub groups: Vec<u32>,
}

/// Maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// `uid_map`, one line an entry: inside, host, count.
    pub uid: Vec<String>,
    /// `gid_map`.
    pub gid: Vec<String>,
    /// `setgroups`.
    pub setgroups: String,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    /// Where.
    pub target: String,
    /// File system type.
    pub kind: String,
    /// Options of the mount.
    pub options: Vec<String>,
}

/// One open descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Number.
    pub fd: u32,
    /// What it is, without inode numbers.
    pub what: String,
}

/// What holds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A controller of the run's cgroup.
    Cgroup,
    /// A resource limit of each process.
    Rlimit,
    /// The set of processors it may run on.
    Affinity,
    /// The supervisor's clock.
    Watchdog,
    /// The size of a tmpfs.
    Tmpfs,
    /// Nothing.
    None,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitRow {
    /// Which.
    pub name: LimitName,
    /// Unit of the numbers.
    pub unit: String,
    /// What was asked for, in the kernel's rounding.
    pub asked: u64,
    /// What holds it.
    pub by: By,
    /// What was read back.
    pub effective: Option<u64>,
    /// Why it is not held, or not by a cgroup.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl LimitRow {
    pub(crate) fn new(
        name: LimitName,
        asked: u64,
        by: By,
        effective: Option<u64>,
        reason: Option<String>,
    ) -> Self {
        let unit = match name {
            LimitName::Memory | LimitName::Output | LimitName::Tmp | LimitName::Core => "bytes",
            LimitName::Pids => "processes",
            LimitName::Cpu => "millicpus",
            LimitName::Files | LimitName::OutputFiles => "files",
            LimitName::Wall => "milliseconds",
        };
        LimitRow { name, unit: unit.into(), asked, by, effective, reason }
    }
}

/// What init saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct InsideObservations {
    pub(crate) devices: Vec<String>,
    pub(crate) environment: Vec<String>,
}

/// Namespaces that are always new.
pub(crate) const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

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

    /// Compares what was seen with what was asked for. The first row that differs ends the run.
    pub(crate) fn check(&self, seen: &Observations) -> Result<()> {
        let host = self.request.host.is_some();
        let row = |name: &str, good: bool, found: String| match good {
            true => Ok(()),
            false => Err(Error::Integrity(format!(
                "the boundary is not what was asked for: row {name:?} was observed as {found}; the workload was not started"
            ))),
        };
        row("no_new_privs", seen.no_new_privs.value, "0".into())?;
        let added = seen
            .seccomp
            .value
            .filters
            .zip(seen.seccomp.value.inherited)
            .map(|(all, before)| all.saturating_sub(before));
        let filters = self.request.filter.filters.len() as u64;
        let good = seen.seccomp.value.mode == 2 && added.is_none_or(|added| added == filters);
        row("seccomp", good, format!("{:?}", seen.seccomp.value))?;
        row(
            "descriptors",
            seen.descriptors.value.iter().map(|d| d.fd).eq(0..3),
            format!("{:?}", seen.descriptors.value),
        )?;
        if host {
            return Ok(());
        }
        let old: Vec<&String> =
            seen.namespaces.value.iter().filter(|(_, n)| !n.new).map(|(name, _)| name).collect();
        row("namespaces", old.is_empty(), format!("shared with the launcher: {old:?}"))?;
        row("interfaces", seen.interfaces.value == ["lo"], format!("{:?}", seen.interfaces.value))?;
        row("routes", seen.routes.value.is_empty(), format!("{:?}", seen.routes.value))?;
        let caps = &seen.capabilities.value;
        let sets = [&caps.inheritable, &caps.permitted, &caps.effective, &caps.bounding, &caps.ambient];
        row(
            "capabilities",
            sets.iter().all(|s| s.bytes().all(|b| b == b'0') && !s.is_empty()),
            format!("{caps:?}"),
        )?;
        let ids = &seen.identity.value;
        let (uid, gid) = (self.identity.host_uid, self.identity.host_gid);
        let same = ids.uid == [uid; 4] && ids.gid == [gid; 4] && uid != 0;
        let groups = if self.identity.by_root { ids.groups.is_empty() } else { ids.groups == own_groups()? };
        row("identity", same && groups, format!("{ids:?}"))?;
        let (uid_map, gid_map) = self.identity.maps();
        let maps = &seen.id_maps.value;
        let expected = |map: &str| map.lines().map(str::to_owned).collect::<Vec<_>>();
        let good = maps.uid == expected(&uid_map)
            && maps.gid == expected(&gid_map)
            && maps.setgroups == self.identity.setgroups();
        row("id_maps", good, format!("{maps:?}"))?;
        check_mounts(&seen.mounts.value, self.request).and_then(|()| {
            row("devices", seen.devices.value == DEVICES, format!("{:?}", seen.devices.value))
        })?;
        let names: Vec<&String> = self.request.env.iter().map(|(name, _)| name).collect();
        row("environment", seen.environment.value.iter().eq(names), format!("{:?}", seen.environment.value))?;
        let outside: Vec<_> = self
            .cgroup
            .dirs()
            .iter()
            .filter(|d| !holds(d, self.pid))
            .map(|d| d.display().to_string())
            .collect();
        row("cgroup", outside.is_empty(), format!("not inside {outside:?}"))
    }
}

fn holds(dir: &std::path::Path, pid: i32) -> bool {
    fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|text| text.lines().any(|l| l.parse() == Ok(pid)))
}

fn own_groups() -> Result<Vec<u32>> {
    Status::of("/proc/self/status")?.numbers("Groups")
}

/// What `/dev` holds.
pub(crate) const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

/// The mounts there must be, with options they must have; no other may be there.
fn check_mounts(rows: &[MountRow], request: &Request) -> Result<()> {
    let bad = |what: String| {
        Err(Error::Integrity(format!(
            "the boundary is not what was asked for: row \"mounts\": {what}; the workload was not started"
        )))
    };
    let mut required: Vec<(String, &[&str])> = vec![
        ("/".into(), &["ro", "nosuid", "nodev"]),
        ("/in".into(), &["ro", "nosuid", "nodev", "noexec"]),
        ("/out".into(), &["rw", "nosuid", "nodev", "noexec"]),
        ("/tmp".into(), &["rw", "nosuid", "nodev", "noexec"]),
        ("/dev".into(), &["ro", "nosuid", "noexec"]),
        ("/proc".into(), &["nosuid", "nodev", "noexec"]),
    ];
    for input in request.inputs.iter().filter(|i| i.path.is_some()) {
        required.push((input.target.clone(), &["ro", "nosuid", "nodev", "noexec"]));
    }
    for (target, options) in &required {
        let Some(found) = rows.iter().find(|r| r.target == *target) else {
            return bad(format!("{target} is not mounted"));
        };
        if let Some(option) = options.iter().find(|o| !found.options.iter().any(|f| f == **o)) {
            return bad(format!("{target} is not {option}: {:?}", found.options));
        }
    }
    for row in rows {
        let device = DEVICES.iter().any(|d| row.target == format!("/dev/{d}"));
        let below_proc = row.target.starts_with("/proc/")
            && (row.options.iter().any(|o| o == "ro") || row.kind == "devtmpfs");
        let masked = row.target.starts_with("/proc/") && row.kind == "tmpfs";
        if !device && !below_proc && !masked && !required.iter().any(|(target, _)| *target == row.target) {
            return bad(format!("{} is mounted and nobody asked for it", row.target));
        }
        if rows.iter().filter(|r| r.target == row.target).count() > 1 && !below_proc {
            return bad(format!("{} is mounted twice", row.target));
        }
    }
    Ok(())
}

fn mounts(mountinfo: &str) -> Vec<MountRow> {
    let row = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        let target = crate::cgroup::unescape(left.next()?);
        let options = left.next()?.split(',').map(str::to_owned).collect();
        Some(MountRow { target, kind: right.split(' ').next()?.to_owned(), options })
    };
    mountinfo.lines().filter_map(row).collect()
}

fn interfaces(dev: &str) -> Vec<String> {
    dev.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect()
}

/// `/proc/<pid>/status`.
struct Status(String);

impl Status {
    fn of(path: &str) -> Result<Self> {
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

    fn numbers(&self, key: &str) -> Result<Vec<u32>> {
        self.get(key)?.split_whitespace().map(|n| n.parse().doing(|| format!("observing {key}"))).collect()
    }
}
