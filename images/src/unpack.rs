//! From a layer's blob to a tree, trusting neither.
//!
//! The tree grows in a directory that nobody else writes, so the file system itself knows what is there: every name on the way to an
//! entry is opened in the directory before it and must be a directory that this very archive made. No link is ever followed, and what
//! comes twice is refused. Nothing is kept in memory but the way to the last entry.
//!
//! What a layer removes from lower ones is written as overlayfs reads it: a device 0:0 for a whiteout, an attribute for an opaque
//! directory.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens, linkat,
    mknodat, openat, statat, symlinkat,
};
use rustix::io::Errno;

use crate::archive::{self, Item, Kind, Piece, damaged};
use crate::cursor::{Cursor, directory, split};
use crate::digest::Hashing;
use crate::grow::{enter, look, made, make, make_room, too_many, twice};
use crate::parallel::beside;
use crate::pipe::{Giver, pipe};
use crate::policy::{Bounds, Policy, SpecialFilePolicy};
use crate::record::{Line, Seal, Totals, Writer};
use crate::resolve::Layer;
use crate::tree::{is_whiteout, kind, walk};
use crate::{Digest, Error, Result, attributes};

/// Bytes of a blob that are read, and written to the store, after it turned out to be of no use: only to say whether it is the image's.
const FAR: u64 = 256 << 20;

/// Unpacks `blob` into the empty directory `root` and writes the record: one thread reads, hashes and unpacks, this one hashes and writes
/// what comes of it. An error leaves what is there; the caller throws it away.
pub(crate) fn unpack(
    blob: impl Read + Send,
    layer: &Layer,
    root: &impl AsFd,
    record: &File,
    bounds: Bounds,
    policy: Policy,
) -> Result<Seal> {
    let most = bounds.most(layer.size);
    let cursor = || Cursor::new(root).map_err(made("the tree"));
    let mut tree = Tree {
        cursor: cursor()?,
        targets: cursor()?,
        record: Writer::new(record),
        totals: Totals { entries: 1, ..Totals::default() },
        buffer: vec![0; 256 << 10],
        seen: 0,
        most,
        bounds,
        policy,
    };
    let (give, take) = pipe();
    let (read, filled) =
        beside(move || unpack_to(give, blob, layer), || tree.fill(Hashing::bounded(take, most)))?;
    // Bytes that are not the image's explain every other complaint about them.
    let whole = read?;
    let diff_id = filled?;
    if !whole {
        return Err(Error::safety(format!("layer {} goes on behind what is packed in it", layer.digest)));
    }
    if diff_id != layer.diff_id {
        return Err(Error::integrity(format!(
            "layer {} unpacks to {diff_id}, but the configuration says {}",
            layer.digest, layer.diff_id
        )));
    }
    tree.finish(root)
}

/// Gives what is packed in `blob`, and says whether that is the layer's. It is read to its end whatever becomes of what is in it, unless
/// that is far away: then it is not known.
fn unpack_to(give: Giver, blob: impl Read, layer: &Layer) -> Result<bool> {
    let mut blob = BufReader::with_capacity(1 << 17, Hashing::bounded(blob, layer.size));
    let opened = layer.packing()?.open(&mut blob).map(|unpacked| give.all(unpacked));
    let rest = std::io::copy(&mut (&mut blob).take(FAR), &mut std::io::sink()).map_err(damaged)?;
    if rest == FAR {
        return opened.map(|()| false);
    }
    layer.is_blob(blob.into_inner())?;
    opened.map(|()| true)
}

struct Tree<'a> {
    cursor: Cursor,
    /// For what hard links lead to.
    targets: Cursor,
    record: Writer<&'a File>,
    totals: Totals,
    buffer: Vec<u8>,
    seen: u64,
    /// Bytes of all files.
    most: u64,
    bounds: Bounds,
    policy: Policy,
}

