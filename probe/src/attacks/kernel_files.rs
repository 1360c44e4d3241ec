//! Attacks on the control "/dev, /proc, /sys".

use super::{
    Attack, Expect, attack, content, mount_options, names_or_none, open_for_reading, open_for_writing,
    unchanged, write,
};
use crate::answer::Answer;
use invarlock_runtime::{MASKED_PATHS, READ_ONLY_PATHS};
use libc::{EACCES, EINVAL, ENOENT, EPERM, EROFS};

const CONTROL: &str = "/dev, /proc, /sys";
const DENIED: Expect = Expect::Errno(&[EACCES, EPERM]);

/// Control "/dev, /proc, /sys".
pub(super) const KERNEL_FILES: &[Attack] = &[
    attack(
        CONTROL,
        "devices",
        "find a device besides the five of /dev",
        Expect::Text("full null random urandom zero"),
        Some(|| {
            let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            Answer::Text(names.join(" "))
        }),
    ),
    attack(
        CONTROL,
        "dev-create",
        "create a file in /dev",
        Expect::Errno(&[EROFS, EACCES]),
        Some(|| write("/dev/new")),
    ),
    attack(
        CONTROL,
        "dev-flags",
        "find a mount option missing on /dev",
        Expect::Text("ro,nosuid,noexec"),
        Some(|| mount_options("/dev")),
    ),
    attack(
        CONTROL,
        "devices-outside",
        "change owner or mode of the host's devices",
        Expect::Outside("unchanged", |findings, _| unchanged(&findings.host_changes.devices)),
        None,
    ),
    attack(
        CONTROL,
        "masks",
        "find a masked path of /proc without a mask",
        Expect::Text("none"),
        Some(|| {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let is_mount_point = |path: &str| mounts.lines().any(|line| line.split(' ').nth(4) == Some(path));
            uncovered(&MASKED_PATHS, is_mount_point)
        }),
    ),
    attack(
        CONTROL,
        "closed-paths",
        "find a read-only path of /proc writable",
        Expect::Text("none"),
        Some(|| {
            let is_read_only =
                |path: &str| matches!(mount_options(path), Answer::Text(text) if text.starts_with("ro"));
            uncovered(&READ_ONLY_PATHS, is_read_only)
        }),
    ),
    attack(
        CONTROL,
        "kcore",
        "read the kernel's memory: /proc/kcore",
        Expect::Text("empty"),
        Some(|| content("/proc/kcore")),
    ),
    attack(
        CONTROL,
        "keys",
        "read the keys of the host: /proc/keys",
        Expect::Text("empty"),
        Some(|| content("/proc/keys")),
    ),
    attack(
        CONTROL,
        "sysctl",
        "write /proc/sys/kernel/core_pattern",
        Expect::Errno(&[EROFS, EACCES]),
        Some(|| open_for_writing("/proc/sys/kernel/core_pattern")),
    ),
    attack(
        CONTROL,
        "sysrq",
        "write /proc/sysrq-trigger",
        Expect::Errno(&[EROFS, EACCES, ENOENT]),
        Some(|| open_for_writing("/proc/sysrq-trigger")),
    ),
    attack(
        CONTROL,
        "init-environ",
        "read /proc/1/environ",
        DENIED,
        Some(|| open_for_reading("/proc/1/environ")),
    ),
    attack(CONTROL, "init-memory", "open /proc/1/mem", DENIED, Some(|| open_for_writing("/proc/1/mem"))),
    attack(
        CONTROL,
        "init-program",
        "open /proc/1/exe for writing (CVE-2019-5736)",
        DENIED,
        Some(|| open_for_writing("/proc/1/exe")),
    ),
    attack(
        CONTROL,
        "init-root",
        "list /proc/1/root or /proc/1/cwd (CVE-2024-21626)",
        DENIED,
        Some(|| match (std::fs::read_dir("/proc/1/root"), std::fs::read_dir("/proc/1/cwd")) {
            (Err(e), Err(_)) => Answer::Failed(e.raw_os_error().unwrap_or(0)),
            _ => Answer::Succeeded,
        }),
    ),
    attack(
        CONTROL,
        "processes",
        "find a process of the host in /proc",
        Expect::Text("none"),
        Some(other_processes),
    ),
    attack(
        CONTROL,
        "sys",
        "list /sys",
        Expect::Errno(&[ENOENT, EINVAL]),
        Some(|| Answer::of(std::fs::read_dir("/sys"))),
    ),
    attack(
        CONTROL,
        "cgroup-files",
        "join another cgroup: write cgroup.procs (CVE-2023-25809)",
        Expect::Errno(&[ENOENT]),
        Some(|| open_for_writing("/sys/fs/cgroup/cgroup.procs")),
    ),
];

/// `/sys` of a run with what programs expect of an OCI runtime.
pub(super) const SYSTEM: &[Attack] = &[
    attack(
        CONTROL,
        "sys-entries",
        "find something besides the topology of processors in /sys",
        Expect::Text("none"),
        Some(unknown_entries),
    ),
    attack(
        CONTROL,
        "sys-create",
        "create a file in /sys",
        Expect::Errno(&[EROFS, EACCES]),
        Some(|| write("/sys/devices/system/cpu/new")),
    ),
    attack(
        CONTROL,
        "sys-flags",
        "find a mount option missing on /sys",
        Expect::Text("ro,nosuid,nodev,noexec"),
        Some(|| mount_options("/sys")),
    ),
];

/// Paths of `/sys` that tell of something else than processors and nodes.
fn unknown_entries() -> Answer {
    const KNOWN: [&str; 18] = [
        "devices",
        "system",
        "cpu",
        "node",
        "online",
        "present",
        "possible",
        "kernel_max",
        "has_cpu",
        "cpulist",
        "cpumap",
        "topology",
        "physical_package_id",
        "core_id",
        "core_siblings",
        "core_siblings_list",
        "thread_siblings",
        "thread_siblings_list",
    ];
    let is_known = |name: &str| {
        let number = name.strip_prefix("cpu").or_else(|| name.strip_prefix("node"));
        let is_numbered =
            number.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        is_numbered || KNOWN.contains(&name)
    };
    let (mut unknown, mut queue) = (Vec::new(), vec![std::path::PathBuf::from("/sys")]);
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if !is_known(&entry.file_name().to_string_lossy()) {
                unknown.push(entry.path().display().to_string());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                queue.push(entry.path());
            }
        }
    }
    Answer::Text(names_or_none(&unknown))
}

/// The existing paths that are not covered.
fn uncovered(paths: &[&str], is_covered: impl Fn(&str) -> bool) -> Answer {
    let existing = paths.iter().filter(|path| std::path::Path::new(*path).exists());
    let open: Vec<&str> = existing.copied().filter(|path| !is_covered(path)).collect();
    Answer::Text(names_or_none(&open))
}

/// Processes other than init, the attacker and this attack.
fn other_processes() -> Answer {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    let others: Vec<String> = pids.filter(|pid| *pid > 2 && *pid != own).map(|pid| pid.to_string()).collect();
    Answer::Text(names_or_none(&others))
}
