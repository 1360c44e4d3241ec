//! `config.json`: typed access to its members.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Map, Value};

use crate::math::activation::Activation;
use crate::{files, limits};
use invarlock_error::{Error, Result, bail};

/// A checkpoint's configuration, or an object in it. Remembers which members were read.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    /// Names of the objects that contain this one, each followed by a dot.
    scope: String,
    members: Map<String, Value>,
    read: Mutex<BTreeSet<String>>,
}

impl Config {
    /// Reads a configuration file.
    pub fn open(path: &Path) -> Result<Self> {
        let members = files::read_json(path, "configuration", limits::CONFIG_BYTES)?;
        Ok(Self::new(path, String::new(), members))
    }

    /// A configuration that a file of another format contains.
    pub fn from_file(path: &Path, members: Map<String, Value>) -> Self {
        Self::new(path, String::new(), members)
    }

    /// A configuration from JSON members, for tests and benchmarks.
    pub fn from_members(members: Map<String, Value>) -> Self {
        Self::new(Path::new("config.json"), String::new(), members)
    }

    fn new(path: &Path, scope: String, members: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), scope, members, read: Mutex::default() }
    }

    /// The member, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.read.lock().unwrap_or_else(|e| e.into_inner()).insert(key.to_owned());
        self.members.get(key).filter(|v| !v.is_null())
    }

    /// Whether the member exists, even if it is null.
    pub fn contains(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// Names of the members.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The member, which must be an object.
    pub fn object(&self, key: &str) -> Result<Option<Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(members)) => {
                Ok(Some(Self::new(&self.path, format!("{}{key}.", self.scope), members.clone())))
            }
            Some(value) => Err(self.wrong(key, "an object", value)),
        }
    }

    /// An integer from 1 to `max`.
    pub fn size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(v) if (1..=max).contains(&v) => Ok(Some(v)),
            _ => Err(self.wrong(key, &format!("an integer from 1 to {max}"), value)),
        }
    }

    /// An integer from 1 to `max`; an error when it is absent.
    pub fn required_size(&self, key: &str, max: usize) -> Result<usize> {
        match self.size(key, max)? {
            Some(v) => Ok(v),
            None => bail!(Input, "{}: `{}` is missing", self.name(), self.member(key)),
        }
    }

    /// A finite number greater than 0; `default` when it is absent.
    pub fn positive(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.positive_or_none(key)?.unwrap_or(default))
    }

    /// A finite number greater than 0.
    pub fn positive_or_none(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
            Some(v) => Ok(Some(v)),
            None => Err(self.wrong(key, "a number above 0", value)),
        }
    }

    /// A finite number greater than 0; an error when it is absent.
    pub fn required_positive(&self, key: &str) -> Result<f64> {
        match self.positive_or_none(key)? {
            Some(v) => Ok(v),
            None => bail!(Input, "{}: `{}` is missing", self.name(), self.member(key)),
        }
    }

    /// `count` finite numbers greater than 0; an error when they are absent.
    pub fn positive_list(&self, key: &str, count: usize) -> Result<Vec<f64>> {
        let value = self.get(key).unwrap_or(&Value::Null);
        let numbers = value.as_array().filter(|list| list.len() == count);
        let numbers = numbers
            .and_then(|list| list.iter().map(|v| v.as_f64().filter(|v| v.is_finite() && *v > 0.0)).collect());
        numbers.ok_or_else(|| self.wrong(key, &format!("a list of {count} numbers above 0"), value))
    }

    /// `count` elements of a list, each by `read`, which returns none for a wrong one.
    pub fn list<'v, T>(
        &'v self,
        key: &str,
        count: usize,
        what: &str,
        read: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() == count);
        let list = list.and_then(|list| list.iter().map(read).collect());
        list.map(Some).ok_or_else(|| self.wrong(key, &format!("a list of {count} {what}"), value))
    }

    /// A boolean; `default` when it is absent.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(v)) => Ok(*v),
            Some(value) => Err(self.wrong(key, "true or false", value)),
        }
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(value) => Err(self.wrong(key, "a string", value)),
        }
    }

    /// The activation function that the member names; `default` when it is absent.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text(key)?.unwrap_or(default);
        match Activation::by_name(name) {
            Some(activation) => Ok(activation),
            None => bail!(
                Unsupported,
                "{}: {} {name:?} is not supported; supported: {}",
                self.name(),
                self.member(key),
                Activation::NAMES
            ),
        }
    }

    /// An error when one of these members is set: anything but null, false, 0 or an empty value.
    pub fn reject_options(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            let Some(value) = self.members.get(*key) else { continue };
            let unset = match value {
                Value::Null => true,
                Value::Bool(v) => !v,
                Value::Number(n) => n.as_f64() == Some(0.0),
                Value::String(s) => s.is_empty(),
                Value::Array(a) => a.is_empty(),
                Value::Object(o) => o.is_empty(),
            };
            if !unset {
                bail!(
                    Unsupported,
                    "{}: `{}` is not supported ({})",
                    self.name(),
                    self.member(key),
                    brief(value)
                );
            }
        }
        Ok(())
    }

    /// The same, for those of the members that were not read yet.
    pub fn reject_unread(&self, keys: &[&str]) -> Result<()> {
        let read = self.read.lock().unwrap_or_else(|e| e.into_inner());
        let unread: Vec<&str> = keys.iter().copied().filter(|key| !read.contains(*key)).collect();
        self.reject_options(&unread)
    }

    /// The error for a member with a wrong value.
    pub fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::input(format!(
            "{}: `{}` must be {expected}, not {}",
            self.name(),
            self.member(key),
            brief(found)
        ))
    }

    /// The full name of a member.
    pub fn member(&self, key: &str) -> String {
        format!("{}{key}", self.scope)
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
    fn objects_and_lists_name_the_member() {
        let c = config(r#"{"rope": {"factor": "x", "low": [1, 2]}, "flat": 3}"#);
        let rope = c.object("rope").expect("an object").expect("present");
        let error = rope.required_positive("factor").expect_err("a string");
        assert!(error.message().contains("`rope.factor` must be a number above 0"), "{error}");
        let error = rope.required_positive("high").expect_err("absent");
        assert!(error.message().contains("`rope.high` is missing"), "{error}");
        assert_eq!(rope.positive_list("low", 2), Ok(vec![1.0, 2.0]));
        assert!(rope.positive_list("low", 3).is_err());
        assert!(c.object("flat").is_err());
        assert!(c.object("absent").expect("fine").is_none());
    }

    #[test]
    fn unread_options_are_rejected() {
        let c = config(r#"{"softcap": 30.0, "scale": 2}"#);
        assert!(c.reject_unread(&["softcap", "scale"]).is_err());
        c.positive("softcap", 1.0).expect("a number");
        let error = c.reject_unread(&["softcap", "scale"]).expect_err("not read");
        assert!(error.message().contains("`scale`"), "{error}");
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
