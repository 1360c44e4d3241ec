//! A manifest must record every control as observed and enforced. The controls of two recorded runs
//! (as root, as an ordinary user) are removed, given another observer, and changed value by value.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::made::honest;
use common::reseal;
use invarlock_evidence::evaluation::REPORT;
use invarlock_evidence::manifest::{FILE_NAME, to_bytes};
use invarlock_evidence::policy::Profile;
use invarlock_evidence::verify::{Assurance, Verdict, VerifyOptions, verify_report};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A report with a manifest that the tests change repeatedly.
struct Bundle {
    folder: tempfile::TempDir,
    report: PathBuf,
    manifest: Value,
}

impl Bundle {
    /// The evidence of a real run with profile dev, which requires the same of a manifest as the others.
    fn new(user: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(honest(user)).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let manifest =
            serde_json::from_slice(&std::fs::read(folder.path().join(FILE_NAME)).unwrap()).unwrap();
        Bundle { report: folder.path().join(REPORT), folder, manifest }
    }

    fn verify(&self, manifest: &Value) -> Verdict {
        std::fs::write(self.folder.path().join(FILE_NAME), to_bytes(manifest)).unwrap();
        verify_report(&self.report, &VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() })
    }

    /// Verifies the manifest with one value changed.
    fn verify_with(&self, pointer: &str, value: Value) -> Verdict {
        let mut manifest = self.manifest.clone();
        *manifest.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        reseal(&mut manifest["context"]);
        self.verify(&manifest)
    }

    fn controls(&self, side: &str) -> Vec<String> {
        let controls = self.manifest.pointer(&pointer_to(side, "")).unwrap().as_object().unwrap();
        controls.keys().filter(|name| *name != "mode").cloned().collect()
    }
}

fn pointer_to(side: &str, control: &str) -> String {
    let slash = if control.is_empty() { "" } else { "/" };
    format!("/context/sides/{side}/observations{slash}{control}")
}

const USERS: [&str; 2] = ["root", "user"];
const SIDES: [&str; 2] = ["baseline", "subject"];

#[test]
fn recorded_observations_verify() {
    for user in USERS {
        let bundle = Bundle::new(user);
        let verdict = bundle.verify(&bundle.manifest);
        assert!(verdict.ok() && verdict.assurance == Assurance::Consistent, "{user}: {:?}", verdict.errors);
        assert_eq!(bundle.controls("subject").len(), 27);
    }
}

/// A count that has no successor is no number of filters, also where additions wrap around.
#[test]
fn number_of_filters_does_not_wrap_around() {
    let bundle = Bundle::new("root");
    let counts = |filters: u64, inherited: u64| {
        let mut seccomp = bundle.manifest.pointer(&pointer_to("subject", "seccomp/value")).unwrap().clone();
        seccomp["filters"] = json!(filters);
        seccomp["inherited"] = json!(inherited);
        bundle.verify_with(&pointer_to("subject", "seccomp/value"), seccomp)
    };
    assert!(counts(3, 2).ok());
    assert!(counts(0, u64::MAX).errors.iter().any(|error| error.contains("value.filters")));
}

#[test]
fn rejects_missing_control_or_wrong_observer() {
    for user in USERS {
        let bundle = Bundle::new(user);
        for side in SIDES {
            let assert_rejected = |verdict: Verdict, name: &str, reason: &str| {
                let path = format!("context.sides.{side}.observations{name}");
                let is_named = verdict.errors.iter().any(|e| e.contains(&path) && e.contains(reason));
                assert!(!verdict.ok() && is_named, "{user}: {path}: {:?}", verdict.errors);
                assert_eq!(verdict.assurance, Assurance::Failed);
            };
            assert_rejected(bundle.verify_with(&pointer_to(side, ""), json!(null)), "", "not observed");
            assert_rejected(
                bundle.verify_with(&pointer_to(side, "mode"), json!("host-bypass")),
                ".mode",
                "container",
            );
            for control in bundle.controls(side) {
                let mut without = bundle.manifest.clone();
                without.pointer_mut(&pointer_to(side, "")).unwrap().as_object_mut().unwrap().remove(&control);
                assert_rejected(bundle.verify(&without), &format!(".{control} "), "not observed");
                assert_rejected(
                    bundle.verify_with(&pointer_to(side, &control), json!(null)),
                    &format!(".{control} "),
                    "not observed",
                );
                for other in [json!(null), json!("workload"), json!(["supervisor", "init"])] {
                    let verdict =
                        bundle.verify_with(&pointer_to(side, &format!("{control}/observer")), other);
                    assert_rejected(verdict, &format!(".{control}.observer"), "expected");
                }
                let verdict = bundle.verify_with(&pointer_to(side, &format!("{control}/value")), json!(null));
                assert_rejected(verdict, &format!(".{control}.value"), ": ");
                let observer =
                    bundle.manifest.pointer(&pointer_to(side, &format!("{control}/observer"))).unwrap();
                let other = if observer == "init" { "supervisor" } else { "init" };
                let verdict =
                    bundle.verify_with(&pointer_to(side, &format!("{control}/observer")), json!(other));
                assert_rejected(verdict, &format!(".{control}.observer"), other);
            }
        }
    }
}

