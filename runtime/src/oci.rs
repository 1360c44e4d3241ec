//! The container's OCI configuration, as far as libcontainer's init reads it. Only the command differs between runs.
//!
//! The builder was cloned into the namespaces and has all capabilities in the user namespace. The mount namespace is named, because libcontainer
//! calls pivot_root(2) only in a mount namespace of the configuration. The filter is not in the configuration, because this build of libcontainer ignores it.

use crate::boundary::{READ_ONLY, UMASK};
use crate::hooks::off;
use crate::identity::IdsInside;
use crate::protocol::Request;
use invarlock_error::{Context as _, Foreign as _, Kind, Result};
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

/// Capabilities that init needs until it has started the workload: to clear `/dev`, to change ids, to drop capabilities.
const INIT: [Capability; 4] =
    [Capability::SysAdmin, Capability::Setuid, Capability::Setgid, Capability::Setpcap];

/// The configuration of a run.
pub(crate) fn config(request: &Request, init: IdsInside) -> Result<Spec> {
    build(request, init).err_kind(Kind::System).context("creating the container's configuration")
}

fn build(request: &Request, ids: IdsInside) -> std::result::Result<Spec, oci_spec::OciSpecError> {
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
        .user(UserBuilder::default().uid(ids.uid).gid(ids.gid).umask(UMASK).build()?)
        .args(request.argv.clone())
        // Without HOME libcontainer asks libc for the home of id 0; libc would read files of the image, which can make it load code.
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
        .masked_paths(
            request.masked_paths().filter(|_| !off("masked paths")).map(str::to_owned).collect::<Vec<_>>(),
        )
        .readonly_paths(if off("read-only paths") { Vec::new() } else { paths(&READ_ONLY) })
        .build()?;
    let proc = MountBuilder::default().destination("/proc").typ("proc").source("proc");
    let proc = match off("pid namespace") {
        false => proc.options(paths(&["nosuid", "nodev", "noexec"])).build()?,
        // The kernel mounts a new /proc only for a new pid namespace.
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
