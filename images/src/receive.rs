//! Blobs from afar, which come in parts: what came before a failure or a kill is kept under the blob's name with `.part` behind, gone on
//! with by whoever wants the blob next, and freed by `gc`. A blob gets its name when all its bytes are there and have its digest.

use invarlock_error::Context as _;
use invarlock_error::Kind;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;

use crate::digest::Hashing;
use crate::hooks::step;
use crate::layout::Held;
use crate::remote::Sink;
use crate::{Digest, Error, Result};

impl Held<'_> {
    /// Has `fetch` fill in what is missing of a blob. Waits for whoever else does the same. Bytes that turn out not to be the blob's are
    /// thrown away; where some of them were there before, the blob is fetched anew.
    pub fn receive(
        &self,
        digest: &Digest,
        size: u64,
        fetch: &dyn Fn(&mut dyn Sink) -> Result<()>,
    ) -> Result<()> {
        let blobs = self.layout.blobs();
        let (name, partial) = (digest.hex(), format!("{}.part", digest.hex()));
        let within = |error: Error| error.context(format_args!("blob {digest}"));
        let Some(file) = self.claim_part(&partial, &name).map_err(within)? else { return Ok(()) };
        step("pull: part opened");
        let mut part = Part::of(file, size).map_err(within)?;
        let resumed = part.at > 0;
        let mut received = fetch(&mut part).and_then(|()| part.is_blob(digest));
        if resumed && matches!(&received, Err(error) if error.kind() == Kind::Integrity) && !part.fresh {
            // What was there may have been the bad part.
            received = part.restart().and_then(|()| fetch(&mut part)).and_then(|()| part.is_blob(digest));
        }
        let work = || -> Result<()> {
            received?;
            fchmod(&part.file, Mode::from_raw_mode(0o644))
                .map_err(|error| Error::system(format!("writing it: {error}")))?;
            step("store: blob written");
            blobs.rename(&partial, blobs, &name).context("writing it")?;
            step("store: blob named");
            Ok(())
        };
        let done = work();
        let of_no_use = part.at == 0
            || part.failed
            || done.as_ref().is_err_and(|error| matches!(error.kind(), Kind::Integrity | Kind::Safety));
        if done.is_err() && of_no_use {
            let _ = blobs.remove_file(&partial);
        }
        done.map_err(within)
    }

    /// The file of what came so far, with its lock, or nothing where the blob is there meanwhile.
    fn claim_part(&self, partial: &str, name: &str) -> Result<Option<File>> {
        let blobs = self.layout.blobs();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error: Errno| Error::system(format!("opening what came so far: {error}"));
        loop {
            let file = match rustix::fs::openat(blobs, partial, flags, Mode::from_raw_mode(0o600)) {
                Ok(file) => File::from(file),
                // Nothing of ours makes such a thing.
                Err(Errno::LOOP) => {
                    blobs.remove_file(partial).context("removing a link")?;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            match flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => continue,
                other => other.map_err(failed)?,
            }
            let still = rustix::fs::statat(blobs, partial, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
            let own = rustix::fs::fstat(&file).map_err(failed)?;
            if still.is_ok_and(|it| (it.st_dev, it.st_ino) == (own.st_dev, own.st_ino)) {
                return Ok(Some(file));
            }
            // Whoever we waited for is done with it.
            if blobs.symlink_metadata(name).is_ok() {
                return Ok(None);
            }
        }
    }
}

/// A blob that is coming.
struct Part {
    file: File,
    hashing: Hashing<()>,
    at: u64,
    size: u64,
    /// All of it came now.
    fresh: bool,
    /// It could not be written: what there is of it only takes up room.
    failed: bool,
}

impl Part {
    fn of(mut file: File, size: u64) -> Result<Self> {
        let metadata = file.metadata().context("looking at what came so far")?;
        if !metadata.is_file() {
            return Err(Error::safety("what came so far is not a regular file"));
        }
        if metadata.len() > size {
            file.set_len(0).context("throwing away what came so far")?;
        }
        let mut hashing = Hashing::new(());
        hashing.read_all(&mut file).context("reading what came so far")?;
        let at = file.stream_position().context("reading what came so far")?;
        Ok(Self { file, hashing, at, size, fresh: at == 0, failed: false })
    }

    fn is_blob(&mut self, digest: &Digest) -> Result<()> {
        let (_, count, found) = std::mem::replace(&mut self.hashing, Hashing::new(())).finish();
        match (count, found) == (self.size, *digest) {
            true => Ok(()),
            false => Err(Error::integrity(format!(
                "the registry gave {count} bytes with digest {found}, and the manifest says {}; nothing of it was kept",
                self.size
            ))),
        }
    }
}

impl Sink for Part {
    fn have(&self) -> u64 {
        self.at
    }

    fn restart(&mut self) -> Result<()> {
        let doing = || "throwing away what came so far";
        self.file.set_len(0).context(doing())?;
        self.file.seek(SeekFrom::Start(0)).context(doing())?;
        (self.hashing, self.at, self.fresh) = (Hashing::new(()), 0, true);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.size - self.at {
            return Err(Error::integrity(format!(
                "the registry gives more than the {} bytes that the manifest says",
                self.size
            )));
        }
        self.hashing.update(bytes);
        self.file.write_all(bytes).map_err(|error| {
            self.failed = true;
            Error::system(format!("writing it: {error}"))
        })?;
        self.at += bytes.len() as u64;
        step("pull: bytes kept");
        Ok(())
    }
}