/// Collects changes of single values as pairs of JSON pointer and new value. For each control, one
/// of the changes records less than the verifier requires.
fn changes(pointer: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Null => out.push((pointer.to_owned(), json!(1))),
        Value::Bool(flag) => out.push((pointer.to_owned(), json!(!flag))),
        Value::Number(number) => {
            out.extend([0, 1].map(|n| (pointer.to_owned(), json!(number.as_i64().unwrap() + 1 - 2 * n))));
            out.push((pointer.to_owned(), json!(0)));
        }
        Value::String(text) => {
            let mut others = vec![String::new(), format!("{text}x")];
            for (separator, joined_by) in [(',', ","), (' ', " ")] {
                let parts: Vec<&str> = text.split(separator).collect();
                let without = |i: usize| [&parts[..i], &parts[i + 1..]].concat().join(joined_by);
                others.extend((0..parts.len()).filter(|_| parts.len() > 1).map(without));
            }
            out.extend(others.into_iter().map(|text| (pointer.to_owned(), json!(text))));
        }
        Value::Array(items) => {
            let with = [items.clone(), vec![json!("more")]].concat();
            out.push((pointer.to_owned(), json!(with)));
            for (i, item) in items.iter().enumerate() {
                let without = [&items[..i], &items[i + 1..]].concat();
                out.push((pointer.to_owned(), json!(without)));
                changes(&format!("{pointer}/{i}"), item, out);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let mut without = members.clone();
                without.remove(name);
                out.push((pointer.to_owned(), json!(without)));
                changes(&format!("{pointer}/{name}"), member, out);
            }
        }
    }
    out.retain(|(changed_pointer, changed)| changed_pointer != pointer || changed != value);
}

/// Whether a change is acceptable: the verifier cannot know the value, the new value is stricter,
/// or the value does not affect isolation.
fn is_acceptable(user: &str, control: &str, pointer: &str, before: &Value, after: &Value) -> bool {
    let last = pointer.rsplit('/').next().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (control, last) {
        // Any two different numbers.
        ("namespaces", "launcher" | "container") => after.is_u64(),
        ("seccomp", "filters") => before.as_u64() < after.as_u64(),
        // An ordinary user cannot drop supplementary groups.
        ("identity", "groups") => {
            user == "user" && after.as_array().is_some_and(|a| a.iter().all(Value::is_u64))
        }
        // All restrictive mount options are still present.
        ("mounts", "options") => {
            let has = |options: &Value, one: &str| text(options).split(',').any(|option| option == one);
            let restrictive = ["ro", "nosuid", "nodev", "noexec"].into_iter().filter(|one| has(before, one));
            !text(after).is_empty() && restrictive.into_iter().all(|one| has(after, one))
        }
        // File system types of the image, of inputs and of devices.
        ("mounts", "kind") => !["tmpfs", "proc"].contains(&text(before).as_str()) && !text(after).is_empty(),
        // Device and inode of a host file, and the size of a file that was written for the run.
        ("inputs", "file") => text(after).split(' ').count() == 2,
        ("inputs", "bytes") => pointer.contains("/value/4/") || pointer.contains("/value/5/"),
        ("process", "oom_score_adj") => after.is_i64(),
        ("limits", "effective") | ("user_limits", _) => before.as_u64() > after.as_u64(),
        // Rounding: less than a page above, or less than one processor below.
        ("limits", "asked") => before.as_u64().zip(after.as_u64()).is_some_and(|(a, b)| a.abs_diff(b) == 1),
        ("limits", "reason") => !text(after).is_empty(),
        // The run's own cgroups are still present, with any suffix.
        ("cgroup", _) => {
            let lines = |value: &Value| match value {
                Value::Array(lines) => lines.iter().map(text).collect(),
                other => vec![text(other)],
            };
            let (before, after) = (lines(before), lines(after));
            let run_cgroups = before.iter().filter(|line| line.contains("/invarlock-"));
            run_cgroups.into_iter().all(|cgroup| after.iter().any(|line| line.starts_with(cgroup)))
        }
        _ => false,
    }
}

