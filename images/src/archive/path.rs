//! Names in an archive: only what leads down from the root is one.

use crate::{Error, Result};

const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;
/// A handle is held for every directory on the way.
pub(crate) const DEEPEST: usize = 100;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What a name means besides itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The thing of this path in lower layers is gone.
    Whiteout(String),
    /// All that lower layers have in the directory of this path is gone.
    Opaque(String),
}

/// A path as names joined by `/`; empty for the root itself.
pub(super) fn clean(raw: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(raw).map_err(|_| not_utf8())?;
    let bad = |why: &str| Err(Error::safety(format!("a path that {why}")));
    if text.is_empty() || text.contains('\0') {
        return bad("is empty or has a NUL");
    }
    if text.starts_with('/') {
        return bad("is absolute");
    }
    if text.len() > LONGEST_PATH {
        return bad("is too long");
    }
    let mut rest = text;
    while let Some(tail) = rest.strip_prefix("./") {
        rest = tail;
    }
    let rest = if rest == "." { "" } else { rest };
    // "./", ".", and not "//": the first test saw a leading slash.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Ok(String::new());
    }
    if rest.split('/').count() > DEEPEST {
        return bad("is too deep");
    }
    for name in rest.split('/') {
        match name {
            ".." => return bad("leads up"),
            "" | "." => return bad("has an empty name or '.' in it"),
            _ if name.len() > LONGEST_NAME => return bad("has a name too long"),
            _ => {}
        }
    }
    Ok(rest.to_owned())
}

/// Whether a clean path is a mark. One that marks nothing, or things below a mark, are refused.
pub(super) fn mark(path: &str) -> Result<Option<Mark>> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if parent.split('/').any(|name| name.starts_with(WHITEOUT)) {
        return Err(Error::safety("a path through a whiteout"));
    }
    let Some(gone) = name.strip_prefix(WHITEOUT) else { return Ok(None) };
    if name == OPAQUE {
        return Ok(Some(Mark::Opaque(parent.to_owned())));
    }
    match gone {
        "" | "." | ".." => Err(Error::safety("a path that is a whiteout of nothing, of '.' or of '..'")),
        // What the first union file system of Docker kept for itself.
        _ if gone.starts_with(WHITEOUT) => {
            Err(Error::unsupported("a whiteout of a whiteout, or AUFS's own records"))
        }
        _ if parent.is_empty() => Ok(Some(Mark::Whiteout(gone.to_owned()))),
        _ => Ok(Some(Mark::Whiteout(format!("{parent}/{gone}")))),
    }
}

/// Where a symbolic link leads: any text, since nothing here follows it.
pub(super) fn target(raw: Vec<u8>) -> Result<String> {
    if raw.is_empty() || raw.len() >= LONGEST_PATH || raw.contains(&0) {
        return Err(Error::safety("a link to an empty or endless name, or one with a NUL"));
    }
    String::from_utf8(raw).map_err(|_| not_utf8())
}

fn not_utf8() -> Error {
    Error::unsupported("a name that is not UTF-8")
}
