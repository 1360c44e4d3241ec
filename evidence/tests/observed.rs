//! A manifest must say of every row of the boundary that it was seen to hold. Each row of two real runs (as root, as an ordinary user) is
//! taken away, given another observer, and changed value by value.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{context, context_of, reseal, synthetic, write_bundle_with};
use invarlock_evidence::compare::compare;
use invarlock_evidence::format::to_value;
use invarlock_evidence::manifest::FILE_NAME;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{Trust, Verdict, VerifyOptions, verify_report};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A bundle whose manifest is changed again and again.
struct Bundle {
    folder: tempfile::TempDir,
    report: PathBuf,
    manifest: Value,
}

impl Bundle {
    /// Of a small report: the dev profile demands as much of a manifest as any other.
    fn new(who: &str) -> Self {
        let options = context(Profile::Dev, Tier::Balanced);
        let report = to_value(&compare(&synthetic(4, 0.0), &synthetic(4, 0.01), &options).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = write_bundle_with(folder.path(), &report, context_of(who, &report));
        let manifest =
            serde_json::from_slice(&std::fs::read(folder.path().join(FILE_NAME)).unwrap()).unwrap();
        Bundle { folder, report: path, manifest }
    }

    fn verify(&self, manifest: &Value) -> Verdict {
        std::fs::write(self.folder.path().join(FILE_NAME), manifest.to_string()).unwrap();
        verify_report(&self.report, &VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() })
    }

    /// With one value changed.
    fn with(&self, at: &str, value: Value) -> Verdict {
        let mut manifest = self.manifest.clone();
        *manifest.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value;
        reseal(&mut manifest["context"]);
        self.verify(&manifest)
    }

    fn rows(&self, side: &str) -> Vec<String> {
        let rows = self.manifest.pointer(&at(side, "")).unwrap().as_object().unwrap();
        rows.keys().filter(|name| *name != "mode").cloned().collect()
    }
}

fn at(side: &str, row: &str) -> String {
    let slash = if row.is_empty() { "" } else { "/" };
    format!("/context/sides/{side}/observations{slash}{row}")
}

const WHO: [&str; 2] = ["root", "user"];
const SIDES: [&str; 2] = ["baseline", "subject"];

#[test]
fn recorded_observations_verify() {
    for who in WHO {
        let bundle = Bundle::new(who);
        let verdict = bundle.verify(&bundle.manifest);
        assert!(verdict.ok() && verdict.trust == Trust::ManifestBound, "{who}: {:?}", verdict.errors);
        assert_eq!(bundle.rows("subject").len(), 23);
    }
}

#[test]
fn rejects_missing_control_or_wrong_observer() {
    for who in WHO {
        let bundle = Bundle::new(who);
        for side in SIDES {
            let missing = |verdict: Verdict, name: &str, what: &str| {
                let place = format!("context.sides.{side}.observations{name}");
                let named = verdict.errors.iter().any(|e| e.contains(&place) && e.contains(what));
                assert!(!verdict.ok() && named, "{who}: {place}: {:?}", verdict.errors);
                assert_eq!(verdict.trust, Trust::Failed);
            };
            missing(bundle.with(&at(side, ""), json!(null)), "", "not observed");
            missing(bundle.with(&at(side, "mode"), json!("host-bypass")), ".mode", "container");
            for row in bundle.rows(side) {
                let mut without = bundle.manifest.clone();
                without.pointer_mut(&at(side, "")).unwrap().as_object_mut().unwrap().remove(&row);
                missing(bundle.verify(&without), &format!(".{row} "), "not observed");
                missing(bundle.with(&at(side, &row), json!(null)), &format!(".{row} "), "not observed");
                for other in [json!(null), json!("workload"), json!(["supervisor", "init"])] {
                    let verdict = bundle.with(&at(side, &format!("{row}/observer")), other);
                    missing(verdict, &format!(".{row}.observer"), "expected");
                }
                let verdict = bundle.with(&at(side, &format!("{row}/value")), json!(null));
                missing(verdict, &format!(".{row}.value"), ": ");
                let observer = bundle.manifest.pointer(&at(side, &format!("{row}/observer"))).unwrap();
                let other = if observer == "init" { "supervisor" } else { "init" };
                let verdict = bundle.with(&at(side, &format!("{row}/observer")), json!(other));
                missing(verdict, &format!(".{row}.observer"), other);
            }
        }
    }
}

