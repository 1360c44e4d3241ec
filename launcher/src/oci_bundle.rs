//! `runtime run --bundle`: an OCI bundle that was made elsewhere. Its configuration is untrusted: it is read once, through a handle, and can
//! name nothing outside of the bundle. The root file system is not verified.

use crate::args::{MountArgs, MountOption, MountSourceOption, StreamArgs};
use crate::bundle_output::BundleOutput;
use crate::error::{Context as _, Error, Kind, Result};
use crate::filter::Filter;
use crate::limits::{self, Requested};
use crate::mount_source;
use crate::policy::Policy;
use crate::run_files::RunFiles;
use crate::workload::Prepared;
use crate::workload_changes::Changes;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_runtime::{
    BindSource, BundleConfig, BundleMount, BundleSource, ContainerSpec, LimitName, Limits, NotGranted,
    Rootfs, RuntimeFiles, Stdio,
};
use invarlock_seccomp::BuiltinProfile;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Files that hosts give containers. A run has basic ones of its own, without a network.
const FILES_OF_HOSTS: [&str; 5] =
    ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv", "/dev/shm"];

/// An opened bundle.
pub struct Bundle {
    path: PathBuf,
    directory: OwnedFd,
    text: Vec<u8>,
    config: BundleConfig,
    limits: Limits,
    weaker: bool,
}

impl Bundle {
    /// Opens a bundle and reads its configuration. `requested`: the limits of the options.
    pub fn open(path: &Path, requested: &Requested) -> Result<Self> {
        let opening = || format!("opening bundle {}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .with_context(opening)
            .map_err(|error| error.with_kind(Kind::Input))
            .hint("name a directory with config.json and a root file system")?;
        let text = read_config(&directory).with_context(opening)?;
        let limits = requested.resolve(limits::OUTPUT_BYTES);
        let config =
            BundleConfig::parse(&text, &limits).with_context(|| format!("bundle {}", path.display()))?;
        Ok(Bundle { path: path.to_owned(), directory, text, config, limits, weaker: requested.weaker })
    }

    /// Its name in lists and messages.
    pub fn name(&self) -> String {
        format!("bundle:{}", self.path.display())
    }

    /// The standard streams. A terminal that the bundle asks for is granted where the caller has one.
    pub fn streams(&mut self, args: StreamArgs) -> StreamArgs {
        if !self.config.terminal || args.tty {
            return args;
        }
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            return StreamArgs { interactive: true, tty: true };
        }
        self.without("process.terminal", "true");
        args
    }

    fn without(&mut self, member: &str, value: &str) {
        self.config.not_granted.push(NotGranted { member: member.to_owned(), value: value.to_owned() });
    }

    /// Opens its files and resolves its profile.
    pub fn prepare(
        mut self,
        args: &MountArgs,
        seccomp: Option<&Path>,
        terminal: bool,
        policy: &Policy,
    ) -> Result<Prepared> {
        let mut supervisor = policy.supervisor()?;
        policy.network.close()?;
        supervisor.prepare(self.config.user)?;
        let root = self.open_below(&self.config.root)?;
        mount_source::check(&root, &self.path.join(&self.config.root), false)?;
        let mut files = RunFiles::open(args)?;
        for mount in std::mem::take(&mut self.config.mounts) {
            self.mount(mount, &root, &mut files)?;
        }
        let builtin = if terminal { BuiltinProfile::Terminal } else { BuiltinProfile::General };
        let mut filter = Filter::choose(seccomp, builtin)?;
        if self.config.has_seccomp {
            filter = filter.restricted_by_config(&self.text, &self.path.join(BundleConfig::NAME))?;
        }
        if files.has_writable_bind() {
            filter = filter.without_set_id()?;
        }
        self.set_limits(files.tmp_bytes);
        let output = self.output(&root);
        self.report();
        let Bundle { config, limits, .. } = self;
        let spec = ContainerSpec {
            rootfs: Rootfs::Directory(root),
            argv: config.argv,
            env: Changes::merged(config.env, Vec::new()),
            cwd: config.cwd,
            inputs: files.container_inputs()?,
            stop_timeout: ContainerSpec::STOP_TIMEOUT,
            mounts: std::mem::take(&mut files.mounts),
            filter: filter.program.clone(),
            limits,
            collect_output: false,
            stdio: Stdio::Output,
            runtime_files: Some(RuntimeFiles {
                passwd: None,
                masked_paths: config.masked_paths,
                rlimits: config.limits.rlimits,
            }),
        };
        Ok(Prepared { supervisor, spec, filter, files, rootfs: None, image: None, bundle: Some(output) })
    }

