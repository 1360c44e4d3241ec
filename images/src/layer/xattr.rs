//! Extended attributes of the `user.` name space: those that images keep, and the one by which overlayfs recognizes an opaque directory.

use std::os::fd::AsFd;

use invarlock_error::Context as _;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr, fstatvfs};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::oci::Digest;
use crate::tar::{Attributes, KEPT_PREFIX, is_kept};
use crate::{Error, Result};

/// Marks a directory as opaque for an overlay mounted with `userxattr`: it hides the contents of lower layers.
const OPAQUE: &str = "user.overlay.opaque";
/// Bytes of the longest value, and of the longest list of names, that Linux allows.
const MAX_LENGTH: usize = 64 << 10;

/// Writes extended attributes.
pub(crate) fn write(file: impl AsFd, attributes: &[(String, Vec<u8>)]) -> Result<()> {
    attributes.iter().try_for_each(|(name, value)| set(&file, name, value))
}

/// Makes a directory opaque for overlayfs.
pub(crate) fn make_opaque(directory: impl AsFd) -> Result<()> {
    set(directory, OPAQUE, b"y")
}

/// Whether a directory is opaque for overlayfs.
pub(crate) fn is_opaque(directory: impl AsFd) -> bool {
    fgetxattr(directory, OPAQUE, &mut [0u8; 1][..]).is_ok()
}

fn set(file: impl AsFd, name: &str, value: &[u8]) -> Result<()> {
    match fsetxattr(&file, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => Err(Error::unsupported(format!(
            "extended attribute {name}: the file system of the store does not support attributes of the user name space"
        ))
        .with_hint("set INVARLOCK_STORE to a directory on ext4, xfs, btrfs or, from Linux 6.6 on, tmpfs")),
        Err(Errno::NOSPC) if !is_full(&file) => Err(Error::unsupported(format!(
            "extended attribute {name} of {} bytes: the file system of the store does not support attributes of this size",
            value.len()
        ))
        .with_hint("set INVARLOCK_STORE to a directory on xfs or btrfs")),
        Err(Errno::TOOBIG | Errno::RANGE) => Err(Error::safety(format!(
            "extended attribute {name} of {} bytes is longer than any file system supports",
            value.len()
        ))),
        Err(error) => Err(error).with_context(|| format!("writing extended attribute {name}")),
    }
}

/// Whether the file system is nearly full: the error for that and for a too large attribute is the same.
fn is_full(file: impl AsFd) -> bool {
    fstatvfs(file).is_ok_and(|stat| {
        let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        bytes < 1 << 20 || stat.f_files > 0 && stat.f_favail < 1024
    })
}

/// The attributes of a file that images keep, sorted by name, and the number of others.
pub(crate) fn read(file: impl AsFd) -> rustix::io::Result<(Attributes, u64)> {
    let (mut kept, mut dropped) = (Vec::new(), 0);
    for name in list(&file)? {
        match std::str::from_utf8(&name) {
            Ok(text) if is_kept(text) => {
                let mut value = vec![0; MAX_LENGTH];
                let length = fgetxattr(&file, text, &mut value[..])?;
                value.truncate(length);
                kept.push((text.to_owned(), value));
            }
            _ => dropped += 1,
        }
    }
    Ok((kept, dropped))
}

/// The digest of all `user.` attributes of a file, sorted by name; `None` if it has none.
pub(crate) fn digest(file: impl AsFd) -> rustix::io::Result<Option<Digest>> {
    let mut names = list(&file)?;
    names.retain(|name| name.starts_with(KEPT_PREFIX.as_bytes()));
    if names.is_empty() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let mut value = vec![0; MAX_LENGTH];
    for name in &names {
        let length = fgetxattr(&file, &name[..], &mut value[..])?;
        for part in [name, &value[..length]] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(Some(Digest::from_hasher(hash)))
}

/// The names of all attributes of a file, sorted.
fn list(file: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 256];
    let length = loop {
        match flistxattr(&file, &mut list[..]) {
            Err(Errno::RANGE) if list.len() < MAX_LENGTH => list.resize(list.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => break other?,
        }
    };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    Ok(names)
}
