//! Extended attributes of the user's name space: what an image may have of them, and what overlayfs reads (an opaque directory).

use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr, fstatvfs};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::{Digest, Error, Result};

/// What an overlay mounted with `userxattr` understands as "nothing of lower layers below here".
const OPAQUE: &str = "user.overlay.opaque";
/// Attributes that images keep, and those among them that mean something to overlays and container engines.
const KEPT: &str = "user.";
const NOT_KEPT: [&str; 2] = ["user.overlay.", "user.containers."];
/// More than a file system has room for.
const LONGEST: usize = 64 << 10;

/// Writes them.
pub(crate) fn write(of: impl AsFd, attributes: &[(String, Vec<u8>)]) -> Result<()> {
    attributes.iter().try_for_each(|(name, value)| set(&of, name, value))
}

/// Makes a directory opaque.
pub(crate) fn make_opaque(directory: impl AsFd) -> Result<()> {
    set(directory, OPAQUE, b"y")
}

/// Whether it is.
pub(crate) fn is_opaque(directory: impl AsFd) -> bool {
    fgetxattr(directory, OPAQUE, &mut [0u8; 1][..]).is_ok()
}

fn set(of: impl AsFd, name: &str, value: &[u8]) -> Result<()> {
    match fsetxattr(&of, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => Err(Error::unsupported(format!(
            "extended attribute {name}: the store's file system keeps none of the user's name space; set INVARLOCK_STORE to a \
             directory on ext4, xfs, btrfs or, from Linux 6.6 on, tmpfs"
        ))),
        Err(Errno::NOSPC) if !is_full(&of) => Err(Error::unsupported(format!(
            "extended attribute {name} of {} bytes: the store's file system has no room for as many at one file; set INVARLOCK_STORE to a \
             directory on xfs or btrfs",
            value.len()
        ))),
        Err(Errno::TOOBIG | Errno::RANGE) => Err(Error::safety(format!(
            "extended attribute {name} of {} bytes is more than any file system has room for",
            value.len()
        ))),
        Err(error) => Err(Error::system(format!("writing extended attribute {name}: {error}"))),
    }
}

/// Whether the file system has hardly any room left.
fn is_full(of: impl AsFd) -> bool {
    fstatvfs(of).is_ok_and(|it| {
        let bytes = it.f_bavail.saturating_mul(it.f_frsize);
        bytes < 1 << 20 || it.f_files > 0 && it.f_favail < 1024
    })
}

/// By name.
pub(crate) type Attributes = Vec<(String, Vec<u8>)>;

/// Whether a thing in an image may have an attribute of this name. In an archive `=` ends it.
pub(crate) fn is_kept(name: &str) -> bool {
    name.starts_with(KEPT) && !name.contains('=') && !NOT_KEPT.iter().any(|it| name.starts_with(it))
}

/// Those that an image may have, by name, and how many there are besides.
pub(crate) fn read(of: impl AsFd) -> rustix::io::Result<(Attributes, u64)> {
    let (mut kept, mut dropped) = (Vec::new(), 0);
    for name in list(&of)? {
        match std::str::from_utf8(&name) {
            Ok(text) if is_kept(text) => {
                let mut value = vec![0; LONGEST];
                let length = fgetxattr(&of, text, &mut value[..])?;
                value.truncate(length);
                kept.push((text.to_owned(), value));
            }
            _ => dropped += 1,
        }
    }
    Ok((kept, dropped))
}

/// The digest of all that are there, by name; none where none is.
pub(crate) fn digest(of: impl AsFd) -> rustix::io::Result<Option<Digest>> {
    let mut names = list(&of)?;
    names.retain(|name| name.starts_with(KEPT.as_bytes()));
    if names.is_empty() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let mut value = vec![0; LONGEST];
    for name in &names {
        let length = fgetxattr(&of, &name[..], &mut value[..])?;
        for part in [name, &value[..length]] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(Some(Digest::of_finished(hash)))
}

/// Their names, sorted.
fn list(of: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 256];
    let length = loop {
        match flistxattr(&of, &mut list[..]) {
            Err(Errno::RANGE) if list.len() < LONGEST => list.resize(list.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => break other?,
        }
    };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    Ok(names)
}
