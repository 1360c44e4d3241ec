//! The boundary as data: the constants that one module enforces and another one observes.

use rustix::thread::CapabilitiesSecureBits;

/// The secure bits of the workload: neither id 0 nor an ambient set gives it a capability, and the bits are locked.
pub(crate) const SECURE_BITS: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED);

/// Namespaces of a run; all of them are new.
pub(crate) const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// The content of `setgroups` of the new user namespace.
pub(crate) const SETGROUPS: &str = "deny";

/// The devices of `/dev`: names, and major and minor numbers.
pub const DEVICES: [(&str, &str); 5] =
    [("full", "1:7"), ("null", "1:3"), ("random", "1:8"), ("urandom", "1:9"), ("zero", "1:5")];

/// The directory for shared memory, below `/dev`. It shares the file system of `/tmp`. Only with the files of an OCI runtime; so are the links.
pub(crate) const SHARED_MEMORY: &str = "shm";
/// Links of `/dev` to the open files of a process, as libcontainer creates them.
pub(crate) const LINKS: [&str; 4] = ["fd", "stderr", "stdin", "stdout"];

/// Paths of `/proc` that are masked.
pub const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

/// Paths of `/proc` that are read-only.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The host name inside.
pub(crate) const HOST_NAME: &str = "invarlock";
/// The NIS domain name inside: the kernel's value for none.
pub(crate) const DOMAIN_NAME: &str = "(none)";
/// The umask that the workload starts with.
pub(crate) const UMASK: u32 = 0o022;
/// Most files in `/tmp`.
pub const TMP_INODES: u64 = 65_536;
