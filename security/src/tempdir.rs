//! Temporary directories that nobody else can look into.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, statat};

use crate::path::is_secure_base;
use crate::{Error, Result, is_secure_path};

/// A directory of mode 0700 that belongs to the caller, in a place where nobody can replace it; removed with all it holds when dropped.
#[derive(Debug)]
pub struct SecureTempDir {
    dir: tempfile::TempDir,
}

impl SecureTempDir {
    /// Makes one below `$XDG_RUNTIME_DIR` when that is the caller's own and 0700, else `$TMPDIR`, else `/tmp`. A `$TMPDIR` that
    /// is not safe is an error, not passed over: the user chose it.
    pub fn new(prefix: &str) -> Result<Self> {
        Self::new_with(prefix, &|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// The same with variables looked up by `env`.
    pub fn new_with(prefix: &str, env: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        Self::new_in(&base(env), prefix)
    }

    /// Makes one below `base`, which must be safe.
    pub fn new_in(base: &Path, prefix: &str) -> Result<Self> {
        is_secure_base(base)?;
        let dir = tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(12)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(base)
            .map_err(|source| Error::io("making a temporary directory in", base, source))?;
        let made = Self { dir };
        // Dropped, and with that removed, when it is not what it should be.
        made.verify()?;
        Ok(made)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes it now, and says when that fails.
    pub fn close(self) -> Result<()> {
        let path = self.path().to_owned();
        self.dir.close().map_err(|source| Error::io("removing the temporary directory", &path, source))
    }

    /// Looks at what was made: a directory, the caller's, 0700, with a safe way to it.
    fn verify(&self) -> Result<()> {
        let path = self.path();
        is_secure_path(path)?;
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|source| Error::io("looking at", path, source))?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        let private = stat.st_mode & 0o7777 == 0o700;
        if own && private && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        let why = format!("was made with uid {} and mode {:o}", stat.st_uid, stat.st_mode & 0o7777);
        let remedy = "the file system there keeps neither owner nor mode; set TMPDIR to one that does";
        Err(Error::Safety(format!("temporary directory {} {why}; {remedy}", path.display())))
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
