//! What lies below the workload's root: devices, inputs, and what `/proc` shows.

use super::{DEVICES, InputRow, ProcFiles};
use crate::oci::{MASKED, READ_ONLY};
use crate::protocol::Request;
use invarlock_error::{Context as _, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// More entries of a directory nobody looks at.
const MOST_ENTRIES: usize = 4096;

/// The root directory of a process, as it sees it.
pub(crate) struct Root {
    pid: i32,
    handle: OwnedFd,
}

impl Root {
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle =
            rustix::fs::open(&path, flags, Mode::empty()).with_context(|| format!("observing {path}"))?;
        Ok(Root { pid, handle })
    }

    /// Opens what is below it, following nothing.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let relative = path.trim_start_matches('/');
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.handle, relative, flags, Mode::empty(), resolve)
            .with_context(|| format!("observing {path} of process {}", self.pid))
    }

    fn stat(&self, path: &str) -> Result<Stat> {
        let handle = self.open(path, OFlags::PATH)?;
        rustix::fs::fstat(handle).with_context(|| format!("observing {path} of process {}", self.pid))
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        let fail = || format!("observing {path} of process {}", self.pid);
        let directory = Dir::new(self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?).with_context(fail)?;
        let mut names = Vec::new();
        for entry in directory.take(MOST_ENTRIES) {
            let name = entry.with_context(fail)?.file_name().to_string_lossy().into_owned();
            if ![".", ".."].contains(&name.as_str()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Names in `/dev`, with their numbers, or what they are where they are no devices.
    pub(super) fn devices(&self) -> Result<BTreeMap<String, String>> {
        let one = |name: String| {
            let stat = self.stat(&format!("/dev/{name}"))?;
            let what = match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice => numbers(stat.st_rdev),
                other => format!("{other:?}"),
            };
            Ok((name, what))
        };
        self.names("/dev")?.into_iter().map(one).collect()
    }

    pub(super) fn proc(&self) -> Result<ProcFiles> {
        let names = self.names("/proc")?;
        let mut processes: Vec<u32> = names.iter().filter_map(|n| n.parse().ok()).collect();
        processes.sort_unstable();
        let is_absent = |path: &&&str| !names.iter().any(|n| path.strip_prefix("/proc/") == Some(n));
        let absent = MASKED.iter().chain(&READ_ONLY).filter(is_absent).map(|p| (*p).to_owned()).collect();
        Ok(ProcFiles { processes, absent })
    }

    pub(super) fn inputs(&self, request: &Request) -> Result<Vec<InputRow>> {
        let one = |input: &crate::protocol::WireInput| {
            Ok(input_row(&input.target, input.path.is_some(), &self.stat(&input.target)?))
        };
        request.inputs.iter().map(one).collect()
    }
}

/// What there has to be below `/in`, from the handles that the launcher gave.
pub(crate) fn expected_inputs(request: &Request, handles: &[OwnedFd]) -> Result<Vec<InputRow>> {
    let one = |(input, handle): (&crate::protocol::WireInput, &OwnedFd)| {
        let stat =
            rustix::fs::fstat(handle.as_fd()).with_context(|| format!("looking at {}", input.target))?;
        Ok(input_row(&input.target, input.path.is_some(), &stat))
    };
    request.inputs.iter().zip(handles).map(one).collect()
}

fn input_row(target: &str, is_file: bool, stat: &Stat) -> InputRow {
    let file = is_file.then(|| format!("{} {}", numbers(stat.st_dev), stat.st_ino));
    InputRow { target: target.to_owned(), bytes: stat.st_size.unsigned_abs(), file }
}

fn numbers(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// What [`Root::devices`] has to give.
pub(super) fn five_devices() -> BTreeMap<String, String> {
    DEVICES.iter().map(|(name, numbers)| ((*name).to_owned(), (*numbers).to_owned())).collect()
}