    /// Opens a file or directory of the bundle. No link is followed.
    fn open_below(&self, path: &Path) -> Result<BindSource> {
        BindSource::open_below(&self.directory, path, &self.path.join(path))
            .with_context(|| format!("bundle {}", self.path.display()))
    }

    /// Adds a mount, unless an option has the same target.
    fn mount(&mut self, mount: BundleMount, root: &BindSource, files: &mut RunFiles) -> Result<()> {
        let BundleMount { member, target, source } = mount;
        if files.has_target(&target) {
            return Ok(());
        }
        let (path, writable) = match source {
            BundleSource::Tmpfs { bytes } => {
                let source = MountSourceOption::Tmpfs { bytes };
                return files.add(&MountOption { target, source });
            }
            BundleSource::Bind { path, writable } => (path, writable),
        };
        if FILES_OF_HOSTS.contains(&target.as_str()) {
            self.without("mounts", &target);
            return Ok(());
        }
        let outside = || {
            let option = format!("-v SOURCE:{target}{}", if writable { "" } else { ":ro" });
            Err(Error::input(format!(
                "config.json: {member} {path:?} is not granted: it is not in the bundle, and a configuration cannot name files of this machine"
            ))
            .with_hint(format!("if the command may have it, pass {option}; otherwise remove it from config.json")))
        };
        if path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
            return outside();
        }
        let source = self.open_below(&path)?;
        if writable && (source.is_in(root.path()) || source.contains(root.path())?) {
            return Err(Error::input(format!(
                "config.json: {member} {path:?} is not granted: the root file system is read-only"
            ))
            .with_hint("mount it read-only, or mount another directory"));
        }
        files.add_bind(target, source, &self.path.join(&path), writable)
    }

    /// The lower one of each limit of the configuration and of the run counts.
    fn set_limits(&mut self, tmp_bytes: Option<u64>) {
        let Bundle { config, limits, weaker, .. } = self;
        if let Some(bytes) = config.limits.memory_bytes {
            limits.memory_bytes = bytes;
        }
        if let Some(pids) = config.limits.pids {
            limits.pids = pids;
        }
        if let Some(cpus) = config.limits.cpus {
            limits.cpus = cpus;
        }
        if let Some(files) = config.limits.open_files {
            limits.open_files = files;
        }
        if let Some(bytes) = tmp_bytes {
            limits.tmp_bytes = bytes;
            limits.required.insert(LimitName::Tmp);
        }
        let set = [
            (LimitName::Memory, config.limits.memory_bytes.is_some()),
            (LimitName::Pids, config.limits.pids.is_some()),
            (LimitName::Cpu, config.limits.cpus.is_some()),
        ];
        limits
            .required
            .extend(set.into_iter().filter(|(_, is_set)| *is_set && !*weaker).map(|(name, _)| name));
    }

    fn output(&self, root: &BindSource) -> BundleOutput {
        BundleOutput {
            path: self.path.display().to_string(),
            config_sha256: sha256_hex(&self.text),
            root: root.path().display().to_string(),
            verification: "none",
            not_granted: self.config.not_granted.clone(),
        }
    }

    /// Says what the container runs without.
    fn report(&self) {
        let all: Vec<String> = self.config.not_granted.iter().map(ToString::to_string).collect();
        if !all.is_empty() {
            let text = invarlock_runtime::printable(&all.join(", "));
            // A closed standard error changes nothing about the run.
            drop(writeln!(std::io::stderr(), "invarlock: not granted from config.json: {text}"));
        }
    }
}

/// Reads `config.json`, a regular file in the bundle.
fn read_config(directory: &OwnedFd) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let reading = || BundleConfig::NAME.to_owned();
    let file = openat2(directory, BundleConfig::NAME, flags, Mode::empty(), resolve)
        .with_context(reading)
        .map_err(|error| error.with_kind(Kind::Input))?;
    let stat = rustix::fs::fstat(&file).with_context(reading)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::input(format!("{} is not a regular file", BundleConfig::NAME)));
    }
    let mut text = Vec::new();
    File::from(file).take(BundleConfig::MAX_BYTES + 1).read_to_end(&mut text).with_context(reading)?;
    match text.len() as u64 > BundleConfig::MAX_BYTES {
        true => Err(Error::input(format!(
            "{} is longer than the {} bytes allowed",
            BundleConfig::NAME,
            BundleConfig::MAX_BYTES
        ))),
        false => Ok(text),
    }
}
