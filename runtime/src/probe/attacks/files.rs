//! What can be written, run or seen: root file system, inputs, output, scratch, and the kernel's own files.

use super::super::attacker::run_script;
use super::{Answer, Attack, Expect, Facts, attack, make_node, opened, read};
use crate::boundary::{MASKED, READ_ONLY};
use crate::outcome::Status;
use invarlock_error::Kind;
use libc::{EACCES, EINVAL, ENOENT, EPERM, EROFS, ETXTBSY};
use rustix::fs::FileType;

const ROOT_ROW: &str = "root file system";
const INPUTS_ROW: &str = "inputs";
const OUTPUT_ROW: &str = "output";
const SCRATCH_ROW: &str = "scratch";
const KERNEL_ROW: &str = "/dev, /proc, /sys";
const READ_ONLY_ERROR: Expect = Expect::Refused(&[EROFS]);

fn written(path: &str) -> Answer {
    Answer::of(std::fs::write(path, "of the attacker"))
}

/// What a mount forbids.
fn flags(target: &str) -> Answer {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = text.lines().rev().find(|l| l.split(' ').nth(4) == Some(target));
    let options: Vec<&str> = line.and_then(|l| l.split(' ').nth(5)).unwrap_or_default().split(',').collect();
    let known = ["ro", "nosuid", "nodev", "noexec"].into_iter().filter(|flag| options.contains(flag));
    Answer::Said(known.collect::<Vec<_>>().join(","))
}

/// Bytes or files that went in, at most a quarter more than should.
fn filled(directory: &str) -> Answer {
    use std::io::Write as _;
    let path = format!("{directory}/full");
    let mut written = 0u64;
    match std::fs::File::create(&path) {
        Ok(mut file) => {
            while written < 5 << 18 && file.write_all(&[7; 4096]).is_ok() {
                written += 4096;
            }
        }
        Err(e) => return Answer::Said(e.to_string()),
    }
    drop(std::fs::remove_file(&path));
    Answer::Said(written.to_string())
}

/// Row "root file system".
pub(super) const ROOT: &[Attack] = &[
    attack(
        ROOT_ROW,
        "root-create",
        "make a file in a directory that everybody may write",
        READ_ONLY_ERROR,
        Some(|| written("/open/new")),
    ),
    attack(
        ROOT_ROW,
        "root-overwrite",
        "overwrite a file that everybody may write",
        READ_ONLY_ERROR,
        Some(|| opened("/open/file", true)),
    ),
    attack(
        ROOT_ROW,
        "root-flags",
        "find / mounted otherwise",
        Expect::Says("ro,nosuid,nodev"),
        Some(|| flags("/")),
    ),
    attack(
        ROOT_ROW,
        "shared-mounts",
        "find a mount that follows one of the host's",
        Expect::Says("none"),
        Some(|| {
            let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let tied = |l: &&str| l.split(" - ").next().is_some_and(|l| l.split(' ').nth(6).is_some());
            let targets = text.lines().filter(tied).filter_map(|l| l.split(' ').nth(4));
            let targets: Vec<&str> = targets.collect();
            Answer::Said(if targets.is_empty() { "none".into() } else { targets.join(" ") })
        }),
    ),
    attack(
        ROOT_ROW,
        "own-program",
        "overwrite its own program (CVE-2019-5736)",
        Expect::Refused(&[EROFS, ETXTBSY, EACCES]),
        Some(|| opened("/proc/self/exe", true)),
    ),
    attack(
        ROOT_ROW,
        "canary",
        "change a file of the host, or the launcher itself",
        Expect::Outside("unchanged", |facts, _| {
            let changed = &facts.changes.files;
            Some((
                if changed.is_empty() { "unchanged".into() } else { changed.join(" ") },
                changed.is_empty(),
            ))
        }),
        None,
    ),
];

/// Row "inputs".
pub(super) const INPUTS: &[Attack] = &[
    attack(
        INPUTS_ROW,
        "input-overwrite",
        "overwrite an input that everybody may write",
        READ_ONLY_ERROR,
        Some(|| opened("/in/file", true)),
    ),
    attack(
        INPUTS_ROW,
        "input-replace",
        "replace an input",
        Expect::Refused(&[EROFS, EACCES, libc::EBUSY]),
        Some(|| Answer::of(std::fs::remove_file("/in/file"))),
    ),
    attack(
        INPUTS_ROW,
        "input-create",
        "make a file beside them",
        Expect::Refused(&[EROFS, EACCES]),
        Some(|| written("/in/new")),
    ),
    attack(
        INPUTS_ROW,
        "input-run",
        "run an input",
        Expect::Refused(&[EACCES]),
        Some(|| Answer::of(std::process::Command::new("/in/program").arg("started").status())),
    ),
    attack(
        INPUTS_ROW,
        "input-flags",
        "find one mounted otherwise",
        Expect::Says("ro,nosuid,nodev,noexec"),
        Some(|| flags("/in/file")),
    ),
    attack(
        INPUTS_ROW,
        "inputs-flags",
        "find /in mounted otherwise",
        Expect::Says("ro,nosuid,nodev,noexec"),
        Some(|| flags("/in")),
    ),
];

