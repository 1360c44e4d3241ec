//! `config.json`: typed access to its members.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::math::activation::Activation;
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

    /// A configuration from JSON members, for tests and benchmarks.
    pub fn from_members(members: Map<String, Value>) -> Self {
        Self { path: PathBuf::from("config.json"), members }
    }

    /// The member, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.members.get(key).filter(|v| !v.is_null())
    }

    /// Whether the member exists, even if it is null.
    pub fn contains(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// An integer from 1 to `max`.
    pub fn size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(v) if (1..=max).contains(&v) => Ok(Some(v)),
            _ => bail!(
                Input,
                "{}: `{key}` must be an integer from 1 to {max}, not {}",
                self.name(),
                brief(value)
            ),
        }
    }

    /// An integer from 1 to `max`; an error when it is absent.
    pub fn required_size(&self, key: &str, max: usize) -> Result<usize> {
        match self.size(key, max)? {
            Some(v) => Ok(v),
            None => bail!(Input, "{}: `{key}` is missing", self.name()),
        }
    }

    /// A finite number greater than 0; `default` when it is absent.
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

    /// A boolean; `default` when it is absent.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(v)) => Ok(*v),
            Some(value) => {
                bail!(Input, "{}: `{key}` must be true or false, not {}", self.name(), brief(value))
            }
        }
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(value) => bail!(Input, "{}: `{key}` must be a string, not {}", self.name(), brief(value)),
        }
    }

    /// The activation function that the member names; `default` when it is absent.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text(key)?.unwrap_or(default);
        match Activation::by_name(name) {
            Some(activation) => Ok(activation),
            None => bail!(
                Unsupported,
                "{}: {key} {name:?} is not supported; supported: {}",
                self.name(),
                Activation::NAMES
            ),
        }
    }

    /// An error when one of these members is set: anything but null, false, 0 or an empty value.
    pub fn reject_options(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            let Some(value) = self.get(key) else { continue };
            let unset = match value {
                Value::Null => true,
                Value::Bool(v) => !v,
                Value::Number(n) => n.as_f64() == Some(0.0),
                Value::String(s) => s.is_empty(),
                Value::Array(a) => a.is_empty(),
                Value::Object(_) => false,
            };
            if !unset {
                bail!(Unsupported, "{}: `{key}` is not supported ({})", self.name(), brief(value));
            }
        }
        Ok(())
    }

    /// The path of the file, for messages.
    pub fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// A value, shortened for a message.
fn brief(value: &Value) -> String {
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
    fn checks_types_and_ranges_of_members() {
        let c = config(
            r#"{"n": 3, "zero": 0, "neg": -1, "big": 1e30, "text": "a", "null": null, "yes": true, "eps": 1e-5}"#,
        );
        assert_eq!(c.size("n", 3), Ok(Some(3)));
        assert_eq!(c.size("absent", 3), Ok(None));
        assert_eq!(c.size("null", 3), Ok(None));
        assert!(c.contains("null") && !c.contains("absent"));
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
    fn rejected_options_are_named() {
        let c = config(r#"{"quantization_config": {"bits": 4}, "moe": false, "experts": 8}"#);
        for key in ["quantization_config", "experts"] {
            let error = c.reject_options(&[key]).expect_err(key);
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().contains(key), "{error}");
        }
        assert_eq!(c.reject_options(&["moe", "absent"]), Ok(()));
    }
}
