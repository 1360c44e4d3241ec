//! An OCI layout in a tar archive.

use std::path::Path;

use invarlock_error::Context as _;

use super::archive_file::ArchiveFile;
use crate::cas::layout::check_version;
use crate::cas::{Blob, BlobSource};
use crate::oci::Digest;
use crate::{Error, Result};

/// An OCI layout in a tar archive.
#[derive(Debug)]
pub(crate) struct OciArchive(ArchiveFile);

impl OciArchive {
    pub fn open(path: &Path) -> Result<Self> {
        let archive = ArchiveFile::open(path)?;
        let is_of_layout =
            |name: &str| ["oci-layout", "index.json"].contains(&name) || name.starts_with("blobs/");
        if archive.has_only_other_members(is_of_layout) {
            let path = path.display();
            return Err(Error::input(format!(
                "{path} is a tar archive but not an OCI image: it contains no file oci-layout"
            ))
            .with_hint(format!(
                "for the output of `docker save` use docker-archive:{path}; for a root file system use \
                 `invarlock runtime image build --from {path}`"
            )));
        }
        archive
            .read_document("oci-layout")
            .and_then(|document| check_version(&document))
            .with_context(|| format!("image archive {}", path.display()))?;
        Ok(Self(archive))
    }
}

impl BlobSource for OciArchive {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        self.0.read_document("index.json")
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        self.0.open_member(&format!("blobs/sha256/{}", digest.hex()))
    }
}
