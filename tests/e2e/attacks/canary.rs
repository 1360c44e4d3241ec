//! Something of the host that no attack may touch: files, directories, links, with the names that a container's set-up would write to.

use invarlock_tests::{Place, set_mode};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

/// What a set-up makes, opens, owns or mounts on.
const TEMPTING: [&str; 14] = [
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
    /// Makes one that the place's user owns, so that only the boundary protects it.
    pub fn new(place: &Place) -> Self {
        let dir = place.path("canary");
        fs::create_dir(&dir).unwrap();
        for name in DIRECTORIES {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("x"), name).unwrap();
            place.give(&dir.join(name));
            place.give(&dir.join(name).join("x"));
        }
        for name in TEMPTING {
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
        let before = look(&dir);
        Canary { dir, before }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Names that would show if any of it were seen inside.
    pub fn is_in(&self, text: &str) -> bool {
        text.contains("null.d") || text.contains("canary ")
    }

    /// Fails the test where anything of it is different: bytes, kinds, modes, owners, times.
    #[track_caller]
    pub fn is_untouched(&self) {
        let after = look(&self.dir);
        for (path, was) in &self.before {
            assert_eq!(after.get(path), Some(was), "{} was changed", path.display());
        }
        let new: Vec<_> = after.keys().filter(|path| !self.before.contains_key(*path)).collect();
        assert!(new.is_empty(), "made in the canary: {new:?}");
    }
}

fn look(dir: &Path) -> BTreeMap<PathBuf, String> {
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
        let what = format!("{:o} {}:{} {times:?} {content}", meta.mode(), meta.uid(), meta.gid());
        found.insert(path, what);
    }
    found
}

/// SHA-256 of a file.
pub fn digest(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|b| format!("{b:02x}")).collect()
}
