//! Compares the observations with the request.

use super::files::{Root, expected_devices};
use super::view::View;
use crate::boundary::{DEVICES, DOMAIN_NAME, HOST_NAME, READ_ONLY, SECURE_BITS, SETGROUPS, UMASK};
use crate::hooks::unchecked;
use crate::observations::{ContainerObservations, HostName, MountObservation, Observations, Seccomp};
use crate::procfs::{self, Status};
use crate::protocol::Request;
use crate::stdio::Streams;
use crate::{runtime_files, terminal, topology, user_limits};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use std::fmt::Debug;

/// An error if the control is not as requested; the run then ends before the workload starts.
fn require(control: &str, as_requested: bool, observed: impl Debug) -> Result<()> {
    match as_requested || unchecked(control) {
        true => Ok(()),
        false => Err(differs(control, format!("observed {observed:?}"))),
    }
}

/// The error for a control that is not as requested.
pub(crate) fn differs(control: &str, observed: impl std::fmt::Display) -> Error {
    Error::integrity(format!(
        "the boundary differs from the request: {observed}; the workload was not started"
    ))
    .in_control(control)
}

impl View<'_> {
    /// Compares every control with the request.
    pub(crate) fn check(&self, observed: &Observations) -> Result<()> {
        require("no_new_privs", observed.no_new_privs.value, 0)?;
        require("seccomp", self.has_filter(&observed.seccomp.value), &observed.seccomp.value)?;
        let descriptors = &observed.descriptors.value;
        let inherited = descriptors.iter().map(|d| (d.fd, d.what.as_str()));
        let [input, output] = match self.request.streams {
            Streams::Output => ["/dev/null", "pipe"],
            Streams::Input => ["pipe", "pipe"],
            Streams::Terminal(_) => [terminal::PATH; 2],
        };
        require("descriptors", inherited.eq([(0, input), (1, output), (2, output)]), descriptors)?;
        let resources = &observed.rlimits.value;
        require("rlimits", self.rlimits == self.requested_rlimits, resources)?;
        let core_dumps = &observed.core_dumps.value;
        require("core_dumps", core_dumps.are_prevented(), core_dumps)?;
        let names: Vec<&String> = self.request.env.iter().map(|(name, _)| name).collect();
        let environment = &observed.environment.value;
        require("environment", environment.iter().eq(names), environment)?;
        match &observed.container {
            None if self.request.host.is_some() => Ok(()),
            None => require("init", false, "nothing"),
            Some(container) => {
                self.check_container(observed)?;
                self.check_files(&observed.mounts.value, container)?;
                self.check_processes(container)
            }
        }
    }

    /// Filters that the launcher already had are inherited and not counted.
    fn has_filter(&self, seccomp: &Seccomp) -> bool {
        let added = seccomp.filters.zip(seccomp.inherited).map(|(all, before)| all.saturating_sub(before));
        let expected = self.request.filter.filters.len() as u64;
        seccomp.mode == 2 && added.is_none_or(|added| added == expected)
    }

    fn check_container(&self, observed: &Observations) -> Result<()> {
        let shared = observed.namespaces.value.iter().filter(|(_, n)| !n.new).map(|(name, _)| name);
        let shared: Vec<&String> = shared.collect();
        require("namespaces", shared.is_empty(), format!("shared with the launcher: {shared:?}"))?;
        require("interfaces", observed.interfaces.value == ["lo"], &observed.interfaces.value)?;
        require("routes", observed.routes.value.is_empty(), &observed.routes.value)?;
        let caps = &observed.capabilities.value;
        let sets = [&caps.inheritable, &caps.permitted, &caps.effective, &caps.bounding, &caps.ambient];
        let none = sets.iter().all(|set| set.bytes().all(|b| b == b'0') && !set.is_empty());
        require("capabilities", none, caps)?;
        let ids = &observed.identity.value;
        let (uid, gid) = (self.identity.host_uid, self.identity.host_gid);
        let same = ids.uid == [uid; 4] && ids.gid == [gid; 4] && uid != 0;
        let groups = match self.identity.by_root {
            true => ids.groups.is_empty(),
            false => ids.groups == Status::own()?.numbers("Groups")?,
        };
        require("identity", same && groups, ids)?;
        let (uid_map, gid_map) = self.identity.maps();
        let maps = &observed.id_maps.value;
        let expected = |map: &str| map.lines().map(str::to_owned).collect::<Vec<_>>();
        let as_requested =
            maps.uid == expected(&uid_map) && maps.gid == expected(&gid_map) && maps.setgroups == SETGROUPS;
        require("id_maps", as_requested, maps)?;
        let outside = self.cgroup.dirs().into_iter().filter(|dir| !contains(dir, self.pid));
        let outside: Vec<_> = outside.collect();
        require("cgroup", outside.is_empty(), format!("not inside {outside:?}"))
    }

    fn check_files(&self, mounts: &[MountObservation], observed: &ContainerObservations) -> Result<()> {
        let proc = &observed.proc.value;
        check_mounts(mounts, self.request, &proc.absent)?;
        require(
            "devices",
            observed.devices.value == expected_devices(self.request),
            &observed.devices.value,
        )?;
        // Init and the workload.
        require("proc", proc.processes == [1, 2], &proc.processes)?;
        require("inputs", observed.inputs.value == self.inputs, &observed.inputs.value)?;
        self.check_binds()
    }

    /// Every bind shows the file that the launcher opened.
    fn check_binds(&self) -> Result<()> {
        if self.binds.is_empty() {
            return Ok(());
        }
        let root = Root::of(self.pid)?;
        for expected in self.binds {
            let found = root.stat(&expected.target)?;
            require("mounts", expected.is(&found), format!("another file at {}", expected.target))?;
        }
        Ok(())
    }

    fn check_processes(&self, observed: &ContainerObservations) -> Result<()> {
        let user_limits = &observed.user_limits.value;
        require("user_limits", user_limits::are_set(user_limits), user_limits)?;
        require("sockets", observed.sockets.value.is_empty(), &observed.sockets.value)?;
        let secure_bits = format!("{:#x}", SECURE_BITS.bits());
        require("secure_bits", observed.secure_bits.value == secure_bits, &observed.secure_bits.value)?;
        let (ids, inside) = (&observed.container_ids.value, self.identity.inside);
        require("ids_inside", ids.uid == [inside.uid; 4] && ids.gid == [inside.gid; 4], ids)?;
        let names = HostName { host: HOST_NAME.into(), domain: DOMAIN_NAME.into() };
        require("host_name", observed.host_name.value == names, &observed.host_name.value)?;
        let process = &observed.process.value;
        let as_requested = process.cwd_mount.is_some()
            && process.umask == format!("{UMASK:04o}")
            && process.session_leader
            && process.group_leader
            && process.terminal == self.request.streams.are_terminal()
            && process.oom_score_adj == own_oom_score()?;
        require("process", as_requested, process)?;
        let init = &observed.init.value;
        let as_requested =
            init.pid == 1 && init.child_of_supervisor && init.parent_of_workload && !init.dumpable;
        require("init", as_requested, init)?;
        let signal = observed.parent_death_signal.value;
        require("parent_death_signal", signal == libc::SIGKILL, signal)
    }
}

