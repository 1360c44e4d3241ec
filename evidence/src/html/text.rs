//! Untrusted text and numbers as text of the page.
//!
//! Every string of the page passes [`write()`]: it escapes, cuts what is too long, and shows characters that would
//! otherwise be invisible or would reorder their surroundings (controls, bidi overrides, zero-width characters, tags).

pub(super) use crate::visible::plain;

use crate::visible::{Piece, cut, pieces};
use minijinja::{HtmlEscape, Output};
use serde_json::Value;

/// Shown for a value that is missing or of the wrong type.
pub(super) const DASH: &str = "–";

/// Writes untrusted text as HTML.
pub(super) fn write(out: &mut Output<'_>, text: &str) -> std::fmt::Result {
    let (head, rest) = cut(text);
    write_pieces(out, head)?;
    if let Some((left_out, tail)) = rest {
        write!(out, "<span class=\"cut\"> … {} characters left out … </span>", whole(left_out as f64))?;
        write_pieces(out, tail)?;
    }
    Ok(())
}

fn write_pieces(out: &mut Output<'_>, text: &str) -> std::fmt::Result {
    for piece in pieces(text) {
        match piece {
            Piece::Plain(text) => write!(out, "{}", HtmlEscape(text))?,
            Piece::Hidden(c) => write!(out, "<span class=\"hidden\">U+{:04X}</span>", c as u32)?,
        }
    }
    Ok(())
}

/// A non-empty string, else a dash.
pub(super) fn string(value: &Value) -> String {
    value.as_str().filter(|s| !s.trim().is_empty()).unwrap_or(DASH).to_owned()
}

/// `digits` significant digits; very large and very small numbers as powers of ten.
pub(super) fn significant(x: f64, digits: usize) -> String {
    if !x.is_finite() {
        return "not a number".into();
    }
    if x == 0.0 {
        return "0".into();
    }
    let magnitude = x.abs().log10().floor();
    if !(-5.0..7.0).contains(&magnitude) {
        return minus(format!("{x:.*e}", digits.saturating_sub(1)));
    }
    let decimals = (digits as f64 - 1.0 - magnitude).clamp(0.0, 12.0) as usize;
    minus(format!("{x:.decimals$}"))
}

/// A ratio: four decimals, or significant digits where four decimals are too few or too many.
pub(super) fn ratio(x: f64) -> String {
    if x.is_finite() && x.abs() < 10_000.0 && (x == 0.0 || x.abs() >= 0.001) {
        minus(format!("{x:.4}"))
    } else {
        significant(x, 4)
    }
}

/// A signed difference in nats a token.
pub(super) fn difference(x: f64) -> String {
    let shown = if x.is_finite() && (x == 0.0 || (1e-4..1e4).contains(&x.abs())) {
        minus(format!("{x:.4}"))
    } else {
        significant(x, 3)
    };
    if x > 0.0 { format!("+{shown}") } else { shown }
}

/// A difference in percentage points, with its sign.
pub(super) fn points(x: f64) -> String {
    if !x.is_finite() {
        return "not a number".into();
    }
    format!("{}\u{a0}pp", minus(format!("{x:+.2}")))
}

/// The change that a ratio means, as in `+30.58 %`.
pub(super) fn percent_change(ratio: f64) -> String {
    let change = (ratio - 1.0) * 100.0;
    if !change.is_finite() || change.abs() >= 100_000.0 {
        return DASH.into();
    }
    let shown = minus(format!("{change:+.2}"));
    let is_zero = shown.trim_start_matches(['+', '−']).bytes().all(|b| matches!(b, b'0' | b'.'));
    if is_zero {
        if change == 0.0 { "±0\u{a0}%".into() } else { "±0.00\u{a0}%".into() }
    } else {
        format!("{shown}\u{a0}%")
    }
}

/// A typographic minus sign, so that signs line up with plus signs.
fn minus(text: String) -> String {
    text.replace('-', "−")
}

