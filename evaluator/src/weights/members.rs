//! Members of configurations that several storage formats have.

use crate::checkpoint::Config;
use invarlock_error::{Result, bail};

/// Bits of an integer.
pub const MAX_BITS: usize = 8;

/// Members that say nothing about the arithmetic of stored weights.
pub fn ignore(config: &Config, keys: &[&str]) {
    for key in keys {
        // Reading marks a member as known.
        let _ = config.get(key);
    }
}

/// A member that must be one of these texts; the first is the default.
pub fn choice<'c>(config: &'c Config, key: &str, supported: &[&'static str]) -> Result<&'static str> {
    let text: Option<&'c str> = config.text(key)?;
    let Some(text) = text else { return Ok(supported[0]) };
    match supported.iter().find(|name| **name == text) {
        Some(name) => Ok(name),
        None => bail!(
            Unsupported,
            "{}: `{}` {text:?} is not supported; supported: {}",
            config.name(),
            config.member(key),
            supported.join(", ")
        ),
    }
}

/// As [`group_size`], or none where it is absent.
pub fn optional_group_size(config: &Config) -> Result<Option<usize>> {
    if config.get("group_size").is_some() { group_size(config) } else { Ok(None) }
}

/// `group_size`: a number of inputs, or none for -1 (all inputs).
pub fn group_size(config: &Config) -> Result<Option<usize>> {
    match config.get("group_size").and_then(serde_json::Value::as_i64) {
        Some(-1) => Ok(None),
        _ => config.required_size("group_size", crate::limits::WIDTH).map(Some),
    }
}
