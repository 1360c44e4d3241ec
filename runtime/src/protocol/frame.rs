//! JSON frames with descriptors beside them, over Unix sockets.
//!
//! A frame is the length of the body and the number of descriptors (both 32 bits, little endian), the descriptors in batches, each
//! attached to one byte, and the body.

use invarlock_error::{Context as _, Foreign as _, Kind, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Descriptors in one control message. The kernel allows 253.
const BATCH: usize = 200;
/// The byte that a batch of descriptors is attached to; its value is not used.
const CARRIER: u8 = 0;
/// Longest frame. The largest frames contain a request with its filter.
const MAX_FRAME: usize = 64 << 20;

const SENDING: &str = "sending a message between the processes of the run";
const RECEIVING: &str = "receiving a message between the processes of the run";

/// Sends one message.
pub(crate) fn send(to: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let body = serde_json::to_vec(message).err_kind(Kind::System).context("encoding a message")?;
    let mut header = [0; 8];
    header[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[4..].copy_from_slice(&(fds.len() as u32).to_le_bytes());
    (&*to).write_all(&header).context(SENDING)?;
    for batch in fds.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(batch));
        sendmsg(to, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::NOSIGNAL).context(SENDING)?;
    }
    (&*to).write_all(&body).context(SENDING)
}

/// Receives one message; none at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(from: &UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut header = [0; 8];
    match (&*from).read_exact(&mut header) {
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        other => other.context(RECEIVING)?,
    }
    let [a, b, c, d, e, f, g, h] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let count = u32::from_le_bytes([e, f, g, h]) as usize;
    if length > MAX_FRAME {
        bail!(Safety, "a message of {length} bytes between the processes of the run is too long");
    }
    let fds = receive_descriptors(from, count)?;
    let mut body = vec![0; length];
    (&*from).read_exact(&mut body).context(RECEIVING)?;
    let message = serde_json::from_slice(&body)
        .err_kind(Kind::System)
        .context("decoding a message between the processes of the run")?;
    Ok(Some((message, fds)))
}

fn receive_descriptors(from: &UnixStream, count: usize) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    while fds.len() < count {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
                .context(RECEIVING)?;
        let before = fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(batch) = message {
                fds.extend(batch);
            }
        }
        if received.bytes == 0 || fds.len() == before {
            bail!(System, "a message between the processes of the run came without its descriptors");
        }
    }
    Ok(fds)
}