/// Every change of one value, by its place and what it becomes: one of these makes each row say less than it must.
fn changes(at: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Null => out.push((at.to_owned(), json!(1))),
        Value::Bool(flag) => out.push((at.to_owned(), json!(!flag))),
        Value::Number(number) => {
            out.extend([0, 1].map(|n| (at.to_owned(), json!(number.as_i64().unwrap() + 1 - 2 * n))));
            out.push((at.to_owned(), json!(0)));
        }
        Value::String(text) => {
            let mut others = vec![String::new(), format!("{text}x")];
            for (separator, sign) in [(',', ","), (' ', " ")] {
                let parts: Vec<&str> = text.split(separator).collect();
                let without = |i: usize| [&parts[..i], &parts[i + 1..]].concat().join(sign);
                others.extend((0..parts.len()).filter(|_| parts.len() > 1).map(without));
            }
            out.extend(others.into_iter().map(|text| (at.to_owned(), json!(text))));
        }
        Value::Array(items) => {
            let with = [items.clone(), vec![json!("more")]].concat();
            out.push((at.to_owned(), json!(with)));
            for (i, item) in items.iter().enumerate() {
                let without = [&items[..i], &items[i + 1..]].concat();
                out.push((at.to_owned(), json!(without)));
                changes(&format!("{at}/{i}"), item, out);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let mut without = members.clone();
                without.remove(name);
                out.push((at.to_owned(), json!(without)));
                changes(&format!("{at}/{name}"), member, out);
            }
        }
    }
    out.retain(|(place, changed)| place != at || changed != value);
}

/// What may be otherwise: the verifier cannot know it, it is stricter, or it says nothing of the boundary.
fn is_free(who: &str, row: &str, place: &str, before: &Value, after: &Value) -> bool {
    let last = place.rsplit('/').next().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (row, last) {
        // Any two numbers, as long as they differ.
        ("namespaces", "launcher" | "container") => after.is_u64(),
        ("seccomp", "filters") => before.as_u64() < after.as_u64(),
        // What a user cannot give up.
        ("identity", "groups") => {
            who == "user" && after.as_array().is_some_and(|a| a.iter().all(Value::is_u64))
        }
        // Everything that closes a mount is still there.
        ("mounts", "options") => {
            let has = |options: &Value, one: &str| text(options).split(',').any(|option| option == one);
            let closing = ["ro", "nosuid", "nodev", "noexec"].into_iter().filter(|one| has(before, one));
            !text(after).is_empty() && closing.into_iter().all(|one| has(after, one))
        }
        // Of the image, of inputs, of devices.
        ("mounts", "kind") => !["tmpfs", "proc"].contains(&text(before).as_str()) && !text(after).is_empty(),
        // Which device and file of the host; how large a file that was written for the run is.
        ("inputs", "file") => text(after).split(' ').count() == 2,
        ("inputs", "bytes") => place.contains("/value/4/") || place.contains("/value/5/"),
        ("process", "oom_score_adj") => after.is_i64(),
        ("limits", "effective") => before.as_u64() > after.as_u64(),
        // Less than a page above; or of a processor below, where whole ones are given.
        ("limits", "asked") => before.as_u64().zip(after.as_u64()).is_some_and(|(a, b)| a.abs_diff(b) == 1),
        ("limits", "reason") => !text(after).is_empty(),
        // The run's own cgroups are still there, by whatever number.
        ("cgroup", _) => {
            let lines = |value: &Value| match value {
                Value::Array(lines) => lines.iter().map(text).collect(),
                other => vec![text(other)],
            };
            let (before, after) = (lines(before), lines(after));
            let own = before.iter().filter(|line| line.contains("/invarlock-"));
            own.into_iter().all(|own| after.iter().any(|line| line.starts_with(own)))
        }
        _ => false,
    }
}

#[test]
fn rejects_every_weaker_value() {
    for who in WHO {
        let bundle = Bundle::new(who);
        let (mut accepted, mut tried) = (Vec::new(), 0);
        for row in bundle.rows("subject") {
            let place = at("subject", &format!("{row}/value"));
            let value = bundle.manifest.pointer(&place).unwrap();
            let mut all = Vec::new();
            changes(&place, value, &mut all);
            for (at, after) in all {
                let before = bundle.manifest.pointer(&at).unwrap().clone();
                let verdict = bundle.with(&at, after.clone());
                tried += 1;
                if verdict.ok() && !is_free(who, &row, &at, &before, &after) {
                    accepted.push(format!("{at}: {before} became {after}"));
                }
            }
        }
        assert!(tried > 500, "{tried}");
        assert!(
            accepted.is_empty(),
            "{who}: {} of {tried} were accepted:\n{}",
            accepted.len(),
            accepted.join("\n")
        );
    }
}

/// The page of the report shows every control and its observer.
#[cfg(feature = "html")]
#[test]
fn html_shows_every_control() {
    for who in WHO {
        let bundle = Bundle::new(who);
        let report = serde_json::from_slice(&std::fs::read(&bundle.report).unwrap()).unwrap();
        let page = invarlock_evidence::html::render(&report, Some(&bundle.manifest)).unwrap();
        let start = page.find("id=\"h-boundary\"").unwrap();
        let boundary = &page[start..page.find("id=\"h-digests\"").unwrap()];
        for name in bundle.rows("subject") {
            assert!(boundary.contains(&format!(">{}<", name.replace('_', " "))), "{who}: {name}");
        }
        let wall = "86\u{202f}400\u{202f}000 milliseconds";
        for shown in ["observed by init", "observed by supervisor", "model.safetensors", wall, "Planned"] {
            assert!(boundary.contains(shown), "{who}: {shown}");
        }
        assert_eq!(boundary.contains("by cgroup"), who == "root", "what holds the limits is said");
        assert!(!boundary.contains("left out"), "{who}: something is cut");
    }
}
