//! The launcher's side of the workload's standard streams. The caller's input is copied to a pipe or to the terminal of the container. The
//! workload never gets a file of the caller itself: through `/proc/self/fd` it could open it again, with other access, and it could type
//! into a terminal.

use crate::terminal::{Size, raw};
use invarlock_error::{Context as _, Kind, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, QueueSelector, Termios};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
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
    /// All three are a terminal of the container. Its output goes to the sink's standard output.
    Terminal(CallerTerminal),
}

/// The caller's terminal.
#[derive(Debug)]
pub struct CallerTerminal {
    /// A handle of it. The terminal of the container has its size.
    pub handle: OwnedFd,
    /// Whether what is typed goes to the workload. The terminal is then raw until the run has ended, so that keys like Ctrl-C have their
    /// effect inside. If the launcher is killed, the supervisor restores it.
    pub interactive: bool,
    /// Readable when its size has changed.
    pub resized: UnixStream,
}

/// What the workload's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Streams {
    /// `/dev/null`, and pipes for both outputs.
    Output,
    /// Pipes. Descriptors: output, error output, input.
    Input,
    /// A terminal of this size. Descriptor: the caller's terminal, for the supervisor alone.
    Terminal(Size),
}

impl Streams {
    pub(crate) fn are_terminal(self) -> bool {
        matches!(self, Streams::Terminal(_))
    }

    /// The number of descriptors that come with it.
    pub(crate) fn descriptors(self) -> usize {
        match self {
            Streams::Output => 2,
            Streams::Input => 3,
            Streams::Terminal(_) => 1,
        }
    }
}

impl Stdio {
    pub(crate) fn streams(&self) -> Result<Streams> {
        Ok(match self {
            Stdio::Output => Streams::Output,
            Stdio::Input(_) => Streams::Input,
            Stdio::Terminal(terminal) => Streams::Terminal(
                Size::of(&terminal.handle).context("reading the size of the caller's terminal")?,
            ),
        })
    }
}

/// The caller's terminal while that of the container is connected with it. Dropped, it is as before.
pub(crate) struct Connected {
    caller: CallerTerminal,
    /// Its attributes before, if it is raw.
    before: Option<Termios>,
    /// The thread that copies what is typed has the other end. Each side ends when the other one does.
    feed: Option<UnixStream>,
}

impl Connected {
    /// `master`: the end of the container's terminal.
    pub(crate) fn new(caller: CallerTerminal, master: &OwnedFd) -> Result<Self> {
        const DOING: &str = "connecting the terminal of the container";
        let mut connected = Connected { caller, before: None, feed: None };
        connected.resize(master);
        if connected.caller.interactive {
            let handle = &connected.caller.handle;
            let before = rustix::termios::tcgetattr(handle).context(DOING)?;
            rustix::termios::tcsetattr(handle, OptionalActions::Now, &raw(&before)).context(DOING)?;
            connected.before = Some(before);
            let (from, to) = (handle.try_clone().context(DOING)?, master.try_clone().context(DOING)?);
            let (feed, other_end) = UnixStream::pair().context(DOING)?;
            // An input that cannot be read has ended: the terminal is gone.
            Feed::start(from, to, Some(other_end))?;
            connected.feed = Some(feed);
        }
        Ok(connected)
    }

    pub(crate) fn resized(&self) -> BorrowedFd<'_> {
        self.caller.resized.as_fd()
    }

    /// Readable when nothing more can be read from the caller's terminal.
    pub(crate) fn input_ended(&self) -> Option<BorrowedFd<'_>> {
        self.feed.as_ref().map(UnixStream::as_fd)
    }

    /// Copies nothing more.
    pub(crate) fn end_input(&mut self) {
        self.feed = None;
    }

    /// Gives the container's terminal the size of the caller's.
    pub(crate) fn resize(&self, master: &OwnedFd) {
        // Either is gone if this fails.
        _ = Size::of(&self.caller.handle).and_then(|size| size.set(master));
    }

    /// Handles a notice that the size has changed.
    pub(crate) fn follow_size(&self, master: Option<&OwnedFd>) {
        _ = rustix::io::read(&self.caller.resized, &mut [0; 64]);
        master.into_iter().for_each(|master| self.resize(master));
    }

    /// Whether the kernel lets this process change the terminal without stopping it.
    fn is_in_foreground(&self) -> bool {
        rustix::termios::tcgetpgrp(&self.caller.handle).is_ok_and(|group| group == rustix::process::getpgrp())
    }
}