impl Tree<'_> {
    fn fill(&mut self, mut archive: Hashing<impl Read>) -> Result<Digest> {
        archive::entries(&mut archive, |item, content| {
            let path = item.path.clone();
            self.add(item, content).map_err(|error| error.context(format_args!("entry {path:?}")))
        })?;
        Ok(archive.finish().2)
    }

    fn add(&mut self, item: Item, content: &mut dyn Read) -> Result<()> {
        self.totals.dropped_attributes += u64::from(item.dropped);
        // A directory can come again and again.
        self.seen += 1;
        if self.seen > self.bounds.entries {
            return Err(too_many(self.bounds));
        }
        match &item.kind {
            Kind::Directory => self.directory(&item),
            Kind::File => self.file(&item, None, content),
            Kind::Sparse(pieces) => self.file(&item, Some(pieces), content),
            Kind::Symlink(target) => self.symlink(&item, target),
            Kind::Hardlink(target) => self.hardlink(&item.path, target),
            Kind::Whiteout => self.whiteout(&item.path),
            Kind::Opaque => self.opaque(&item.path),
            Kind::Special(what) => match self.policy.devices {
                SpecialFilePolicy::Refuse => Err(Error::safety((*what).to_owned())),
                SpecialFilePolicy::Drop => {
                    self.totals.dropped_devices += 1;
                    Ok(())
                }
            },
        }
    }

    /// A directory may come after what lies in it; that is the only thing that may come again.
    fn directory(&mut self, item: &Item) -> Result<()> {
        let (parent, name) = split(&item.path);
        let Self { cursor, totals, bounds, .. } = self;
        if !name.is_empty() {
            let above = enter(cursor, totals, *bounds, parent)?;
            match statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_whiteout(&stat) && kind(&stat) != FileType::Directory => return Err(twice()),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(made("a directory")(error)),
            }
        }
        let handle = enter(cursor, totals, *bounds, &item.path)?;
        attributes::write(handle, &item.attributes)?;
        // The owner can always go in and write, or he could neither verify nor remove.
        fchmod(handle, Mode::from_raw_mode(item.mode & 0o755 | 0o700)).map_err(made("a directory"))?;
        self.note_set_id(item.mode)
    }

    fn file(&mut self, item: &Item, pieces: Option<&[Piece]>, content: &mut dyn Read) -> Result<()> {
        self.totals.bytes = self.totals.bytes.saturating_add(item.size);
        if self.totals.bytes > self.most {
            return Err(Error::safety(format!("files of more than the {} bytes allowed", self.most)));
        }
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let file = File::from(self.make(&item.path, "a file", |above, name| {
            openat(above, name, flags, Mode::from_raw_mode(0o600))
        })?);
        let whole = [Piece { at: 0, length: item.size }];
        let sha256 = write(&file, item.size, pieces.unwrap_or(&whole), content, &mut self.buffer)?;
        attributes::write(&file, &item.attributes)?;
        // Set-id bits go, and the owner can read, or he could not verify.
        let mode = item.mode & 0o755 | 0o400;
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(made("a file"))?;
        set_time(&file, item.mtime);
        let attributes = match item.attributes.is_empty() {
            true => None,
            false => attributes::digest(&file).map_err(made("a file"))?,
        };
        self.record.line(&Line::File {
            path: item.path.clone(),
            mode,
            size: item.size,
            sha256,
            attributes,
        })?;
        self.note_set_id(item.mode)
    }

    fn symlink(&mut self, item: &Item, target: &str) -> Result<()> {
        self.make(&item.path, "a link", |above, name| symlinkat(target, above, name))?;
        // No file system keeps attributes of the user's name space on a link.
        self.totals.dropped_attributes += item.attributes.len() as u64;
        self.record.line(&Line::Symlink { path: item.path.clone(), target: target.to_owned() })
    }

    fn hardlink(&mut self, path: &str, target: &str) -> Result<()> {
        let none =
            || Error::safety(format!("a hard link to {target:?}, which is no file of this layer before it"));
        let (parent, name) = split(target);
        let there = self.targets.enter(parent, |above, name, _| match directory(above, name) {
            Err(Errno::NOENT | Errno::NOTDIR) => Err(none()),
            other => other.map_err(made("a hard link")),
        })?;
        match statat(there, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if kind(&stat) == FileType::RegularFile => {}
            Ok(_) | Err(Errno::NOENT) => return Err(none()),
            Err(error) => return Err(made("a hard link")(error)),
        }
        let link = |above: BorrowedFd<'_>, own: &str| linkat(there, name, above, own, AtFlags::empty());
        make(&mut self.cursor, &mut self.totals, self.bounds, path, "a hard link", link)?;
        self.record.line(&Line::Hardlink { path: path.to_owned(), target: target.to_owned() })
    }

    fn make<T>(
        &mut self,
        path: &str,
        what: &str,
        how: impl Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> Result<T> {
        make(&mut self.cursor, &mut self.totals, self.bounds, path, what, how)
    }

    /// What the layer itself has under the name stays: a whiteout speaks of lower layers, wherever in the archive it stands.
    fn whiteout(&mut self, path: &str) -> Result<()> {
        let (parent, name) = split(path);
        let above = enter(&mut self.cursor, &mut self.totals, self.bounds, parent)?;
        match mknodat(above, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                self.totals.removals += 1;
                make_room(&mut self.totals, self.bounds)
            }
            Err(Errno::EXIST) => match look(above, name)? {
                it if is_whiteout(&it) => Err(twice()),
                it if kind(&it) == FileType::Directory => self.opaque(path),
                _ => Ok(()),
            },
            Err(Errno::PERM) => Err(Error::unsupported(
                "a whiteout: a store on an overlay can have none, nor can an ordinary user's before Linux 5.8; set INVARLOCK_STORE to a \
                 directory on ext4, xfs, btrfs or tmpfs"
                    .to_owned(),
            )),
            Err(error) => Err(made("a whiteout")(error)),
        }
    }

    fn opaque(&mut self, path: &str) -> Result<()> {
        self.totals.removals += 1;
        if path.is_empty() {
            // Overlayfs takes no notice of it at a root; whoever stacks the layers does.
            self.totals.opaque_root = true;
            return Ok(());
        }
        attributes::make_opaque(enter(&mut self.cursor, &mut self.totals, self.bounds, path)?)
    }

    fn note_set_id(&mut self, mode: u32) -> Result<()> {
        if mode & 0o6000 != 0 {
            self.totals.dropped_set_id += 1;
            if self.policy.set_id == SpecialFilePolicy::Refuse {
                return Err(Error::safety("a set-id bit"));
            }
        }
        Ok(())
    }

    /// Notes directories and whiteouts, which are only now what they will stay.
    fn finish(self, root: &impl AsFd) -> Result<Seal> {
        let Self { mut record, totals, .. } = self;
        let directory_line = |handle: BorrowedFd<'_>, path: &str| -> Result<Line> {
            let stat = fstat(handle).map_err(made("a directory"))?;
            let attributes = attributes::digest(handle).map_err(made("a directory"))?;
            Ok(Line::Directory { path: path.to_owned(), mode: stat.st_mode & 0o7777, attributes })
        };
        let root = directory(root.as_fd(), ".").map_err(made("the tree"))?;
        record.line(&directory_line(root.as_fd(), "")?)?;
        walk(root.as_fd(), "", 0, &mut |above, path, name, kind| match kind {
            FileType::Directory => {
                let handle = directory(above, name).map_err(made("a directory"))?;
                record.line(&directory_line(handle.as_fd(), path)?)
            }
            FileType::CharacterDevice => record.line(&Line::Whiteout { path: path.to_owned() }),
            _ => Ok(()),
        })?;
        record.finish(totals)
    }
}

