//! Opening directories below a root. Each component of a path is opened in the handle of the one before it and is never a link. The handles
//! of the last path are kept, because the next path is mostly near it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::Result;

/// The handles of the directories on the current path.
pub(crate) struct Cursor {
    root: OwnedFd,
    opened: Vec<(String, OwnedFd)>,
}

impl Cursor {
    pub fn new(root: impl AsFd) -> rustix::io::Result<Self> {
        Ok(Self { root: directory(root.as_fd(), ".")?, opened: Vec::new() })
    }

    /// The handle of the directory `path`. `open` opens each further component: it gets the parent, the name and the path up to it.
    pub fn enter(
        &mut self,
        path: &str,
        mut open: impl FnMut(BorrowedFd<'_>, &str, &str) -> Result<OwnedFd>,
    ) -> Result<BorrowedFd<'_>> {
        let (mut depth, mut end) = (0, 0);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            end += name.len();
            if self.opened.get(depth).is_none_or(|(opened, _)| opened != name) {
                self.opened.truncate(depth);
                let parent =
                    self.opened.last().map_or_else(|| self.root.as_fd(), |(_, handle)| handle.as_fd());
                let handle = open(parent, name, &path[..end])?;
                self.opened.push((name.to_owned(), handle));
            }
            depth += 1;
            end += 1;
        }
        Ok(depth.checked_sub(1).map_or_else(|| self.root.as_fd(), |last| self.opened[last].1.as_fd()))
    }
}

/// Opens the directory `name` in `parent`. Links are not followed.
pub(crate) fn directory(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => Err(Errno::NOTDIR),
        other => other,
    }
}

/// The parent and the last component of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