/// A whole number with thin spaces between the thousands; other numbers as they are.
pub(super) fn whole(x: f64) -> String {
    if !x.is_finite() || x.fract() != 0.0 || x.abs() >= 1e15 {
        return significant(x, 6);
    }
    let digits = format!("{:.0}", x.abs());
    let mut out = String::from(if x < 0.0 { "−" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A size in bytes, in binary units.
pub(super) fn bytes(x: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    if !x.is_finite() || x < 0.0 {
        return DASH.into();
    }
    let (mut x, mut unit) = (x, 0);
    while x >= 1024.0 && unit + 1 < UNITS.len() {
        (x, unit) = (x / 1024.0, unit + 1);
    }
    let shown = if x.fract() == 0.0 || unit == 0 { whole(x) } else { trimmed(significant(x, 3)) };
    format!("{shown}\u{a0}{}", UNITS[unit])
}

/// A time span in milliseconds.
pub(super) fn milliseconds(x: f64) -> String {
    if !x.is_finite() || x < 0.0 {
        return DASH.into();
    }
    match x {
        x if x < 1000.0 => format!("{}\u{a0}ms", whole(x.round())),
        x if x < 120_000.0 => format!("{}\u{a0}s", trimmed(significant(x / 1000.0, 3))),
        x if x < 7_200_000.0 => format!("{}\u{a0}min", trimmed(significant(x / 60_000.0, 3))),
        x => format!("{}\u{a0}h", trimmed(significant(x / 3_600_000.0, 3))),
    }
}

/// A name of a member as a label: `no_new_privs` becomes `no new privs`, and units that the value tells go.
pub(super) fn label(name: &str) -> String {
    let bare = name.strip_suffix("_bytes").or_else(|| name.strip_suffix("_ms")).unwrap_or(name);
    bare.replace('_', " ")
}

/// The same number without trailing zeros.
fn trimmed(text: String) -> String {
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A value of any shape on one line, no longer than it has to be.
///
/// `name` is the member's name: it tells the unit (`memory_bytes`, `wall_ms`).
pub(super) fn compact(name: &str, value: &Value) -> String {
    let mut out = String::new();
    compact_into(&mut out, name, value, 0);
    out
}

fn compact_into(out: &mut String, name: &str, value: &Value, depth: usize) {
    // One level may add one string; the page cuts what is longer than a line or three anyway.
    const BUDGET: usize = 480;
    const DEPTH: usize = 4;
    match value {
        Value::Null => out.push_str("none"),
        Value::Bool(true) => out.push_str("yes"),
        Value::Bool(false) => out.push_str("no"),
        Value::Number(n) => out.push_str(&match n.as_f64() {
            Some(x) if name.ends_with("bytes") => bytes(x),
            Some(x) if name.ends_with("_ms") => milliseconds(x),
            _ if n.is_u64() || n.is_i64() => n.to_string(),
            Some(x) => trimmed(significant(x, 6)),
            None => n.to_string(),
        }),
        Value::String(s) if s.is_empty() => out.push_str("“”"),
        Value::String(s) => out.push_str(&shortened(s)),
        Value::Array(items) if items.is_empty() => out.push_str("none"),
        Value::Object(members) if members.is_empty() => out.push_str("none"),
        Value::Array(_) | Value::Object(_) if depth >= DEPTH => out.push('…'),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                if out.len() > BUDGET {
                    out.push_str(&format!(" … and {} more", whole((items.len() - i) as f64)));
                    break;
                }
                out.push_str(if i > 0 { ", " } else { "" });
                compact_into(out, name, item, depth + 1);
            }
        }
        Value::Object(members) => {
            for (i, (key, item)) in members.iter().enumerate() {
                if out.len() > BUDGET {
                    out.push_str(&format!(" … and {} more", whole((members.len() - i) as f64)));
                    break;
                }
                out.push_str(if i > 0 { "; " } else { "" });
                out.push_str(&shortened(&label(key)));
                out.push(' ');
                compact_into(out, key, item, depth + 1);
            }
        }
    }
}

/// A string, cut to the length that one value of many may have.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
