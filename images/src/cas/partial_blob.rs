//! Downloads of blobs. The bytes received before a failure or kill are kept as `DIGEST.part`: the next download of the blob continues with
//! them, and `gc` deletes them. A blob gets its name when all its bytes have arrived and have its digest.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use invarlock_error::{Context as _, Kind};
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod};
use rustix::io::Errno;

use super::layout::LockedLayout;
use super::locks;
use crate::hooks::step;
use crate::oci::{Digest, Hashing};
use crate::{Error, Result};

/// The destination of the bytes of a blob, in their order.
pub trait Sink {
    /// The number of bytes that an earlier attempt left.
    fn have(&self) -> u64;

    /// Discards these bytes, because the download cannot continue with them.
    fn restart(&mut self) -> Result<()>;

    /// Appends bytes. More bytes than the blob has are refused.
    fn take(&mut self, bytes: &[u8]) -> Result<()>;
}

impl LockedLayout<'_> {
    /// Downloads a blob with `fetch`, which supplies the missing bytes. Waits for another process that downloads the same blob. Bytes with
    /// a wrong digest are discarded; if some of them were from an earlier attempt, the blob is downloaded once more from the start.
    pub fn download_blob(
        &self,
        digest: &Digest,
        size: u64,
        fetch: &dyn Fn(&mut dyn Sink) -> Result<()>,
    ) -> Result<()> {
        self.try_download(digest, size, fetch).with_context(|| format!("blob {digest}"))
    }

    fn try_download(
        &self,
        digest: &Digest,
        size: u64,
        fetch: &dyn Fn(&mut dyn Sink) -> Result<()>,
    ) -> Result<()> {
        let blobs = self.layout.blobs_dir();
        let (name, partial) = (digest.hex(), format!("{}.part", digest.hex()));
        let Some(file) = self.open_partial(&partial, &name)? else { return Ok(()) };
        step("pull: part opened");
        let mut part = PartialBlob::new(file, size)?;
        let is_resumed = part.length > 0;
        let mut received = fetch(&mut part).and_then(|()| part.check_digest(digest));
        if is_resumed && is_kind(&received, Kind::Integrity) && !part.is_fresh {
            // The bytes of the earlier attempt may be the wrong ones.
            received =
                part.restart().and_then(|()| fetch(&mut part)).and_then(|()| part.check_digest(digest));
        }
        let finish = || -> Result<()> {
            received?;
            fchmod(&part.file, Mode::from_raw_mode(0o644)).context("setting its mode")?;
            step("store: blob written");
            blobs.rename(&partial, blobs, &name).context("renaming it")?;
            step("store: blob named");
            Ok(())
        };
        let finished = finish();
        let is_useless = part.length == 0
            || part.write_failed
            || is_kind(&finished, Kind::Integrity)
            || is_kind(&finished, Kind::Safety);
        if finished.is_err() && is_useless {
            let _ = blobs.remove_file(&partial);
        }
        finished
    }

    /// Opens and locks the file of the received bytes. `None` if another process completed the blob meanwhile.
    fn open_partial(&self, partial: &str, name: &str) -> Result<Option<File>> {
        let blobs = self.layout.blobs_dir();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opening = "opening its partial download";
        loop {
            let file = match rustix::fs::openat(blobs, partial, flags, Mode::from_raw_mode(0o600)) {
                // InvarLock never creates a link there.
                Err(Errno::LOOP) => {
                    blobs.remove_file(partial).context("removing a link")?;
                    continue;
                }
                other => File::from(other.context(opening)?),
            };
            locks::take(&file, FlockOperation::LockExclusive).context(opening)?;
            if locks::is_current(&file, blobs, partial).context(opening)? {
                return Ok(Some(file));
            }
            // The process that held the lock has finished or removed the file.
            if blobs.symlink_metadata(name).is_ok() {
                return Ok(None);
            }
        }
    }
}

fn is_kind(result: &Result<()>, kind: Kind) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == kind)
}

/// A blob that is being downloaded.
struct PartialBlob {
    file: File,
    hashing: Hashing<()>,
    length: u64,
    size: u64,
    /// All bytes are from this attempt.
    is_fresh: bool,
    /// The file could not be written, so that what it contains is useless.
    write_failed: bool,
}

impl PartialBlob {
    fn new(mut file: File, size: u64) -> Result<Self> {
        let metadata = file.metadata().context("reading the metadata of its partial download")?;
        if !metadata.is_file() {
            return Err(Error::safety("its partial download is not a regular file"));
        }
        if metadata.len() > size {
            file.set_len(0).context("discarding its partial download")?;
        }
        let mut hashing = Hashing::new(());
        hashing.read_all(&mut file).context("reading its partial download")?;
        let length = file.stream_position().context("reading its partial download")?;
        Ok(Self { file, hashing, length, size, is_fresh: length == 0, write_failed: false })
    }

    fn check_digest(&mut self, digest: &Digest) -> Result<()> {
        let (_, count, found) = std::mem::replace(&mut self.hashing, Hashing::new(())).finish();
        match (count, found) == (self.size, *digest) {
            true => Ok(()),
            false => Err(Error::integrity(format!(
                "the registry sent {count} bytes with digest {found}, but the manifest names {} bytes; they were discarded",
                self.size
            ))),
        }
    }
}

impl Sink for PartialBlob {
    fn have(&self) -> u64 {
        self.length
    }

    fn restart(&mut self) -> Result<()> {
        let discarding = "discarding its partial download";
        self.file.set_len(0).context(discarding)?;
        self.file.seek(SeekFrom::Start(0)).context(discarding)?;
        (self.hashing, self.length, self.is_fresh) = (Hashing::new(()), 0, true);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.size - self.length {
            return Err(Error::integrity(format!(
                "the registry sent more than the {} bytes that the manifest names",
                self.size
            )));
        }
        self.hashing.update(bytes);
        if let Err(error) = self.file.write_all(bytes) {
            self.write_failed = true;
            return Err(error).context("writing it");
        }
        self.length += bytes.len() as u64;
        step("pull: bytes kept");
        Ok(())
    }
}
