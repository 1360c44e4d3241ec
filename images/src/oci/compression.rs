//! Compression of layers.
//!
//! Blobs are untrusted: the memory for decompression is bounded, and truncated or trailing data is an error of the reader.

use std::io::{self, BufRead, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use invarlock_error::Context as _;
use oci_spec::image::MediaType;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use crate::{Error, Result};

/// Largest zstd window of a layer that is decompressed beside others, as a power of two: 8 MiB, which the zstd specification recommends
/// every decoder to support.
const SMALL_WINDOW_LOG: u32 = 23;
/// Largest zstd window: 128 MiB, that of `zstd --ultra -22`, and what the `zstd` program accepts without `--long`.
const MAX_WINDOW_LOG: u32 = 27;
/// Bytes of the longest header of a zstd frame (`ZSTD_FRAMEHEADERSIZE_MAX`).
const MAX_FRAME_HEADER: usize = 18;

/// Held while a frame with a large window is decompressed: windows are memory, so a process has only one of them at a time.
static LARGE_WINDOW: Mutex<()> = Mutex::new(());

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

/// Media types of layers: those of the image specification, then Docker's. Layers that must not be distributed are like others here: their
/// bytes are read from the source of the image, and never from the addresses in their descriptor. Each with the separator before the name of a compression.
const LAYER_TYPES: [(&str, char); 4] = [
    ("application/vnd.oci.image.layer.v1.tar", '+'),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar", '+'),
    ("application/vnd.docker.image.rootfs.diff.tar", '.'),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar", '.'),
];

impl Compression {
    /// The compression that the media type of a layer names. It is a claim: [`decompress`] reads what the blob contains.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        LAYER_TYPES.iter().find_map(|(archive, separator)| match media_type.strip_prefix(archive)? {
            "" => Some(Self::None),
            rest => match rest.strip_prefix(*separator)? {
                "gzip" => Some(Self::Gzip),
                "zstd" => Some(Self::Zstd),
                _ => None,
            },
        })
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

/// A reader of the uncompressed bytes of the layer `blob`, by its first bytes: the media types that tools write are often wrong, and the
/// digest of the uncompressed bytes is verified. No archive starts like a compressed file: the names in it are UTF-8.
pub(crate) fn decompress<'a>(mut blob: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut start = Vec::new();
    blob.by_ref().take(MAGIC_LENGTH as u64).read_to_end(&mut start).context("reading a layer")?;
    if let Some(command) = Compression::unsupported_decompressor(&start) {
        return Err(Error::unsupported("its compression is not supported; supported: none, gzip and zstd")
            .with_hint(format!("the layer is compressed for `{command}`: compress it with gzip or zstd")));
    }
    Compression::from_magic(&start).decompress(io::Cursor::new(start).chain(blob))
}

/// Decompresses the frames of a zstd stream. `zstd::Decoder` reports every failure as text, so that a window that is too large could not
/// be told apart from corrupt data; this one reads the error code of libzstd.
struct ZstdDecoder<R> {
    source: R,
    context: DCtx<'static>,
    /// Whether the last frame is complete and flushed.
    at_frame_end: bool,
    /// The first bytes of the current frame that were consumed, up to the length of a header.
    frame_start: Vec<u8>,
    /// Allows a large window.
    large_window: Option<MutexGuard<'static, ()>>,
}

impl<R: BufRead> ZstdDecoder<R> {
    fn new(source: R) -> Result<Self> {
        let mut context =
            DCtx::try_create().ok_or_else(|| Error::system("creating a zstd decoder: out of memory"))?;
        context
            .set_parameter(DParameter::WindowLogMax(SMALL_WINDOW_LOG))
            .map_err(zstd_error)
            .context("limiting the zstd window")?;
        let (frame_start, large_window) = (Vec::with_capacity(MAX_FRAME_HEADER), None);
        Ok(Self { source, context, at_frame_end: false, frame_start, large_window })
    }
}

