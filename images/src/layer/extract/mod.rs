//! Extraction of the blob of a layer, which is untrusted.
//!
//! A layer is extracted to a directory that no other process writes, so the file system itself records what exists: each component of the
//! path of an entry is opened in the directory before it and must be a directory that the same archive created. No link is ever followed,
//! and duplicate entries are refused. Only the handles of the current path are kept in memory.
//!
//! What a layer removes from lower layers is represented as overlayfs expects: a device 0:0 for a whiteout, an extended attribute for an
//! opaque directory.

mod content;
mod create;

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens, linkat,
    mknodat, openat, statat, symlinkat,
};
use rustix::io::Errno;

use self::content::{Content, too_much_data};
use self::create::{count_entry, create_entry, creating, duplicate, enter, stat, too_many_entries};
use super::cursor::{Cursor, directory, split};
use super::entry::{Line, Totals};
use super::inspect::{file_type, is_whiteout, permissions, walk};
use super::limits::{DROP_DEVICES, Limits, Policy, SpecialFilePolicy, too_large};
use super::pipe::{PipeWriter, pipe};
use super::xattr;
use crate::oci::{Digest, Hashing, Layer, compression};
use crate::parallel::join_with;
use crate::tar::{self, Extent, Item, Kind, read_error};
use crate::{Error, Result};

/// Most bytes of a blob that are read after the end of its archive, only to report whether its digest is right.
const MAX_TRAILING: u64 = 256 << 20;
/// Bytes that an entry counts for, besides its content: those of its header in the archive, and about those of its inode.
const HEADER: u64 = 512;

/// Extracts `blob` to the empty directory `root` and calls `record` with a line for each entry. One thread reads, hashes and decompresses;
/// this thread hashes and writes the result. After an error the caller deletes the directory.
pub(crate) fn extract(
    blob: impl Read + Send,
    layer: &Layer,
    root: &impl AsFd,
    record: &mut dyn FnMut(&Line) -> Result<()>,
    limits: Limits,
    policy: Policy,
) -> Result<Totals> {
    let max_bytes = limits.max_archive(layer.size, policy.layer_size);
    let cursor = || Cursor::new(root).map_err(creating("the extracted layer"));
    let mut extraction = Extraction {
        cursor: cursor()?,
        link_targets: cursor()?,
        record,
        totals: Totals { entries: 1, ..Totals::default() },
        buffer: vec![0; 256 << 10],
        seen: 0,
        data: 0,
        max_data: limits.max_data(layer.size),
        max_bytes,
        limits,
        policy,
    };
    let (writer, reader) = pipe();
    let (decompressed, extracted) = join_with(
        move || decompress(writer, blob, layer),
        || extraction.extract_all(Hashing::bounded(reader, max_bytes)),
    )?;
    // A wrong digest of the blob explains every other error.
    let is_complete = decompressed?;
    let diff_id = extracted?;
    if !is_complete {
        return Err(Error::safety(format!("layer {} has data after its archive", layer.digest)));
    }
    if diff_id != layer.diff_id {
        return Err(Error::integrity(format!(
            "layer {} decompresses to {diff_id}, but the configuration names {}",
            layer.digest, layer.diff_id
        )));
    }
    extraction.finish(root)
}

/// Decompresses `blob` and verifies its digest, for which it is read to its end also after an error. False if so much data follows the
/// archive that the digest was not computed.
fn decompress(writer: PipeWriter, blob: impl Read, layer: &Layer) -> Result<bool> {
    let mut blob = BufReader::with_capacity(1 << 17, Hashing::bounded(blob, layer.size));
    let decompressed = compression::decompress(&mut blob).map(|archive| writer.write_all_from(archive));
    let trailing =
        std::io::copy(&mut (&mut blob).take(MAX_TRAILING), &mut std::io::sink()).map_err(read_error)?;
    if trailing == MAX_TRAILING {
        return decompressed.map(|()| false);
    }
    layer.check_blob(blob.into_inner())?;
    decompressed.map(|()| true)
}

