//! The container's OCI configuration: always the same but for name, working directory and command.
//!
//! The user namespace is not in it: the builder made it and is id 0 of it. Neither is the filter, which libcontainer would ignore.

use crate::error::{Doing as _, Result};
use crate::hooks::off;
use crate::protocol::Request;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

const NAMESPACES: [LinuxNamespaceType; 6] = [
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Cgroup,
];

/// What init needs until it has started the workload: raising `lo`, clearing `/dev`, changing ids, giving these up.
const INIT: [Capability; 5] =
    [Capability::NetAdmin, Capability::SysAdmin, Capability::Setuid, Capability::Setgid, Capability::Setpcap];

/// Files of `/proc` that are covered.
pub(crate) const MASKED: [&str; 10] = [
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
/// Files of `/proc` that cannot be written.
pub(crate) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The configuration of run `id`.
pub(crate) fn config(id: &str, request: &Request) -> Result<Spec> {
    build(id, request).doing(|| "writing the container's configuration".into())
}

fn build(id: &str, request: &Request) -> std::result::Result<Spec, oci_spec::OciSpecError> {
    let init = INIT.into_iter().collect::<std::collections::HashSet<_>>();
    let none = std::collections::HashSet::new();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .effective(init.clone())
        .permitted(init.clone())
        .bounding(if off("bounding set") { init.clone() } else { none.clone() })
        .inheritable(none.clone())
        .ambient(none)
        .build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0u32).gid(0u32).umask(0o022u32).build()?)
        .args(request.argv.clone())
        .env(Vec::new())
        .cwd("/")
        .capabilities(capabilities)
        .no_new_privileges(true)
        .build()?;
    let namespaces = NAMESPACES
        .into_iter()
        .filter(|typ| !is_off(*typ))
        .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build())
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let paths = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .cgroups_path(format!("/invarlock-no-cgroup/{id}"))
        .masked_paths(if off("masked paths") { Vec::new() } else { paths(&MASKED) })
        .readonly_paths(if off("read-only paths") { Vec::new() } else { paths(&READ_ONLY) })
        .build()?;
    let proc = MountBuilder::default().destination("/proc").typ("proc").source("proc");
    let proc = match off("pid namespace") {
        false => proc.options(paths(&["nosuid", "nodev", "noexec"])).build()?,
        // The kernel gives a new one only to a new namespace.
        true => proc
            .typ("bind")
            .source("/proc")
            .options(paths(&["rbind", "nosuid", "nodev", "noexec"]))
            .build()?,
    };
    let mut linux = linux;
    linux
        .set_resources(None)
        .set_devices(None)
        .set_seccomp(None)
        .set_uid_mappings(None)
        .set_gid_mappings(None);
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path(crate::rootfs::ROOT).readonly(!off("root read-only")).build()?)
        .process(process)
        .mounts(vec![proc])
        .linux(linux)
        .build()?;
    spec.set_hooks(None).set_hostname((!off("uts namespace")).then(|| "invarlock".to_owned()));
    Ok(spec)
}

fn is_off(namespace: LinuxNamespaceType) -> bool {
    match namespace {
        LinuxNamespaceType::Pid => off("pid namespace"),
        LinuxNamespaceType::Network => off("network namespace"),
        LinuxNamespaceType::Ipc => off("ipc namespace"),
        LinuxNamespaceType::Uts => off("uts namespace"),
        LinuxNamespaceType::Cgroup => off("cgroup namespace"),
        _ => false,
    }
}
