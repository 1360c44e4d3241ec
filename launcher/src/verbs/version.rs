//! `invarlock version`.

use crate::error::Result;
use crate::ui;

/// Prints the version of this program and of the report schema.
pub fn run() -> Result<u8> {
    ui::out(&format!("InvarLock {} · schema=v1", env!("CARGO_PKG_VERSION")));
    Ok(0)
}