/// Writes the pieces of a file of `size` bytes, and leaves holes between them. The digest is that of the file as it reads.
fn write(
    mut file: &File,
    size: u64,
    pieces: &[Piece],
    content: &mut dyn Read,
    buffer: &mut [u8],
) -> Result<Digest> {
    let mut hashing = Hashing::new(());
    let (mut at, mut written) = (0, 0);
    for piece in pieces {
        hashing.zeros(piece.at - at);
        if piece.at != at {
            file.seek(SeekFrom::Start(piece.at)).context("writing a file")?;
        }
        let mut left = piece.length;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match content.read(&mut buffer[..most]) {
                Ok(0) => return Err(Error::integrity("the archive ends inside a file")),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            hashing.update(&buffer[..read]);
            file.write_all(&buffer[..read]).context("writing a file")?;
            left -= read as u64;
        }
        at = piece.at + piece.length;
        if piece.length > 0 {
            written = at;
        }
    }
    hashing.zeros(size - at);
    if written != size {
        file.set_len(size).context("writing a file")?;
    }
    Ok(hashing.finish().2)
}

/// Times are not content, but Python compares them. One the file system cannot hold is left as it is.
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
    use crate::blobs::Blob;
    use invarlock_security::SecureTempDir;

    /// Unpacks `entries` (name and kind) within `bounds`.
    fn unpacked(entries: &[(&str, u8)], bounds: Bounds) -> Result<Seal> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).expect("name");
            header.set_entry_type(tar::EntryType::new(*kind));
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
        let layer = Layer {
            digest,
            size: bytes.len() as u64,
            media_type: crate::resolve::LAYER_TAR.to_owned(),
            diff_id: digest,
        };
        let dir = SecureTempDir::new("invarlock-unpack-").expect("directory");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("root");
        let record = File::create(dir.path().join("record")).expect("record");
        let root = File::open(root).expect("root");
        unpack(Blob::memory(bytes), &layer, &root, &record, bounds, Policy::default())
    }

    #[test]
    fn entries_are_bounded_however_they_come() {
        let bounds = Bounds { entries: 10, ..Bounds::default() };
        let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(|name| (name, b'0'));
        assert_eq!(unpacked(&nine, bounds).expect("nine and the root").totals.entries, 10);
        let deep = [("a/b/c/d/e/f/g/h/i/j", b'5')];
        let again = [("a/", b'5'); 11];
        let marks = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(|name| format!(".wh.{name}"));
        let marks: Vec<(&str, u8)> = marks.iter().map(|name| (name.as_str(), b'0')).collect();
        let opaque: Vec<(&str, u8)> = [("d/.wh..wh..opq", b'0'); 11].to_vec();
        for (what, entries) in [
            ("directories on the way", &deep[..]),
            ("one again and again", &again),
            ("whiteouts", &marks),
            ("marks", &opaque),
        ] {
            assert!(
                matches!(unpacked(entries, bounds), Err(error) if error.kind() == invarlock_error::Kind::Safety),
                "{what}"
            );
        }
        let bounds = Bounds { bytes: 1000, ..Bounds::default() };
        assert!(
            matches!(unpacked(&nine, bounds), Err(error) if error.kind() == invarlock_error::Kind::Safety),
            "bytes of the archive"
        );
    }
}
