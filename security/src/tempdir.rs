//! Temporary directories that other users cannot access.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, statat};

use crate::path::is_secure_base;
use invarlock_error::Context as _;

use crate::{Error, Result, abandoned, claim, is_secure_path};

/// Number of random characters after the prefix.
const RANDOM: usize = 12;

/// A directory of mode 0700, owned by the caller, that no other user can replace. It is removed with its content when dropped. If its
/// process is killed, the next process that creates one with the same prefix in the same parent removes it.
#[derive(Debug)]
pub struct SecureTempDir {
    dir: tempfile::TempDir,
    /// The lock that marks it as in use.
    _held: OwnedFd,
}

impl SecureTempDir {
    /// Creates one below `$XDG_RUNTIME_DIR` if that belongs to the caller and has mode 0700, otherwise below `$TMPDIR`, otherwise below
    /// `/tmp`. An unsafe `$TMPDIR` is an error, because the user chose it.
    pub fn new(prefix: &str) -> Result<Self> {
        Self::new_with(prefix, &|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// The same; `env` reads the variables.
    pub fn new_with(prefix: &str, env: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        Self::new_in(&base(env), prefix)
    }

    /// Creates one below `base`, which must be safe.
    pub fn new_in(base: &Path, prefix: &str) -> Result<Self> {
        is_secure_base(base)?;
        let doing = || format!("creating a temporary directory in {}", base.display());
        sweep(base, prefix);
        loop {
            let dir = tempfile::Builder::new()
                .prefix(prefix)
                .rand_bytes(RANDOM)
                .permissions(std::fs::Permissions::from_mode(0o700))
                .tempdir_in(base)
                .with_context(doing)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let held = match rustix::fs::open(dir.path(), flags, Mode::empty()) {
                // Another process removed it as abandoned before it was locked.
                Err(rustix::io::Errno::NOENT) => continue,
                other => other.with_context(doing)?,
            };
            if !claim(&held, dir.path()).with_context(doing)? {
                continue;
            }
            let made = Self { dir, _held: held };
            // On failure it is dropped and thereby removed.
            made.verify()?;
            return Ok(made);
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes it now and reports a failure.
    pub fn close(self) -> Result<()> {
        let path = self.path().to_owned();
        // The lock is released last.
        let Self { dir, _held } = self;
        dir.close().with_context(|| format!("removing the temporary directory {}", path.display()))
    }

    /// Checks the new directory: owned by the caller, mode 0700, safe path.
    fn verify(&self) -> Result<()> {
        let path = self.path();
        is_secure_path(path)?;
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("examining {}", path.display()))
            .input_if_not_found()?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        let private = stat.st_mode & 0o7777 == 0o700;
        if own && private && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        let why = format!("was created with uid {} and mode {:o}", stat.st_uid, stat.st_mode & 0o7777);
        Err(Error::safety(format!("temporary directory {} {why}", path.display())).with_hint(
            "the file system does not preserve owner and mode; set TMPDIR to a directory on one that does",
        ))
    }
}

/// Removes directories that killed processes of the caller left in `base`. Failures are ignored.
fn sweep(base: &Path, prefix: &str) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(prefix)).unwrap_or_default();
        if random.len() == RANDOM
            && random.bytes().all(|b| b.is_ascii_alphanumeric())
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(_held) = abandoned(&entry.path())
        {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

fn base(env: &dyn Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let given = |name: &str| env(name).filter(|path| path.is_absolute());
    let own_and_private = |path: &PathBuf| {
        statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o7777 == 0o700
        }) && is_secure_base(path).is_ok()
    };
    given("XDG_RUNTIME_DIR")
        .filter(own_and_private)
        .or_else(|| given("TMPDIR"))
        .unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// [`SecureTempDir::new`].
pub fn secure_tempdir(prefix: &str) -> Result<SecureTempDir> {
    SecureTempDir::new(prefix)
}
