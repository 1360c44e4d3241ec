//! Paths in an archive. Only paths that stay below the root are accepted.

use crate::{Error, Result};

const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
/// Most directories in a path. An open handle is kept for each of them.
pub(crate) const MAX_DEPTH: usize = 100;

/// Prefix of the name of a whiteout.
const WHITEOUT: &str = ".wh.";
/// Name of the file that makes its directory opaque.
const OPAQUE: &str = ".wh..wh..opq";

/// The meaning of a path whose name has the whiteout prefix.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WhiteoutMark {
    /// Removes the entry of this path from lower layers.
    Whiteout(String),
    /// Removes everything that lower layers have in the directory of this path.
    Opaque(String),
}

/// A path as names joined by `/`; empty for the root.
///
/// A path is relative to the root of its own layer. So a leading `/`, empty names and `.` have no effect, as for GNU tar and for other
/// readers of images. A name `..` is refused, wherever it is.
pub(super) fn clean(raw: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(raw).map_err(|_| not_utf8())?;
    let bad = |why: &str| Err(Error::safety(format!("a path that {why}")));
    if text.is_empty() || text.contains('\0') {
        return bad("is empty or contains a NUL");
    }
    if text.len() > MAX_PATH {
        return bad("is too long");
    }
    let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.len() > MAX_DEPTH {
        return bad("is too deep");
    }
    if names.contains(&"..") {
        return bad("contains '..'");
    }
    if names.iter().any(|name| name.len() > MAX_NAME) {
        return bad("contains a name that is too long");
    }
    Ok(names.join("/"))
}

/// The whiteout that a clean path means, if any. A whiteout of nothing, and a path below a whiteout, are refused.
pub(super) fn whiteout(path: &str) -> Result<Option<WhiteoutMark>> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if parent.split('/').any(|name| name.starts_with(WHITEOUT)) {
        return Err(Error::safety("a path through a whiteout"));
    }
    let Some(removed) = name.strip_prefix(WHITEOUT) else { return Ok(None) };
    if name == OPAQUE {
        return Ok(Some(WhiteoutMark::Opaque(parent.to_owned())));
    }
    match removed {
        "" | "." | ".." => Err(Error::safety("a path that is a whiteout of nothing, of '.' or of '..'")),
        // Records of AUFS, the first union file system of Docker.
        _ if removed.starts_with(WHITEOUT) => {
            Err(Error::unsupported("a whiteout of a whiteout, or AUFS's own records"))
        }
        _ if parent.is_empty() => Ok(Some(WhiteoutMark::Whiteout(removed.to_owned()))),
        _ => Ok(Some(WhiteoutMark::Whiteout(format!("{parent}/{removed}")))),
    }
}

/// The target of a symbolic link. Any path is allowed: extraction never follows a link.
pub(super) fn target(raw: Vec<u8>) -> Result<String> {
    if raw.is_empty() || raw.len() >= MAX_PATH || raw.contains(&0) {
        return Err(Error::safety("a link whose target is empty, too long or contains a NUL"));
    }
    String::from_utf8(raw).map_err(|_| not_utf8())
}

fn not_utf8() -> Error {
    Error::unsupported("a name that is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_relative_to_the_root() {
        for (raw, path) in [
            ("/", ""),
            (".", ""),
            ("./", ""),
            ("/etc/passwd", "etc/passwd"),
            ("//x/", "x"),
            ("./a/./b", "a/b"),
            (".//c", "c"),
            ("d//e", "d/e"),
            ("...", "..."),
        ] {
            assert_eq!(clean(raw.as_bytes()).expect(raw), path);
        }
        for up in ["..", "/..", "a/..", "/../a", "a/../b", "./../a", "//../a"] {
            assert!(clean(up.as_bytes()).is_err(), "{up}");
        }
    }
}
