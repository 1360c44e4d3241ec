//! The configuration of a container of this crate, for other runtimes.
//!
//! An OCI configuration cannot express all of the boundary: see docs/bundles.md.

use crate::boundary::{DOMAIN_NAME, HOST_NAME, MASKED, READ_ONLY, TMP_INODES, UMASK};
use crate::cgroup::CPU_PERIOD;
use crate::identity::{Identity, IdsInside};
use crate::rlimit::{self, Rlimit, RlimitKind};
use crate::spec::{ContainerSpec, LimitName, Limits, millicpus, round_to_pages};
use crate::topology::{self, Topology};
use crate::{mounts, rootfs, runtime_files};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use invarlock_seccomp::OciProfile;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxSeccomp, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, Process,
    ProcessBuilder, RootBuilder, SpecBuilder, UserBuilder,
};
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The name of the root file system in a bundle.
const ROOT: &str = "rootfs";
/// The resource limits that every run has. Others have the value of the caller.
const OWN_RLIMITS: [RlimitKind; 9] = [
    RlimitKind::Data,
    RlimitKind::Stack,
    RlimitKind::Core,
    RlimitKind::Nofile,
    RlimitKind::Memlock,
    RlimitKind::Sigpending,
    RlimitKind::Msgqueue,
    RlimitKind::Nice,
    RlimitKind::Rtprio,
];
const SCRATCH: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// A container with the files of an OCI runtime, as a bundle.
#[derive(Debug)]
pub struct OwnBundle<'a> {
    /// The container. Its inputs, mounts, streams and filter are not in the bundle.
    pub spec: &'a ContainerSpec,
    /// The ids of the workload inside.
    pub inside: IdsInside,
    /// The system-call profile.
    pub seccomp: OciProfile,
    /// Annotations: names and values.
    pub annotations: BTreeMap<String, String>,
}

