//! The journal of a measurement: losses of finished windows, kept beside the run reports until the evidence is written, so that the same
//! command resumes after it was interrupted.
//!
//! The losses come from a container, and the file from disk, so both are untrusted: a container only gets back what a container with the same
//! checkpoint, windows and image reported. A measurement does not need its journal: it goes on without one that cannot be used.

use crate::error::{Context as _, Error, Result};
use invarlock_evidence::events::{ArmName, Finished};
use invarlock_evidence::journal::Journal;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_runtime::hooks;
use invarlock_security::{abandoned, claim};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Start of the names; the key follows.
const PREFIX: &str = ".journal-";
/// Bytes of a line besides its losses, and of a loss.
const LINE: usize = 4096;
/// A journal that no command used for this long is removed.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// The journal of one side.
pub struct JournalFile {
    path: PathBuf,
    key: String,
    /// Most windows of both arms.
    most: [usize; 2],
    /// Locked; none after a failure, which ends the journal.
    file: Option<File>,
    /// Its losses.
    pub losses: Journal,
    /// Why losses that it contained are not used.
    pub damage: Option<String>,
    /// Why no more losses are kept.
    pub failure: Option<Error>,
}

impl JournalFile {
    /// Opens the journal in `dir`, or creates it. `key` is the digest of everything that decides the losses, `most` are the numbers of windows.
    /// Without `resume` its losses are discarded.
    pub fn open(dir: &Path, key: String, most: [usize; 2], resume: bool) -> Self {
        sweep(dir);
        let path = dir.join(format!("{PREFIX}{key}"));
        let (losses, damage, failure) = (Journal::default(), None, None);
        let mut journal = Self { path, key, most, file: None, losses, damage, failure };
        match lock(&journal.path).and_then(|file| journal.read(file, resume)) {
            Ok(file) => journal.file = Some(file),
            Err(error) => journal.fail(error),
        }
        journal
    }

    /// Keeps the losses of finished windows.
    pub fn append(&mut self, finished: &Finished) {
        let Some(file) = &mut self.file else { return };
        let kept = self.losses.append(finished, self.most[arm(finished)]).and_then(|()| {
            let json = serde_json::to_string(finished).map_err(|why| Error::system(why.to_string()))?;
            file.write_all(line(&self.key, &json).as_bytes())?;
            Ok(file.sync_data()?)
        });
        match kept {
            Ok(()) => hooks::step("files: windows journaled"),
            Err(error) => self.fail(error),
        }
    }

    /// Removes it: the evidence is written.
    pub fn remove(self) {
        self.unlink();
    }

    /// Removes the file, if it is this command's.
    fn unlink(&self) {
        if self.file.is_some() {
            // The file may not exist.
            drop(std::fs::remove_file(&self.path));
        }
    }

    fn fail(&mut self, error: Error) {
        self.failure = Some(error.context(format_args!("writing {}", self.path.display())));
        self.file = None;
    }

    /// Takes the losses of the file, which then ends with its last complete line.
    fn read(&mut self, mut file: File, resume: bool) -> Result<File> {
        let most = LINE * (1 + self.most.iter().sum::<usize>());
        let mut bytes = Vec::new();
        (&file).take(most as u64 + 1).read_to_end(&mut bytes)?;
        // What follows the last line end was not written completely.
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let read = match bytes.len() <= most {
            true => self.parse(&bytes[..complete]),
            false => Err(Error::integrity("it is too large")),
        };
        let length = match read {
            Ok(losses) if resume => {
                self.losses = losses;
                complete
            }
            Ok(_) => 0,
            Err(error) => {
                self.damage = resume.then(|| error.to_string());
                0
            }
        };
        file.set_len(length as u64)?;
        file.seek(std::io::SeekFrom::End(0))?;
        Ok(file)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Journal> {
        let mut losses = Journal::default();
        for (number, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let mut read = || {
                let text = std::str::from_utf8(text).map_err(|_| Error::integrity("not UTF-8"))?;
                let json = text.split_once(' ').map(|(_, json)| json.trim_end_matches('\n'));
                let json = json.filter(|json| line(&self.key, json) == text);
                let json = json.ok_or_else(|| Error::integrity("its digest is wrong"))?;
                let finished: Finished =
                    serde_json::from_str(json).map_err(|why| Error::integrity(why.to_string()))?;
                losses.append(&finished, self.most[arm(&finished)])
            };
            read().with_context(|| format!("line {}", number + 1))?;
        }
        Ok(losses)
    }
}

impl Drop for JournalFile {
    /// A measurement that finished nothing leaves nothing.
    fn drop(&mut self) {
        if self.losses.is_empty() {
            self.unlink();
        }
    }
}

fn arm(finished: &Finished) -> usize {
    match finished.arm {
        ArmName::Preview => 0,
        ArmName::Final => 1,
    }
}

/// A line: the SHA-256 of the key and the JSON, and the JSON.
fn line(key: &str, json: &str) -> String {
    format!("{} {json}\n", sha256_hex(format!("{key} {json}").as_bytes()))
}

/// Opens or creates a file that only the caller can write, and locks it.
fn lock(path: &Path) -> Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600).custom_flags(flags.bits() as i32);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !own || metadata.nlink() != 1 || metadata.mode() & 0o022 != 0 {
        return Err(Error::integrity("not a file that only its owner can write"));
    }
    match claim(&file, path)? {
        true => Ok(file),
        false => Err(Error::system("another command uses it")),
    }
}