#[test]
fn rejects_every_weaker_value() {
    for user in USERS {
        let bundle = Bundle::new(user);
        let (mut accepted, mut tried) = (Vec::new(), 0);
        for control in bundle.controls("subject") {
            let path = pointer_to("subject", &format!("{control}/value"));
            let value = bundle.manifest.pointer(&path).unwrap();
            let mut all = Vec::new();
            changes(&path, value, &mut all);
            for (pointer, after) in all {
                let before = bundle.manifest.pointer(&pointer).unwrap().clone();
                let verdict = bundle.verify_with(&pointer, after.clone());
                tried += 1;
                if verdict.ok() && !is_acceptable(user, &control, &pointer, &before, &after) {
                    accepted.push(format!("{pointer}: {before} became {after}"));
                }
            }
        }
        assert!(tried > 500, "{tried}");
        assert!(
            accepted.is_empty(),
            "{user}: {} of {tried} were accepted:\n{}",
            accepted.len(),
            accepted.join("\n")
        );
    }
}

/// The page of the report shows every control and its observer.
#[cfg(feature = "html")]
#[test]
fn html_shows_every_control() {
    for user in USERS {
        let bundle = Bundle::new(user);
        let report = serde_json::from_slice(&std::fs::read(&bundle.report).unwrap()).unwrap();
        let page = invarlock_evidence::html::render(&report, Some(&bundle.manifest)).unwrap();
        let start = page.find("id=\"h-boundary\"").unwrap();
        let boundary = &page[start..page.find("id=\"h-digests\"").unwrap()];
        for name in bundle.controls("subject") {
            assert!(boundary.contains(&format!(">{}<", name.replace('_', " "))), "{user}: {name}");
        }
        let wall = "86\u{202f}400\u{202f}000 milliseconds";
        for shown in ["observed by init", "observed by supervisor", "model.safetensors", wall, "Planned"] {
            assert!(boundary.contains(shown), "{user}: {shown}");
        }
        assert_eq!(boundary.contains("by cgroup"), user == "root", "the page shows what enforces the limits");
        assert!(!boundary.contains("left out"), "{user}: a value is truncated");
    }
}

/// Root's runs take their host ids from the range of the plan.
#[test]
fn rejects_host_ids_outside_the_planned_range() {
    let bundle = Bundle::new("root");
    let maps = |first: u32| json!([format!("0 {first} 1"), format!("65532 {} 1", first + 1)]);
    let verdict = bundle.verify_with(&pointer_to("subject", "id_maps/value/uid"), maps(1000));
    let named =
        |e: &String| e.contains(".id_maps.value.uid") && e.contains("two ids from 2080374784 to 2088763391");
    assert!(!verdict.ok() && verdict.errors.iter().any(named), "{:?}", verdict.errors);
}

/// A process can map at most four times the memory limit, or the limit itself without a cgroup.
#[test]
fn rejects_unlimited_private_mappings() {
    for (user, times) in [("root", 4), ("user", 1)] {
        let bundle = Bundle::new(user);
        let limits = bundle.manifest.pointer(&pointer_to("subject", "limits/value")).unwrap();
        let memory = limits.as_array().unwrap().iter().find(|limit| limit["name"] == "memory").unwrap();
        let most = times * memory["asked"].as_u64().unwrap();
        let pointer = pointer_to("subject", "rlimits/value/data");
        let verify = |value: Option<u64>| bundle.verify_with(&pointer, json!({"soft": value, "hard": value}));
        assert!(verify(Some(most)).ok(), "{user}");
        // Without a cgroup, the observed memory limit is this resource limit.
        assert_eq!(verify(Some(most / 2)).ok(), user == "root", "{user}");
        for value in [None, Some(most + 1)] {
            let verdict = verify(value);
            let named = |e: &String| e.contains(".rlimits.value.data.hard");
            assert!(!verdict.ok() && verdict.errors.iter().any(named), "{user}: {:?}", verdict.errors);
        }
    }
}
