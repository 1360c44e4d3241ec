//! `results/final_verdict.json` of a pack, as it is generated here. A user can supply another JSON object instead.

use serde::{Deserialize, Serialize};

/// `format_version` of a final verdict.
const FORMAT: &str = "invarlock-final-verdict-v1";

/// The verdict of a pack whose reports all verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FinalVerdict {
    /// Always `invarlock-final-verdict-v1`.
    pub format_version: String,
    /// Always `PASS`: a pack is not built from a report that does not verify.
    pub verdict: String,
    /// The reports, in the order of the command line.
    pub reports: Vec<ReportVerdict>,
}

/// The verdict of one report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportVerdict {
    /// Its path in the pack.
    pub path: String,
    /// What the evidence is worth: `consistent` or `signed`; `foreign` for that of another maker.
    pub assurance: String,
    /// Perplexity of the subject divided by that of the baseline; null if the report does not state it.
    pub ratio_vs_baseline: Option<f64>,
}

impl FinalVerdict {
    /// The verdict of these reports.
    pub fn passed(reports: Vec<ReportVerdict>) -> Self {
        Self { format_version: FORMAT.to_owned(), verdict: "PASS".to_owned(), reports }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
