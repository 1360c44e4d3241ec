//! Export of an image to a layout or archive that other tools read. Layouts and OCI archives contain the unchanged blobs, so the digest of
//! the image stays. The same image gives the same archive.

use invarlock_error::Context as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::import::copy_blobs;
use super::local::LocalImages;
use super::resolve::{self, ResolvedImage};
use crate::cas::files::random_suffix;
use crate::cas::layout::LAYOUT;
use crate::cas::{BlobSource, Layout, LockedLayout};
use crate::layer::limits::Limits;
use crate::oci::descriptor::{TAG, without_annotations};
use crate::oci::{Digest, Hashing, Layer, compression};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::tar::read_error;
use crate::{Error, Result};
use oci_spec::image::MediaType;

impl LocalImages {
    /// Exports an image to `to`: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME:TAG]`.
    /// A layout can already contain other images; an archive must not exist. Returns the digest of the manifest.
    pub fn export(&self, reference: &Reference, to: &Reference, progress: Progress<'_>) -> Result<Digest> {
        if to.digest().is_some() {
            return Err(Error::input(format!(
                "{to}: the target of an export cannot have a digest; the image keeps its own"
            )));
        }
        self.with_source(reference, |source| {
            let descriptor = without_annotations(&resolve::manifest_descriptor(source, reference)?)?;
            let image = resolve::resolve(source, reference)?;
            match to {
                Reference::Layout { dir, tag, .. } => to_layout(dir, tag.as_deref(), descriptor, |layout| {
                    copy_blobs(source, layout, &image, progress)
                }),
                Reference::Archive { file, tag, .. } => write_archive(file, |archive| {
                    oci_archive(archive, source, &image, tagged(descriptor.clone(), tag.as_deref()), progress)
                }),
                Reference::DockerArchive { file, name, .. } => write_archive(file, |archive| {
                    let layer_size = self.consent(&image)?.layer_size;
                    docker_archive(archive, source, &image, (name.as_deref(), layer_size), progress)
                }),
                _ => Err(Error::input(format!("an image cannot be exported to {to}")).with_hint(
                    "name the target like oci:DIR:TAG, oci-archive:FILE:TAG or docker-archive:FILE:NAME:TAG",
                )),
            }?;
            Ok(image.manifest_digest)
        })
    }
}

fn tagged(mut descriptor: Value, tag: Option<&str>) -> Value {
    if let Some(tag) = tag {
        descriptor["annotations"] = json!({ TAG: tag });
    }
    descriptor
}

fn to_layout(
    dir: &Path,
    tag: Option<&str>,
    descriptor: Value,
    copy: impl FnOnce(&LockedLayout<'_>) -> Result<()>,
) -> Result<()> {
    let exporting = || format!("exporting to {}", dir.display());
    DirBuilder::new().recursive(true).mode(0o755).create(dir).with_context(exporting)?;
    let opened = Dir::open_ambient_dir(dir, ambient_authority()).with_context(exporting)?;
    let is_foreign = opened.symlink_metadata("oci-layout").is_err()
        && opened.entries().with_context(exporting)?.next().is_some();
    if is_foreign {
        return Err(Error::input(format!(
            "{}: the directory is not empty and is not an image layout",
            exporting()
        )));
    }
    let work = || {
        let layout = Layout::open_or_create(opened)?;
        let held = layout.lock_shared()?;
        copy(&held)?;
        held.sync()?;
        held.tag(tag, descriptor)
    };
    work().with_context(exporting)
}

/// Writes an archive to a temporary file, syncs and renames it, and syncs its directory. The archive must not exist.
fn write_archive(path: &Path, fill: impl FnOnce(&mut Archive) -> Result<()>) -> Result<()> {
    let exporting = || format!("exporting to {}", path.display());
    let exists = || Error::input("the file exists").with_hint("remove it or name another file");
    if path.symlink_metadata().is_ok() {
        return Err(exists().context(exporting()));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".tmp-{}", random_suffix()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial);
    let mut archive = Archive { file: file.with_context(exporting)? };
    let work = |archive: &mut Archive| {
        fill(archive)?;
        let synced = archive.file.write_all(&[0; 1024]).and_then(|()| archive.file.sync_all());
        synced.context("writing it")?;
        match rename_new(partial.as_ref(), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
            other => other.context("renaming it"),
        }?;
        sync_directory(path).context("syncing its directory")
    };
    let done = work(&mut archive).with_context(exporting);
    let _ = std::fs::remove_file(&partial);
    done
}

/// Renames a file without replacing an existing one. Some file systems do not support such a rename, and some of those have no hard links,
/// which have the same effect.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        other => return Ok(other?),
    }
    match linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => rename_if_absent(from, to),
        other => Ok(other?),
    }
}

