//! `linux` of a configuration.

use super::reader::{BundleLimits, Reader, invalid, refused};
use crate::boundary::{DEVICES, MASKED, READ_ONLY};
use crate::spec::{Limits, millicpus};
use invarlock_error::Result;
use oci_spec::runtime::{
    Linux, LinuxCpu, LinuxDevice, LinuxMemory, LinuxNamespaceType, LinuxPersonalityDomain, LinuxResources,
};
use std::collections::BTreeSet;

/// The period of a processor quota without one, microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

/// What the members grant, beside the limits.
#[derive(Default)]
pub(super) struct Granted {
    pub(super) masked_paths: Vec<String>,
    pub(super) has_seccomp: bool,
}

pub(super) fn read(
    linux: Option<&Linux>,
    limits: &Limits,
    found: &mut BundleLimits,
    reader: &mut Reader,
) -> Result<Granted> {
    let Some(linux) = linux else {
        namespaces(&[], reader)?;
        return Ok(Granted::default());
    };
    let listed: Vec<_> = linux.namespaces().iter().flatten().map(|n| (n.typ(), n.path().clone())).collect();
    namespaces(&listed, reader)?;
    linux.devices().iter().flatten().try_for_each(device)?;
    check_others(linux, reader)?;
    if let Some(resources) = linux.resources() {
        self::resources(resources, limits, found, reader)?;
    }
    let read_only = |path: &&String| {
        !(READ_ONLY.contains(&path.as_str()) || MASKED.contains(&path.as_str()) || is_in(path, "/sys"))
    };
    if let Some(path) = linux.readonly_paths().iter().flatten().find(read_only) {
        return Err(refused("linux.readonlyPaths", path, "a run cannot apply it"));
    }
    Ok(Granted { masked_paths: masked_paths(linux)?, has_seccomp: linux.seccomp().is_some() })
}

/// Every namespace of a run is new. What a program would have in one of the host's it does not get.
fn namespaces(
    listed: &[(LinuxNamespaceType, Option<std::path::PathBuf>)],
    reader: &mut Reader,
) -> Result<()> {
    use LinuxNamespaceType as N;
    const MEMBER: &str = "linux.namespaces";
    let mut seen = BTreeSet::new();
    for (kind, path) in listed {
        if let Some(path) = path {
            return Err(refused(MEMBER, path, "every namespace of a run is new"));
        }
        if *kind == N::Time {
            return Err(refused(MEMBER, "time", "a run has no time namespace"));
        }
        if !seen.insert(*kind as u32) {
            return Err(invalid(MEMBER, format!("{kind} is listed twice")));
        }
    }
    for (kind, name) in
        [(N::Pid, "pid"), (N::Network, "network"), (N::Ipc, "ipc"), (N::Uts, "uts"), (N::Mount, "mount")]
    {
        if !seen.contains(&(kind as u32)) {
            reader.without(MEMBER, format!("{name} of the host"));
        }
    }
    Ok(())
}

/// The devices that every container has can be listed. No other one is created.
fn device(device: &LinuxDevice) -> Result<()> {
    let number = format!("{}:{}", device.major(), device.minor());
    let is_own = DEVICES.iter().any(|(name, own)| {
        device.path().to_str().and_then(|path| path.strip_prefix("/dev/")) == Some(name) && *own == number
    });
    match is_own {
        true => Ok(()),
        false => Err(refused("linux.devices", device.path(), "a run has no further devices")),
    }
}

fn check_others(linux: &Linux, reader: &mut Reader) -> Result<()> {
    for (name, value) in linux.sysctl().iter().flatten() {
        match name.starts_with("net.") {
            // There is no network.
            true => reader.without("linux.sysctl", format!("{name}={value}")),
            false => return Err(refused("linux.sysctl", name, "a run cannot apply it")),
        }
    }
    if let Some(propagation) = linux.rootfs_propagation()
        && !matches!(propagation.as_str(), "" | "private" | "rprivate" | "slave" | "rslave")
    {
        return Err(refused("linux.rootfsPropagation", propagation, "every mount of a run is private"));
    }
    let personality = linux.personality().as_ref();
    let other_personality = personality.is_some_and(|personality| {
        personality.domain() != LinuxPersonalityDomain::PerLinux
            || personality.flags().as_ref().is_some_and(|flags| !flags.is_empty())
    });
    let set = [
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", other_personality),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
    ];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        Some((member, _)) => Err(refused(member, "…", "a run cannot apply it")),
        None => Ok(()),
    }
}

/// Masked paths beside those of the boundary. Only names directly in `/proc`, because what is below a process directory could be a magic link.
fn masked_paths(linux: &Linux) -> Result<Vec<String>> {
    let mut masked = Vec::new();
    for path in linux.masked_paths().iter().flatten() {
        if MASKED.contains(&path.as_str()) || is_in(path, "/sys") {
            continue;
        }
        let plain = path.strip_prefix("/proc/").is_some_and(|rest| {
            let is_link = matches!(rest, "self" | "thread-self" | "mounts" | "net");
            let is_process = rest.bytes().all(|byte| byte.is_ascii_digit());
            let is_name = rest.len() < 256 && !rest.contains(|c: char| c == '/' || c.is_control());
            is_name && !is_link && !is_process && !matches!(rest, "." | "..")
        });
        if !plain {
            return Err(refused("linux.maskedPaths", path, "a run masks only names directly in /proc"));
        }
        if READ_ONLY.iter().any(|own| is_in(path, own)) {
            return Err(refused("linux.maskedPaths", path, "a run mounts its directory read-only"));
        }
        if !masked.contains(path) {
            masked.push(path.clone());
        }
    }
    Ok(masked)
}

