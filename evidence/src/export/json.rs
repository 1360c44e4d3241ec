//! The summary as one JSON object.

use super::Summary;
use crate::format::to_value;
use serde_json::Value;

pub(super) fn render(summary: &Summary) -> String {
    let mut value = to_value(summary);
    if let Value::Object(members) = &mut value {
        members.insert("format_version".to_owned(), "report-export-v1".into());
    }
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}
