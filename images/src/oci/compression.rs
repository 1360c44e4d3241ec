//! Compression of layers.
//!
//! Blobs are untrusted: the memory for decompression is bounded, and truncated or trailing data is an error of the reader.

use std::io::{self, BufRead, Read};

use invarlock_error::Context as _;
use oci_spec::image::{MediaType, ToDockerV2S2 as _};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use crate::{Error, Result};

/// Largest zstd window, as a power of two: 8 MiB, which the zstd specification recommends every decoder to support. Larger ones would
/// exceed the memory bound of an extraction.
const MAX_WINDOW_LOG: u32 = 23;

/// `ZSTD_error_frameParameter_windowTooLarge`, as the functions of libzstd return it.
const WINDOW_TOO_LARGE: usize = 0_usize.wrapping_sub(16);

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Bytes at the start of a file by which its compression is recognized.
pub(crate) const MAGIC_LENGTH: usize = 10;

impl Compression {
    /// The compression that the media type of a layer names.
    pub fn from_media_type(media_type: &MediaType) -> Option<Self> {
        match media_type {
            MediaType::ImageLayer => Some(Self::None),
            MediaType::ImageLayerGzip => Some(Self::Gzip),
            MediaType::ImageLayerZstd => Some(Self::Zstd),
            other => {
                let is_docker_gzip =
                    MediaType::ImageLayerGzip.to_docker_v2s2().is_ok_and(|docker| other.as_ref() == docker);
                is_docker_gzip.then_some(Self::Gzip)
            }
        }
    }

    /// The OCI media type of a layer with this compression.
    pub fn media_type(self) -> MediaType {
        match self {
            Self::None => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }

    /// The compression of a file that starts with `bytes`.
    pub fn from_magic(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The command that decompresses a file that starts with `bytes`, if its compression is known but not supported.
    pub fn unsupported_decompressor(bytes: &[u8]) -> Option<&'static str> {
        match bytes {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz -d"),
            // The first block of a bzip2 file starts with the digits of pi.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some("bzip2 -d"),
            _ => None,
        }
    }

    /// A reader of the uncompressed bytes of all members or frames of `blob`. Trailing data is an error of the reader.
    pub fn decompress<'a>(self, blob: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(blob),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
            Self::Zstd => Box::new(ZstdDecoder::new(blob)?),
        })
    }
}

/// Decompresses the frames of a zstd stream. `zstd::Decoder` reports every failure as text, so that a window that is too large could not
/// be told apart from corrupt data; this one reads the error code of libzstd.
struct ZstdDecoder<R> {
    source: R,
    context: DCtx<'static>,
    /// Whether the last frame is complete and flushed.
    at_frame_end: bool,
}

impl<R: BufRead> ZstdDecoder<R> {
    fn new(source: R) -> Result<Self> {
        let mut context =
            DCtx::try_create().ok_or_else(|| Error::system("creating a zstd decoder: out of memory"))?;
        context
            .set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))
            .map_err(zstd_error)
            .context("limiting the zstd window")?;
        Ok(Self { source, context, at_frame_end: false })
    }
}

impl<R: BufRead> Read for ZstdDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let available = self.source.fill_buf()?;
            let is_end = available.is_empty();
            if is_end && self.at_frame_end {
                return Ok(0);
            }
            let mut input = InBuffer::around(available);
            let mut output = OutBuffer::around(&mut *buffer);
            let remaining = self.context.decompress_stream(&mut output, &mut input).map_err(zstd_error)?;
            let (consumed, written) = (input.pos(), output.pos());
            self.source.consume(consumed);
            self.at_frame_end = remaining == 0;
            if written > 0 {
                return Ok(written);
            }
            if is_end && !self.at_frame_end {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete zstd frame"));
            }
        }
    }
}

fn zstd_error(code: usize) -> io::Error {
    match code {
        WINDOW_TOO_LARGE => io::Error::other(WindowTooLarge),
        code => io::Error::other(get_error_name(code)),
    }
}

/// The cause of the error of a zstd stream whose window exceeds the limit.
#[derive(Debug, thiserror::Error)]
#[error("a zstd frame needs a window of more than 8 MiB")]
pub(crate) struct WindowTooLarge;

impl WindowTooLarge {
    /// What the user can do about it.
    pub const HINT: &str = "compress the layer with a level up to 19 and without --long";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn frame(content: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("encoder");
        encoder.window_log(window_log).expect("window");
        encoder.write_all(content).expect("content");
        encoder.finish().expect("frame")
    }

    fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        // A small buffer, so that frames cross its end.
        let source = io::BufReader::with_capacity(7, bytes);
        Compression::Zstd.decompress(source).expect("decoder").read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn decompresses_all_frames_of_a_zstd_stream() {
        let long: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let stream = [frame(b"", 20), frame(b"one", 20), frame(&long, 23)].concat();
        assert!(decompress(&stream).expect("content") == [b"one", &long[..]].concat());
        assert!(decompress(b"").is_err(), "no frame at all");
    }

    #[test]
    fn rejects_truncated_and_trailing_zstd_data() {
        let stream = frame(&[7; 100_000], 20);
        for length in 1..stream.len() {
            let error = decompress(&stream[..length]).expect_err("truncated");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}: {error}");
        }
        assert!(decompress(&[&stream[..], b"trailing"].concat()).is_err());
    }

    #[test]
    fn rejects_zstd_window_above_the_limit() {
        let is_too_large = |result: io::Result<Vec<u8>>| {
            result.is_err_and(|error| error.get_ref().is_some_and(|cause| cause.is::<WindowTooLarge>()))
        };
        let content: Vec<u8> =
            (0..3_000_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        assert!(is_too_large(decompress(&frame(&content, MAX_WINDOW_LOG + 1))));
        assert!(decompress(&frame(&content, MAX_WINDOW_LOG)).expect("content") == content);
    }
}
