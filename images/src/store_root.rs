//! The directory of the store: its default path, and the checks that it is local and private.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use invarlock_error::Context as _;

use crate::{Error, Result};

/// The default path of the store, with these environment variables.
#[expect(clippy::disallowed_methods, reason = "constant names below directories that the user chose")]
pub(crate) fn default_root_with(env: &dyn Fn(&str) -> Option<OsString>, is_root: bool) -> Result<PathBuf> {
    let variable = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(store) = variable("INVARLOCK_STORE") {
        return match store.is_absolute() {
            true => Ok(store),
            false => {
                Err(Error::input(format!("INVARLOCK_STORE={} is not an absolute path", store.display())))
            }
        };
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/invarlock"));
    }
    let is_absolute = |path: &PathBuf| path.is_absolute();
    variable("XDG_DATA_HOME")
        .filter(is_absolute)
        .or_else(|| variable("HOME").filter(is_absolute).map(|home| home.join(".local/share")))
        .map(|data| data.join("invarlock"))
        .ok_or_else(|| {
            Error::input("no directory for the image store").with_hint("set INVARLOCK_STORE or HOME")
        })
}

/// What a store contains at its top; hidden names are temporary files.
const CONTENT: [&str; 4] = ["blobs", "index.json", "oci-layout", "trees"];

/// Refuses a directory that contains something else than a store: it would be closed to other users and filled.
pub(crate) fn refuse_other_directory(root: &Path) -> Result<()> {
    let reading = || format!("reading directory {}", root.display());
    for entry in std::fs::read_dir(root).with_context(reading)? {
        let name = entry.with_context(reading)?.file_name();
        let name = name.to_string_lossy();
        // Files are written as `NAME.tmp-…` and renamed.
        let known = name.split_once(".tmp-").map_or_else(|| name.as_ref(), |(content, _)| content);
        if !CONTENT.contains(&known) && !name.starts_with('.') {
            return Err(Error::input(format!(
                "{} is not an image store: it contains {name:?}",
                root.display()
            ))
            .with_hint("set INVARLOCK_STORE to a new directory, or to an image store"));
        }
    }
    Ok(())
}

/// Removes the permissions of group and others from the directory, if the caller owns it.
pub(crate) fn make_private(root: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let restricting = || format!("restricting the permissions of store {}", root.display());
    let metadata = std::fs::metadata(root).with_context(restricting)?;
    let owned = metadata.uid() == rustix::process::geteuid().as_raw();
    if owned && metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).with_context(restricting)?;
    }
    Ok(())
}

/// Refuses network file systems: the store relies on locks and timestamps that they do not guarantee.
pub(crate) fn check_local(dir: &Dir, root: &Path) -> Result<()> {
    let stat = rustix::fs::fstatfs(dir)
        .with_context(|| format!("reading the file system type of store {}", root.display()))?;
    match network_file_system(stat.f_type as u64 & 0xffff_ffff) {
        None => Ok(()),
        Some(name) => Err(Error::unsupported(format!(
            "store {} is on {name}, a network file system, whose locks and timestamps are not reliable",
            root.display()
        ))
        .with_hint(
            "set INVARLOCK_STORE to a local directory that only you can write, such as one in /var/tmp",
        )),
    }
}

/// The name of a network file system, by its magic number.
fn network_file_system(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x0bd0_0bd0 => "Lustre",
        0x7375_7245 => "Coda",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_network_file_systems() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        for local in [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0x794c_7630] {
            assert_eq!(network_file_system(local), None, "ext4, tmpfs, xfs, btrfs, overlay: {local:x}");
        }
    }

    #[test]
    fn default_root_follows_environment_and_user() {
        let with = |vars: &'static [(&'static str, &'static str)], root| {
            let env = move |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            default_root_with(&env, root).ok().and_then(|it| it.to_str().map(str::to_owned))
        };
        let all = &[("INVARLOCK_STORE", "/s"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(with(all, true).as_deref(), Some("/s"));
        assert_eq!(with(&[("HOME", "/h")], true).as_deref(), Some("/var/lib/invarlock"));
        assert_eq!(with(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")], false).as_deref(), Some("/x/invarlock"));
        assert_eq!(
            with(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")], false).as_deref(),
            Some("/h/.local/share/invarlock")
        );
        assert_eq!(with(&[], false), None);
        assert_eq!(with(&[("INVARLOCK_STORE", "relative")], true), None);
    }
}
