//! The container's OCI configuration, as far as libcontainer's inner half reads it: always the same but for the command.
//!
//! The namespaces are there already: the builder was cloned into them and is id 0 of the user namespace. The mount namespace is named
//! because libcontainer changes the root by pivot_root(2) only in one that it knows of. The filter is not here: libcontainer would ignore it.

use crate::hooks::off;
use crate::protocol::Request;
use invarlock_error::{Context as _, Foreign as _, Kind, Result};
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

/// What init needs until it has started the workload: clearing `/dev`, changing ids, giving these up.
const INIT: [Capability; 4] =
    [Capability::SysAdmin, Capability::Setuid, Capability::Setgid, Capability::Setpcap];

/// Files of `/proc` that are covered.
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
/// Files of `/proc` that cannot be written.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The configuration of a run.
pub(crate) fn config(request: &Request) -> Result<Spec> {
    build(request).err_kind(Kind::System).context("writing the container's configuration")
}

fn build(request: &Request) -> std::result::Result<Spec, oci_spec::OciSpecError> {
    let init = INIT.into_iter().collect::<std::collections::HashSet<_>>();
    let none = std::collections::HashSet::new();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .effective(init.clone())
        .bounding(if off("bounding set") { init.clone() } else { none.clone() })
        .permitted(init)
        .inheritable(none.clone())
        .ambient(none)
        .build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0u32).gid(0u32).umask(0o022u32).build()?)
        .args(request.argv.clone())
        // Without it libcontainer asks libc for the home of id 0, which would read files of the image and, by their leave, load code.
        .env(vec!["HOME=/".to_owned()])
        .cwd("/")
        .capabilities(capabilities)
        .no_new_privileges(true)
        .build()?;
    let own_mounts =
        LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Mount).path("/proc/self/ns/mnt").build()?;
    let paths = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .namespaces(vec![own_mounts])
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
    spec.set_hooks(None);
    Ok(spec)
}
