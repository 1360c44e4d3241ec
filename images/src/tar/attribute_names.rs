//! Which extended attributes of an archive are kept.

/// Extended attributes by name.
pub(crate) type Attributes = Vec<(String, Vec<u8>)>;

/// Name space of the attributes that images keep.
pub(crate) const KEPT_PREFIX: &str = "user.";
/// Names in that name space that overlayfs or container engines interpret.
const INTERPRETED_PREFIXES: [&str; 2] = ["user.overlay.", "user.containers."];

/// Whether an entry of a layer may have an attribute of this name. In a PAX record `=` ends the name.
pub(crate) fn is_kept(name: &str) -> bool {
    name.starts_with(KEPT_PREFIX)
        && !name.contains('=')
        && !INTERPRETED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
