//! Untrusted values as upstream's Python code reads them.

use crate::format::untrusted::Node;
use serde_json::Value;

/// A finite number, or a string that is one. Booleans are not numbers.
pub(super) fn float(node: Node<'_>) -> Option<f64> {
    let number = match node.value() {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// A non-negative integer, truncated from a fraction, or a string that is one.
pub(super) fn int(node: Node<'_>) -> Option<u64> {
    match node.value() {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|float| float.is_finite())?.trunc();
            (0.0..1.8e19).contains(&float).then_some(float as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `bool(value)`.
pub(super) fn truthy(node: Node<'_>) -> bool {
    match node.value() {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// A pair of finite numbers.
pub(super) fn pair(node: Node<'_>) -> Option<(f64, f64)> {
    node.array().filter(|elements| elements.len() == 2)?;
    float(node.index(0)).zip(float(node.index(1)))
}

/// `repr(value)`, for a message.
pub(super) fn repr(node: Node<'_>) -> String {
    match node.value() {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}

/// Whether the value is an object with at least one member.
pub(super) fn is_filled_object(node: Node<'_>) -> bool {
    node.object().is_some_and(|members| !members.is_empty())
}
