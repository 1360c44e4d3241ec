//! Attacks on the controls "root file system", "inputs", "output" and "scratch".

use super::{
    Attack, Expect, attack, make_node, mount_options, names_or_none, open_for_writing, unchanged, write,
};
use crate::answer::Answer;
use crate::contract::{ATTACKER, EXIT};
use crate::findings::Findings;
use invarlock_error::Kind;
use invarlock_runtime::{Status, TMP_INODES};
use libc::{EACCES, EBUSY, EPERM, EROFS, ETXTBSY};
use rustix::fs::FileType;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const ROOT_CONTROL: &str = "root file system";
const INPUTS_CONTROL: &str = "inputs";
const OUTPUT_CONTROL: &str = "output";
const SCRATCH_CONTROL: &str = "scratch";
const READ_ONLY: Expect = Expect::Errno(&[EROFS]);

/// Control "root file system".
pub(super) const ROOT: &[Attack] = &[
    attack(
        ROOT_CONTROL,
        "root-create",
        "create a file in a world-writable directory",
        READ_ONLY,
        Some(|| write("/open/new")),
    ),
    attack(
        ROOT_CONTROL,
        "root-overwrite",
        "overwrite a world-writable file",
        READ_ONLY,
        Some(|| open_for_writing("/open/file")),
    ),
    attack(
        ROOT_CONTROL,
        "root-flags",
        "find a mount option missing on /",
        Expect::Text("ro,nosuid,nodev"),
        Some(|| mount_options("/")),
    ),
    attack(
        ROOT_CONTROL,
        "shared-mounts",
        "find a mount that propagates from or to the host",
        Expect::Text("none"),
        Some(|| {
            let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            // A private mount has no optional field in front of the separator.
            let propagates =
                |line: &&str| line.split(" - ").next().is_some_and(|line| line.split(' ').nth(6).is_some());
            let targets: Vec<&str> =
                text.lines().filter(propagates).filter_map(|line| line.split(' ').nth(4)).collect();
            Answer::Text(names_or_none(&targets))
        }),
    ),
    attack(
        ROOT_CONTROL,
        "own-program",
        "overwrite its own executable (CVE-2019-5736)",
        Expect::Errno(&[EROFS, ETXTBSY, EACCES]),
        Some(|| open_for_writing("/proc/self/exe")),
    ),
    attack(
        ROOT_CONTROL,
        "canary",
        "change a file of the host, or the launcher's executable",
        Expect::Outside("unchanged", |findings, _| unchanged(&findings.host_changes.files)),
        None,
    ),
];

/// Control "inputs".
pub(super) const INPUTS: &[Attack] = &[
    attack(
        INPUTS_CONTROL,
        "input-overwrite",
        "overwrite a world-writable input",
        READ_ONLY,
        Some(|| open_for_writing("/in/file")),
    ),
    attack(
        INPUTS_CONTROL,
        "input-replace",
        "replace an input",
        Expect::Errno(&[EROFS, EACCES, EBUSY]),
        Some(|| Answer::of(std::fs::remove_file("/in/file"))),
    ),
    attack(
        INPUTS_CONTROL,
        "input-create",
        "create a file in /in",
        Expect::Errno(&[EROFS, EACCES]),
        Some(|| write("/in/new")),
    ),
    attack(
        INPUTS_CONTROL,
        "input-run",
        "execute an input",
        Expect::Errno(&[EACCES]),
        Some(|| Answer::of(Command::new("/in/program").arg(EXIT).status())),
    ),
    attack(
        INPUTS_CONTROL,
        "input-flags",
        "find a mount option missing on an input",
        Expect::Text("ro,nosuid,nodev,noexec"),
        Some(|| mount_options("/in/file")),
    ),
    attack(
        INPUTS_CONTROL,
        "inputs-flags",
        "find a mount option missing on /in",
        Expect::Text("ro,nosuid,nodev,noexec"),
        Some(|| mount_options("/in")),
    ),
];

