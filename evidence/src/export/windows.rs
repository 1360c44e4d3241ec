//! JSON lines: one object per window, both arms, with the text of the predicted tokens where it is known. A window that is a choice has its `example`. Unlike other exports, this one
//! is for programs: a text is whole, and its hidden
//! characters are escapes of JSON.

use super::Summary;
use crate::paired::Choice;
use crate::visible::{escape_json, plain};
use serde_json::json;

pub(super) fn render(summary: &Summary) -> String {
    let mut out = String::new();
    for (arm, window) in &summary.windows {
        let text = summary.texts.of_window(&window.id).filter(|_| *arm == "final");
        let mut record = json!({
            "window_id": plain(&window.id),
            "arm": arm,
            "tokens": window.tokens,
            "baseline_loss": window.baseline,
            "subject_loss": window.subject,
            "loss_change": window.change(),
            "text": text,
        });
        if let Some(Choice { example, place, right }) = window.choice {
            record["example"] = json!({"number": example, "choice": place, "right": right});
        }
        out += &escape_json(&record.to_string());
        out.push('\n');
    }
    out
}
