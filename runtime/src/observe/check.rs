//! Comparing what was seen with what was asked for.

use super::view::{Status, View};
use super::{DEVICES, MountRow, Observations};
use crate::error::{Error, Result};
use crate::hooks::unseen;
use crate::oci::{MASKED, READ_ONLY};
use crate::protocol::Request;
use std::fs;

impl View<'_> {
    /// Compares what was seen with what was asked for. The first row that differs ends the run.
    pub(crate) fn check(&self, seen: &Observations) -> Result<()> {
        let host = self.request.host.is_some();
        let row = |name: &str, good: bool, found: String| match good || unseen(name) {
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
            && maps.setgroups == crate::identity::SETGROUPS;
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

/// The mounts there must be, with options they must have; no other may be there.
fn check_mounts(rows: &[MountRow], request: &Request) -> Result<()> {
    let bad = |what: String| {
        Err(Error::Integrity(format!(
            "the boundary is not what was asked for: row \"mounts\": {what}; the workload was not started"
        )))
    };
    if unseen("mounts") {
        return Ok(());
    }
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
    // What of /proc this kernel has must be covered, or closed for writing.
    let there = |path: &&&str| std::path::Path::new(path).exists();
    required.extend(MASKED.iter().filter(there).map(|path| ((*path).into(), &[][..])));
    required.extend(READ_ONLY.iter().filter(there).map(|path| ((*path).into(), &["ro"][..])));
    for (target, options) in &required {
        let Some(found) = rows.iter().find(|r| r.target == *target) else {
            return bad(format!("{target} is not mounted"));
        };
        if let Some(option) = options.iter().find(|o| !found.options.iter().any(|f| f == **o)) {
            return bad(format!("{target} is not {option}: {:?}", found.options));
        }
    }
    for row in rows {
        if let Some(group) = row.propagation.iter().find(|group| *group != "unbindable") {
            return bad(format!("{} is tied to mounts outside: {group}", row.target));
        }
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
