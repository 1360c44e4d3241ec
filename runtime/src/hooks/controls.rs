//! The controls of the boundary, the observations that show the absence of each, and the attacks that each prevents.

/// A control of the boundary that a test can leave out.
#[derive(Debug)]
pub struct Control {
    /// Its name in `INVARLOCK_TEST_WITHOUT`.
    pub name: &'static str,
    /// Observations that show its absence, so that the workload is not started. Empty if the kernel does not report the control before
    /// the workload's first instruction.
    pub observed: &'static [&'static str],
    /// The attacks of the probe that succeed without it in a run started by root.
    pub root: &'static [&'static str],
    /// The attacks that succeed without it in a run started by a user. If either list is empty, another control prevents them there.
    pub user: &'static [&'static str],
}

/// A control that prevents the same attacks in both modes.
const fn control(
    name: &'static str,
    observed: &'static [&'static str],
    attacks: &'static [&'static str],
) -> Control {
    by_mode(name, observed, attacks, attacks)
}

const fn by_mode(
    name: &'static str,
    observed: &'static [&'static str],
    root: &'static [&'static str],
    user: &'static [&'static str],
) -> Control {
    Control { name, observed, root, user }
}

/// Every control that the boundary can be built without. User and mount namespace are not in the list, because the rest cannot be created
/// without them; neither is `no_new_privs`, without which the kernel accepts no filter.
pub const CONTROLS: &[Control] = &[
    control("pid namespace", &["namespaces", "proc", "init"], &["ns-pid"]),
    control(
        "network namespace",
        &["namespaces", "interfaces", "routes", "sockets"],
        &["ns-net", "interfaces", "routes"],
    ),
    control("ipc namespace", &["namespaces"], &["ns-ipc"]),
    control("uts namespace", &["namespaces", "host_name"], &["ns-uts", "hostname"]),
    control("host name", &["host_name"], &["hostname"]),
    control("cgroup namespace", &["namespaces"], &["ns-cgroup", "cgroup-path"]),
    by_mode("supplementary groups", &["identity"], &["groups"], &[]),
    by_mode(
        "workload id",
        &["identity", "capabilities", "ids_inside"],
        &[
            "host-id",
            "inside-id",
            "set-uid-program",
            "output-run",
            "output-fill",
            "output-link",
            "output-fifo",
            "output-device",
            "bind-run",
            "bind-set-id",
            "bind-device",
            "bind-link",
        ],
        &[],
    ),
    by_mode("setgroups", &["id_maps"], &["setgroups-file"], &[]),
    by_mode("capabilities", &["capabilities"], &[], &["before"]),
    control("bounding set", &["capabilities"], &["before", "bounding"]),
    control("secure bits", &["secure_bits"], &["secure-bits"]),
    control(
        "filter",
        &["seccomp"],
        &[
            "filter-mode",
            "unshare-user",
            "clone-user",
            "clone3",
            "setns",
            "keyctl",
            "add-key",
            "ptrace-me",
            "personality",
            "tiocsti",
            "core-limit",
            "lease",
            "record-lock",
            "open-file-lock",
            "pipe-size",
            "aio",
            "file-system-key",
            "own-filter",
            "own-filter-prctl",
            "system-v-memory",
            "bind-set-id",
            "bind-create-set-id",
            "bind-openat2-set-id",
        ],
    ),
    control("private mounts", &["mounts"], &["shared-mounts"]),
    control("root read-only", &["mounts"], &["root-create", "root-overwrite", "root-flags", "canary"]),
    control("root nosuid", &["mounts"], &["root-flags"]),
    control("root nodev", &["mounts"], &["root-flags"]),
    by_mode(
        "inputs read-only",
        &["mounts"],
        &["input-overwrite", "input-flags", "inputs-flags"],
        &["input-overwrite", "input-create", "input-flags", "inputs-flags"],
    ),
    control("inputs nosuid", &["mounts"], &["input-flags"]),
    control("inputs nodev", &["mounts"], &["input-flags"]),
    control("inputs noexec", &["mounts"], &["input-run", "input-flags"]),
    control("scratch nosuid", &["mounts"], &["output-flags", "scratch-flags", "bind-flags"]),
    control("scratch nodev", &["mounts"], &["output-flags", "scratch-flags", "bind-flags"]),
    control(
        "scratch noexec",
        &["mounts"],
        &["output-run", "output-flags", "scratch-run", "scratch-flags", "bind-run", "bind-flags"],
    ),
    control("scratch size", &["limits"], &["scratch-fill"]),
    control("scratch inodes", &["limits"], &["scratch-files"]),
    control("output size", &["limits"], &["output-fill"]),
    control("output inodes", &["limits"], &["output-files"]),
    control("output regular files", &[], &["output-link", "output-fifo"]),
    control("five devices", &["mounts", "devices"], &["devices"]),
    by_mode("closed /dev", &["mounts"], &["dev-flags"], &["dev-create", "dev-flags"]),
    by_mode("/sys read-only", &["mounts"], &["sys-flags"], &["sys-create", "sys-flags"]),
    control("masked paths", &["mounts"], &["masks"]),
    control("read-only paths", &["mounts"], &["closed-paths"]),
    by_mode("init not dumpable", &["init"], &[], &["init-environ", "init-memory", "init-root"]),
    control("descriptors", &["descriptors"], &["descriptors"]),
    control("environment", &["environment"], &["environment"]),
    control("session", &["process"], &["session"]),
    // Init also ends at the end of its supervisor's socket.
    control("parent death signal", &["parent_death_signal"], &[]),
    control("memory limit", &["limits", "rlimits"], &["memory", "reserve"]),
    control("pids limit", &["limits", "rlimits"], &["processes-limit"]),
    control("cpu limit", &["limits"], &["processors"]),
    control("open files limit", &["limits", "rlimits"], &["open-files"]),
    control("core limit", &["limits", "rlimits", "core_dumps"], &["core"]),
    control("core dump filter", &["core_dumps"], &[]),
    control("other resource limits", &["rlimits"], &[]),
    control("user limits", &["user_limits"], &["inotify"]),
    control("wall limit", &[], &["time"]),
];
