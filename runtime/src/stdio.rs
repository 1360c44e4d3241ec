//! The launcher's side of the workload's standard input: the caller's is copied to a pipe. The workload never gets a file of the caller
//! itself: through `/proc/self/fd` it could open it again, with other access, and it could type into a terminal.

use invarlock_error::{Context as _, Kind, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

const BLOCK: usize = 64 << 10;
const READING: &str = "reading standard input for the workload";

/// What the workload's standard streams are connected with. Output and error output go to the [`crate::Sink`].
#[derive(Debug, Default)]
pub enum Stdio {
    /// Standard input is `/dev/null`.
    #[default]
    Output,
    /// Standard input is a pipe, to which this is copied until its end.
    Input(OwnedFd),
}

/// The thread that copies the caller's input. It ends at the end of the input, and when the workload reads no more.
pub(crate) struct Feed(Arc<OnceLock<Errno>>);

impl Feed {
    /// Starts to copy.
    pub(crate) fn start(from: OwnedFd, to: OwnedFd) -> Result<Self> {
        let attributes = rustix::fs::fstat(&from).context(READING)?;
        if FileType::from_raw_mode(attributes.st_mode) == FileType::Directory {
            bail!(Input, "{READING}: it is a directory");
        }
        let failed = Arc::new(OnceLock::new());
        let of_thread = Arc::clone(&failed);
        let copy = move || {
            if let Err(error) = copy(from.as_fd(), to.as_fd()) {
                _ = of_thread.set(error);
            }
        };
        std::thread::Builder::new().name("stdin".into()).spawn(copy).context("starting a thread")?;
        Ok(Feed(failed))
    }

    /// Fails if the input could not be read to its end.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.get() {
            Some(error) => Err(*error).context(READING).kind(Kind::Input),
            None => Ok(()),
        }
    }
}

/// Copies until the end of `from`, or until `to` has no reader. Nothing is read before `to` takes it.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut block = vec![0; BLOCK];
    while wait(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)])?
        && wait(&mut [
            PollFd::from_borrowed_fd(to, PollFlags::empty()),
            PollFd::from_borrowed_fd(from, PollFlags::IN),
        ])?
    {
        let count = match rustix::io::read(from, &mut block) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            other => other?,
        };
        if count == 0 || !write(to, &block[..count])? {
            break;
        }
    }
    Ok(())
}

/// Waits for an event; false if the reader of the first descriptor is gone.
fn wait(fds: &mut [PollFd<'_>]) -> rustix::io::Result<bool> {
    loop {
        match rustix::event::poll(fds, None) {
            Err(Errno::INTR) => {}
            other => {
                other?;
                break;
            }
        };
    }
    Ok(!fds.first().is_some_and(|to| to.revents().intersects(PollFlags::ERR | PollFlags::HUP)))
}

/// Writes all; false if the reader is gone, which is no error: the workload has read what it wants.
fn write(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<bool> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::PIPE) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
