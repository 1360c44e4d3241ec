//! Where a recorded document differs from the one that follows from its facts.

use crate::format::untrusted::brief;
use serde_json::Value;

/// The most differences that are listed; the rest is counted.
const LISTED: usize = 20;

/// Lists the members of `recorded` that differ from `derived`: a line each, with path and both values. Numbers may differ by `tolerance`,
/// relative to the derived one where that is above 1.
pub fn differences(name: &str, recorded: &Value, derived: &Value, tolerance: f64) -> Vec<String> {
    let mut found = Differences { tolerance, lines: Vec::new(), more: 0 };
    found.compare(&mut name.to_owned(), recorded, derived);
    if found.more > 0 {
        found.lines.push(format!("{name}: {} more values differ", found.more));
    }
    found.lines
}

struct Differences {
    tolerance: f64,
    lines: Vec<String>,
    more: usize,
}

impl Differences {
    fn compare(&mut self, path: &mut String, recorded: &Value, derived: &Value) {
        match (recorded, derived) {
            (Value::Object(found), Value::Object(expected)) => {
                for (member, value) in expected {
                    self.within(path, member, |this, path| match found.get(member) {
                        Some(recorded) => this.compare(path, recorded, value),
                        None => this.add(format!("{path} is missing, expected {}", brief(value))),
                    });
                }
                for (member, value) in found.iter().filter(|(member, _)| !expected.contains_key(*member)) {
                    let brief = brief(value);
                    self.within(path, member, |this, path| {
                        this.add(format!("{path} is {brief}, expected nothing"));
                    });
                }
            }
            (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
                for (index, (recorded, value)) in found.iter().zip(expected).enumerate() {
                    self.within(path, &index.to_string(), |this, path| this.compare(path, recorded, value));
                }
            }
            _ if self.equal(recorded, derived) => {}
            _ => self.add(format!("{path} is {}, expected {}", brief(recorded), brief(derived))),
        }
    }

    fn within(&mut self, path: &mut String, member: &str, compare: impl FnOnce(&mut Self, &mut String)) {
        let length = path.len();
        path.push('.');
        path.push_str(member);
        compare(self, path);
        path.truncate(length);
    }

    fn equal(&self, recorded: &Value, derived: &Value) -> bool {
        match (recorded, derived) {
            (Value::Number(found), Value::Number(expected)) if found.is_f64() || expected.is_f64() => {
                let numbers = found.as_f64().zip(expected.as_f64());
                numbers.is_some_and(|(found, expected)| {
                    (found - expected).abs() <= self.tolerance * expected.abs().max(1.0)
                })
            }
            _ => recorded == derived,
        }
    }

    fn add(&mut self, line: String) {
        match self.lines.len() < LISTED {
            true => self.lines.push(line),
            false => self.more += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_what_is_missing_added_and_changed() {
        let derived = json!({"a": [1, 2.0], "b": {"c": "x"}, "d": null});
        assert_eq!(differences("doc", &derived, &derived, 0.0), [] as [&str; 0]);
        let near = json!({"a": [1, 2.000_000_000_1], "b": {"c": "x"}, "d": null});
        assert_eq!(differences("doc", &near, &derived, 1e-9), [] as [&str; 0]);
        let other = json!({"a": [2, 2.1], "b": {"e": 1}, "d": null});
        assert_eq!(
            differences("doc", &other, &derived, 1e-9),
            [
                "doc.a.0 is 2, expected 1",
                "doc.a.1 is 2.1, expected 2.0",
                "doc.b.c is missing, expected \"x\"",
                "doc.b.e is 1, expected nothing"
            ]
        );
        // A list of another length is one difference.
        assert_eq!(differences("doc", &json!({"a": [1]}), &json!({"a": [1, 2]}), 0.0).len(), 1);
    }

    #[test]
    fn counts_what_it_does_not_list() {
        let (zeros, ones) = (json!(vec![0; 1000]), json!(vec![1; 1000]));
        let lines = differences("doc", &zeros, &ones, 0.0);
        assert_eq!(lines.len(), LISTED + 1);
        assert_eq!(lines[LISTED], "doc: 980 more values differ");
    }
}