/// The state of an extraction.
struct Extraction<'a> {
    cursor: Cursor,
    /// The directories of the targets of hard links.
    link_targets: Cursor,
    record: &'a mut dyn FnMut(&Line) -> Result<()>,
    totals: Totals,
    buffer: Vec<u8>,
    /// Number of entries of the archive that were read.
    seen: u64,
    /// Bytes of the archive that were read, without the holes in files.
    data: u64,
    /// Most of them.
    max_data: u64,
    /// Most bytes of all files, holes included.
    max_bytes: u64,
    limits: Limits,
    policy: Policy,
}

impl Extraction<'_> {
    fn extract_all(&mut self, mut archive: Hashing<impl Read>) -> Result<Digest> {
        tar::entries(&mut archive, |item, content| {
            let path = item.path.clone();
            self.extract_entry(item, content).with_context(|| format!("entry {path:?}"))
        })?;
        Ok(archive.finish().2)
    }

    fn extract_entry(&mut self, item: Item, content: &mut dyn Read) -> Result<()> {
        self.totals.dropped_attributes += u64::from(item.dropped);
        // The same directory can occur many times, so created entries alone do not limit the archive.
        self.seen += 1;
        if self.seen > self.limits.entries {
            return Err(too_many_entries(self.limits));
        }
        self.charge(HEADER + item.attributes.iter().map(|(_, value)| value.len() as u64).sum::<u64>())?;
        match &item.kind {
            Kind::Directory => self.directory(&item),
            Kind::File => self.file(&item, None, content),
            Kind::Sparse(extents) => self.file(&item, Some(extents), content),
            Kind::Symlink(target) => self.symlink(&item, target),
            Kind::Hardlink(target) => self.hardlink(&item.path, target),
            Kind::Whiteout => self.whiteout(&item.path),
            Kind::Opaque => self.opaque(&item.path),
            Kind::Special(what) => match self.policy.devices {
                SpecialFilePolicy::Refuse => Err(Error::safety((*what).to_owned()).with_hint(DROP_DEVICES)),
                SpecialFilePolicy::Drop => {
                    self.totals.dropped_devices += 1;
                    Ok(())
                }
            },
        }
    }

    /// Counts bytes of the archive that take space on the disk.
    fn charge(&mut self, bytes: u64) -> Result<()> {
        self.data = self.data.saturating_add(bytes);
        if self.data <= self.max_data { Ok(()) } else { Err(too_much_data(self.max_data)) }
    }

    /// A directory may follow its contents, and is the only type of entry that may occur again.
    fn directory(&mut self, item: &Item) -> Result<()> {
        let (parent, name) = split(&item.path);
        let Self { cursor, totals, limits, .. } = self;
        if !name.is_empty() {
            let parent = enter(cursor, totals, *limits, parent)?;
            match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_whiteout(&stat) && file_type(&stat) != FileType::Directory => {
                    return Err(duplicate());
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(creating("a directory")(error)),
            }
        }
        let handle = enter(cursor, totals, *limits, &item.path)?;
        xattr::write(handle, &item.attributes)?;
        // The owner must be able to enter and write, in order to verify and delete the directory.
        fchmod(handle, Mode::from_raw_mode(item.mode & 0o755 | 0o700)).map_err(creating("a directory"))?;
        self.count_set_id(item.mode)
    }

    fn file(&mut self, item: &Item, extents: Option<&[Extent]>, content: &mut dyn Read) -> Result<()> {
        self.totals.bytes = self.totals.bytes.saturating_add(item.size);
        if self.totals.bytes > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let file = File::from(self.create(&item.path, "a file", |parent, name| {
            openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })?);
        let whole = [Extent { offset: 0, length: item.size }];
        let mut content =
            Content { source: content, buffer: &mut self.buffer, max_data: self.max_data - self.data };
        let (sha256, data) = content.write_to(&file, item.size, extents.unwrap_or(&whole))?;
        self.charge(data)?;
        xattr::write(&file, &item.attributes)?;
        // Set-id bits are dropped. The owner must be able to read the file, in order to verify it.
        let mode = item.mode & 0o755 | 0o400;
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(creating("a file"))?;
        set_time(&file, item.mtime);
        let attributes = match item.attributes.is_empty() {
            true => None,
            false => xattr::digest(&file).map_err(creating("a file"))?,
        };
        (self.record)(&Line::File { path: item.path.clone(), mode, size: item.size, sha256, attributes })?;
        self.count_set_id(item.mode)
    }

    fn symlink(&mut self, item: &Item, target: &str) -> Result<()> {
        self.create(&item.path, "a link", |parent, name| symlinkat(target, parent, name))?;
        // No file system supports `user.` attributes of a link.
        self.totals.dropped_attributes += item.attributes.len() as u64;
        (self.record)(&Line::Symlink { path: item.path.clone(), target: target.to_owned() })
    }

    fn hardlink(&mut self, path: &str, target: &str) -> Result<()> {
        let not_a_file = || {
            Error::safety(format!(
                "a hard link to {target:?}, which is not an earlier file or link of this layer"
            ))
        };
        let (parent, target_name) = split(target);
        let target_parent =
            self.link_targets.enter(parent, |parent, name, _| match directory(parent, name) {
                Err(Errno::NOENT | Errno::NOTDIR) => Err(not_a_file()),
                other => other.map_err(creating("a hard link")),
            })?;
        match statat(target_parent, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            // The second name of a symbolic link is the same link: it is not followed here either.
            Ok(stat) if matches!(file_type(&stat), FileType::RegularFile | FileType::Symlink) => {}
            Ok(_) | Err(Errno::NOENT) => return Err(not_a_file()),
            Err(error) => return Err(creating("a hard link")(error)),
        }
        let link = |parent: BorrowedFd<'_>, name: &str| {
            linkat(target_parent, target_name, parent, name, AtFlags::empty())
        };
        create_entry(&mut self.cursor, &mut self.totals, self.limits, path, "a hard link", link)?;
        (self.record)(&Line::Hardlink { path: path.to_owned(), target: target.to_owned() })
    }

    fn create<T>(
        &mut self,
        path: &str,
        what: &str,
        create: impl Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> Result<T> {
        create_entry(&mut self.cursor, &mut self.totals, self.limits, path, what, create)
    }

    /// A whiteout applies to lower layers only, wherever in the archive it is: an entry of the same layer stays.
    fn whiteout(&mut self, path: &str) -> Result<()> {
        let (parent, name) = split(path);
        let parent = enter(&mut self.cursor, &mut self.totals, self.limits, parent)?;
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                self.totals.removals += 1;
                count_entry(&mut self.totals, self.limits)
            }
            Err(Errno::EXIST) => match stat(parent, name)? {
                existing if is_whiteout(&existing) => Err(duplicate()),
                existing if file_type(&existing) == FileType::Directory => self.opaque(path),
                _ => Ok(()),
            },
            Err(Errno::PERM) => Err(Error::unsupported(
                "a whiteout: it cannot be created on an overlay, nor by an unprivileged user before Linux 5.8",
            )
            .with_hint("set INVARLOCK_STORE to a directory on ext4, xfs, btrfs or tmpfs")),
            Err(error) => Err(creating("a whiteout")(error)),
        }
    }

    fn opaque(&mut self, path: &str) -> Result<()> {
        self.totals.removals += 1;
        if path.is_empty() {
            // Overlayfs ignores the attribute on a root. The layers below are left out when layers are stacked.
            self.totals.opaque_root = true;
            return Ok(());
        }
        xattr::make_opaque(enter(&mut self.cursor, &mut self.totals, self.limits, path)?)
    }

    fn count_set_id(&mut self, mode: u32) -> Result<()> {
        if mode & 0o6000 != 0 {
            self.totals.dropped_set_id += 1;
            if self.policy.set_id == SpecialFilePolicy::Refuse {
                return Err(Error::safety("a set-id bit"));
            }
        }
        Ok(())
    }

    /// Records directories and whiteouts, which only now have their final state.
    fn finish(self, root: &impl AsFd) -> Result<Totals> {
        let Self { record, totals, .. } = self;
        let directory_line = |handle: BorrowedFd<'_>, path: &str| -> Result<Line> {
            let stat = fstat(handle).map_err(creating("a directory"))?;
            let attributes = xattr::digest(handle).map_err(creating("a directory"))?;
            Ok(Line::Directory { path: path.to_owned(), mode: permissions(&stat), attributes })
        };
        let root = directory(root.as_fd(), ".").map_err(creating("the extracted layer"))?;
        record(&directory_line(root.as_fd(), "")?)?;
        walk(root.as_fd(), "", 0, &mut |parent, path, name, file_type| match file_type {
            FileType::Directory => {
                let handle = directory(parent, name).map_err(creating("a directory"))?;
                record(&directory_line(handle.as_fd(), path)?)
            }
            FileType::CharacterDevice => record(&Line::Whiteout { path: path.to_owned() }),
            _ => Ok(()),
        })?;
        Ok(totals)
    }
}