fn is_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn resources(
    resources: &LinuxResources,
    limits: &Limits,
    found: &mut BundleLimits,
    reader: &mut Reader,
) -> Result<()> {
    // A rule gives a device only to a container that has its node.
    let all_devices = |rule: &&oci_spec::runtime::LinuxDeviceCgroup| {
        rule.allow() && rule.major().is_none_or(|major| major < 0)
    };
    if resources.devices().iter().flatten().any(|rule| all_devices(&rule)) {
        return Err(refused("linux.resources.devices", "all devices", "a run has no further devices"));
    }
    if let Some(memory) = resources.memory() {
        self::memory(memory, limits, found, reader)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, limits, found, reader)?;
    }
    if let Some(pids) = resources.pids().as_ref().and_then(|pids| positive(pids.limit())) {
        match pids > limits.pids {
            true => reader.without("linux.resources.pids.limit", pids),
            false => found.pids = Some(found.pids.map_or(pids, |other| other.min(pids))),
        }
    }
    let block = resources.block_io().as_ref().is_some_and(|block| {
        let lists = [block.throttle_read_bps_device(), block.throttle_write_bps_device()];
        let operations = [block.throttle_read_iops_device(), block.throttle_write_iops_device()];
        block.weight().is_some_and(|weight| weight != 0)
            || block.leaf_weight().is_some_and(|weight| weight != 0)
            || block.weight_device().as_ref().is_some_and(|list| !list.is_empty())
            || lists.into_iter().chain(operations).flatten().any(|list| !list.is_empty())
    });
    let network = resources.network().as_ref().is_some_and(|network| {
        network.class_id().is_some() || network.priorities().as_ref().is_some_and(|list| !list.is_empty())
    });
    let set = [
        ("linux.resources.blockIO", block),
        (
            "linux.resources.hugepageLimits",
            resources.hugepage_limits().as_ref().is_some_and(|l| !l.is_empty()),
        ),
        ("linux.resources.network", network),
        ("linux.resources.rdma", resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty())),
        ("linux.resources.unified", resources.unified().as_ref().is_some_and(|files| !files.is_empty())),
    ];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        Some((member, _)) => Err(refused(member, "…", "a run cannot apply it")),
        None => Ok(()),
    }
}

fn positive(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

fn memory(
    memory: &LinuxMemory,
    limits: &Limits,
    found: &mut BundleLimits,
    reader: &mut Reader,
) -> Result<()> {
    if memory.disable_oom_killer() == Some(true) {
        return Err(refused(
            "linux.resources.memory.disableOOMKiller",
            true,
            "a run that uses too much memory ends",
        ));
    }
    if let Some(bytes) = memory.kernel_tcp().and_then(positive) {
        return Err(refused("linux.resources.memory.kernelTCP", bytes, "a run cannot apply it"));
    }
    if let Some(bytes) = memory.limit().and_then(positive) {
        match bytes > limits.memory_bytes {
            true => reader.without("linux.resources.memory.limit", bytes),
            false => found.memory_bytes = Some(bytes),
        }
    }
    // No run can swap.
    if let Some(bytes) = memory.swap().filter(|swap| Some(*swap) != memory.limit() && *swap != 0) {
        reader.without("linux.resources.memory.swap", bytes);
    }
    if let Some(bytes) = memory.reservation().and_then(positive) {
        reader.without("linux.resources.memory.reservation", bytes);
    }
    if let Some(swappiness) = memory.swappiness() {
        reader.without("linux.resources.memory.swappiness", swappiness);
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, limits: &Limits, found: &mut BundleLimits, reader: &mut Reader) -> Result<()> {
    let realtime = cpu.realtime_runtime().is_some_and(|value| value != 0);
    if realtime || cpu.realtime_period().is_some_and(|value| value != 0) {
        return Err(refused("linux.resources.cpu.realtimeRuntime", "…", "a run has no realtime priority"));
    }
    for (member, set) in [("linux.resources.cpu.cpus", cpu.cpus()), ("linux.resources.cpu.mems", cpu.mems())]
    {
        if let Some(set) = set.as_deref().filter(|set| !set.is_empty()) {
            return Err(refused(member, set, "a run cannot apply it"));
        }
    }
    if let Some(quota) = cpu.quota().and_then(positive) {
        let period = cpu.period().filter(|period| *period > 0).unwrap_or(PERIOD);
        let cpus = quota as f64 / period as f64;
        let requested = Limits { cpus, ..limits.clone() };
        match millicpus(&requested) > millicpus(limits) {
            true => reader.without("linux.resources.cpu.quota", quota),
            false => found.cpus = Some(cpus),
        }
    }
    let weights = [
        ("linux.resources.cpu.shares", cpu.shares().filter(|value| *value != 0).map(|value| value as i64)),
        ("linux.resources.cpu.idle", cpu.idle().filter(|value| *value != 0)),
        ("linux.resources.cpu.burst", cpu.burst().filter(|value| *value != 0).map(|value| value as i64)),
    ];
    for (member, value) in weights {
        if let Some(value) = value {
            reader.without(member, value);
        }
    }
    Ok(())
}
