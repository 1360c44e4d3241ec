//! Reading files of `/proc` and of cgroups, which the kernel generates while they are read. Their content is trusted.

use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Longest file that is read. A mount table takes some hundred bytes a line.
const MAX_LENGTH: u64 = 16 << 20;
/// Initial buffer. Most of these files fit into it and then take two reads. They report no size, so the standard library would
/// start with 32 bytes, and the kernel generates some of them anew for each read.
const BUFFER: usize = 4096;

/// The whole text of such a file.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(BUFFER);
    match File::open(path)?.take(MAX_LENGTH + 1).read_to_string(&mut text)? as u64 > MAX_LENGTH {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 16 MiB")),
        false => Ok(text),
    }
}

/// The children of this process. In a supervisor all of them belong to the run.
pub(crate) fn own_children() -> Result<Vec<i32>> {
    let path = "/proc/thread-self/children";
    let text = read(path).with_context(|| format!("reading {path}"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 1).collect())
}

/// Whether `/proc` hides processes from this user (`hidepid`). Processes that may not be inspected, and their descendants, are then
/// invisible to a watchdog.
pub(crate) fn hides_processes() -> bool {
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    !rustix::process::geteuid().is_root() && has_hidepid(&mounts)
}

/// Of several mounts on `/proc` the last one is visible.
fn has_hidepid(mountinfo: &str) -> bool {
    let proc = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = proc.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    options
        .split(',')
        .any(|option| option.strip_prefix("hidepid=").is_some_and(|value| value != "0" && value != "off"))
}

/// Decodes the octal escapes of a path in mountinfo.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal =
            (first == b'\\').then(|| tail.get(..3).and_then(|d| std::str::from_utf8(d).ok())).flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The text of `/proc/<pid>/status` or of another file of `Key: value` lines.
pub(crate) struct Status(String);

impl Status {
    pub(crate) fn read(path: &str) -> Result<Self> {
        read(path).map(Status).with_context(|| format!("observing {path}"))
    }

    /// The status of this process.
    pub(crate) fn own() -> Result<Self> {
        Self::read("/proc/self/status")
    }

    pub(crate) fn get(&self, key: &str) -> Result<&str> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value
            .map(str::trim)
            .ok_or_else(|| Error::system(format!("the process status of this kernel has no field {key}")))
    }

    pub(crate) fn number(&self, key: &str) -> Result<u64> {
        self.get(key)?.parse().err_kind(Kind::System).with_context(|| format!("observing {key}"))
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<u32>> {
        self.get(key)?
            .split_whitespace()
            .map(|n| n.parse().err_kind(Kind::System).with_context(|| format!("observing {key}")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFER, has_hidepid, read, unescape};

    #[test]
    fn reads_files_longer_than_the_buffer() {
        let maps = read("/proc/self/smaps").expect("maps");
        assert!(maps.len() > BUFFER && maps.contains("[stack]") && maps.ends_with('\n'));
        let same = read("/proc/self/mountinfo").expect("mounts");
        assert_eq!(same, std::fs::read_to_string("/proc/self/mountinfo").expect("mounts"));
    }

    #[test]
    fn detects_hidepid() {
        let line = |options: &str| {
            format!("22 1 0:5 / /proc rw,nosuid - proc proc {options}\n23 1 0:6 / /tmp rw - tmpfs t rw\n")
        };
        assert!(!has_hidepid(&line("rw")) && !has_hidepid(&line("rw,hidepid=off")) && !has_hidepid(""));
        assert!(has_hidepid(&line("rw,gid=4,hidepid=invisible")) && has_hidepid(&line("rw,hidepid=2")));
        assert!(!has_hidepid(&(line("rw,hidepid=2") + &line("rw"))), "the last mount on /proc is visible");
    }

    #[test]
    fn decodes_octal_escapes() {
        assert_eq!(unescape(r"/a\040b\\c"), r"/a b\\c");
    }
}