/// Starts the current frame again with the largest window, when no other large window is in use. `start`: the bytes of the frame that were
/// consumed.
fn allow_large_window(context: &mut DCtx<'static>, start: &[u8]) -> io::Result<MutexGuard<'static, ()>> {
    // The mutex protects no data that a panic could have left inconsistent.
    let guard = LARGE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    context.reset(ResetDirective::SessionOnly).map_err(zstd_error)?;
    context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(zstd_error)?;
    let mut input = InBuffer::around(start);
    while input.pos() < start.len() {
        // The header of a frame has no content.
        context.decompress_stream(&mut OutBuffer::around(&mut [0; 1][..]), &mut input).map_err(zstd_error)?;
    }
    Ok(guard)
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
            let remaining = match self.context.decompress_stream(&mut output, &mut input) {
                Err(WINDOW_TOO_LARGE) if self.large_window.is_none() => {
                    self.large_window = Some(allow_large_window(&mut self.context, &self.frame_start)?);
                    continue;
                }
                other => other.map_err(zstd_error)?,
            };
            let (consumed, written) = (input.pos(), output.pos());
            let missing = MAX_FRAME_HEADER.saturating_sub(self.frame_start.len());
            self.frame_start.extend(&available[..consumed.min(missing)]);
            self.source.consume(consumed);
            self.at_frame_end = remaining == 0;
            if self.at_frame_end {
                self.frame_start.clear();
            }
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
#[error("a zstd frame needs a window of more than 128 MiB")]
pub(crate) struct WindowTooLarge;

impl WindowTooLarge {
    /// What the user can do about it.
    pub const HINT: &str = "compress the layer without --long, or with --long=27 at most";
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
    fn zstd_windows_are_limited_and_large_ones_used_one_at_a_time() {
        let is_too_large = |result: io::Result<Vec<u8>>| {
            result.is_err_and(|error| error.get_ref().is_some_and(|cause| cause.is::<WindowTooLarge>()))
        };
        let content: Vec<u8> =
            (0..3_000_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let frame = |window_log| frame(&content, window_log);
        assert!(is_too_large(decompress(&frame(MAX_WINDOW_LOG + 1))));
        // The first frame fits into a small window.
        let stream = [frame(SMALL_WINDOW_LOG), frame(SMALL_WINDOW_LOG + 1), frame(MAX_WINDOW_LOG)].concat();
        assert!(decompress(&stream).expect("content") == [&content[..]; 3].concat());

        let large = frame(SMALL_WINDOW_LOG + 1);
        let mut first = ZstdDecoder::new(&large[..]).expect("decoder");
        first.read_exact(&mut [0; 1]).expect("content");
        let second = std::thread::spawn({
            let large = large.clone();
            move || decompress(&large).expect("content").len()
        });
        let small = frame(SMALL_WINDOW_LOG);
        assert!(decompress(&small).expect("a small window does not wait") == content);
        assert!(!second.is_finished(), "two large windows at once");
        drop(first);
        assert_eq!(second.join().expect("second"), content.len());
    }

    #[test]
    fn decompresses_by_content_and_names_unsupported_compression() {
        let read = |blob: &[u8]| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            super::decompress(io::BufReader::with_capacity(3, blob))?.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let content = b"some content that is longer than a magic number".as_slice();
        for blob in [content.to_vec(), frame(content, 20)] {
            assert_eq!(read(&blob).expect("content"), content);
        }
        assert_eq!(read(b"short").expect("content"), b"short");
        for magic in [b"\xfd7zXZ\0....".as_slice(), b"BZh91AY&SY.."] {
            assert!(read(magic).is_err_and(|error| error.kind() == invarlock_error::Kind::Unsupported));
        }
    }

    #[test]
    fn media_types_of_layers_are_known_with_their_compression() {
        use Compression::{Gzip, None as Plain, Zstd};
        for (media_type, expected) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Plain)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Zstd)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar", Some(Plain)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(Zstd)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+xz", None),
            ("application/vnd.oci.image.layer.v1.tar++gzip", None),
            ("application/vnd.oci.image.layer.v1.tar.gzip", None),
            ("application/x-what", None),
        ] {
            assert_eq!(Compression::from_media_type(media_type), expected, "{media_type}");
        }
    }
}
