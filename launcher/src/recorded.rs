//! Values of other crates as the evidence records them.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

/// A value that another crate describes in JSON, as the type that the evidence has for it.
pub fn typed<T: for<'de> Deserialize<'de>>(what: &str, value: Value) -> Result<T> {
    T::deserialize(value).map_err(|why| Error::system(format!("recording {what}: {why}")))
}
