//! What outlives a killed supervisor: one locked file a run, from which the next start cleans up.

use crate::cgroup;
use crate::error::{Doing as _, Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Longest lock file that is believed.
const MAX_STATE: u64 = 1 << 20;

/// The lock of a run; the file goes with it.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// The directory of lock files: `/run/invarlock` for root, below `$XDG_RUNTIME_DIR` for others, else below `/tmp`.
pub(crate) fn directory() -> Result<PathBuf> {
    let uid = rustix::process::geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|d| d.is_absolute() && owned(d, uid.as_raw()));
    let dir = match (uid.is_root(), runtime) {
        (true, _) => PathBuf::from("/run/invarlock"),
        (false, Some(runtime)) => runtime.join("invarlock"),
        (false, None) => PathBuf::from(format!("/tmp/invarlock-{}", uid.as_raw())),
    };
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other.doing(|| format!("making the state directory {}", dir.display()))?,
    }
    verified(dir)
}

/// The directory, if nobody else can change it.
pub(crate) fn verified(dir: PathBuf) -> Result<PathBuf> {
    if owned(&dir, rustix::process::geteuid().as_raw()) {
        return Ok(dir);
    }
    let dir = dir.display();
    Err(Error::Safety(format!(
        "the state directory {dir} is not a directory of this user's alone; remove it or mend its owner and mode"
    )))
}

fn owned(dir: &Path, uid: u32) -> bool {
    dir.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o022 == 0)
}

/// A name that no other run has.
pub(crate) fn new_id() -> Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .doing(|| "getting random bytes".into())?;
    Ok(format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(bytes)))
}

impl Lock {
    /// Notes the run's cgroups, before they are made.
    pub(crate) fn take(dir: &Path, id: &str, cgroups: &[PathBuf]) -> Result<Self> {
        let (early, path) = (dir.join(format!(".{id}")), dir.join(format!("{id}.run")));
        let fail = || format!("writing {}", path.display());
        let mut file = File::options().write(true).create_new(true).open(&early).doing(fail)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).doing(fail)?;
        file.write_all(&serde_json::to_vec(cgroups).doing(fail)?).doing(fail)?;
        fs::rename(&early, &path).doing(fail)?;
        Ok(Lock { path, _file: file })
    }

    /// The run is over and left nothing.
    pub(crate) fn release(self) -> Result<()> {
        fs::remove_file(&self.path).doing(|| format!("removing {}", self.path.display()))
    }
}

/// Removes what runs left whose supervisor is dead. Gives the number of them.
pub(crate) fn sweep(dir: &Path) -> Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(dir).doing(|| format!("reading {}", dir.display()))? {
        let entry = entry.doing(|| format!("reading {}", dir.display()))?;
        let name = entry.file_name();
        if let Some(id) = name.to_str().and_then(|n| n.strip_suffix(".run")).filter(|id| !id.starts_with('.'))
            && sweep_one(&entry.path(), id)?
        {
            swept += 1;
        }
    }
    Ok(swept)
}

fn sweep_one(path: &Path, id: &str) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(false) };
    if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let mut text = String::new();
    File::from(fd)
        .take(MAX_STATE)
        .read_to_string(&mut text)
        .doing(|| format!("reading {}", path.display()))?;
    let cgroups: Vec<PathBuf> = serde_json::from_str(&text).unwrap_or_default();
    cgroups.iter().try_for_each(|cgroup| cgroup::sweep(cgroup, id))?;
    drop(fs::remove_file(path));
    Ok(true)
}
