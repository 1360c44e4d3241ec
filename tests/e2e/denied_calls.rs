//! Denied system calls of a workload are printed and recorded, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, demo, program, read_json};
use serde_json::{Value, json};

/// A place whose default image contains the test workload, which makes the calls that its arguments
/// name.
fn place_with_workload(user: As) -> Place {
    Place::holding(user, "invarlock-workload")
}

fn run(place: &Place, flags: &[&str], command: &[&str]) -> Ran {
    let start = ["runtime", "run", "invarlock-runtime:local"];
    place.run(&[&start, flags, &["--"], command].concat())
}

/// The JSON object among the lines of standard error.
fn outcome(ran: &Ran) -> Value {
    ran.err.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{ran:?}"))
}

#[test]
fn denied_calls_are_printed_and_recorded() {
    for user in both() {
        let place = place_with_workload(user);
        let ran = run(&place, &["--json"], &["pipes", "3"]).expect(0);
        assert!(ran.err.lines().any(|line| line == "invarlock: denied pipe2 ×3"), "{}", ran.err);
        assert_eq!(outcome(&ran)["refused"]["pipe2"], 3);
        let no_denials = run(&Place::holding(user, "noop"), &["--json"], &[]).expect(0);
        assert!(!no_denials.err.contains("invarlock: denied"), "{}", no_denials.err);
        assert_eq!(outcome(&no_denials)["refused"], json!({}));
    }
}

/// The launcher's own filter also denies sockets. The supervisor still counts those of the
/// workload.
#[test]
fn denied_sockets_are_printed_by_address_family() {
    for user in both() {
        let ran = run(&place_with_workload(user), &["--json"], &["sockets", "2", "2", "10", "17"]).expect(0);
        assert_eq!(ran.out, "1 1 1 1\n");
        for line in ["AF_INET) ×2", "AF_INET6) ×1", "AF_PACKET) ×1"] {
            let line = format!("invarlock: denied socket({line}");
            assert!(ran.err.lines().any(|printed| printed == line), "{line} is missing: {}", ran.err);
        }
        let denied = outcome(&ran)["refused"].clone();
        assert_eq!((&denied["socket(AF_INET)"], &denied["socket(AF_PACKET)"]), (&json!(2), &json!(1)));
    }
}

/// An evaluator tries to open network sockets before it measures. The evaluation passes, and the
/// manifest records the denied calls.
#[test]
fn manifest_records_denied_calls_of_the_evaluator() {
    for user in both() {
        let place = Place::new(user);
        let layout = Layout::of_tree(&place, "image", |rootfs| {
            std::fs::copy(program("invarlock-workload"), rootfs.join("invarlock-evaluator")).unwrap();
            std::fs::copy(program("invarlock-evaluator"), rootfs.join("real-evaluator")).unwrap();
        });
        let labels =
            json!({"Labels": {"org.invarlock.speaks": "measure"}, "Entrypoint": ["/invarlock-evaluator"]});
        let image = layout.image("network-evaluator", &labels);
        let (baseline, preset) = (demo("baseline"), demo("preset.yaml"));
        let paths = [baseline.to_str().unwrap(), preset.to_str().unwrap()];
        let args = [
            "evaluate",
            "--image",
            &image,
            "--baseline",
            paths[0],
            "--subject",
            paths[0],
            "--preset",
            paths[1],
        ];
        let ran = place.run(&args).expect(0);
        let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
        for side in ["baseline", "subject"] {
            let line = format!("invarlock: denied socket(AF_INET) ×3 ({side})");
            assert!(ran.err.lines().any(|printed| printed == line), "{line} is missing: {}", ran.err);
            assert_eq!(manifest["context"]["sides"][side]["refused"]["socket(AF_INET)"], 3);
        }
    }
}

/// A check that fails says what its container tried.
#[test]
fn failed_evaluation_prints_denied_calls() {
    let place = place_with_workload(As::Caller);
    std::fs::remove_file(place.path("bin/invarlock-evaluator")).unwrap();
    let (baseline, dataset) = (demo("baseline"), demo("valid.jsonl"));
    let paths = [baseline.to_str().unwrap(), dataset.to_str().unwrap()];
    let args = ["evaluate", "--quiet", "--baseline", paths[0], "--subject", paths[0], "--dataset", paths[1]];
    let ran = place.run(&args).expect(3);
    ran.one_error(&["checking the baseline"]);
    assert!(ran.err.lines().any(|line| line == "invarlock: denied pipe2 ×1 (baseline)"), "{}", ran.err);
}

/// Host execution has a deny list without a user notification, so no count exists. The value is
/// null, which differs from an empty list.
#[test]
fn host_execution_records_null_instead_of_counts() {
    let place = Place::new(As::Caller);
    let (baseline, preset) = (demo("baseline"), demo("preset.yaml"));
    let paths = [baseline.to_str().unwrap(), preset.to_str().unwrap()];
    let args = ["evaluate", "--json", "--baseline", paths[0], "--subject", paths[0], "--preset", paths[1]];
    let ran = place.run(&[&args[..], &["--execution-mode", "host"]].concat()).expect(0).json();
    assert_eq!(ran["refused"], json!({"baseline": null, "subject": null}));
    let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
    let side = manifest["context"]["sides"]["subject"].as_object().unwrap();
    assert_eq!(side.get("refused"), Some(&Value::Null));
}