/// Removes old journals in `dir`. A file that cannot be removed stays.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let known = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let written = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let old = written.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > OLD);
        if known
            && old
            && let Some(_lock) = abandoned(&entry.path())
        {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: [usize; 2] = [4, 4];

    fn finished(arm: ArmName, first: usize, losses: &[f64]) -> Finished {
        Finished { arm, first, losses: losses.to_vec(), evaluator: "1.0.0".into(), kernel: "avx2".into() }
    }

    fn open(dir: &Path, key: &str) -> JournalFile {
        JournalFile::open(dir, key.to_owned(), MOST, true)
    }

    /// A journal with three preview windows and one final window.
    fn written(dir: &Path) -> JournalFile {
        let mut journal = open(dir, "key");
        journal.append(&finished(ArmName::Preview, 0, &[0.1, 0.2]));
        journal.append(&finished(ArmName::Preview, 2, &[0.3]));
        journal.append(&finished(ArmName::Final, 0, &[0.1 + 0.2]));
        assert!(journal.failure.is_none());
        journal
    }

    #[test]
    fn losses_are_found_again_and_continued() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path()).path.clone();
        let mut again = open(dir.path(), "key");
        assert_eq!((again.losses.windows(), &again.losses.final_[..]), (4, &[0.1 + 0.2][..]));
        again.append(&finished(ArmName::Preview, 3, &[0.5]));
        drop(again);
        let last = open(dir.path(), "key");
        assert_eq!((&last.losses.preview[..], &last.damage), (&[0.1, 0.2, 0.3, 0.5][..], &None));
        last.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_line_that_was_not_written_completely_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path()).path.clone();
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
        let mut again = open(dir.path(), "key");
        assert_eq!((again.losses.windows(), &again.damage), (3, &None));
        again.append(&finished(ArmName::Final, 0, &[0.1 + 0.2]));
        assert_eq!(std::fs::read(&path).expect("read"), bytes);
    }

    #[test]
    fn damaged_and_foreign_journals_are_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path()).path.clone();
        let bytes = std::fs::read(&path).expect("read");
        let reopened = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            let journal = open(dir.path(), "key");
            assert!(journal.losses.is_empty() && journal.failure.is_none());
            assert_eq!(path.metadata().expect("kept").len(), 0);
            journal.damage.clone().expect("a reason")
        };
        let position = bytes.windows(3).position(|text| text == b"0.2").expect("a loss");
        let mut changed = bytes.clone();
        changed[position + 2] = b'3';
        assert_eq!(reopened(&changed), "line 1: its digest is wrong");
        let first = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        assert!(reopened(&bytes[first..]).starts_with("line 1: 1 losses from window 2"));
        assert!(reopened(b"\xff\n").ends_with("not UTF-8"));
        assert_eq!(reopened(&vec![b' '; LINE * 9 + 1]), "it is too large");
        // That of another plan under this name.
        std::fs::write(dir.path().join(format!("{PREFIX}other")), &bytes).expect("written");
        assert_eq!(open(dir.path(), "other").damage.as_deref(), Some("line 1: its digest is wrong"));
        // A link is neither followed nor replaced.
        assert!(!path.exists(), "an empty journal is left");
        let target = dir.path().join("target");
        std::fs::write(&target, "kept").expect("written");
        std::os::unix::fs::symlink(&target, &path).expect("a link");
        let journal = open(dir.path(), "key");
        assert!(journal.failure.is_some() && journal.losses.is_empty());
        assert_eq!(std::fs::read(&target).expect("read"), b"kept");
    }

    #[test]
    fn without_resuming_the_losses_are_discarded() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(written(dir.path()));
        let journal = JournalFile::open(dir.path(), "key".to_owned(), MOST, false);
        assert!(journal.losses.is_empty() && journal.damage.is_none() && journal.failure.is_none());
    }

    #[test]
    fn inconsistent_events_end_the_journal() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = written(dir.path());
        journal.append(&finished(ArmName::Preview, 3, &[0.5, 0.5]));
        assert!(journal.failure.is_some());
        journal.append(&finished(ArmName::Preview, 3, &[0.5]));
        drop(journal);
        assert_eq!(open(dir.path(), "key").losses.windows(), 4);
    }
}