fn contains(cgroup: &std::path::Path, pid: i32) -> bool {
    procfs::read(cgroup.join("cgroup.procs"))
        .is_ok_and(|text| text.lines().any(|line| line.parse() == Ok(pid)))
}

fn own_oom_score() -> Result<i32> {
    let path = "/proc/self/oom_score_adj";
    let text = procfs::read(path).with_context(|| format!("observing {path}"))?;
    text.trim().parse().err_kind(Kind::System).with_context(|| format!("observing {path}"))
}

/// The options of a directory that the workload can write.
const SCRATCH: &[&str] = &["rw", "nosuid", "nodev", "noexec"];

/// The options of a directory that it cannot.
const CLOSED: &[&str] = &["ro", "nosuid", "nodev", "noexec"];

/// The required mounts and the options that each must have. `absent` are paths that this kernel does not have.
fn required_mounts<'a>(
    request: &'a Request,
    absent: &'a [String],
) -> Vec<(&'a str, &'static [&'static str])> {
    let mut required: Vec<(&str, &'static [&'static str])> = vec![
        ("/", &["ro", "nosuid", "nodev"]),
        ("/in", CLOSED),
        ("/out", SCRATCH),
        ("/tmp", SCRATCH),
        ("/dev", &["ro", "nosuid", "noexec"]),
        ("/proc", &["nosuid", "nodev", "noexec"]),
    ];
    if request.streams.are_terminal() {
        required.push(("/dev/pts", terminal::OPTIONS));
    }
    let files = request.inputs.iter().filter(|input| input.path.is_some());
    required.extend(files.map(|input| (input.target.as_str(), CLOSED)));
    required.extend(request.mounts.iter().map(|mount| (mount.target.as_str(), mount.options())));
    let exists = |path: &&str| !absent.iter().any(|a| a == *path);
    required.extend(request.masked_paths().filter(exists).map(|path| (path, &[][..])));
    required.extend(READ_ONLY.into_iter().filter(exists).map(|path| (path, CLOSED)));
    required
}

