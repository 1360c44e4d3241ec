//! Members that the JSON output of several verbs has.

use serde::{Serialize, Serializer};
use std::path::Path;

/// The exit code of the command, in JSON.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Resolution {
    /// The code.
    pub exit_code: u8,
}

/// A path as it is shown: what is not UTF-8 in it is replaced.
#[derive(Debug, Clone, Copy)]
pub struct ShownPath<'a>(pub &'a Path);

impl Serialize for ShownPath<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.display())
    }
}

#[cfg(feature = "schemas")]
impl schemars::JsonSchema for ShownPath<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ShownPath".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

/// The name of an output's format, and its schema.
#[cfg(feature = "schemas")]
pub type NamedSchema = (&'static str, serde_json::Value);

/// The schema of one output. Members that are always printed are required.
#[cfg(feature = "schemas")]
pub fn schema<T: schemars::JsonSchema>(name: &'static str) -> NamedSchema {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    (name, settings.into_generator().into_root_schema_for::<T>().to_value())
}
