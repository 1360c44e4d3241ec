//! What a workload tried and was refused is shown and recorded, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, demo, program, read_json};
use serde_json::{Value, json};

/// A place whose default image holds the program that misbehaves on command.
fn misbehaving(user: As) -> Place {
    Place::holding(user, "invarlock-workload")
}

fn run(place: &Place, flags: &[&str], command: &[&str]) -> Ran {
    let start = ["runtime", "run", "invarlock-runtime:local"];
    place.run(&[&start, flags, &["--", "/invarlock-evaluator"], command].concat())
}

/// The JSON object among the lines of standard error.
fn outcome(ran: &Ran) -> Value {
    ran.err.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{ran:?}"))
}

#[test]
fn refused_calls_are_shown_and_recorded() {
    for user in both() {
        let place = misbehaving(user);
        let tried = run(&place, &["--json"], &["pipes", "3"]).expect(0);
        assert!(tried.err.lines().any(|line| line == "invarlock: denied pipe2 ×3"), "{}", tried.err);
        assert_eq!(outcome(&tried)["refused"]["pipe2"], 3);
        let clean = run(&Place::holding(user, "noop"), &["--json"], &[]).expect(0);
        assert!(!clean.err.contains("invarlock: denied"), "{}", clean.err);
        assert_eq!(outcome(&clean)["refused"], json!({}));
    }
}

/// The launcher's own filter, which refuses sockets too, does not hide them from the one who counts.
#[test]
fn sockets_that_a_workload_asks_for_are_shown_by_family() {
    for user in both() {
        let tried = run(&misbehaving(user), &["--json"], &["sockets", "2", "2", "10", "17"]).expect(0);
        assert_eq!(tried.out, "1 1 1 1\n");
        for line in ["AF_INET) ×2", "AF_INET6) ×1", "AF_PACKET) ×1"] {
            let line = format!("invarlock: denied socket({line}");
            assert!(tried.err.lines().any(|it| it == line), "{line} is missing: {}", tried.err);
        }
        let refused = outcome(&tried)["refused"].clone();
        assert_eq!((&refused["socket(AF_INET)"], &refused["socket(AF_PACKET)"]), (&json!(2), &json!(1)));
    }
}

/// An evaluator that asks for a network before it measures: the numbers are right, and the manifest says what it tried.
#[test]
fn what_an_evaluator_tried_stands_in_the_manifest() {
    for user in both() {
        let place = Place::new(user);
        let layout = Layout::of_tree(&place, "image", |tree| {
            std::fs::copy(program("invarlock-workload"), tree.join("invarlock-evaluator")).unwrap();
            std::fs::copy(program("invarlock-evaluator"), tree.join("real-evaluator")).unwrap();
        });
        let labels =
            json!({"Labels": {"org.invarlock.speaks": "measure"}, "Entrypoint": ["/invarlock-evaluator"]});
        let image = layout.image("liar", &labels);
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
            assert!(ran.err.lines().any(|it| it == line), "{line} is missing: {}", ran.err);
            assert_eq!(manifest["context"]["sides"][side]["refused"]["socket(AF_INET)"], 3);
        }
    }
}

/// A measuring that fails says what its container tried.
#[test]
fn an_evaluation_that_fails_shows_what_was_refused() {
    let place = misbehaving(As::Caller);
    std::fs::remove_file(place.path("bin/invarlock-evaluator")).unwrap();
    let (baseline, dataset) = (demo("baseline"), demo("valid.jsonl"));
    let paths = [baseline.to_str().unwrap(), dataset.to_str().unwrap()];
    let args = ["evaluate", "--quiet", "--baseline", paths[0], "--subject", paths[0], "--dataset", paths[1]];
    let ran = place.run(&args).expect(3);
    ran.one_error(&["measuring the baseline"]);
    assert!(ran.err.lines().any(|line| line == "invarlock: denied pipe2 ×1 (baseline)"), "{}", ran.err);
}

/// Host execution has a deny-list without a listener: the value is null, which differs from an empty list.
#[test]
fn what_is_not_counted_is_null() {
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
