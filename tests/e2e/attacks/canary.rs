//! A host directory that no attack may change. Its files, directories and links have the names that
//! the set-up of a container writes to.

use invarlock_tests::{Place, set_mode};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

/// Names of files that a set-up creates, opens, changes the owner of, or mounts on.
const FILES: [&str; 14] = [
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "console",
    "ptmx",
    "kcore",
    "keys",
    "self",
    "x",
    "report.json",
    "job.json",
];
const DIRECTORIES: [&str; 8] = ["pts", "shm", "sys", "bus", "checkpoint", "attr", "a", "null.d"];

pub struct Canary {
    dir: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    /// Creates a canary. The user of the place owns it, so that only the isolation protects it.
    pub fn new(place: &Place) -> Self {
        let dir = place.path("canary");
        fs::create_dir(&dir).unwrap();
        for name in DIRECTORIES {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("x"), name).unwrap();
            place.give(&dir.join(name));
            place.give(&dir.join(name).join("x"));
        }
        for name in FILES {
            fs::write(dir.join(name), format!("canary {name}")).unwrap();
            place.give(&dir.join(name));
        }
        set_mode(&dir.join("self"), 0o755);
        set_mode(&dir.join("kcore"), 0o600);
        set_mode(&dir.join("attr"), 0o700);
        for (name, target) in [("link", "null"), ("up", ".."), ("nowhere", "not-there")] {
            symlink(target, dir.join(name)).unwrap();
        }
        place.give(&dir);
        let before = snapshot(&dir);
        Canary { dir, before }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Whether a workload's output shows names or content of the canary.
    pub fn is_visible_in(&self, text: &str) -> bool {
        text.contains("null.d") || text.contains("canary ")
    }

    /// Fails the test if bytes, kinds, modes, owners or times changed.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let after = snapshot(&self.dir);
        for (path, before) in &self.before {
            assert_eq!(after.get(path), Some(before), "{} was changed", path.display());
        }
        let new: Vec<_> = after.keys().filter(|path| !self.before.contains_key(*path)).collect();
        assert!(new.is_empty(), "created in the canary: {new:?}");
    }
}

fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut queue = vec![dir.to_owned()];
    while let Some(path) = queue.pop() {
        let meta = path.symlink_metadata().unwrap();
        let content = match () {
            () if meta.is_dir() => {
                queue.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            }
            () if meta.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            () => digest(&path),
        };
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        let state = format!("{:o} {}:{} {times:?} {content}", meta.mode(), meta.uid(), meta.gid());
        found.insert(path, state);
    }
    found
}

/// SHA-256 of a file.
pub fn digest(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|b| format!("{b:02x}")).collect()
}