impl Drop for Connected {
    /// Input that was not read is discarded: a terminal answers some escape sequences as if something was typed, and the shell of the caller
    /// must not read that.
    fn drop(&mut self) {
        let handle = &self.caller.handle;
        match &self.before {
            Some(before) => _ = rustix::termios::tcsetattr(handle, OptionalActions::Flush, before),
            None if self.is_in_foreground() => _ = rustix::termios::tcflush(handle, QueueSelector::IFlush),
            None => {}
        }
    }
}

/// The thread that copies the caller's input. It ends at the end of the input, and when the workload reads no more.
pub(crate) struct Feed(Arc<OnceLock<Errno>>);

impl Feed {
    /// Starts to copy. `other` is closed afterwards; if its peer is closed, the copying ends.
    pub(crate) fn start(from: OwnedFd, to: OwnedFd, other: Option<UnixStream>) -> Result<Self> {
        let attributes = rustix::fs::fstat(&from).context(READING)?;
        if FileType::from_raw_mode(attributes.st_mode) == FileType::Directory {
            bail!(Input, "{READING}: it is a directory");
        }
        let failed = Arc::new(OnceLock::new());
        let of_thread = Arc::clone(&failed);
        let copying = Copying { from, to, other };
        let copy = move || {
            if let Err(error) = copying.until_end() {
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

/// The descriptors of the thread. The peer of `other` learns of the end when `to` is closed already.
struct Copying {
    from: OwnedFd,
    to: OwnedFd,
    other: Option<UnixStream>,
}

impl Copying {
    /// Copies until the end of `from`, or until `to` has no reader. Nothing is read before `to` takes it.
    fn until_end(&self) -> rustix::io::Result<()> {
        let mut block = vec![0; BLOCK];
        while self.wait(PollFlags::OUT, PollFlags::empty())?
            && self.wait(PollFlags::empty(), PollFlags::IN)?
        {
            let count = match rustix::io::read(&self.from, &mut block) {
                Err(Errno::INTR | Errno::AGAIN) => continue,
                other => other?,
            };
            if count == 0 || !self.write(&block[..count])? {
                break;
            }
        }
        Ok(())
    }

    /// Waits for an event of `to`, or of `from`; false if the reader of `to`, or the peer of `other`, is gone.
    fn wait(&self, to: PollFlags, from: PollFlags) -> rustix::io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.to, to)];
        fds.extend(self.other.as_ref().map(|other| PollFd::new(other, PollFlags::IN)));
        let ends = fds.len();
        if !from.is_empty() {
            fds.push(PollFd::new(&self.from, from));
        }
        while let Err(error) = rustix::event::poll(&mut fds, None) {
            if error != Errno::INTR {
                return Err(error);
            }
        }
        let ended = PollFlags::ERR | PollFlags::HUP;
        Ok(!fds[..ends].iter().any(|fd| fd.revents().intersects(ended)))
    }

    /// Writes all; false if the reader is gone, which is no error: the workload has read what it wants.
    fn write(&self, mut bytes: &[u8]) -> rustix::io::Result<bool> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.to, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                // The handle of a terminal is also used to read without waiting.
                Err(Errno::AGAIN) if self.wait(PollFlags::OUT, PollFlags::empty())? => {}
                Err(Errno::PIPE | Errno::AGAIN | Errno::IO) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
