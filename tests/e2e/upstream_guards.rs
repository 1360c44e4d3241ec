//! `--guards upstream`: every guard compares the subject with itself, as those of InvarLock 0.12 do. It is recorded, and verified.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::small::{evaluate, place};
use invarlock_tests::{As, Place, Ran, demo, read_json, skip, target};
use serde_json::{Value, json};
use std::process::Command;

const UPSTREAM: [&str; 2] = ["--guards", "upstream"];

/// The mode is in the plan, in both run reports, in the policy and in each block; the verifier derives all of it again.
#[test]
fn mode_is_recorded_and_verified() {
    let place = place();
    evaluate(&place, &UPSTREAM).expect(0);
    let explained = place.run(&["report", "explain", "eval"]).expect(0).out;
    assert!(explained.contains("against themselves (--guards upstream)"), "{explained}");
    let report = read_json(&place.work("eval/evaluation.report.json"));
    for guard in ["spectral", "rmt", "variance"] {
        assert_eq!(report[guard]["mode"], "upstream", "{guard}");
        assert_eq!(report["resolved_policy"][guard]["mode"], "upstream", "{guard}");
    }
    assert_eq!(report["rmt"]["edge_risk_by_family"], report["rmt"]["edge_risk_by_family_base"]);
    assert_eq!(report["spectral"]["measurement_contract_hash"], "14cca7884179d484");
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    assert_eq!(manifest["context"]["plan"]["content"]["guards"], json!({"mode": "upstream"}));
    for side in ["baseline", "subject"] {
        let run = read_json(&place.work(&format!("eval/{side}.report.json")));
        assert_eq!(run["context"]["guards"], json!({"mode": "upstream"}), "{side}");
    }
    let verify = || place.run(&["verify", "--profile", "dev", "eval"]);
    verify().expect(0);

    let path = place.work("eval/subject.report.json");
    let honest = read_json(&path);
    for pointer in [
        "/guards/1/details/modules/0/spectral_norm",
        "/guards/2/details/outputs/modules/0/edge",
        "/guards/3/details/measurement/projections/0/squares/0",
        "/guards/3/details/measurement/losses/0",
        "/context/guards/mode",
    ] {
        let mut changed = honest.clone();
        let value = changed.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        *value = value.as_f64().map_or_else(|| json!("compare"), |number| json!(number * 1.5));
        std::fs::write(&path, changed.to_string()).unwrap();
        assert_ne!(verify().code, 0, "{pointer}");
    }
}

/// A damaged subject whose weights are like those of one family passes these guards, and not those of the default mode.
#[test]
fn damaged_subject_passes_these_guards_only() {
    let place = Place::new(As::Caller);
    let verdicts = |mode: &str| -> Vec<Value> {
        let (baseline, damaged, preset) = (demo("baseline"), demo("damaged"), demo("preset.yaml"));
        let args = ["evaluate", "--quiet", "--guards", mode, "--report-out", mode, "--baseline"];
        let paths = [&baseline, &damaged, &preset].map(|path| path.to_str().unwrap());
        let args = [&args[..], &[paths[0], "--subject", paths[1], "--preset", paths[2]]].concat();
        place.run(&args).expect(1);
        let report = read_json(&place.work(mode).join("evaluation.report.json"));
        ["spectral", "rmt"].map(|guard| report[guard]["passed"].clone()).to_vec()
    };
    assert_eq!(verdicts("upstream"), [true, true]);
    assert!(verdicts("compare").contains(&json!(false)));
}

/// A baseline that was measured for other guards is refused, and so are an unknown mode and a plan lock, which fixes the default mode.
#[test]
fn other_measurements_and_locks_are_refused() {
    let place = place();
    evaluate(&place, &["--guards", "Upstream"]).expect(2).one_error(&["--guards", "use compare or upstream"]);
    evaluate(&place, &["--guards", "upstream", "--tiers", "preset.yaml"])
        .expect(2)
        .one_error(&["--tiers", "--guards upstream"]);
    evaluate(&place, &["--out", "runs"]).expect(0);
    let source = &place.names("work/runs/source")[0];
    let baseline = format!("runs/source/{source}/report.json");
    std::fs::remove_dir_all(place.work("eval")).unwrap();
    evaluate(&place, &["--guards", "upstream", "--baseline-report", &baseline])
        .expect(2)
        .one_error(&["mode of the guards is compare, but this command's is upstream"]);
    place.run(&["advanced", "attest", "keygen", "alice.key"]).expect(0);
    let lock = ["plan", "lock", "--profile", "dev", "--preset", "preset.yaml", "--baseline", "base"];
    place.run(&[&lock[..], &["--signing-key", "alice.key"]].concat()).expect(0);
    evaluate(&place, &["--guards", "upstream", "--lock", "plan.lock.json"])
        .expect(2)
        .one_error(&["the plan lock fixes the guards compare"]);
}

/// Upstream's verifier accepts the blocks, which have the members of its own.
#[test]
fn upstream_accepts_its_own_mode() {
    let program = target().join("upstream/0.12.1/bin/invarlock");
    if !program.is_file() {
        return skip("upstream_guards", "upstream's package is not installed (Python 3.12 or newer needed)");
    }
    let place = Place::new(As::Caller);
    let (baseline, healthy, preset) = (demo("baseline"), demo("healthy"), demo("preset.yaml"));
    let paths = [&baseline, &healthy, &preset].map(|path| path.to_str().unwrap());
    let args =
        ["evaluate", "--quiet", "--guards", "upstream", "--report-out", "eval", "--baseline", paths[0]];
    place.run(&[&args[..], &["--subject", paths[1], "--preset", paths[2]]].concat()).expect(0);
    for assurance in ["off", "report", "strict"] {
        let mut command = Command::new(&program);
        command.args(["verify", "--profile", "ci", "--assurance", assurance]);
        command.arg(place.work("eval/evaluation.report.json"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.path("home"));
        Ran::from(command.output().unwrap()).expect(0);
    }
}
