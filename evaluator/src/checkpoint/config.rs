//! `config.json`: typed members with clear errors.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{files, limits};
use invarlock_error::{Result, bail};

/// A checkpoint's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
    members: Map<String, Value>,
}

impl Config {
    /// Reads a configuration file.
    pub fn open(path: &Path) -> Result<Self> {
        let members = files::read_json(path, "configuration", limits::CONFIG_BYTES)?;
        Ok(Self { path: path.to_owned(), members })
    }

    /// A configuration given as JSON, for tests and for benchmarks.
    pub fn from_members(members: Map<String, Value>) -> Self {
        Self { path: PathBuf::from("config.json"), members }
    }

    /// A member that is there and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.members.get(key).filter(|v| !v.is_null())
    }

    /// Whether a member is written, be it null.
    pub fn is_written(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// A whole number from 1 to `most`.
    pub fn size(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(v) if (1..=most).contains(&v) => Ok(Some(v)),
            _ => bail!(
                Input,
                "{}: `{key}` must be a whole number from 1 to {most}, not {}",
                self.name(),
                brief(value)
            ),
        }
    }

    /// A whole number from 1 to `most` that must be there.
    pub fn required_size(&self, key: &str, most: usize) -> Result<usize> {
        match self.size(key, most)? {
            Some(v) => Ok(v),
            None => bail!(Input, "{}: `{key}` is missing", self.name()),
        }
    }

    /// A finite number greater than 0.
    pub fn positive(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => match value.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
                Some(v) => Ok(v),
                None => {
                    bail!(Input, "{}: `{key}` must be a number above 0, not {}", self.name(), brief(value))
                }
            },
        }
    }

    /// True or false.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(v)) => Ok(*v),
            Some(value) => {
                bail!(Input, "{}: `{key}` must be true or false, not {}", self.name(), brief(value))
            }
        }
    }

    /// Text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(value) => bail!(Input, "{}: `{key}` must be text, not {}", self.name(), brief(value)),
        }
    }

    /// Refuses each of these members that is written with anything but null, false, 0 or an empty value.
    pub fn refuse(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            let Some(value) = self.get(key) else { continue };
            let harmless = match value {
                Value::Null => true,
                Value::Bool(v) => !v,
                Value::Number(n) => n.as_f64() == Some(0.0),
                Value::String(s) => s.is_empty(),
                Value::Array(a) => a.is_empty(),
                Value::Object(_) => false,
            };
            if !harmless {
                bail!(
                    Unsupported,
                    "{}: this evaluator does not implement `{key}` ({})",
                    self.name(),
                    brief(value)
                );
            }
        }
        Ok(())
    }

    /// The file's name, for messages.
    pub fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// A value, shortened for a message.
pub(crate) fn brief(value: &Value) -> String {
    let mut text = value.to_string();
    if text.chars().count() > 80 {
        text = text.chars().take(77).chain("...".chars()).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn config(json: &str) -> Config {
        Config::from_members(serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn members_are_checked() {
        let c = config(
            r#"{"n": 3, "zero": 0, "neg": -1, "big": 1e30, "text": "a", "null": null, "yes": true, "eps": 1e-5}"#,
        );
        assert_eq!(c.size("n", 3), Ok(Some(3)));
        assert_eq!(c.size("absent", 3), Ok(None));
        assert_eq!(c.size("null", 3), Ok(None));
        assert!(c.is_written("null") && !c.is_written("absent"));
        for bad in ["zero", "neg", "big", "text", "yes", "eps"] {
            assert!(c.size(bad, 1000).is_err(), "{bad}");
        }
        assert!(c.size("n", 2).is_err());
        assert!(
            c.required_size("absent", 2).expect_err("missing").to_string().contains("`absent` is missing")
        );
        assert_eq!(c.positive("eps", 1.0), Ok(1e-5));
        assert!(c.positive("zero", 1.0).is_err());
        assert_eq!(c.flag("yes", false), Ok(true));
        assert!(c.flag("n", false).is_err());
        assert_eq!(c.text("text"), Ok(Some("a")));
        assert!(c.text("n").is_err());
    }

    #[test]
    fn refused_members_are_named() {
        let c = config(r#"{"quantization_config": {"bits": 4}, "moe": false, "experts": 8}"#);
        let refused = |key: &str| matches!(c.refuse(&[key]), Err(m) if m.kind() == Kind::Unsupported && m.message().contains(key));
        assert!(refused("quantization_config") && refused("experts"));
        assert_eq!(c.refuse(&["moe", "absent"]), Ok(()));
    }
}
