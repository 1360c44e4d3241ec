//! Lock files, one for each run. A file whose lock is released belongs to a dead supervisor; the next start then removes what the run left.

use crate::{cgroup, hooks};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use invarlock_security::{abandoned, claim};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Longest lock file that is read.
const MAX_STATE: u64 = 1 << 20;
/// Suffix of lock files.
const SUFFIX: &str = ".run";

/// What to do where there is no state directory.
pub(crate) const REMEDY: &str = "make its parent writable; if it exists, own it with mode 0700; an ordinary user can also set \
    XDG_RUNTIME_DIR to a directory of their own with mode 0700";

/// The lock of a run and its file.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// The directory of lock files: `/run/invarlock` for root, below `$XDG_RUNTIME_DIR` or `/run/user/<uid>` for others, else below `/tmp`.
pub fn directory() -> Result<PathBuf> {
    let uid = rustix::process::geteuid();
    let usual = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = given.into_iter().chain([usual]).find(|d| d.is_absolute() && owned(d, uid.as_raw()));
    let dir = match (uid.is_root(), runtime) {
        (true, _) => PathBuf::from("/run/invarlock"),
        (false, Some(runtime)) => runtime.join("invarlock"),
        (false, None) => PathBuf::from(format!("/tmp/invarlock-{}", uid.as_raw())),
    };
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other
            .with_context(|| format!("creating the state directory {}", dir.display()))
            .map_err(|error| error.with_hint(REMEDY))?,
    }
    verified(dir)
}

/// The directory, if no other user can write it.
pub(crate) fn verified(dir: PathBuf) -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    if owned(&dir, uid) {
        return Ok(dir);
    }
    let found = match dir.symlink_metadata() {
        Ok(m) if m.is_dir() => format!("belongs to uid {} with mode {:o}", m.uid(), m.mode() & 0o7777),
        Ok(_) => "is not a directory".to_owned(),
        Err(e) => format!("cannot be read: {e}"),
    };
    let dir = dir.display();
    Err(Error::safety(format!(
        "the state directory {dir} must be a directory that only uid {uid} can write, but it {found}"
    ))
    .with_hint(REMEDY))
}

fn owned(dir: &Path, uid: u32) -> bool {
    dir.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o022 == 0)
}

/// A unique name of a run.
pub(crate) fn new_id() -> Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("getting random bytes")?;
    Ok(format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(bytes)))
}

impl Lock {
    /// Records the run's cgroups before they are created.
    pub(crate) fn take(dir: &Path, id: &str, cgroups: &[PathBuf]) -> Result<Self> {
        let (early, path) = (dir.join(format!(".{id}{SUFFIX}")), dir.join(format!("{id}{SUFFIX}")));
        let fail = || format!("writing {}", path.display());
        let mut file = new_locked(&early).with_context(fail)?;
        hooks::step("supervisor: lock file made");
        file.write_all(&serde_json::to_vec(cgroups).err_kind(Kind::System).with_context(fail)?)
            .with_context(fail)
            .inspect_err(|_| {
                drop(fs::remove_file(&early));
            })?;
        hooks::step("supervisor: lock file written");
        fs::rename(&early, &path).with_context(fail)?;
        hooks::step("supervisor: lock taken");
        Ok(Lock { path, _file: file })
    }

    /// Removes the file after a run that left nothing.
    pub(crate) fn release(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

/// A new, locked file. A sweep between creating and locking removes the file as that of a dead run; then another one is created.
fn new_locked(path: &Path) -> std::io::Result<File> {
    loop {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        if claim(&file, path)? {
            return Ok(file);
        }
    }
}

/// Removes what runs with a dead supervisor left, as far as possible. Returns the number of removed runs.
pub(crate) fn sweep(dir: &Path) -> Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|n| n.strip_suffix(SUFFIX)) else { continue };
        // After a failure the file stays, and the next start tries again.
        swept += usize::from(sweep_one(&entry.path(), id.trim_start_matches('.')).unwrap_or(false));
    }
    Ok(swept)
}

fn sweep_one(path: &Path, id: &str) -> Result<bool> {
    // The lock is held while the supervisor, or a process of the run that has not closed it yet, lives.
    let Some(file) = abandoned(path).map(File::from) else { return Ok(false) };
    let mut text = String::new();
    (&file)
        .take(MAX_STATE)
        .read_to_string(&mut text)
        .with_context(|| format!("reading {}", path.display()))?;
    let cgroups: Vec<PathBuf> = serde_json::from_str(&text).unwrap_or_default();
    cgroups.iter().try_for_each(|cgroup| cgroup::sweep(cgroup, id))?;
    drop(fs::remove_file(path));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir)
            .expect("names")
            .map(|e| e.expect("a name").file_name().to_string_lossy().into())
            .collect()
    }

    #[test]
    fn keeps_a_live_run() {
        let dir = directory();
        let lock = Lock::take(dir.path(), "1-a", &["/nowhere/invarlock-1-a".into()]).expect("a lock");
        assert_eq!(sweep(dir.path()).expect("a sweep"), 0);
        assert_eq!(names(dir.path()), ["1-a.run"]);
        lock.release().expect("released");
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn removes_files_of_dead_runs() {
        let dir = directory();
        drop(Lock::take(dir.path(), "1-a", &[]).expect("a lock"));
        for (name, text) in
            [(".2-b.run", ""), ("3-c.run", ""), ("4-d.run", "[\"/nowhere"), ("5-e.run", "[7]")]
        {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        assert_eq!(sweep(dir.path()).expect("a sweep"), 5);
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn touches_only_a_cgroup_with_the_name_of_the_run() {
        let dir = directory();
        let bystander = dir.path().join("bystander");
        fs::create_dir(&bystander).expect("a directory");
        fs::write(bystander.join("cgroup.procs"), std::process::id().to_string()).expect("a file");
        let text = serde_json::to_vec(&[&bystander]).expect("JSON");
        fs::write(dir.path().join("1-a.run"), text).expect("a file");
        assert_eq!(sweep(dir.path()).expect("a sweep"), 1);
        assert!(bystander.join("cgroup.procs").exists());
    }

    #[test]
    fn concurrent_starts_and_sweeps_keep_live_runs() {
        let dir = directory();
        std::thread::scope(|threads| {
            for start in 0..4 {
                let dir = dir.path();
                threads.spawn(move || {
                    for i in 0..500 {
                        let lock = Lock::take(dir, &format!("{start}-{i}"), &[]).expect("a lock");
                        sweep(dir).expect("a sweep");
                        assert!(lock.path.exists(), "a live run was removed");
                        lock.release().expect("released");
                    }
                });
            }
        });
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
