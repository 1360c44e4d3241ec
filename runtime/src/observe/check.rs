//! Comparing what was seen with what was asked for.

use super::files::five_devices;
use super::view::{View, status_numbers};
use super::{Contained, DEVICES, DOMAIN_NAME, HOST_NAME, HostName, MountRow, Observations, UMASK};
use crate::hooks::unseen;
use crate::kernel;
use crate::oci::{MASKED, READ_ONLY};
use crate::protocol::Request;
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use std::fmt::Debug;

/// The first row that differs ends the run.
fn row(name: &str, good: bool, found: impl Debug) -> Result<()> {
    match good || unseen(name) {
        true => Ok(()),
        false => Err(Error::integrity(format!(
            "the boundary is not what was asked for: row {name:?} was observed as {found:?}; the workload was not started"
        ))),
    }
}

impl View<'_> {
    /// Compares what was seen with what was asked for.
    pub(crate) fn check(&self, seen: &Observations) -> Result<()> {
        row("no_new_privs", seen.no_new_privs.value, 0)?;
        let added = seen
            .seccomp
            .value
            .filters
            .zip(seen.seccomp.value.inherited)
            .map(|(all, before)| all.saturating_sub(before));
        let filters = self.request.filter.filters.len() as u64;
        let good = seen.seccomp.value.mode == 2 && added.is_none_or(|added| added == filters);
        row("seccomp", good, &seen.seccomp.value)?;
        let descriptors = &seen.descriptors.value;
        let found = descriptors.iter().map(|d| (d.fd, d.what.as_str()));
        row("descriptors", found.eq([(0, "/dev/null"), (1, "pipe"), (2, "pipe")]), descriptors)?;
        let names: Vec<&String> = self.request.env.iter().map(|(name, _)| name).collect();
        let environment = &seen.environment.value;
        row("environment", environment.iter().eq(names), environment)?;
        match &seen.contained {
            None if self.request.host.is_some() => Ok(()),
            None => row("init", false, "nothing"),
            Some(contained) => {
                self.check_container(seen)?;
                self.check_files(&seen.mounts.value, contained)?;
                self.check_processes(contained)
            }
        }
    }

    fn check_container(&self, seen: &Observations) -> Result<()> {
        let shared = seen.namespaces.value.iter().filter(|(_, n)| !n.new).map(|(name, _)| name);
        let shared: Vec<&String> = shared.collect();
        row("namespaces", shared.is_empty(), format!("shared with the launcher: {shared:?}"))?;
        row("interfaces", seen.interfaces.value == ["lo"], &seen.interfaces.value)?;
        row("routes", seen.routes.value.is_empty(), &seen.routes.value)?;
        let caps = &seen.capabilities.value;
        let sets = [&caps.inheritable, &caps.permitted, &caps.effective, &caps.bounding, &caps.ambient];
        let none = sets.iter().all(|s| s.bytes().all(|b| b == b'0') && !s.is_empty());
        row("capabilities", none, caps)?;
        let ids = &seen.identity.value;
        let (uid, gid) = (self.identity.host_uid, self.identity.host_gid);
        let same = ids.uid == [uid; 4] && ids.gid == [gid; 4] && uid != 0;
        let groups = match self.identity.by_root {
            true => ids.groups.is_empty(),
            false => ids.groups == status_numbers("Groups")?,
        };
        row("identity", same && groups, ids)?;
        let (uid_map, gid_map) = self.identity.maps();
        let maps = &seen.id_maps.value;
        let expected = |map: &str| map.lines().map(str::to_owned).collect::<Vec<_>>();
        let good = maps.uid == expected(&uid_map)
            && maps.gid == expected(&gid_map)
            && maps.setgroups == crate::identity::SETGROUPS;
        row("id_maps", good, maps)?;
        let outside = self.cgroup.dirs().into_iter().filter(|d| !holds(d, self.pid));
        let outside: Vec<_> = outside.collect();
        row("cgroup", outside.is_empty(), format!("not inside {outside:?}"))
    }

    fn check_files(&self, mounts: &[MountRow], seen: &Contained) -> Result<()> {
        let proc = &seen.proc.value;
        check_mounts(mounts, self.request, &proc.absent)?;
        row("devices", seen.devices.value == five_devices(), &seen.devices.value)?;
        // Init, and the workload.
        row("proc", proc.processes == [1, 2], &proc.processes)?;
        row("inputs", seen.inputs.value == self.inputs, &seen.inputs.value)
    }

    fn check_processes(&self, seen: &Contained) -> Result<()> {
        row("sockets", seen.sockets.value.is_empty(), &seen.sockets.value)?;
        let secure = format!("{:#x}", crate::init::SECURE_BITS.bits());
        row("secure_bits", seen.secure_bits.value == secure, &seen.secure_bits.value)?;
        let (ids, inside) = (&seen.ids_inside.value, self.identity.inside);
        row("ids_inside", ids.uid == [inside; 4] && ids.gid == [inside; 4], ids)?;
        let names = HostName { host: HOST_NAME.into(), domain: DOMAIN_NAME.into() };
        row("host_name", seen.host_name.value == names, &seen.host_name.value)?;
        let process = &seen.process.value;
        let good = process.cwd_mount.is_some()
            && process.umask == format!("{UMASK:04o}")
            && process.session_leader
            && process.group_leader
            && !process.terminal
            && process.oom_score_adj == own_oom_score()?;
        row("process", good, process)?;
        let init = &seen.init.value;
        let good = init.pid == 1 && init.child_of_supervisor && init.parent_of_workload && !init.dumpable;
        row("init", good, init)?;
        let signal = seen.parent_death_signal.value;
        row("parent_death_signal", signal == libc::SIGKILL, signal)
    }
}

