//! The texts of the final windows, from the baseline's run report beside an evaluation report.
//!
//! The file is untrusted. It is used only if the evaluation report contains its digest.

use crate::format::untrusted::Node;
use crate::numerics::digest::sha256_hex;
use serde_json::Value;
use std::collections::HashMap;

/// Texts by id of the window; empty where they are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowTexts(HashMap<String, String>);

impl WindowTexts {
    /// The texts in the bytes of a run report. None of a file of another run, or of a run without texts.
    pub fn of(report: &Value, baseline: &[u8]) -> Self {
        let stated = Node::root("", report).at("provenance.baseline.report_sha256");
        if stated != sha256_hex(baseline) {
            return Self::default();
        }
        let Ok(run) = serde_json::from_slice::<Value>(baseline) else { return Self::default() };
        let arm = Node::root("", &run).at("evaluation_windows.final");
        let (ids, texts) = (arm.get("window_ids").elements(), arm.get("predicted_texts").elements());
        let named = |(id, text): (Node<'_>, Node<'_>)| Some((id.u64()?.to_string(), text.str()?.to_owned()));
        Self(ids.zip(texts).filter_map(named).collect())
    }

    /// The text of the tokens that are predicted in a final window.
    pub fn of_window(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_file_of_the_report_is_read() {
        let run =
            json!({"evaluation_windows": {"final": {"window_ids": [4, 7], "predicted_texts": ["a", "b"]}}});
        let bytes = run.to_string().into_bytes();
        let report = |sha256: &str| json!({"provenance": {"baseline": {"report_sha256": sha256}}});
        let texts = WindowTexts::of(&report(&sha256_hex(&bytes)), &bytes);
        assert_eq!([texts.of_window("7"), texts.of_window("5")], [Some("b"), None]);
        assert_eq!(WindowTexts::of(&report("ab"), &bytes), WindowTexts::default());
        assert_eq!(WindowTexts::of(&report(&sha256_hex(b"{")), b"{"), WindowTexts::default());
    }
}
