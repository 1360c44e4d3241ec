//! Bytes from one thread to another, in pieces that are used again: what comes out of a packing is written to the tree while the next
//! is unpacked.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes of a piece, and how many pieces there are. All of them together fit into a processor's cache.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// The end that gives.
pub(crate) struct Giver {
    full: SyncSender<io::Result<Piece>>,
    used: Receiver<Piece>,
    made: usize,
}

/// The end that is read. Once it is gone nothing more is given.
pub(crate) struct Taker {
    full: Receiver<io::Result<Piece>>,
    used: Sender<Piece>,
    piece: Option<Piece>,
}

struct Piece {
    bytes: Vec<u8>,
    at: usize,
    length: usize,
}

pub(crate) fn pipe() -> (Giver, Taker) {
    let (give_full, take_full) = sync_channel(PIECES);
    let (give_used, take_used) = channel();
    (
        Giver { full: give_full, used: take_used, made: 0 },
        Taker { full: take_full, used: give_used, piece: None },
    )
}

impl Giver {
    /// Gives all that `from` has, and the error that it ends with, for as long as somebody takes it.
    pub fn all(mut self, mut from: impl Read) {
        while let Some(mut piece) = self.empty() {
            let filled = fill(&mut from, &mut piece.bytes);
            let length = *filled.as_ref().unwrap_or(&0);
            (piece.at, piece.length) = (0, length);
            let last = length == 0;
            if self.full.send(filled.map(|_| piece)).is_err() || last {
                return;
            }
        }
    }

    fn empty(&mut self) -> Option<Piece> {
        if self.made < PIECES {
            self.made += 1;
            return Some(Piece { bytes: vec![0; PIECE], at: 0, length: 0 });
        }
        self.used.recv().ok()
    }
}

/// Fills `piece` as far as `from` reaches. What was read before an error is not given: nothing of it counts.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Read for Taker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.as_ref().is_none_or(|it| it.at == it.length) {
            let Ok(next) = self.full.recv() else { return Ok(0) };
            if let Some(used) = self.piece.replace(next?) {
                // The giver may be done, and need none any more.
                let _ = self.used.send(used);
            }
        }
        let Some(Piece { bytes, at, length }) = &mut self.piece else { return Ok(0) };
        let count = buffer.len().min(*length - *at);
        buffer[..count].copy_from_slice(&bytes[*at..*at + count]);
        *at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of a pipe into which `from` is given.
    fn through(from: impl Read + Send) -> (Vec<u8>, io::Result<usize>) {
        let (give, mut take) = pipe();
        std::thread::scope(|scope| {
            scope.spawn(|| give.all(from));
            let mut bytes = Vec::new();
            let result = take.read_to_end(&mut bytes);
            (bytes, result)
        })
    }

    #[test]
    fn what_goes_in_comes_out() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, PIECE * PIECES, PIECE * PIECES * 3 + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (found, result) = through(&bytes[..]);
            assert_eq!(result.expect("read"), length);
            assert!(found == bytes, "{length}");
        }
    }

    #[test]
    fn an_error_comes_out_where_it_went_in() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let (found, result) = through((&[7; PIECE * 2][..]).chain(Broken));
        assert_eq!(found.len(), PIECE * 2);
        assert_eq!(result.expect_err("broken").raw_os_error(), Some(5));
    }

    #[test]
    fn who_takes_no_more_holds_nobody_up() {
        let (give, take) = pipe();
        std::thread::scope(|scope| {
            scope.spawn(|| give.all(io::repeat(1)));
            let mut few = [0; 10];
            let mut take = take;
            take.read_exact(&mut few).expect("read");
        });
    }
}
