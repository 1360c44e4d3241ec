//! A pipe between threads with reused buffers: one buffer is written to files while the next one is decompressed.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes of a buffer. All buffers together fit into the cache of a processor.
const BUFFER_LENGTH: usize = 256 << 10;
/// Number of buffers.
const BUFFERS: usize = 4;

/// The end that is written to.
pub(crate) struct PipeWriter {
    full: SyncSender<io::Result<Buffer>>,
    empty: Receiver<Buffer>,
    allocated: usize,
}

/// The end that is read from. When it is dropped, writing stops.
pub(crate) struct PipeReader {
    full: Receiver<io::Result<Buffer>>,
    empty: Sender<Buffer>,
    current: Option<Buffer>,
}

struct Buffer {
    bytes: Vec<u8>,
    position: usize,
    length: usize,
}

/// Creates a pipe.
pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (send_full, receive_full) = sync_channel(BUFFERS);
    let (send_empty, receive_empty) = channel();
    (
        PipeWriter { full: send_full, empty: receive_empty, allocated: 0 },
        PipeReader { full: receive_full, empty: send_empty, current: None },
    )
}

impl PipeWriter {
    /// Passes on all bytes of `source` and the error that it ends with, until the reader is dropped.
    pub fn write_all_from(mut self, mut source: impl Read) {
        while let Some(mut buffer) = self.next_empty() {
            let filled = fill(&mut source, &mut buffer.bytes);
            let length = *filled.as_ref().unwrap_or(&0);
            (buffer.position, buffer.length) = (0, length);
            let is_last = length == 0;
            if self.full.send(filled.map(|_| buffer)).is_err() || is_last {
                return;
            }
        }
    }

    fn next_empty(&mut self) -> Option<Buffer> {
        if self.allocated < BUFFERS {
            self.allocated += 1;
            return Some(Buffer { bytes: vec![0; BUFFER_LENGTH], position: 0, length: 0 });
        }
        self.empty.recv().ok()
    }
}

/// Fills `buffer` until the source ends. Bytes that were read before an error are not passed on: the archive is refused anyway.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.as_ref().is_none_or(|current| current.position == current.length) {
            let Ok(next) = self.full.recv() else { return Ok(0) };
            if let Some(empty) = self.current.replace(next?) {
                // The writer may have finished, and then needs no buffer.
                let _ = self.empty.send(empty);
            }
        }
        let Some(Buffer { bytes, position, length }) = &mut self.current else { return Ok(0) };
        let count = buffer.len().min(*length - *position);
        buffer[..count].copy_from_slice(&bytes[*position..*position + count]);
        *position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes and the result of reading a pipe that is written from `source`.
    fn through(source: impl Read + Send) -> (Vec<u8>, io::Result<usize>) {
        let (writer, mut reader) = pipe();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all_from(source));
            let mut bytes = Vec::new();
            let result = reader.read_to_end(&mut bytes);
            (bytes, result)
        })
    }

    #[test]
    fn passes_bytes_through_unchanged() {
        for length in [
            0,
            1,
            BUFFER_LENGTH - 1,
            BUFFER_LENGTH,
            BUFFER_LENGTH + 1,
            BUFFER_LENGTH * BUFFERS,
            BUFFER_LENGTH * BUFFERS * 3 + 7,
        ] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (found, result) = through(&bytes[..]);
            assert_eq!(result.expect("read"), length);
            assert!(found == bytes, "{length}");
        }
    }

    #[test]
    fn passes_error_after_preceding_bytes() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let (found, result) = through((&[7; BUFFER_LENGTH * 2][..]).chain(Broken));
        assert_eq!(found.len(), BUFFER_LENGTH * 2);
        assert_eq!(result.expect_err("broken").raw_os_error(), Some(5));
    }

    #[test]
    fn dropping_reader_stops_writer() {
        let (writer, mut reader) = pipe();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all_from(io::repeat(1)));
            let mut few = [0; 10];
            reader.read_exact(&mut few).expect("read");
            drop(reader);
        });
    }
}
