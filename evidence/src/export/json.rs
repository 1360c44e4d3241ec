//! The summary as one JSON object.

use super::Summary;
use crate::format::to_value;
use crate::manifest;
use serde_json::Value;

pub(super) fn render(summary: &Summary) -> String {
    let mut value = to_value(summary);
    if let Value::Object(members) = &mut value {
        members.insert("format_version".to_owned(), "report-export-v1".into());
    }
    ascii(&value)
}

/// JSON in ASCII, indented like a runtime manifest, so that no string in it acts on a terminal.
pub(super) fn ascii(value: &Value) -> String {
    String::from_utf8_lossy(&manifest::to_bytes(value)).into_owned()
}
