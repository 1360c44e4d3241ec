//! Files of a run and of the evidence. Each is written completely under a temporary name, then renamed.
//!
//! Only the owner can open a file or directory under its temporary name: another user could hold its lock. It gets the usual mode when it is
//! complete.

use crate::error::{Context as _, Error, Kind, OutputExists, Result};
use invarlock_runtime::hooks;
use invarlock_security::{abandoned, claim};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Prefix of the temporary names.
const STAGED: &str = ".invarlock-";

pub use invarlock_evidence::attestation::FILE_NAME as ATTESTATION;
pub use invarlock_evidence::evaluation::{BASELINE_REPORT, REPORT, SUBJECT_REPORT};
pub use invarlock_evidence::manifest::FILE_NAME as MANIFEST;
pub use invarlock_evidence::plan_lock::FILE_NAME as LOCK;

/// Fails early when `dir`, or the directory that it would be created in, is not writable.
pub fn check_writable(flag: &str, dir: &Path) -> Result<()> {
    let absolute = std::path::absolute(dir).with_context(|| format!("resolving {flag}"))?;
    let existing =
        absolute.ancestors().find(|a| a.symlink_metadata().is_ok()).unwrap_or_else(|| Path::new("/"));
    let failed = |why: &str| {
        let message = format!("{flag} {}: {} is not {why}", dir.display(), existing.display());
        Error::input(message).with_hint("choose another directory")
    };
    if !existing.is_dir() {
        return Err(failed("a directory"));
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(existing, access).map_err(|errno| failed(&format!("writable: {errno}")))
}

/// The directory of a run, `<out>/<side>/<YYYYmmdd_HHMMSS>`. It is filled under a hidden name and renamed when it is complete. A start
/// removes the hidden directories of killed processes.
pub struct RunDir {
    staged: PathBuf,
    target: PathBuf,
    /// Its lock.
    _lock: Option<File>,
}

impl RunDir {
    /// Creates it under its hidden name.
    pub fn begin(out: &Path, side: &str) -> Result<Self> {
        let parent = out.join(side);
        let doing = || format!("creating a run directory in {}", parent.display());
        let created = std::fs::create_dir_all(&parent).with_context(doing);
        created.hint("choose another directory with --out")?;
        sweep(&parent, is_hidden_run);
        let stamp = chrono::Utc::now().format("%Y%m%d_%H%M%S").to_string();
        for n in 1..1000 {
            let name = if n == 1 { stamp.clone() } else { format!("{stamp}_{n}") };
            let (staged, target) = (parent.join(format!(".{name}")), parent.join(&name));
            match std::fs::DirBuilder::new().mode(0o700).create(&staged) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(doing),
                Ok(()) if target.exists() => drop(RunDir { staged, target, _lock: None }),
                Ok(()) => {
                    // None: before it was locked, another start removed it as that of a killed process, or locked it. Try the next name.
                    if let Some(lock) = lock(&staged).with_context(doing)? {
                        hooks::step("files: run directory begun");
                        return Ok(RunDir { staged, target, _lock: Some(lock) });
                    }
                }
            }
        }
        Err(Error::system("all names are in use").context(doing()))
    }

    /// The final path of the directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The final path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// Adds a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        persist(stage(&self.staged, bytes)?, &self.staged.join(name))
    }

    /// Adds a file, with its directories. The parts of the name are plain: the supervisor read them from directories.
    pub fn write_below(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.staged.join(name);
        let parent = path.parent().unwrap_or(&self.staged);
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        persist(stage(parent, bytes)?, &path)
    }

    /// Removes a file.
    pub fn discard(&self, name: &str) {
        drop(std::fs::remove_file(self.staged.join(name)));
    }

    /// Renames the directory to its final name.
    pub fn commit(self) -> Result<()> {
        hooks::step("files: run directory filled");
        File::open(&self.staged)
            .and_then(|dir| publish(&dir, 0o777))
            .with_context(|| format!("setting the mode of {}", self.staged.display()))?;
        std::fs::rename(&self.staged, &self.target)
            .with_context(|| format!("renaming to {}", self.target.display()))?;
        hooks::step("files: run directory named");
        sync_directory(&self.target)
    }
}

