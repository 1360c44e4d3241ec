//! Observes files below the workload's root: devices, inputs and `/proc`.

use crate::boundary::{DEVICES, LINKS, READ_ONLY, SHARED_MEMORY};
use crate::observations::{InputObservation, ProcFiles};
use crate::protocol::{Request, RequestInput};
use crate::terminal;
use crate::user_mounts::RequestMount;
use invarlock_error::{Context as _, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// Entries of a directory after this many are ignored.
const MAX_ENTRIES: usize = 4096;

/// The root directory of a process.
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

    /// Opens a path below it without following links.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let relative = path.trim_start_matches('/');
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.handle, relative, flags, Mode::empty(), resolve)
            .with_context(|| format!("observing {path} of process {}", self.pid))
    }

    pub(super) fn stat(&self, path: &str) -> Result<Stat> {
        let handle = self.open(path, OFlags::PATH)?;
        rustix::fs::fstat(handle).with_context(|| format!("observing {path} of process {}", self.pid))
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        let fail = || format!("observing {path} of process {}", self.pid);
        let directory = Dir::new(self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?).with_context(fail)?;
        let mut names = Vec::new();
        for entry in directory.take(MAX_ENTRIES) {
            let name = entry.with_context(fail)?.file_name().to_string_lossy().into_owned();
            if ![".", ".."].contains(&name.as_str()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Names in `/dev`, each with its device numbers, or with its file type if it is not a character device.
    /// Those of the host have their whole path below `/dev` as their name.
    pub(super) fn devices(&self, request: &Request) -> Result<BTreeMap<String, String>> {
        let device = |name: String| {
            let stat = self.stat(&format!("/dev/{name}"))?;
            let value = match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice => numbers(stat.st_rdev),
                other => format!("{other:?}"),
            };
            Ok((name, value))
        };
        let nested = of_the_host(request).map(|(name, _)| name.to_owned()).filter(|name| name.contains('/'));
        self.names("/dev")?.into_iter().chain(nested).map(device).collect()
    }

    pub(super) fn proc(&self, request: &Request) -> Result<ProcFiles> {
        let names = self.names("/proc")?;
        let mut processes: Vec<u32> = names.iter().filter_map(|n| n.parse().ok()).collect();
        processes.sort_unstable();
        let is_absent = |path: &&str| !names.iter().any(|n| path.strip_prefix("/proc/") == Some(n));
        let absent = request.masked_paths().chain(READ_ONLY).filter(is_absent).map(str::to_owned).collect();
        Ok(ProcFiles { processes, absent })
    }

    pub(super) fn inputs(&self, request: &Request) -> Result<Vec<InputObservation>> {
        let observe = |input: &RequestInput| {
            Ok(input_observation(&input.target, input.path.is_some(), &self.stat(&input.target)?))
        };
        request.inputs.iter().map(observe).collect()
    }
}

/// The expected files below `/in`, from the handles that the launcher opened.
pub(crate) fn expected_inputs(request: &Request, handles: &[OwnedFd]) -> Result<Vec<InputObservation>> {
    let expect = |(input, handle): (&RequestInput, &OwnedFd)| {
        let stat = rustix::fs::fstat(handle.as_fd())
            .with_context(|| format!("reading the attributes of {}", input.target))?;
        Ok(input_observation(&input.target, input.path.is_some(), &stat))
    };
    request.inputs.iter().zip(handles).map(expect).collect()
}

fn input_observation(target: &str, is_file: bool, stat: &Stat) -> InputObservation {
    let file = is_file.then(|| format!("{} {}", numbers(stat.st_dev), stat.st_ino));
    InputObservation { target: target.to_owned(), bytes: stat.st_size.unsigned_abs(), file }
}

fn numbers(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// The devices that the caller mounts.
fn of_the_host(request: &Request) -> impl Iterator<Item = (&str, &str)> {
    request.mounts.iter().filter_map(RequestMount::device)
}

/// The expected value of [`Root::devices`].
pub(super) fn expected_devices(request: &Request) -> BTreeMap<String, String> {
    let links = LINKS.map(|link| (link, "Symlink"));
    let more =
        links.into_iter().chain([(SHARED_MEMORY, "Directory")]).filter(|_| request.runtime_files.is_some());
    let of_terminal =
        [terminal::DEVICE, (terminal::MULTIPLEXER, "Symlink"), (terminal::DIRECTORY, "Directory")];
    let of_terminal = of_terminal.into_iter().filter(|_| request.streams.are_terminal());
    let directory =
        |(name, _): (&'_ str, _)| Some((name.split_once('/')?.0.to_owned(), "Directory".to_owned()));
    let directories: Vec<_> = of_the_host(request).filter_map(directory).collect();
    DEVICES
        .into_iter()
        .chain(more)
        .chain(of_terminal)
        .chain(of_the_host(request))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(directories)
        .collect()
}