fn holds(dir: &std::path::Path, pid: i32) -> bool {
    kernel::read(dir.join("cgroup.procs")).is_ok_and(|text| text.lines().any(|l| l.parse() == Ok(pid)))
}

fn own_oom_score() -> Result<i32> {
    let path = "/proc/self/oom_score_adj";
    let text = kernel::read(path).with_context(|| format!("observing {path}"))?;
    text.trim().parse().err_kind(Kind::System).with_context(|| format!("observing {path}"))
}

/// The mounts there must be, with options they must have; no other may be there, and none may be tied to one outside.
fn check_mounts(rows: &[MountRow], request: &Request, absent: &[String]) -> Result<()> {
    let bad = |what: String| {
        Err(Error::integrity(format!(
            "the boundary is not what was asked for: row \"mounts\": {what}; the workload was not started"
        )))
    };
    if unseen("mounts") {
        return Ok(());
    }
    let mut required: Vec<(&str, &[&str])> = vec![
        ("/", &["ro", "nosuid", "nodev"]),
        ("/in", &["ro", "nosuid", "nodev", "noexec"]),
        ("/out", &["rw", "nosuid", "nodev", "noexec"]),
        ("/tmp", &["rw", "nosuid", "nodev", "noexec"]),
        ("/dev", &["ro", "nosuid", "noexec"]),
        ("/proc", &["nosuid", "nodev", "noexec"]),
    ];
    for input in request.inputs.iter().filter(|i| i.path.is_some()) {
        required.push((&input.target, &["ro", "nosuid", "nodev", "noexec"]));
    }
    // What of /proc this kernel has must be covered, or closed for writing.
    let there = |path: &&&str| !absent.iter().any(|a| a == **path);
    required.extend(MASKED.iter().filter(there).map(|path| (*path, &[][..])));
    let closed: &[&str] = &["ro", "nosuid", "nodev", "noexec"];
    required.extend(READ_ONLY.iter().filter(there).map(|path| (*path, closed)));
    for (target, options) in &required {
        let Some(found) = rows.iter().find(|r| r.target == *target) else {
            return bad(format!("{target} is not mounted"));
        };
        if let Some(option) = options.iter().find(|o| !found.has(o)) {
            return bad(format!("{target} is not {option}: {}", found.options));
        }
    }
    for row in rows {
        let device = DEVICES.iter().any(|(name, _)| row.target == format!("/dev/{name}"));
        if !device && !required.iter().any(|(target, _)| *target == row.target) {
            return bad(format!("{} is mounted and nobody asked for it", row.target));
        }
        if device && !["ro", "nosuid", "noexec"].iter().all(|option| row.has(option)) {
            return bad(format!("{} is {}", row.target, row.options));
        }
        // An empty directory, or the null device in place of a file.
        let covers = row.kind == "devtmpfs" || (row.kind == "tmpfs" && row.has("ro"));
        if MASKED.contains(&row.target.as_str()) && !covers {
            return bad(format!("{} is covered by a {} that is {}", row.target, row.kind, row.options));
        }
        if rows.iter().filter(|r| r.target == row.target).count() > 1 {
            return bad(format!("{} is mounted twice", row.target));
        }
        if row.propagation != "private" {
            return bad(format!("{} is tied to mounts outside: {}", row.target, row.propagation));
        }
    }
    Ok(())
}

impl MountRow {
    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }
}