impl Drop for RunDir {
    /// Removes a directory that was not committed; after a commit the hidden name does not exist.
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.staged));
    }
}

/// Opens and locks a directory that this process created; none if another start has removed it.
fn lock(dir: &Path) -> std::io::Result<Option<File>> {
    match File::open(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.and_then(|lock| Ok(claim(&lock, dir)?.then_some(lock))),
    }
}

/// Removes the temporary files of killed processes in `dir`; `is_temporary` recognises their names. A file that cannot be removed stays.
fn sweep(dir: &Path, is_temporary: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(&is_temporary) {
            continue;
        }
        if let Some(_lock) = abandoned(&path) {
            drop(if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) });
        }
    }
}

/// `.YYYYmmdd_HHMMSS`, optionally followed by `_` and a number.
fn is_hidden_run(name: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = name.strip_prefix('.').unwrap_or_default().split('_');
    let (date, time, number) = (parts.next(), parts.next(), parts.next());
    date.is_some_and(|date| digits(date, 8))
        && time.is_some_and(|time| digits(time, 6))
        && number.is_none_or(|number| digits(number, number.len()))
        && parts.next().is_none()
}

/// The temporary names of [`stage`].
fn is_staged(name: &str) -> bool {
    name.strip_prefix(STAGED)
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Syncs the directory of `path`, so that renames in it survive a power cut.
fn sync_directory(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("syncing {}", parent.display()))
}

/// The report of an earlier evaluation.
pub struct EarlierEvidence {
    report: PathBuf,
    written: (u64, i64, i64),
}

impl EarlierEvidence {
    /// A note for the error when this evaluation fails; none if the report was replaced.
    pub fn note(&self) -> Option<String> {
        let metadata = self.report.metadata().ok()?;
        let unchanged = self.written == (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
        let report = self.report.display();
        unchanged
            .then(|| format!("{report} was written by an earlier evaluation; this command did not change it"))
    }
}

/// The report of an earlier evaluation in `dir`, if there is one.
pub fn earlier_evidence(dir: &Path) -> Option<EarlierEvidence> {
    let report = dir.join(REPORT);
    let metadata = report.metadata().ok()?;
    Some(EarlierEvidence { report, written: (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()) })
}

/// The evidence of an evaluation.
pub struct Evidence<'a> {
    /// Bytes of the evaluation report.
    pub report: &'a [u8],
    /// Bytes of the run reports of baseline and subject; none of a report of another program.
    pub run_reports: Option<[&'a [u8]; 2]>,
    /// Bytes of the runtime manifest.
    pub manifest: &'a [u8],
    /// Bytes of the attestation, if it is signed.
    pub attestation: Option<&'a [u8]>,
    /// Bytes of the plan lock, if it was made under one.
    pub lock: Option<&'a [u8]>,
}

impl Evidence<'_> {
    /// Writes the files in an order in which a manifest never lies next to a report that it does not belong to. Gives the paths of
    /// report and manifest.
    pub fn write(&self, dir: &Path) -> Result<(PathBuf, PathBuf)> {
        let created = std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()));
        created.hint("choose another directory with --report-out")?;
        let (report_path, manifest_path) = (dir.join(REPORT), dir.join(MANIFEST));
        let (report, manifest) = (stage(dir, self.report)?, stage(dir, self.manifest)?);
        let run_reports = self.run_reports.map(|reports| reports.map(|bytes| stage(dir, bytes)));
        let signed = [(ATTESTATION, self.attestation), (LOCK, self.lock)];
        let mut staged = Vec::new();
        for (name, bytes) in signed {
            staged.extend(bytes.map(|bytes| stage(dir, bytes)).transpose()?.map(|file| (name, file)));
        }
        hooks::step("files: evidence staged");
        // Those of an earlier evaluation are not about this one.
        [ATTESTATION, LOCK, MANIFEST].iter().try_for_each(|name| remove(&dir.join(name)))?;
        hooks::step("files: old manifest removed");
        match run_reports {
            Some([baseline, subject]) => {
                persist(baseline?, &dir.join(BASELINE_REPORT))?;
                persist(subject?, &dir.join(SUBJECT_REPORT))?;
            }
            None => [BASELINE_REPORT, SUBJECT_REPORT].iter().try_for_each(|name| remove(&dir.join(name)))?,
        }
        persist(report, &report_path)?;
        hooks::step("files: report named");
        for (name, file) in staged {
            persist(file, &dir.join(name))?;
        }
        persist(manifest, &manifest_path)?;
        hooks::step("files: manifest named");
        sync_directory(&manifest_path)?;
        hooks::step("files: evidence synced");
        Ok((report_path, manifest_path))
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("replacing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes an output file of a verb; replaces an existing file only with `force`.
pub fn write_output(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let created = std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()));
    created.hint("choose another path with --output")?;
    let staged = stage(parent, bytes)?;
    if force {
        return persist(staged, path);
    }
    publish(staged.as_file(), 0o644).with_context(|| format!("writing {}", path.display()))?;
    staged.persist_noclobber(path).map(drop).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => output_exists(path),
        _ => Error::from(e.error).context(format_args!("writing {}", path.display())),
    })
}

