//! Directories below a root, by clean paths. Every name on the way is opened in the handle of the one before it, and is never a link;
//! the handles of the last way are kept, since what comes next mostly lies nearby.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::Result;

pub(crate) struct Cursor {
    root: OwnedFd,
    way: Vec<(String, OwnedFd)>,
}

impl Cursor {
    pub fn new(root: impl AsFd) -> rustix::io::Result<Self> {
        Ok(Self { root: directory(root.as_fd(), ".")?, way: Vec::new() })
    }

    /// The handle of the directory `path`. What is not yet on the way is opened by `open`, in the directory above it, with the path
    /// so far.
    pub fn enter(
        &mut self,
        path: &str,
        mut open: impl FnMut(BorrowedFd<'_>, &str, &str) -> Result<OwnedFd>,
    ) -> Result<BorrowedFd<'_>> {
        let (mut depth, mut end) = (0, 0);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            end += name.len();
            if self.way.get(depth).is_none_or(|(there, _)| there != name) {
                self.way.truncate(depth);
                let above = self.way.last().map_or_else(|| self.root.as_fd(), |(_, handle)| handle.as_fd());
                let handle = open(above, name, &path[..end])?;
                self.way.push((name.to_owned(), handle));
            }
            depth += 1;
            end += 1;
        }
        Ok(depth.checked_sub(1).map_or_else(|| self.root.as_fd(), |last| self.way[last].1.as_fd()))
    }
}

/// Opens the directory `name` in `above`; a link is not followed.
pub(crate) fn directory(above: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(above, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => Err(Errno::NOTDIR),
        other => other,
    }
}

/// A path's directory and last name.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