/// Control "output".
pub(super) const OUTPUT: &[Attack] = &[
    attack(
        OUTPUT_CONTROL,
        "output-run",
        "execute a program in /out",
        Expect::Errno(&[EACCES]),
        Some(|| {
            let answer = run_script("/out/script");
            drop(std::fs::remove_file("/out/script"));
            answer
        }),
    ),
    attack(
        OUTPUT_CONTROL,
        "output-flags",
        "find a mount option missing on /out",
        Expect::Text("nosuid,nodev,noexec"),
        Some(|| mount_options("/out")),
    ),
    attack(
        OUTPUT_CONTROL,
        "output-fill",
        "fill /out (bytes)",
        Expect::AtMost(|findings| findings.limits.output_bytes),
        Some(|| fill("/out")),
    ),
    attack(
        OUTPUT_CONTROL,
        "output-files",
        "fill /out (files)",
        Expect::AtMost(|findings| findings.limits.output_files),
        Some(|| {
            let path = |i: u32| format!("/out/file-{i}");
            let created = (0..100).take_while(|i| std::fs::File::create_new(path(*i)).is_ok()).count();
            (0..100).for_each(|i| drop(std::fs::remove_file(path(i))));
            Answer::Text(created.to_string())
        }),
    ),
    attack(
        OUTPUT_CONTROL,
        "output-link",
        "leave a link to /etc/shadow in /out",
        Expect::Outside("rejected", |findings, _| check_rejected(findings, "link")),
        None,
    ),
    attack(
        OUTPUT_CONTROL,
        "output-fifo",
        "leave a fifo in /out",
        Expect::Outside("rejected", |findings, _| check_rejected(findings, "fifo")),
        None,
    ),
    attack(
        OUTPUT_CONTROL,
        "output-device",
        "create a device in /out",
        Expect::Errno(&[EPERM]),
        Some(|| Answer::of(make_node("/out/null", FileType::CharacterDevice))),
    ),
];

/// Control "scratch".
pub(super) const SCRATCH: &[Attack] = &[
    attack(
        SCRATCH_CONTROL,
        "scratch-run",
        "execute a program in /tmp",
        Expect::Errno(&[EACCES]),
        Some(|| run_script("/tmp/script")),
    ),
    attack(
        SCRATCH_CONTROL,
        "scratch-flags",
        "find a mount option missing on /tmp",
        Expect::Text("nosuid,nodev,noexec"),
        Some(|| mount_options("/tmp")),
    ),
    attack(
        SCRATCH_CONTROL,
        "scratch-fill",
        "fill /tmp (bytes)",
        Expect::AtMost(|findings| findings.limits.tmp_bytes),
        Some(|| fill("/tmp")),
    ),
    attack(
        SCRATCH_CONTROL,
        "scratch-files",
        "fill /tmp (files)",
        Expect::AtMost(|_| TMP_INODES),
        // Creating so many files takes too long, so the limit of the file system is read.
        Some(|| match rustix::fs::statvfs("/tmp") {
            Ok(limits) if limits.f_files > 0 => Answer::Text(limits.f_files.to_string()),
            _ => Answer::Text(u64::MAX.to_string()),
        }),
    ),
    attack(
        SCRATCH_CONTROL,
        "scratch-device",
        "create a device in /tmp",
        Expect::Errno(&[EPERM]),
        Some(|| Answer::of(make_node("/tmp/null", FileType::CharacterDevice))),
    ),
];

/// The number of bytes that can be written, at most a quarter more than allowed.
fn fill(directory: &str) -> Answer {
    use std::io::Write as _;
    let path = format!("{directory}/full");
    let mut written = 0u64;
    match std::fs::File::create(&path) {
        Ok(mut file) => {
            while written < 5 << 18 && file.write_all(&[7; 4096]).is_ok() {
                written += 4096;
            }
        }
        Err(e) => return Answer::Text(e.to_string()),
    }
    drop(std::fs::remove_file(&path));
    Answer::Text(written.to_string())
}

/// Writes a script and executes it; its interpreter is the attacker's program, which exits.
pub(super) fn run_script(path: &str) -> Answer {
    let written = std::fs::write(path, format!("#!{ATTACKER} {EXIT}\n"))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)));
    match written {
        Ok(()) => Answer::of(Command::new(path).status()),
        Err(e) => Answer::Text(format!("writing the script: {e}")),
    }
}

/// Whether the output of a separate run was rejected.
fn check_rejected(findings: &Findings, run: &str) -> Option<(String, bool)> {
    match findings.separate_runs.get(run)? {
        Err(error) if error.kind() == Kind::Safety => Some(("rejected".into(), true)),
        Err(error) => Some((error.to_string(), false)),
        // The attacker refused to run, so it left nothing.
        Ok(Status::Exited(2)) => None,
        Ok(_) => Some(("accepted".into(), false)),
    }
}
