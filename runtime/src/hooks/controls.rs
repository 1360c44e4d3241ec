//! The controls of the boundary, what betrays the absence of each, and which attacks it is there for. Debug builds only.

/// A control of the boundary that a test can leave out.
#[derive(Debug)]
pub struct Control {
    /// Its name, for `INVARLOCK_TEST_WITHOUT`.
    pub name: &'static str,
    /// Rows of the observations that betray its absence, so that the workload is not started. None where the kernel shows it to nobody
    /// outside before the workload's first instruction.
    pub observed: &'static [&'static str],
    /// The attacks of the probe that then succeed in a run started by root.
    pub root: &'static [&'static str],
    /// The attacks that then succeed in a run started by a user. Where either is empty, another control holds the same row there.
    pub user: &'static [&'static str],
}

/// One that holds the same rows in both modes.
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

/// Every control that the boundary can be built without. Not among them: user and mount namespace, since the kernel lets nobody make the
/// rest without them, and `no_new_privs`, without which it takes no filter.
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
    control("scratch nosuid", &["mounts"], &["output-flags", "scratch-flags"]),
    control("scratch nodev", &["mounts"], &["output-flags", "scratch-flags"]),
    control("scratch noexec", &["mounts"], &["output-run", "output-flags", "scratch-run", "scratch-flags"]),
    control("scratch size", &["limits"], &["scratch-fill"]),
    control("scratch inodes", &["limits"], &["scratch-files"]),
    control("output size", &["limits"], &["output-fill"]),
    control("output inodes", &["limits"], &["output-files"]),
    control("output regular files", &[], &["output-link", "output-fifo"]),
    control("five devices", &["mounts", "devices"], &["devices"]),
    by_mode("closed /dev", &["mounts"], &["dev-flags"], &["dev-create", "dev-flags"]),
    control("masked paths", &["mounts"], &["masks"]),
    control("read-only paths", &["mounts"], &["closed-paths"]),
    by_mode(
        "init not dumpable",
        &["init"],
        &[],
        &["init-environ", "init-memory", "init-program", "init-root"],
    ),
    control("descriptors", &["descriptors"], &["descriptors"]),
    control("environment", &["environment"], &["environment"]),
    control("session", &["process"], &["session"]),
    // Init also sees the end of its supervisor's socket.
    control("parent death signal", &["parent_death_signal"], &[]),
    control("memory limit", &["limits"], &["memory"]),
    control("pids limit", &["limits"], &["processes-limit"]),
    control("cpu limit", &["limits"], &["processors"]),
    control("open files limit", &["limits"], &["open-files"]),
    control("core limit", &["limits"], &["core"]),
    control("wall limit", &[], &["time"]),
];