/// A run whose output must not be taken.
fn output_refused(facts: &Facts, run: &str) -> Option<(String, bool)> {
    match facts.ends.get(run)? {
        Err(error) if error.kind() == Kind::Safety => Some(("refused".into(), true)),
        Err(e) => Some((e.to_string(), false)),
        // Nothing was left there, since the attacker refused.
        Ok(Status::Exited(2)) => None,
        Ok(_) => Some(("taken".into(), false)),
    }
}

/// Row "output".
pub(super) const OUTPUT: &[Attack] = &[
    attack(
        OUTPUT_ROW,
        "output-run",
        "run a program from /out",
        Expect::Refused(&[EACCES]),
        Some(|| {
            let answer = run_script("/out/script");
            drop(std::fs::remove_file("/out/script"));
            answer
        }),
    ),
    attack(
        OUTPUT_ROW,
        "output-flags",
        "find /out mounted otherwise",
        Expect::Says("nosuid,nodev,noexec"),
        Some(|| flags("/out")),
    ),
    attack(
        OUTPUT_ROW,
        "output-fill",
        "fill /out (bytes)",
        Expect::AtMost(|facts| facts.limits.output_bytes),
        Some(|| filled("/out")),
    ),
    attack(
        OUTPUT_ROW,
        "output-files",
        "fill /out (files)",
        Expect::AtMost(|facts| facts.limits.output_files),
        Some(|| {
            let path = |i: u32| format!("/out/file-{i}");
            let made = (0..100).take_while(|i| std::fs::File::create_new(path(*i)).is_ok()).count();
            (0..100).for_each(|i| drop(std::fs::remove_file(path(i))));
            Answer::Said(made.to_string())
        }),
    ),
    attack(
        OUTPUT_ROW,
        "output-link",
        "leave a link to /etc/shadow in /out",
        Expect::Outside("refused", |facts, _| output_refused(facts, "link")),
        None,
    ),
    attack(
        OUTPUT_ROW,
        "output-fifo",
        "leave a fifo in /out",
        Expect::Outside("refused", |facts, _| output_refused(facts, "fifo")),
        None,
    ),
    attack(
        OUTPUT_ROW,
        "output-device",
        "make a device in /out",
        Expect::Refused(&[EPERM]),
        Some(|| Answer::of(make_node("/out/null", FileType::CharacterDevice))),
    ),
];

/// Row "scratch".
pub(super) const SCRATCH: &[Attack] = &[
    attack(
        SCRATCH_ROW,
        "scratch-run",
        "run a program from /tmp",
        Expect::Refused(&[EACCES]),
        Some(|| run_script("/tmp/script")),
    ),
    attack(
        SCRATCH_ROW,
        "scratch-flags",
        "find /tmp mounted otherwise",
        Expect::Says("nosuid,nodev,noexec"),
        Some(|| flags("/tmp")),
    ),
    attack(
        SCRATCH_ROW,
        "scratch-fill",
        "fill /tmp (bytes)",
        Expect::AtMost(|facts| facts.limits.tmp_bytes),
        Some(|| filled("/tmp")),
    ),
    attack(
        SCRATCH_ROW,
        "scratch-files",
        "fill /tmp (files)",
        Expect::AtMost(|_| crate::boundary::TMP_INODES),
        Some(|| {
            // Making so many takes long; how many it would take is known.
            match rustix::fs::statvfs("/tmp") {
                Ok(room) if room.f_files > 0 => Answer::Said(room.f_files.to_string()),
                _ => Answer::Said(u64::MAX.to_string()),
            }
        }),
    ),
    attack(
        SCRATCH_ROW,
        "scratch-device",
        "make a device in /tmp",
        Expect::Refused(&[EPERM]),
        Some(|| Answer::of(make_node("/tmp/null", FileType::CharacterDevice))),
    ),
];

/// Of these files of `/proc` those whose mounts are not as wanted.
fn uncovered(paths: &[&str], covered: impl Fn(&str) -> bool) -> Answer {
    let there = paths.iter().filter(|path| std::path::Path::new(*path).exists());
    let open: Vec<&str> = there.copied().filter(|path| !covered(path)).collect();
    Answer::Said(if open.is_empty() { "none".into() } else { open.join(" ") })
}