/// Renames a file after a check that the new name does not exist.
fn rename_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    match to.symlink_metadata() {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::rename(from, to),
        Err(error) => Err(error),
    }
}

/// Syncs the directory of a file. A directory that cannot be opened for reading or synced is left to the kernel.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| ".".as_ref());
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    match synced.as_ref().err().map(|error| (error.kind(), Errno::from_io_error(error))) {
        Some((io::ErrorKind::PermissionDenied, _) | (_, Some(Errno::INVAL))) => Ok(()),
        _ => synced,
    }
}

/// A tar archive that is being written. Members are owned by root, readable, and have the timestamp 0.
struct Archive {
    file: File,
}

impl Archive {
    fn header(&mut self, name: &str, size: u64) -> io::Result<()> {
        let mut header = ::tar::Header::new_ustar();
        header.set_path(name)?;
        let directory = name.ends_with('/');
        header.set_entry_type(if directory {
            ::tar::EntryType::Directory
        } else {
            ::tar::EntryType::Regular
        });
        header.set_mode(if directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.file.write_all(header.as_bytes())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, 0).context("writing it")
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.stream(name, bytes).map(drop)
    }

    /// Writes a member whose size is not known before. Returns its size and digest.
    fn stream(&mut self, name: &str, mut from: impl Read) -> Result<(u64, Digest)> {
        let mut work = || -> io::Result<(u64, Digest)> {
            let start = self.file.stream_position()?;
            self.header(name, 0)?;
            let mut hashing = Hashing::new(&self.file);
            let mut buffer = vec![0; 256 << 10];
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => hashing.write_all(&buffer[..count])?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            }
            let (_, size, digest) = hashing.finish();
            let padding = (512 - size % 512) % 512;
            self.file.write_all(&[0; 512][..usize::try_from(padding).unwrap_or_default()])?;
            self.file.seek(SeekFrom::Start(start))?;
            self.header(name, size)?;
            self.file.seek(SeekFrom::End(0))?;
            Ok((size, digest))
        };
        work().map_err(read_error)
    }

    /// Writes a blob and verifies it.
    fn blob(
        &mut self,
        name: &str,
        source: &dyn BlobSource,
        digest: &Digest,
        size: u64,
        progress: Progress<'_>,
    ) -> Result<()> {
        let found = self.stream(name, source.blob(digest, size)?)?;
        progress(size);
        if found == (size, *digest) {
            return Ok(());
        }
        Err(Error::integrity(format!(
            "blob {digest} contains bytes with digest {}: it was altered or is corrupt",
            found.1
        )))
    }
}

fn oci_archive(
    archive: &mut Archive,
    source: &dyn BlobSource,
    image: &ResolvedImage,
    descriptor: Value,
    progress: Progress<'_>,
) -> Result<()> {
    archive.bytes("oci-layout", LAYOUT.as_bytes())?;
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [descriptor] })
        .to_string();
    archive.bytes("index.json", index.as_bytes())?;
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    let mut blobs: Vec<(Digest, u64)> = image.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
    blobs.extend([(image.config_digest, image.config_size), (image.manifest_digest, image.manifest_size)]);
    blobs.sort_unstable();
    blobs.dedup();
    blobs.iter().try_for_each(|(digest, size)| {
        archive.blob(&format!("blobs/sha256/{}", digest.hex()), source, digest, *size, progress)
    })
}

