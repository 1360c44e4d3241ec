//! Messages between the processes of a run: JSON frames with descriptors beside them, over Unix sockets.

use crate::limits::Rlimit;
use crate::observe::{Observations, SeenByInit};
use crate::spec::{Learned, Limits, Status, Usage};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use invarlock_seccomp::{Program, ResolvedProfile};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Descriptors in one control message (the kernel takes 253).
const BATCH: usize = 200;
/// Longest frame; the largest are a plan with its filter.
const MAX_FRAME: usize = 64 << 20;

/// Launcher to supervisor, first: what can be made ready before the run is known.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Prepare {
    /// Directory of lock files.
    pub(crate) state: PathBuf,
    /// No container will be wanted, but a plain child.
    pub(crate) host: bool,
    /// Of a test; empty otherwise.
    pub(crate) hooks: crate::hooks::Hooks,
}

/// The run. Descriptors: standard output, standard error, then one of each layer and input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) rootfs: Vec<PathBuf>,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) inputs: Vec<WireInput>,
    pub(crate) filter: Program,
    pub(crate) limits: Limits,
    pub(crate) collect_output: bool,
    /// A plain child with this output directory, no container.
    pub(crate) host: Option<PathBuf>,
    /// The filter asks about every call, and this answers.
    pub(crate) learning: Option<ResolvedProfile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireInput {
    pub(crate) target: String,
    /// Path of a file; none where the descriptor is a sealed memory file with the bytes.
    pub(crate) path: Option<PathBuf>,
}

/// Launcher to supervisor, later.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// This run, once.
    Run(Box<Request>),
    /// Stop: politely, then not.
    Cancel,
}

/// Supervisor to launcher. With `Done`, one descriptor an output file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Verdict {
    Done(Box<Done>),
    Failed(Error),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) status: Status,
    /// Names and sizes.
    pub(crate) output: Vec<(String, u64)>,
    pub(crate) observations: Observations,
    pub(crate) usage: Usage,
    pub(crate) timings: Vec<(String, u64)>,
    pub(crate) refused: Option<BTreeMap<String, u64>>,
    pub(crate) learned: Option<Learned>,
}

/// Supervisor to builder, when its namespaces are there. Descriptors: standard output, standard error, then one of each layer and input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Build<'a> {
    pub(crate) request: Cow<'a, Request>,
    /// Resource limits of the workload.
    pub(crate) rlimits: Vec<Rlimit>,
    /// How many processors the workload may run on, where no cgroup says it.
    pub(crate) processors: Option<usize>,
}

/// Init to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// `/out`, as a descriptor.
    Output,
    /// The boundary is finished as far as init finishes it; nothing is to be seen of a plain child's.
    Ready(Option<SeenByInit>),
    /// The step that failed.
    Failed(Error),
    /// The workload's end, as `wait(2)` encodes it, and its processor time.
    Exited { status: i32, user_us: u64, system_us: u64, peak_kib: u64 },
}

/// Sends one message.
pub(crate) fn send(to: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let body = serde_json::to_vec(message).err_kind(Kind::System).context("writing a message")?;
    let fail = || "sending a message between the processes of the run".to_owned();
    let mut header = [0; 8];
    header[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[4..].copy_from_slice(&(fds.len() as u32).to_le_bytes());
    (&*to).write_all(&header).with_context(fail)?;
    for batch in fds.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(batch));
        sendmsg(to, &[IoSlice::new(b"F")], &mut control, SendFlags::NOSIGNAL).with_context(fail)?;
    }
    (&*to).write_all(&body).with_context(fail)
}

/// Receives one message; none at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(from: &UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let fail = || "receiving a message between the processes of the run".to_owned();
    let mut header = [0; 8];
    match (&*from).read_exact(&mut header) {
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
            ) =>
        {
            return Ok(None);
        }
        other => other.with_context(fail)?,
    }
    let [a, b, c, d, e, f, g, h] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let count = u32::from_le_bytes([e, f, g, h]) as usize;
    if length > MAX_FRAME {
        return Err(Error::safety(format!(
            "a message of {length} bytes between the processes of the run is too long"
        )));
    }
    let mut fds = Vec::new();
    while fds.len() < count {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .with_context(fail)?;
        let before = fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.bytes == 0 || fds.len() == before {
            return Err(Error::system(
                "a message between the processes of the run came without its descriptors",
            ));
        }
    }
    let mut body = vec![0; length];
    (&*from).read_exact(&mut body).with_context(fail)?;
    let message = serde_json::from_slice(&body)
        .err_kind(Kind::System)
        .context("reading a message between the processes of the run")?;
    Ok(Some((message, fds)))
}

/// The workload-to-be speaks with single bytes, since its filter is on: `R` and a number ([`receive_number`]): it is ready, `E` and an
/// errno: it could not become the program. Before that, `S` and a message: what it saw, `X` and one: why it gave up. This gives the first byte and who sent it, in the reader's process ids.
pub(crate) fn receive_ready(from: &UnixStream) -> Result<Option<(u8, i32)>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let fail = || "waiting for the workload".to_owned();
    let got = match recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
        Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::AGAIN) => return Ok(None),
        other => other.with_context(fail)?,
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut pid = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmCredentials(who) = message {
            pid = Some(who.pid.as_raw_nonzero().get());
        }
    }
    let pid = pid.ok_or_else(|| Error::system("the workload's message came without credentials"))?;
    Ok(Some((byte[0], pid)))
}

/// The descriptor, in the waiting workload, of the listener of its refused calls.
pub(crate) fn receive_number(from: &UnixStream) -> Result<Option<RawFd>> {
    let mut number = [0; 4];
    (&*from).read_exact(&mut number).context("waiting for the workload")?;
    let number = RawFd::from_le_bytes(number);
    Ok((number >= 0).then_some(number))
}