/// The error for an output file that exists.
pub fn output_exists(path: &Path) -> Error {
    Error::from_source(Kind::Input, OutputExists)
        .context(format_args!("writing {}", path.display()))
        .with_hint("pass --force to replace it")
}

/// Writes a new file that only its owner can open.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let created = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = created.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Error::input(OutputExists.to_string())
            .context(writing())
            .with_hint("choose another file name; keys are never replaced"),
        _ => Error::from(e).context(writing()),
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(writing)
}

/// A complete file under a temporary name; it is removed unless it is persisted.
fn stage(dir: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    let doing = || format!("writing a file in {}", dir.display());
    sweep(dir, is_staged);
    let create = |path: &Path| {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        // False: before it was locked, another start removed it as that of a killed process, or locked it. Try another name.
        if claim(&file, path)? { Ok(file) } else { Err(std::io::ErrorKind::AlreadyExists.into()) }
    };
    let mut file =
        tempfile::Builder::new().prefix(STAGED).rand_bytes(6).make_in(dir, create).with_context(doing)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(doing)?;
    Ok(file)
}

fn persist(staged: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    publish(staged.as_file(), 0o644)
        .and_then(|()| staged.persist(path).map(drop).map_err(|e| e.error))
        .with_context(|| format!("writing {}", path.display()))
}

/// Gives a complete file or directory the mode that it would have been created with, from `mode` and the umask.
fn publish(file: &File, mode: u32) -> std::io::Result<()> {
    let now = file.metadata()?.permissions().mode() & 0o7777;
    let wanted = now & 0o7000 | mode & !umask();
    match file.set_permissions(std::fs::Permissions::from_mode(wanted)) {
        // A file system without modes: all files have that of the mount.
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::PERM | Errno::OPNOTSUPP)) => Ok(()),
        other => other,
    }
}

/// The umask of this process. Reading it by umask(2) would change it for a moment.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0o077)
}

#[cfg(test)]
mod tests {
    use super::{RunDir, persist, stage, umask};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("metadata").permissions().mode() & 0o7777
    }

    /// Other users cannot open, and so cannot lock, what is not complete yet.
    #[test]
    fn only_complete_files_can_be_opened_by_other_users() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, usual) = (dir.path().join("report"), 0o644 & !umask());
        let staged = stage(dir.path(), b"report").expect("staged");
        assert_eq!(mode(staged.path()), 0o600);
        persist(staged, &file).expect("written");
        assert_eq!(mode(&file), usual);
        let run = RunDir::begin(dir.path(), "baseline").expect("a run directory");
        run.write("report", b"report").expect("written");
        assert_eq!((mode(&run.staged), mode(&run.staged.join("report"))), (0o700, usual));
        let target = run.target.clone();
        run.commit().expect("named");
        assert_eq!(mode(&target), 0o777 & !umask());
    }
}