/// Every required mount exists with its options; there is no other mount, and all are private.
fn check_mounts(mounts: &[MountObservation], request: &Request, absent: &[String]) -> Result<()> {
    if unchecked("mounts") {
        return Ok(());
    }
    let bad = |what: String| Err(differs("mounts", what));
    let required = required_mounts(request, absent);
    for (target, options) in &required {
        let Some(mount) = mounts.iter().find(|mount| mount.target == *target) else {
            return bad(format!("{target} is not mounted"));
        };
        if let Some(option) = options.iter().find(|option| !mount.has(option)) {
            return bad(format!("{target} is not {option}: {}", mount.options));
        }
    }
    for mount in mounts {
        // Directories that the image can redirect by a link are not mounted then.
        let optional = match mount.target.as_str() {
            _ if request.runtime_files.is_none() => None,
            topology::TARGET => Some(CLOSED),
            target => runtime_files::MOUNTS.contains(&target).then_some(SCRATCH),
        };
        if optional
            .is_some_and(|options| mount.kind != "tmpfs" || !options.iter().all(|option| mount.has(option)))
        {
            return bad(format!("{} is a {} that is {}", mount.target, mount.kind, mount.options));
        }
        let of_terminal = request.streams.are_terminal().then_some(terminal::DEVICE);
        let mut devices = DEVICES.into_iter().chain(of_terminal);
        let device = devices.any(|(name, _)| mount.target == format!("/dev/{name}"));
        if mount.target == "/dev/pts" && mount.kind != "devpts" {
            return bad(format!("{} is a {}", mount.target, mount.kind));
        }
        if !device && optional.is_none() && !required.iter().any(|(target, _)| *target == mount.target) {
            return bad(format!("unexpected mount {}", mount.target));
        }
        if device && !["ro", "nosuid", "noexec"].iter().all(|option| mount.has(option)) {
            return bad(format!("{} is {}", mount.target, mount.options));
        }
        // A masked directory is covered by an empty tmpfs, a masked file by the null device.
        let masks = mount.kind == "devtmpfs" || (mount.kind == "tmpfs" && mount.has("ro"));
        if request.masked_paths().any(|path| path == mount.target) && !masks {
            return bad(format!("{} is masked by a {} that is {}", mount.target, mount.kind, mount.options));
        }
        if mounts.iter().filter(|other| other.target == mount.target).count() > 1 {
            return bad(format!("{} is mounted twice", mount.target));
        }
        if mount.propagation != "private" {
            return bad(format!("{} is not private: {}", mount.target, mount.propagation));
        }
    }
    Ok(())
}

impl MountObservation {
    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }
}
