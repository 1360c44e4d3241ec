//! Markdown for `$GITHUB_STEP_SUMMARY`: the verdict and the gates; what was compared is folded.

use super::markdown::{cautions, compared, gates, result};
use super::{NOT_VERIFIED, Summary};

pub(super) fn render(summary: &Summary) -> String {
    let sign = match summary.verdict {
        "PASS" => "✅",
        "FAIL" => "❌",
        _ => "⚠️",
    };
    format!(
        "## {sign} InvarLock: {}\n\n{}{}\n\n### Gates: {}\n\n{}\n<details><summary>What was compared</summary>\n\n{}\n</details>\n\n{NOT_VERIFIED}\n",
        summary.verdict,
        cautions(summary),
        result(summary),
        summary.gates_counted,
        gates(summary),
        compared(summary),
    )
}
