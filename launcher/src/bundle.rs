//! Files of a run and of the evidence: each appears whole or not at all.

use crate::error::{Error, Kind, Result};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Names in `--report-out`.
pub const REPORT: &str = "evaluation.report.json";
/// Beside the report.
pub const MANIFEST: &str = "runtime.manifest.json";

/// Fails early when `dir`, or the directory it would be made in, cannot be written.
pub fn check_writable(flag: &str, dir: &Path) -> Result<()> {
    let absolute = std::path::absolute(dir).map_err(|e| Error::io(format_args!("resolving {flag}"), &e))?;
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

/// Makes the directory of a run: `<out>/<side>/<YYYYmmdd_HHMMSS>`, numbered when taken.
pub fn run_dir(out: &Path, side: &str) -> Result<PathBuf> {
    let parent = out.join(side);
    let failed = |path: &Path, e: std::io::Error| {
        Error::io(format_args!("making the run directory {}", path.display()), &e)
    };
    std::fs::create_dir_all(&parent).map_err(|e| failed(&parent, e))?;
    let stamp = chrono::Utc::now().format("%Y%m%d_%H%M%S").to_string();
    for n in 1..1000 {
        let dir = parent.join(if n == 1 { stamp.clone() } else { format!("{stamp}_{n}") });
        match std::fs::create_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(&dir, e)),
            Ok(()) => return Ok(dir),
        }
    }
    Err(Error::new(
        Kind::System,
        format!("making a run directory below {}: all names are taken", parent.display()),
    ))
}

/// Writes `name` in `dir`, whole or not at all; an existing file is replaced.
pub fn write_new(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = dir.join(name);
    persist(stage(dir, bytes)?, &path)?;
    Ok(path)
}

/// Writes report and manifest so that a manifest never stands beside a report it does not bind.
pub fn write_evidence(dir: &Path, report: &[u8], manifest: &[u8]) -> Result<(PathBuf, PathBuf)> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(format_args!("making {}", dir.display()), &e))?;
    let (report_path, manifest_path) = (dir.join(REPORT), dir.join(MANIFEST));
    let (staged_report, staged_manifest) = (stage(dir, report)?, stage(dir, manifest)?);
    match std::fs::remove_file(&manifest_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(format_args!("replacing {}", manifest_path.display()), &e));
        }
        _ => {}
    }
    persist(staged_report, &report_path)?;
    persist(staged_manifest, &manifest_path)?;
    Ok((report_path, manifest_path))
}

/// Writes any output file of a verb; refuses to replace one without `force`.
pub fn write_output(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent)
        .map_err(|e| Error::io(format_args!("making {}", parent.display()), &e))?;
    let staged = stage(parent, bytes)?;
    if force {
        return persist(staged, path);
    }
    staged.persist_noclobber(path).map(drop).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::input(format!("writing {}: the file exists; pass --force to replace it", path.display()))
                .with_exit_code(1)
        }
        _ => Error::io(format_args!("writing {}", path.display()), &e.error),
    })
}

fn stage(dir: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |e: std::io::Error| Error::io(format_args!("writing in {}", dir.display()), &e);
    let mode = std::fs::Permissions::from_mode(0o644);
    let mut file =
        tempfile::Builder::new().prefix(".invarlock-").permissions(mode).tempfile_in(dir).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    Ok(file)
}

fn persist(staged: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    staged
        .persist(path)
        .map(drop)
        .map_err(|e| Error::io(format_args!("writing {}", path.display()), &e.error))
}
