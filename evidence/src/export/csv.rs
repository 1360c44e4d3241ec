//! CSV (RFC 4180): one row per window, both arms.

use super::Summary;
use super::escape::csv;

/// The names of the columns.
const HEADER: &str = "arm,window_id,tokens,baseline_loss,subject_loss,loss_change";

/// Numbers are written by this program, so that only the id can hold other text.
pub(super) fn render(summary: &Summary) -> String {
    let mut out = format!("{HEADER}\r\n");
    for (arm, window) in &summary.windows {
        let number = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
        let is_plain = !window.id.is_empty() && window.id.bytes().all(|byte| byte.is_ascii_digit());
        let id = if is_plain { window.id.clone() } else { csv(&window.id) };
        out += &format!(
            "{arm},{id},{},{},{},{}\r\n",
            number(window.tokens),
            number(window.baseline),
            number(window.subject),
            number(window.change())
        );
    }
    out
}
