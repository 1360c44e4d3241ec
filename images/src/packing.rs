//! How a layer's bytes are packed.

use invarlock_error::Context as _;
use std::io::{BufRead, Read};

use crate::Result;

/// Zstandard's own recommendation of what every reader must be able to hold: 8 MiB. More would not fit into our memory's bound.
const LARGEST_WINDOW_LOG: u32 = 23;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// First bytes that tell how a file is packed.
pub(crate) const MAGIC: usize = 10;

impl Packing {
    /// By the media type of a layer.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            crate::resolve::LAYER_TAR => Some(Self::Plain),
            crate::resolve::LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Some(Self::Gzip)
            }
            crate::resolve::LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The media type that the image specification has for it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => crate::resolve::LAYER_TAR,
            Self::Gzip => crate::resolve::LAYER_GZIP,
            Self::Zstd => crate::resolve::LAYER_ZSTD,
        }
    }

    /// By the first bytes of a file.
    pub fn by_magic(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// What unpacks a file with these first bytes that nothing here unpacks.
    pub fn foreign(bytes: &[u8]) -> Option<&'static str> {
        match bytes {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz -d"),
            // Its first block begins with the digits of pi.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some("bzip2 -d"),
            _ => None,
        }
    }

    /// What is packed in `blob`, all members or frames of it. Bytes that belong to none are an error of the reader.
    pub fn open<'a>(self, blob: impl BufRead + 'a) -> Result<Unpacked<'a>> {
        Ok(Unpacked(match self {
            Self::Plain => Box::new(blob),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)
                    .context("making room for a zstd window")?;
                decoder.window_log_max(LARGEST_WINDOW_LOG).context("bounding the zstd window")?;
                Box::new(decoder)
            }
        }))
    }
}

/// An archive that comes out of its packing.
pub(crate) struct Unpacked<'a>(Box<dyn Read + 'a>);

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.to_string().contains("too much memory") {
            true => std::io::Error::other(WindowTooLarge),
            false => error,
        })
    }
}

/// The reader's own error for it says no more than that.
#[derive(Debug, thiserror::Error)]
#[error(
    "a zstd frame that needs a window of more than 8 MiB; compress the layer with a level up to 19 and without --long"
)]
pub(crate) struct WindowTooLarge;
