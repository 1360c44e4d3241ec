//! Evidence of InvarLock 0.13 or newer, another product under the same name: it is recognised by its formats, and not read.

use serde_json::Value;

/// What a user can do with it.
pub const REMEDY: &str = "verify it with the Python package InvarLock 0.13 or newer";

/// The `format` of a file of InvarLock 0.13 or newer.
pub fn format(file: &Value) -> Option<&str> {
    file.get("format")?.as_str().filter(|format| format.starts_with("invarlock/"))
}

/// The sentence about such a file.
pub fn sentence(file: &Value) -> Option<String> {
    // The format is untrusted: it is quoted and bounded.
    format(file).map(|format| {
        let shown: String = format.chars().take(100).collect();
        format!("evidence of InvarLock 0.13 or newer (format {shown:?})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_formats_of_the_newer_product_are_recognised() {
        let report = json!({"format": "invarlock/comparison-report-v3"});
        let expected = "evidence of InvarLock 0.13 or newer (format \"invarlock/comparison-report-v3\")";
        assert_eq!(sentence(&report).as_deref(), Some(expected));
        for other in [json!({"format": "evidence-pack-v1"}), json!({"format": 1}), json!({}), json!([])] {
            assert_eq!(sentence(&other), None, "{other}");
        }
    }
}
