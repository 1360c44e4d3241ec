//! The image and inputs of the attacker, and the state of the host before and after the attacks.

use crate::contract::{ATTACKER, BIND, BINDS, MEMORY_LIMIT, WALL_LIMIT};
use crate::findings::HostChanges;
use invarlock_error::{Context as _, Result};
use invarlock_runtime::{
    BindSource, ContainerSpec, DEVICES, Input, InputSource, Limits, Mount, MountSource, Rootfs, RuntimeFiles,
};
use invarlock_seccomp::{Arch, Profile};
use invarlock_security::SecureTempDir;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest part of a file that is read to detect a change, in bytes.
const MAX_FILE: u64 = 1 << 30;
const PREPARING: &str = "preparing the probe";

/// Files of the host with kind, mode, owner and, for regular files, a checksum.
type Snapshot = BTreeMap<PathBuf, String>;

/// What the attacker runs on and is aimed at.
pub(crate) struct Stage {
    dir: SecureTempDir,
    /// Name of the abstract socket and of the process that tries to outlive its run.
    token: String,
    /// The abstract socket on the host.
    listener: OwnedFd,
    files: Snapshot,
    devices: Snapshot,
}

impl Stage {
    /// Creates the image and the inputs, listens on the abstract socket and takes a snapshot of the host.
    pub(crate) fn new() -> Result<Self> {
        let dir = SecureTempDir::new("invarlock-probe-").context(PREPARING)?;
        create_files(dir.path()).context(PREPARING)?;
        let mut random = [0; 6];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).context(PREPARING)?;
        let token = random.iter().fold("il".to_owned(), |token, byte| format!("{token}{byte:02x}"));
        let listener = listen(&token).context(PREPARING)?;
        let (files, devices) = (file_snapshot(dir.path())?, device_snapshot()?);
        Ok(Stage { dir, token, listener, files, devices })
    }

    /// A run of the attacker with this first argument. Only its limits differ from those of any other run.
    pub(crate) fn spec(&self, part: &str) -> Result<ContainerSpec> {
        let path = |name: &str| self.dir.path().join(name);
        let file = |target: &str, path: PathBuf| -> Result<Input> {
            let file = File::open(&path).context(PREPARING)?;
            Ok(Input { target: target.into(), source: InputSource::File { path, file } })
        };
        let profile = Profile::general();
        let (mounts, filter, runtime_files) = match part == BINDS {
            true => {
                let source = BindSource::open(&path("bind"))?;
                let bind =
                    Mount { target: BIND.into(), source: MountSource::Bind { source, writable: true } };
                let profile = profile.resolve(Arch::native()?)?.without_set_id();
                (vec![bind], profile.compile(), Some(RuntimeFiles::default()))
            }
            false => (Vec::new(), profile.compile(), None),
        };
        Ok(ContainerSpec {
            rootfs: Rootfs::Layers(vec![path("image")]),
            argv: vec![ATTACKER.into(), part.into(), self.token.clone()],
            env: vec![("LANG".into(), "C".into())],
            cwd: "/".into(),
            inputs: vec![
                file("/in/file", path("input"))?,
                file("/in/program", program(self.dir.path()))?,
                Input { target: "/in/bytes".into(), source: InputSource::Bytes(b"of the launcher".to_vec()) },
            ],
            filter: filter.context("compiling the filter of the probe")?,
            limits: limits(part),
            collect_output: true,
            stdio: invarlock_runtime::Stdio::Output,
            runtime_files,
            stop_timeout: ContainerSpec::STOP_TIMEOUT,
            mounts,
        })
    }

    /// The differences between the host now and before the attacks.
    pub(crate) fn host_changes(&self) -> Result<HostChanges> {
        let mut fds = [rustix::event::PollFd::new(&self.listener, rustix::event::PollFlags::IN)];
        let no_wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let socket_reached = rustix::event::poll(&mut fds, Some(&no_wait)).is_ok_and(|count| count > 0);
        Ok(HostChanges {
            files: differences(&self.files, &file_snapshot(self.dir.path())?),
            devices: differences(&self.devices, &device_snapshot()?),
            socket_reached,
            processes: processes_named(&self.token),
        })
    }

    /// Removes all files of the probe.
    pub(crate) fn close(self) -> Result<()> {
        self.dir.close()
    }
}

