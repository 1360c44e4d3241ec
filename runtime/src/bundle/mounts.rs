//! `mounts` of a configuration.

use super::reader::{Reader, invalid, refused};
use crate::topology;
use invarlock_error::Result;
use oci_spec::runtime::Mount;
use std::path::{Path, PathBuf};

/// A mount beside those that every container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleMount {
    /// The member, such as `mounts[7]`, for messages.
    pub member: String,
    /// Its path in the container.
    pub target: String,
    /// What is mounted.
    pub source: BundleSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleSource {
    /// A file or directory. A relative path is one in the bundle.
    Bind {
        /// Its path.
        path: PathBuf,
        /// Whether the command can write it.
        writable: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Its size in bytes.
        bytes: Option<u64>,
    },
}

/// Directories in memory that every container has, and `/dev`, which is read-only.
const SCRATCH: [&str; 5] = ["/dev", "/dev/shm", "/tmp", "/run", "/var/tmp"];
/// Options that every mount of a run has, or that make no difference.
const COMMON: [&str; 18] = [
    "rw",
    "nosuid",
    "nodev",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "async",
];
/// Options of a tmpfs that a run has values of its own for.
const OWN_VALUES: [&str; 4] = ["mode", "nr_inodes", "uid", "gid"];

/// Reads a mount; none if the container has its own in its place, or runs without it.
pub(super) fn read(
    i: usize,
    mount: &Mount,
    terminal: bool,
    reader: &mut Reader,
) -> Result<Option<BundleMount>> {
    let member = format!("mounts[{i}]");
    let target = mount.destination().to_str().ok_or_else(|| invalid(&member, "destination is not UTF-8"))?;
    let target = if target.len() > 1 { target.trim_end_matches('/') } else { target };
    let options = mount.options().as_deref().unwrap_or_default();
    let is_bind = options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
    let kind = mount.typ().as_deref().filter(|kind| !matches!(*kind, "" | "none"));
    let kind = if is_bind { "bind" } else { kind.unwrap_or("bind") };
    let is_read_only = || {
        options.iter().rev().find_map(|option| match option.as_str() {
            "ro" => Some(true),
            "rw" => Some(false),
            _ => None,
        }) == Some(true)
    };
    match (target, kind) {
        ("/proc", "proc") | ("/in" | "/out", "tmpfs") => return Ok(None),
        (target, "tmpfs") if SCRATCH.contains(&target) => {
            return match is_read_only() && target != "/dev" {
                true => Err(refused(&member, target, "it is a writable directory of the container")),
                false => Ok(None),
            };
        }
        ("/dev/pts", "devpts") if terminal => return Ok(None),
        ("/dev/pts" | "/dev/mqueue", _) => {
            reader.without("mounts", target);
            return Ok(None);
        }
        // That of a bundle of this program.
        (topology::TARGET, "bind") if mount.source().as_deref() == Some(Path::new(topology::IN_BUNDLE)) => {
            return Ok(None);
        }
        (target, _) if target == "/sys" || target.starts_with("/sys/") => {
            reader.without("mounts", target);
            return Ok(None);
        }
        _ => {}
    }
    let mapped = [mount.uid_mappings(), mount.gid_mappings()];
    if mapped.into_iter().flatten().any(|mappings| !mappings.is_empty()) {
        return Err(refused(
            &member,
            target,
            "a run maps the owner of a mount to the user of the command itself",
        ));
    }
    let source = match kind {
        "tmpfs" => {
            if is_read_only() {
                return Err(refused(&member, target, "a directory in memory is writable"));
            }
            BundleSource::Tmpfs { bytes: tmpfs(&member, options)? }
        }
        "bind" => {
            let writable = !is_read_only();
            bind_options(&member, options, writable)?;
            let path = mount.source().clone().filter(|path| !path.as_os_str().is_empty());
            BundleSource::Bind { path: path.ok_or_else(|| invalid(&member, "source is missing"))?, writable }
        }
        other => return Err(refused(&member, other, "a run mounts only files, directories and tmpfs")),
    };
    Ok(Some(BundleMount { member, target: target.to_owned(), source }))
}

fn bind_options(member: &str, options: &[String], writable: bool) -> Result<()> {
    for option in options {
        match option.as_str() {
            "ro" => {}
            "noexec" if writable => {}
            "noexec" => return Err(refused(member, option, "programs of a read-only mount can be executed")),
            option if COMMON.contains(&option) => {}
            option => return Err(refused(member, option, "the option is not supported")),
        }
    }
    Ok(())
}

/// The size of a tmpfs.
fn tmpfs(member: &str, options: &[String]) -> Result<Option<u64>> {
    let mut bytes = None;
    for option in options {
        match option.split_once('=') {
            Some(("size", size)) => {
                let parsed = parse_size(size);
                bytes = Some(
                    parsed.ok_or_else(|| refused(member, option, "use a number of bytes, or k, m or g"))?,
                );
            }
            Some((name, _)) if OWN_VALUES.contains(&name) => {}
            None if option == "noexec" || COMMON.contains(&option.as_str()) => {}
            _ => return Err(refused(member, option, "the option is not supported")),
        }
    }
    Ok(bytes)
}

/// A size as the kernel reads it.
fn parse_size(text: &str) -> Option<u64> {
    let unit = |suffix: &[char], shift: u32| text.strip_suffix(suffix).map(|number| (number, shift));
    let (number, shift) = unit(&['k', 'K'], 10)
        .or_else(|| unit(&['m', 'M'], 20))
        .or_else(|| unit(&['g', 'G'], 30))
        .unwrap_or((text, 0));
    let number: u64 = number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}
