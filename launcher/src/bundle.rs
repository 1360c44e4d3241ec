//! Files of a run and of the evidence: each appears whole or not at all.

use crate::error::{Error, Kind, Result};
use invarlock_error::Context as _;
use invarlock_runtime::hooks;
use invarlock_security::{abandoned, claim};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Start of the names of files that are not whole yet.
const STAGED: &str = ".invarlock-";

/// Names in `--report-out`.
pub const REPORT: &str = "evaluation.report.json";
/// Beside the report.
pub const MANIFEST: &str = "runtime.manifest.json";

/// Fails early when `dir`, or the directory it would be made in, cannot be written.
pub fn check_writable(flag: &str, dir: &Path) -> Result<()> {
    let absolute = std::path::absolute(dir).context(format_args!("resolving {flag}"))?;
    let existing =
        absolute.ancestors().find(|a| a.symlink_metadata().is_ok()).unwrap_or_else(|| Path::new("/"));
    if !existing.is_dir() {
        return Err(Error::input(format!(
            "{flag} {}: {} is not a directory",
            dir.display(),
            existing.display()
        )));
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(existing, access).map_err(|e| {
        Error::input(format!(
            "{flag} {}: {} is not writable: {e}; choose another directory",
            dir.display(),
            existing.display()
        ))
    })
}

/// The directory of a run, `<out>/<side>/<YYYYmmdd_HHMMSS>`: filled under a hidden name, renamed when it is whole. What a killed
/// process left under a hidden name, the next one removes.
pub struct RunDir {
    staged: PathBuf,
    target: PathBuf,
    /// Its lock.
    _held: Option<File>,
}

impl RunDir {
    /// Makes it under its hidden name.
    pub fn begin(out: &Path, side: &str) -> Result<Self> {
        let parent = out.join(side);
        let failed = |e: std::io::Error| {
            Error::from(e).context(format_args!("making a run directory below {}", parent.display()))
        };
        std::fs::create_dir_all(&parent).map_err(failed)?;
        sweep(&parent, is_stamp);
        let stamp = chrono::Utc::now().format("%Y%m%d_%H%M%S").to_string();
        for n in 1..1000 {
            let name = if n == 1 { stamp.clone() } else { format!("{stamp}_{n}") };
            let (staged, target) = (parent.join(format!(".{name}")), parent.join(&name));
            match std::fs::create_dir(&staged) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e)),
                Ok(()) if target.exists() => drop(RunDir { staged, target, _held: None }),
                Ok(()) => {
                    // None: taken for a killed process's by another start. The next name.
                    if let Some(held) = hold(&staged).map_err(failed)? {
                        hooks::step("files: run directory begun");
                        return Ok(RunDir { staged, target, _held: Some(held) });
                    }
                }
            }
        }
        Err(Error::new(
            Kind::System,
            format!("making a run directory below {}: all names are taken", parent.display()),
        ))
    }

    /// The path of a file once the directory has its name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// Adds a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        persist(stage(&self.staged, bytes)?, &self.staged.join(name))
    }

    /// Takes a file away again.
    pub fn discard(&self, name: &str) {
        drop(std::fs::remove_file(self.staged.join(name)));
    }

    /// Gives the directory its name.
    pub fn commit(self) -> Result<()> {
        let failed =
            |e: std::io::Error| Error::from(e).context(format_args!("finishing {}", self.target.display()));
        hooks::step("files: run directory filled");
        std::fs::rename(&self.staged, &self.target).map_err(failed)?;
        hooks::step("files: run directory named");
        sync_directory(&self.target)
    }
}

impl Drop for RunDir {
    /// What was not committed goes; after a commit there is nothing under the hidden name.
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.staged));
    }
}

/// Opens and locks a directory of this process's own making; none where another start has removed it.
fn hold(dir: &Path) -> std::io::Result<Option<File>> {
    match File::open(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.and_then(|held| Ok(claim(&held, dir)?.then_some(held))),
    }
}

/// Removes what killed processes left in `dir` under names that are theirs. What cannot be removed stays.
fn sweep(dir: &Path, theirs: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(&theirs) {
            continue;
        }
        if let Some(_held) = abandoned(&path) {
            drop(if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) });
        }
    }
}

/// `.YYYYmmdd_HHMMSS`, perhaps with a number.
fn is_stamp(name: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = name.strip_prefix('.').unwrap_or_default().split('_');
    let (date, time, number) = (parts.next(), parts.next(), parts.next());
    date.is_some_and(|d| digits(d, 8))
        && time.is_some_and(|t| digits(t, 6))
        && number.is_none_or(|n| digits(n, n.len()))
        && parts.next().is_none()
}

/// The hidden names of [`stage`].
fn is_staged(name: &str) -> bool {
    name.strip_prefix(STAGED)
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Makes renames in the directory of `path` survive a power cut.
fn sync_directory(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let failed = |e: std::io::Error| Error::from(e).context(format_args!("syncing {}", parent.display()));
    std::fs::File::open(parent).and_then(|d| d.sync_all()).map_err(failed)
}

/// What stands in `dir` from an earlier evaluation, for a message when this one fails.
pub fn earlier_evidence(dir: &Path) -> Option<String> {
    let report = dir.join(REPORT);
    report.exists().then(|| format!("{} is the evidence of an earlier evaluation", report.display()))
}

/// Writes report and manifest so that a manifest never stands beside a report it does not bind.
pub fn write_evidence(dir: &Path, report: &[u8], manifest: &[u8]) -> Result<(PathBuf, PathBuf)> {
    std::fs::create_dir_all(dir).context(format_args!("making {}", dir.display()))?;
    let (report_path, manifest_path) = (dir.join(REPORT), dir.join(MANIFEST));
    let (staged_report, staged_manifest) = (stage(dir, report)?, stage(dir, manifest)?);
    hooks::step("files: evidence staged");
    match std::fs::remove_file(&manifest_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::from(e).context(format_args!("replacing {}", manifest_path.display())));
        }
        _ => {}
    }
    hooks::step("files: old manifest removed");
    persist(staged_report, &report_path)?;
    hooks::step("files: report named");
    persist(staged_manifest, &manifest_path)?;
    hooks::step("files: manifest named");
    sync_directory(&manifest_path)?;
    hooks::step("files: evidence synced");
    Ok((report_path, manifest_path))
}

/// Writes any output file of a verb; refuses to replace one without `force`.
pub fn write_output(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent).context(format_args!("making {}", parent.display()))?;
    let staged = stage(parent, bytes)?;
    if force {
        return persist(staged, path);
    }
    staged.persist_noclobber(path).map(drop).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::from_source(Kind::Input, crate::error::OutputExists)
            .context(format_args!("writing {}", path.display()))
            .with_hint("pass --force to replace it"),
        _ => Error::from(e.error).context(format_args!("writing {}", path.display())),
    })
}

/// A whole file under a hidden name, gone with this process unless it is persisted.
fn stage(dir: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |e: std::io::Error| Error::from(e).context(format_args!("writing in {}", dir.display()));
    sweep(dir, is_staged);
    let make = |path: &Path| {
        let file = File::options().write(true).create_new(true).mode(0o644).open(path)?;
        // Taken for a killed process's by another start: another name.
        if claim(&file, path)? { Ok(file) } else { Err(std::io::ErrorKind::AlreadyExists.into()) }
    };
    let mut file =
        tempfile::Builder::new().prefix(STAGED).rand_bytes(6).make_in(dir, make).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    Ok(file)
}

fn persist(staged: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    staged.persist(path).map(drop).map_err(|e| e.error).context(format_args!("writing {}", path.display()))
}