/// Row "/dev, /proc, /sys".
pub(super) const KERNEL_FILES: &[Attack] = &[
    attack(
        KERNEL_ROW,
        "devices",
        "find a device besides five",
        Expect::Says("full null random urandom zero"),
        Some(|| {
            let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
            let mut names: Vec<String> =
                entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            Answer::Said(names.join(" "))
        }),
    ),
    attack(
        KERNEL_ROW,
        "dev-create",
        "make a file in /dev",
        Expect::Refused(&[EROFS, EACCES]),
        Some(|| written("/dev/new")),
    ),
    attack(
        KERNEL_ROW,
        "dev-flags",
        "find /dev mounted otherwise",
        Expect::Says("ro,nosuid,noexec"),
        Some(|| flags("/dev")),
    ),
    attack(
        KERNEL_ROW,
        "devices-outside",
        "change owner or mode of the host's devices",
        Expect::Outside("unchanged", |facts, _| {
            let changed = &facts.changes.devices;
            Some((
                if changed.is_empty() { "unchanged".into() } else { changed.join(" ") },
                changed.is_empty(),
            ))
        }),
        None,
    ),
    attack(
        KERNEL_ROW,
        "masks",
        "find a masked file of /proc open",
        Expect::Says("none"),
        Some(|| {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            uncovered(&MASKED, |path| mounts.lines().any(|l| l.split(' ').nth(4) == Some(path)))
        }),
    ),
    attack(
        KERNEL_ROW,
        "closed-paths",
        "find a read-only file of /proc writable",
        Expect::Says("none"),
        Some(|| {
            uncovered(&READ_ONLY, |path| matches!(flags(path), Answer::Said(text) if text.starts_with("ro")))
        }),
    ),
    attack(
        KERNEL_ROW,
        "kcore",
        "read the kernel's memory: /proc/kcore",
        Expect::Says("empty"),
        Some(|| read("/proc/kcore")),
    ),
    attack(
        KERNEL_ROW,
        "keys",
        "read the keys of the host: /proc/keys",
        Expect::Says("empty"),
        Some(|| read("/proc/keys")),
    ),
    attack(
        KERNEL_ROW,
        "sysctl",
        "write /proc/sys/kernel/core_pattern",
        Expect::Refused(&[EROFS, EACCES]),
        Some(|| opened("/proc/sys/kernel/core_pattern", true)),
    ),
    attack(
        KERNEL_ROW,
        "sysrq",
        "write /proc/sysrq-trigger",
        Expect::Refused(&[EROFS, EACCES, ENOENT]),
        Some(|| opened("/proc/sysrq-trigger", true)),
    ),
    attack(
        KERNEL_ROW,
        "init-environ",
        "read /proc/1/environ",
        Expect::Refused(&[EACCES, EPERM]),
        Some(|| opened("/proc/1/environ", false)),
    ),
    attack(
        KERNEL_ROW,
        "init-memory",
        "open /proc/1/mem",
        Expect::Refused(&[EACCES, EPERM]),
        Some(|| opened("/proc/1/mem", true)),
    ),
    attack(
        KERNEL_ROW,
        "init-program",
        "open /proc/1/exe for writing (CVE-2019-5736)",
        Expect::Refused(&[EACCES, EPERM]),
        Some(|| opened("/proc/1/exe", true)),
    ),
    attack(
        KERNEL_ROW,
        "init-root",
        "go through /proc/1/root or /proc/1/cwd (CVE-2024-21626)",
        Expect::Refused(&[EACCES, EPERM]),
        Some(|| match (std::fs::read_dir("/proc/1/root"), std::fs::read_dir("/proc/1/cwd")) {
            (Err(e), Err(_)) => Answer::Refused(e.raw_os_error().unwrap_or(0)),
            _ => Answer::Done,
        }),
    ),
    attack(
        KERNEL_ROW,
        "processes",
        "see a process of the host in /proc",
        Expect::Says("none"),
        Some(|| {
            let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
            // Init, the attacker, and those it made for its attacks.
            let own = std::process::id();
            let others: Vec<String> =
                numbers.filter(|pid| *pid > 2 && *pid != own).map(|pid| pid.to_string()).collect();
            Answer::Said(if others.is_empty() { "none".into() } else { others.join(" ") })
        }),
    ),
    attack(
        KERNEL_ROW,
        "sys",
        "find /sys",
        Expect::Refused(&[ENOENT, EINVAL]),
        Some(|| Answer::of(std::fs::read_dir("/sys"))),
    ),
    attack(
        KERNEL_ROW,
        "cgroup-files",
        "join another cgroup: write cgroup.procs (CVE-2023-25809)",
        Expect::Refused(&[ENOENT]),
        Some(|| opened("/sys/fs/cgroup/cgroup.procs", true)),
    ),
];