impl OwnBundle<'_> {
    /// The name of the root file system in the bundle.
    pub const ROOT: &'static str = ROOT;

    /// The owner that the files must have on the host: in the container they belong to the workload.
    pub fn owner(&self) -> Result<(u32, u32)> {
        let identity = self.identity();
        identity.check()?;
        Ok((identity.host_uid, identity.host_gid))
    }

    /// The group on the host that the process has by which a runtime sets up the container. It must be able to enter the bundle.
    pub fn group_of_setup(&self) -> u32 {
        let identity = self.identity();
        let beside = identity.by_root && identity.inside.gid != 0;
        if beside { identity.host_gid - 1 } else { identity.host_gid }
    }

    fn identity(&self) -> Identity {
        Identity::of_own_run_as(Some(self.inside))
    }

    /// Creates the mount points and basic files that belong below the image.
    pub fn write_lowest_layer(at: &Path) -> Result<()> {
        rootfs::create_lowest_layer(at, true, &[])
    }

    /// Writes the content of `/sys`, of the machine that this process runs on, into a new directory of the bundle `at`.
    pub fn write_topology(at: &OwnedFd) -> Result<()> {
        const DOING: &str = "creating the directory sys of the bundle";
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(at, topology::IN_BUNDLE, mode).context(DOING)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(at, topology::IN_BUNDLE, flags, Mode::empty()).context(DOING)?;
        rustix::fs::fchmod(&directory, mode).context(DOING)?;
        Topology::of_host().write(&directory, true)
    }

    /// Creates the working directory in the finished root file system `root`, if the image does not have it.
    pub fn create_working_directory(&self, root: &OwnedFd) -> Result<()> {
        let cwd = &self.spec.cwd;
        let Some(missing) = rootfs::missing_directory(root, cwd)? else { return Ok(()) };
        let doing = || format!("creating the working directory {cwd:?}");
        let (uid, gid) = self.owner()?;
        let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3).with_context(doing)?;
        for part in &missing {
            let made = match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
                Err(rustix::io::Errno::EXIST) => false,
                other => other.map(|()| true).with_context(doing).kind(Kind::Input)?,
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at = rustix::fs::openat(&at, part, flags, Mode::empty()).with_context(doing).kind(Kind::Input)?;
            if made {
                rustix::fs::fchown(&at, Some(owner.0), Some(owner.1)).with_context(doing)?;
            }
        }
        Ok(())
    }

    /// `config.json`. `root` is the finished root file system.
    pub fn config(&self, root: &OwnedFd) -> Result<Vec<u8>> {
        self.spec.check()?;
        const DOING: &str = "creating the configuration of the bundle";
        let seccomp = serde_json::to_value(&self.seccomp).and_then(serde_json::from_value::<LinuxSeccomp>);
        let seccomp = seccomp.err_kind(Kind::System).context(DOING)?;
        let mounts = self.mounts(root)?;
        let spec = self.build(seccomp, mounts).err_kind(Kind::System).context(DOING)?;
        let mut text = serde_json::to_vec_pretty(&spec).err_kind(Kind::System).context(DOING)?;
        text.push(b'\n');
        Ok(text)
    }

    fn build(
        &self,
        seccomp: LinuxSeccomp,
        mounts: Vec<Mount>,
    ) -> std::result::Result<oci_spec::runtime::Spec, OciSpecError> {
        let mut spec = SpecBuilder::default()
            .version("1.0.2")
            .root(RootBuilder::default().path(ROOT).readonly(true).build()?)
            .hostname(HOST_NAME)
            .domainname(DOMAIN_NAME)
            .process(self.process()?)
            .mounts(mounts)
            .linux(self.linux(seccomp)?)
            .annotations(self.annotations.clone().into_iter().collect::<std::collections::HashMap<_, _>>())
            .build()?;
        spec.set_hooks(None);
        Ok(spec)
    }

    fn process(&self) -> std::result::Result<Process, OciSpecError> {
        let none = HashSet::new;
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(none())
            .effective(none())
            .inheritable(none())
            .permitted(none())
            .ambient(none())
            .build()?;
        let user = UserBuilder::default().uid(self.inside.uid).gid(self.inside.gid).umask(UMASK).build()?;
        let env = self.spec.env.iter().map(|(name, value)| format!("{name}={value}"));
        let rlimits = self.rlimits().iter().filter_map(posix).collect::<std::result::Result<Vec<_>, _>>()?;
        ProcessBuilder::default()
            .terminal(false)
            .user(user)
            .args(self.spec.argv.clone())
            .env(env.collect::<Vec<_>>())
            .cwd(self.spec.cwd.as_str())
            .capabilities(capabilities)
            .no_new_privileges(true)
            .rlimits(rlimits)
            .build()
    }

    fn linux(&self, seccomp: LinuxSeccomp) -> std::result::Result<Linux, OciSpecError> {
        let (uid_map, gid_map) = self.identity().maps();
        use LinuxNamespaceType as N;
        let kinds = [N::User, N::Pid, N::Mount, N::Network, N::Ipc, N::Uts, N::Cgroup];
        let namespaces = kinds.map(|kind| LinuxNamespaceBuilder::default().typ(kind).build());
        let paths = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut linux = LinuxBuilder::default()
            .uid_mappings(mappings(&uid_map)?)
            .gid_mappings(mappings(&gid_map)?)
            .namespaces(namespaces.into_iter().collect::<std::result::Result<Vec<_>, _>>()?)
            .rootfs_propagation("private")
            .seccomp(seccomp)
            .masked_paths(paths(&MASKED))
            .readonly_paths(paths(&READ_ONLY))
            .build()?;
        linux.set_resources(self.resources()?).set_devices(None);
        Ok(linux)
    }

    /// Whether a limit is that of a cgroup. A user has cgroups only where some are delegated, so only a limit that was requested is.
    fn by_cgroup(&self, name: LimitName) -> bool {
        self.identity().by_root || self.spec.limits.required.contains(&name)
    }

    fn rlimits(&self) -> Vec<Rlimit> {
        let by_rlimit = |name| !self.by_cgroup(name);
        let (memory, pids) = (by_rlimit(LimitName::Memory), by_rlimit(LimitName::Pids));
        let mut limits = rlimit::of_run(&self.spec.limits, memory, pids);
        limits.retain(|limit| OWN_RLIMITS.contains(&limit.kind) || pids && limit.kind == RlimitKind::Nproc);
        limits
    }

    fn resources(&self) -> std::result::Result<Option<LinuxResources>, OciSpecError> {
        let limits = &self.spec.limits;
        let mut resources = LinuxResourcesBuilder::default().build()?;
        resources.set_devices(None);
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        if self.by_cgroup(LimitName::Memory) {
            let bytes = signed(round_to_pages(limits.memory_bytes));
            resources.set_memory(Some(LinuxMemoryBuilder::default().limit(bytes).build()?));
        }
        if self.by_cgroup(LimitName::Pids) {
            resources.set_pids(Some(LinuxPidsBuilder::default().limit(signed(limits.pids)).build()?));
        }
        if self.by_cgroup(LimitName::Cpu) {
            let quota = signed(millicpus(limits) * CPU_PERIOD / 1000);
            resources.set_cpu(Some(LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD).build()?));
        }
        let is_set = resources.memory().is_some() || resources.pids().is_some() || resources.cpu().is_some();
        Ok(is_set.then_some(resources))
    }

    /// The mounts of a run. Each writable directory has a file system of its own, of the size that they share in a run.
    fn mounts(&self, root: &OwnedFd) -> Result<Vec<Mount>> {
        let Limits { tmp_bytes, output_bytes, output_files, .. } = self.spec.limits;
        let size = |bytes| format!("size={}", round_to_pages(bytes));
        let owner = [format!("uid={}", self.inside.uid), format!("gid={}", self.inside.gid)];
        let scratch = |mode: u32| {
            let own = [size(tmp_bytes), format!("nr_inodes={TMP_INODES}"), format!("mode={mode:04o}")];
            own.into_iter().chain(owner.clone()).collect::<Vec<_>>()
        };
        let out = [size(output_bytes), format!("nr_inodes={}", output_files + 1), "mode=0700".to_owned()];
        let dev = ["ro", "nosuid", "noexec", "mode=0755", "size=65536", "nr_inodes=64"];
        let mut all = vec![
            mount("/proc", "proc", &SCRATCH, Vec::new()),
            mount("/dev", "tmpfs", &dev, Vec::new()),
            mount("/dev/shm", "tmpfs", &SCRATCH, scratch(0o1777)),
            mount("/tmp", "tmpfs", &SCRATCH, scratch(0o1777)),
            mount(
                "/in",
                "tmpfs",
                &["ro", "nosuid", "nodev", "noexec"],
                vec![size(1 << 20), "mode=0755".into()],
            ),
            mount("/out", "tmpfs", &SCRATCH, out.into_iter().chain(owner.clone()).collect()),
        ];
        // One that the image redirects by a link stays as it is.
        if mounts::plain_directory(root, topology::NAME)?.is_some() {
            let source = Some(topology::IN_BUNDLE.into());
            let bind =
                mount(topology::TARGET, "bind", &["bind", "ro", "nosuid", "nodev", "noexec"], Vec::new());
            all.push(bind.map(|mut bind| {
                bind.set_source(source);
                bind
            }));
        }
        for (name, mode) in runtime_files::DIRECTORIES {
            if mounts::plain_directory(root, name)?.is_some() {
                all.push(mount(&format!("/{name}"), "tmpfs", &SCRATCH, scratch(mode)));
            }
        }
        for name in ["dev", "in", "out", "proc", "tmp"] {
            mounts::real_directory(root, name)?
                .ok_or_else(|| Error::input(format!("the image has no directory /{name}")))?;
        }
        all.into_iter()
            .collect::<std::result::Result<_, _>>()
            .err_kind(Kind::System)
            .context("describing the mounts")
    }
}

fn mount(
    target: &str,
    kind: &str,
    flags: &[&str],
    options: Vec<String>,
) -> std::result::Result<Mount, OciSpecError> {
    let options: Vec<String> = flags.iter().map(ToString::to_string).chain(options).collect();
    MountBuilder::default().destination(target).typ(kind).source(kind).options(options).build()
}

/// The lines of an id map.
fn mappings(map: &str) -> std::result::Result<Vec<LinuxIdMapping>, OciSpecError> {
    let mapping = |line: &str| {
        let numbers: Vec<u32> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [inside, host, size] = numbers[..] else { return LinuxIdMappingBuilder::default().build() };
        LinuxIdMappingBuilder::default().container_id(inside).host_id(host).size(size).build()
    };
    map.lines().map(mapping).collect()
}

/// A finite limit: a runtime of a user can only lower one.
fn posix(limit: &Rlimit) -> Option<std::result::Result<PosixRlimit, OciSpecError>> {
    let (soft, hard) = (limit.value.soft?, limit.value.hard?);
    Some(PosixRlimitBuilder::default().typ(limit.kind.posix()).soft(soft).hard(hard).build())
}
