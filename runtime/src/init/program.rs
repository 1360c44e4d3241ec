//! The program of the workload: found as `execvp(3)` finds it, in the container and with the ids of the workload.

use invarlock_error::{Error, Result};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Where programs are searched if the environment has no `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path of the program: one with a slash is taken as it is, a name is searched in `PATH`. `env` has the form `NAME=VALUE`.
pub(super) fn find(argv: &[String], env: &[String]) -> Result<String> {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    if program.contains('/') {
        return Ok(program.to_owned());
    }
    let path = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    // As for a shell, an empty part is the working directory.
    let in_directory = |directory: &str| match directory {
        "" => format!("./{program}"),
        directory => format!("{directory}/{program}"),
    };
    path.split(':').map(in_directory).find(|path| is_executable(path)).ok_or_else(|| {
        Error::input(format!(
            "program {program:?} not found in the directories of PATH ({path}) of the container"
        ))
        .with_hint("name a program of the image, or its path")
        .with_program_errno(Errno::NOENT.raw_os_error())
    })
}

fn is_executable(path: &str) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
        && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// `/proc/self/exe`, or a link to it, is the launcher's executable and not a program of the image.
pub(super) fn reject_magic_link(program: &str) -> Result<()> {
    let open = |resolve| {
        let (flags, mode) = (OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        rustix::fs::openat2(CWD, program, flags, mode, resolve)
    };
    // If it cannot be opened at all, execve gives the reason.
    match (open(ResolveFlags::NO_MAGICLINKS), open(ResolveFlags::empty())) {
        (Err(Errno::LOOP), Ok(_)) => Err(Error::input(format!(
            "starting {program:?} in the container: its path leads through a magic link of /proc"
        ))
        .with_hint("name a program of the image")),
        _ => Ok(()),
    }
}