/// Writes a Docker archive. Layers are uncompressed: not every reader of this format accepts others.
fn docker_archive(
    archive: &mut Archive,
    source: &dyn BlobSource,
    image: &ResolvedImage,
    (name, layer_size): (Option<&str>, Option<u64>),
    progress: Progress<'_>,
) -> Result<()> {
    let member = |layer: &Layer| format!("{}.tar", layer.diff_id.hex());
    let mut written = Vec::new();
    for layer in &image.layers {
        if !written.contains(&layer.diff_id) {
            let mut blob =
                BufReader::new(Hashing::bounded(source.blob(&layer.digest, layer.size)?, layer.size));
            let decompressed = Hashing::bounded(
                compression::decompress(&mut blob)?,
                Limits::default().max_archive(layer.size, layer_size),
            );
            let (_, found) = archive.stream(&member(layer), decompressed)?;
            io::copy(&mut blob, &mut io::sink()).context("reading a layer")?;
            layer.check_blob(blob.into_inner())?;
            if found != layer.diff_id {
                return Err(Error::integrity(format!(
                    "layer {} decompresses to {found}, but the configuration names {}",
                    layer.digest, layer.diff_id
                )));
            }
            written.push(layer.diff_id);
        }
        progress(layer.size);
    }
    let config = format!("{}.json", image.config_digest.hex());
    archive.blob(&config, source, &image.config_digest, image.config_size, progress)?;
    let layers: Vec<String> = image.layers.iter().map(member).collect();
    let tags: Vec<&str> = name.into_iter().collect();
    let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]);
    archive.bytes("manifest.json", manifest.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use invarlock_error::Kind;

    use super::*;
    use std::fs;

    fn scratch() -> invarlock_security::SecureTempDir {
        invarlock_security::SecureTempDir::new("invarlock-images-").expect("directory")
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |it: io::Result<fs::DirEntry>| it.expect("entry").file_name().into_string().expect("name");
        fs::read_dir(dir).expect("list").map(name).collect()
    }

    #[test]
    fn does_not_replace_archive_created_meanwhile() {
        let dir = scratch();
        let path = dir.path().join("it.tar");
        let refused = write_archive(&path, |_| fs::write(&path, "theirs").context("a test"));
        assert!(
            matches!(&refused, Err(error) if error.kind() == Kind::Input && error.message().contains("exists")),
            "{refused:?}"
        );
        assert_eq!(fs::read(&path).expect("read"), b"theirs");
        assert_eq!(names(dir.path()), ["it.tar"]);
        fs::remove_file(&path).expect("rm");
        write_archive(&path, |_| Ok(())).expect("written");
        assert_eq!((fs::read(&path).expect("read").len(), names(dir.path()).len()), (1024, 1));
    }

    #[test]
    fn no_rename_replaces_a_file() {
        for rename in [rename_new, rename_if_absent] {
            let dir = scratch();
            let (from, to) = (dir.path().join("from"), dir.path().join("to"));
            fs::write(&from, "ours").expect("write");
            // A dangling link also counts as existing.
            std::os::unix::fs::symlink("nothing", &to).expect("link");
            let refused = rename(&from, &to).expect_err("it is there");
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&from).expect("read"), b"ours");
            fs::remove_file(&to).expect("rm");
            rename(&from, &to).expect("named");
            assert_eq!(
                (fs::read(&to).expect("read"), names(dir.path())),
                (b"ours".to_vec(), vec!["to".to_owned()])
            );
        }
    }

    #[test]
    fn syncs_directory_if_supported() {
        let dir = scratch();
        sync_directory(&dir.path().join("it")).expect("a directory");
        sync_directory("it".as_ref()).expect("this one");
        // A file system that syncs no directory.
        sync_directory("/proc/it".as_ref()).expect("none to be synced");
        assert!(sync_directory(&dir.path().join("no/it")).is_err());
    }
}