/// Sets the modification time: Python compares those of source and byte code. A time that the file system cannot represent is ignored.
fn set_time(file: &File, seconds: u64) {
    let Ok(tv_sec) = i64::try_from(seconds) else { return };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec, tv_nsec: 0 },
    };
    let _ = futimens(file, &times);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cas::Blob;
    use invarlock_error::Kind as ErrorKind;
    use invarlock_security::SecureTempDir;
    use oci_spec::image::MediaType;

    /// Extracts an archive of `entries` (name and type flag).
    fn extract_entries(entries: &[(&str, u8)], limits: Limits) -> Result<Totals> {
        let mut archive = ::tar::Builder::new(Vec::new());
        for (name, kind) in entries {
            let mut header = ::tar::Header::new_ustar();
            header.set_path(name).expect("name");
            header.set_entry_type(::tar::EntryType::new(*kind));
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            header.set_cksum();
            archive.append(&header, std::io::empty()).expect("entry");
        }
        let bytes = archive.into_inner().expect("archive");
        let digest = Digest::of(&bytes);
        let layer = Layer::new(digest, bytes.len() as u64, &MediaType::ImageLayer, digest);
        let dir = SecureTempDir::new("invarlock-extract-").expect("directory");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("root");
        let root = File::open(root).expect("root");
        extract(Blob::memory(bytes), &layer, &root, &mut |_| Ok(()), limits, Policy::default())
    }

    #[test]
    fn limits_entries_and_bytes() {
        let limits = Limits { entries: 10, ..Limits::default() };
        let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(|name| (name, b'0'));
        assert_eq!(extract_entries(&nine, limits).expect("nine and the root").entries, 10);
        let implied = [("a/b/c/d/e/f/g/h/i/j", b'5')];
        let repeated = [("a/", b'5'); 11];
        let whiteouts = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(|name| format!(".wh.{name}"));
        let whiteouts: Vec<(&str, u8)> = whiteouts.iter().map(|name| (name.as_str(), b'0')).collect();
        let opaque: Vec<(&str, u8)> = [("d/.wh..wh..opq", b'0'); 11].to_vec();
        for (what, entries) in [
            ("implied directories", &implied[..]),
            ("the same directory", &repeated),
            ("whiteouts", &whiteouts),
            ("opaque markers", &opaque),
        ] {
            assert!(
                matches!(extract_entries(entries, limits), Err(error) if error.kind() == ErrorKind::Safety),
                "{what}"
            );
        }
        let limits = Limits { bytes: 1000, ..Limits::default() };
        assert!(
            matches!(extract_entries(&nine, limits), Err(error) if error.kind() == ErrorKind::Safety),
            "bytes of the archive"
        );
    }
}
