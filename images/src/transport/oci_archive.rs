//! An OCI layout in a tar archive.

use std::path::Path;

use invarlock_error::Context as _;

use super::archive_file::ArchiveFile;
use crate::Result;
use crate::cas::layout::check_version;
use crate::cas::{Blob, BlobSource};
use crate::oci::Digest;

/// An OCI layout in a tar archive.
#[derive(Debug)]
pub(crate) struct OciArchive(ArchiveFile);

impl OciArchive {
    pub fn open(path: &Path) -> Result<Self> {
        let archive = ArchiveFile::open(path)?;
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