/// The attacker's executable in the image.
fn program(dir: &Path) -> PathBuf {
    dir.join("image").join(ATTACKER.trim_start_matches('/'))
}

fn create_files(dir: &Path) -> Result<()> {
    let image = dir.join("image");
    fs::create_dir(dir.join("bind"))?;
    for name in ["", "dev", "in", "out", "proc", "tmp", "open"] {
        fs::create_dir(image.join(name))?;
        fs::set_permissions(image.join(name), Permissions::from_mode(0o755))?;
    }
    // Only their mounts protect the world-writable directory and files.
    fs::set_permissions(image.join("open"), Permissions::from_mode(0o777))?;
    for path in [image.join("open/file"), dir.join("input")] {
        fs::write(&path, "of the host")?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    let program = program(dir);
    fs::copy("/proc/self/exe", &program)?;
    fs::set_permissions(&program, Permissions::from_mode(0o4755))?;
    Ok(())
}

fn listen(name: &str) -> Result<OwnedFd> {
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    rustix::net::listen(&listener, 8)?;
    Ok(listener)
}

fn limits(part: &str) -> Limits {
    let mut limits = Limits::for_machine();
    limits.memory_bytes = MEMORY_LIMIT;
    limits.pids = 32;
    limits.open_files = 64;
    limits.tmp_bytes = 1 << 20;
    limits.output_bytes = 1 << 20;
    limits.output_files = 16;
    limits.wall = if part == "time" { WALL_LIMIT } else { Duration::from_secs(60) };
    if part == "processors" {
        limits.cpus = 0.2;
    }
    limits
}

fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let changed =
        before.iter().filter(|(path, state)| after.get(*path) != Some(*state)).map(|(path, _)| path);
    let new = after.keys().filter(|path| !before.contains_key(*path));
    changed.chain(new).map(|path| path.display().to_string()).collect()
}

/// Everything below the directory of the probe, and the executable of this process.
fn file_snapshot(root: &Path) -> Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    let own = rustix::fs::readlink("/proc/self/exe", Vec::new()).context("finding this executable")?;
    let own = PathBuf::from(std::ffi::OsString::from(own.to_string_lossy().into_owned()));
    let mut queue = vec![root.to_owned()];
    if own.exists() {
        snapshot.insert(own.clone(), file_state(&own)?);
    }
    while let Some(path) = queue.pop() {
        snapshot.insert(path.clone(), file_state(&path)?);
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            let entries = fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?;
            queue.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(snapshot)
}

fn file_state(path: &Path) -> Result<String> {
    let doing = || format!("reading {}", path.display());
    let metadata = path.symlink_metadata().with_context(doing)?;
    let content = match metadata.is_file() {
        true => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).with_context(doing)?);
            checksum(file).with_context(doing)?
        }
        false => 0,
    };
    Ok(format!("{:o} {}:{} {content:x}", metadata.mode(), metadata.uid(), metadata.gid()))
}

/// A checksum that detects a change. It is not a cryptographic digest.
fn checksum(file: File) -> std::io::Result<u64> {
    use std::hash::Hasher as _;
    let mut hasher = std::hash::DefaultHasher::new();
    let mut file = file.take(MAX_FILE);
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finish()),
            count => hasher.write(&block[..count]),
        }
    }
}

/// Kind, mode, owner and number of the host's devices that a container gets, and of `/dev/tty`.
fn device_snapshot() -> Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    for name in DEVICES.map(|(name, _)| name).into_iter().chain(["tty"]) {
        let path = PathBuf::from(format!("/dev/{name}"));
        let metadata = path.symlink_metadata().with_context(|| format!("reading {}", path.display()))?;
        let state =
            format!("{:o} {}:{} {}", metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev());
        snapshot.insert(path, state);
    }
    Ok(snapshot)
}

/// Ids of the processes with this name.
fn processes_named(name: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_name = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|process| process.trim() == name)
    };
    pids.filter(has_name).collect()
}
