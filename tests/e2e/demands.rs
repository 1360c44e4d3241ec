//! What a recipient requires of evidence: digests, age, and all of it in a trust profile.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, read_json};
use serde_json::{Value, json};

/// The demo's baseline as `models/base` and its `checkpoint` as `name`, and a preset of few windows.
fn place_with(checkpoint: &str, name: &str) -> Place {
    let place = Place::new(As::Caller);
    place.copy_dir(&demo("baseline"), "models/base");
    place.copy_dir(&demo(checkpoint), name);
    let data = demo("valid.jsonl");
    let preset = json!({"dataset": {"provider": {"kind": "local_jsonl", "file": data}, "seq_len": 32, "preview_n": 4, "final_n": 4}});
    place.write("preset.yaml", preset.to_string().as_bytes());
    place
}

fn evaluate(place: &Place, subject: &str, more: &[&str]) -> Ran {
    let args = ["evaluate", "--profile", "dev", "--preset", "preset.yaml", "--baseline", "models/base"];
    place.run(&[&args[..], &["--subject", subject], more].concat())
}

/// The evidence of `checkpoint`, which is called `models/released`, in `eval`.
fn evaluated(checkpoint: &str) -> Place {
    let place = place_with(checkpoint, "models/released");
    evaluate(&place, "models/released", &["--quiet", "--out", "runs", "--report-out", "eval"]).expect(0);
    place
}

fn verify(place: &Place, more: &[&str]) -> Ran {
    let profile = if more.contains(&"--trust") { &[][..] } else { &["--profile", "dev"] };
    place.run(&[&["verify"], profile, more, &["eval"]].concat())
}

#[test]
fn verify_names_what_the_evidence_is_about() {
    let place = evaluated("healthy");
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    let sha256 = |side: &str| {
        let digest = &manifest["context"]["sides"][side]["checkpoint"]["tree_sha256"];
        digest.as_str().unwrap().to_owned()
    };
    let ran = verify(&place, &[]).expect(0);
    let first = ran.out.lines().next().unwrap();
    assert!(first.starts_with("VERIFY OK ") && first.contains("assurance=consistent"), "{first}");
    for line in [
        "no trusted signature: its author could have written all of it".to_owned(),
        format!("baseline  models/base  sha256:{}", sha256("baseline")),
        format!("subject   models/released  sha256:{}", sha256("subject")),
        "made with profile dev, tier balanced".to_owned(),
    ] {
        assert!(ran.out.contains(&line), "{line}: {}", ran.out);
    }
    let row = verify(&place, &["--json"]).expect(0).json()["results"][0].clone();
    assert_eq!(row["assurance"], "consistent");
    assert_eq!(row["about"]["subject"], json!({"name": "models/released", "sha256": sha256("subject")}));
    assert_eq!(row["verification"]["runtime_provenance"]["verified"], false);
}

#[test]
fn a_required_model_dataset_image_or_age_is_compared() {
    let place = evaluated("healthy");
    let data = demo("valid.jsonl");
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    let image = manifest["runtime"]["image_digest"].as_str().unwrap().to_owned();
    let met = ["--subject", "models/released", "--baseline-checkpoint", "models/base", "--dataset"];
    let met: Vec<&str> =
        met.into_iter().chain([data.to_str().unwrap(), "--image", &image, "--max-age", "1d"]).collect();
    let ran = verify(&place, &met).expect(0);
    for name in ["baseline", "subject", "dataset", "image"] {
        assert!(ran.out.contains(&format!("matched: {name}\n")), "{name}: {}", ran.out);
    }
    // The evidence is of the baseline's weights under the subject's name.
    let forged = evaluated("baseline");
    let wanted = demo("healthy");
    let ran = verify(&forged, &["--subject", wanted.to_str().unwrap()]).expect(1);
    assert!(
        ran.out.contains("assurance=failed") && ran.out.contains("the subject has the digest"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("(the same files as the baseline)"), "{}", ran.out);
    let zero = format!("sha256:{}", "0".repeat(64));
    for option in ["--subject", "--baseline-checkpoint", "--dataset", "--image"] {
        let ran = verify(&place, &[option, &zero]).expect(1);
        assert!(ran.out.contains(&format!("the verifier requires {zero}")), "{option}: {}", ran.out);
    }
    let ran = verify(&place, &["--max-age", "0h"]).expect(1);
    assert!(ran.out.contains("the verifier accepts none from before"), "{}", ran.out);
    verify(&place, &["--subject", "models/none"]).expect(2).one_error(&["models/none"]);
    verify(&place, &["--subject", "sha256:12"]).expect(2).one_error(&["--subject"]);
    assert!(verify(&place, &["--max-age", "soon"]).expect(2).err.contains("such as 30d or 12h"));
}

#[test]
fn a_trust_profile_holds_all_demands() {
    let place = evaluated("healthy");
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    let digest = |side: &str| {
        format!(
            "sha256:{}",
            manifest["context"]["sides"][side]["checkpoint"]["tree_sha256"].as_str().unwrap()
        )
    };
    let trust = |profile: &Value| {
        place.write("trust.json", profile.to_string().as_bytes());
        verify(&place, &["--trust", "trust.json"])
    };
    let mut profile = json!({
        "format_version": "invarlock-trust-v1", "profile": "dev", "tier": "balanced", "max_age": "1d",
        "baseline_checkpoint": digest("baseline"), "subject": digest("subject"), "image": manifest["runtime"]["image_digest"],
    });
    assert!(trust(&profile).expect(0).out.contains("matched: subject"));
    profile["subject"] = json!(digest("baseline"));
    assert!(trust(&profile).expect(1).out.contains("the subject has the digest"));
    for (member, value, word) in [
        ("format_version", json!("other"), "invarlock-trust-v1"),
        ("max_age", json!("soon"), "30d"),
        ("subject", json!("x"), "subject"),
        ("allow", json!(["everything"]), "everything"),
        ("typo", json!(1), "typo"),
    ] {
        let mut wrong = profile.clone();
        wrong[member] = value;
        trust(&wrong).expect(2).one_error(&["trust.json", word]);
    }
    let both = verify(&place, &["--trust", "trust.json", "--tier", "balanced"]).expect(2);
    assert!(both.err.contains("--trust"), "{}", both.err);
}

/// A name in evidence is printed with its control characters escaped.
#[test]
fn a_name_with_escape_sequences_is_printed_escaped() {
    let name = "models/\u{1b}[2K\u{1b}[1A";
    let place = place_with("healthy", name);
    let ran = evaluate(&place, name, &["--report-out", "eval\u{1b}[8m"]).expect(0);
    let verified = place.run(&["verify", "--profile", "dev", "eval\u{1b}[8m"]).expect(0);
    let report = "eval\u{1b}[8m/evaluation.report.json";
    let bound = [
        "advanced",
        "runtime-verify",
        "--report",
        report,
        "--manifest",
        "eval\u{1b}[8m/runtime.manifest.json",
    ];
    let bound = place.run(&bound).expect(0);
    for ran in [&ran, &verified, &bound] {
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{ran:?}");
    }
    assert!(verified.out.contains("[2K"), "{}", verified.out);
}

#[test]
fn files_of_the_evidence_that_are_passed_by_mistake_are_named() {
    let place = evaluated("healthy");
    let ran = place.run(&["verify", "--profile", "dev", "eval/baseline.report.json"]).expect(2);
    assert!(ran.out.contains("is a run report; pass the evaluation report"), "{}", ran.out);
    let again = |report: &str| evaluate(&place, "models/released", &["--quiet", "--baseline-report", report]);
    again("eval/baseline.report.json")
        .expect(2)
        .one_error(&["it is the copy", "pass the original, runs/source/"]);
    // The original is accepted.
    let original = place.names("work/runs/source");
    again(&format!("runs/source/{}/report.json", original[0])).expect(0);
    place.write("eval/runtime.manifest.json", b"{}");
    let ran = place.run(&["verify", "--profile", "dev", "eval"]).expect(1);
    assert!(ran.out.contains("it has no execution_mode"), "{}", ran.out);
}

#[test]
fn the_page_says_that_a_manifest_is_of_another_report() {
    let place = evaluated("healthy");
    let page = |name: &str| {
        place.run(&["report", "html", "-i", "eval", "-o", name]).expect(0);
        std::fs::read_to_string(place.work(name)).unwrap()
    };
    let warning = "The runtime manifest is not that of this report";
    assert!(!page("bound.html").contains(warning));
    let manifest = place.work("eval/runtime.manifest.json");
    let mut other = read_json(&manifest);
    other["report"]["sha256"] = json!("0".repeat(64));
    std::fs::write(&manifest, other.to_string()).unwrap();
    let page = page("unbound.html");
    assert!(
        page.contains(warning) && !page.contains("model.safetensors"),
        "nothing of the manifest is shown"
    );
}

#[test]
fn a_preset_that_is_a_pipe_or_deeply_nested_is_refused_at_once() {
    let place = evaluated("healthy");
    let args =
        ["evaluate", "--baseline", "models/base", "--subject", "models/released", "--preset", "other.yaml"];
    let start = std::time::Instant::now();
    place.write("other.yaml", format!("dataset: {}", "[".repeat(100_000)).as_bytes());
    place.run(&args).expect(2).one_error(&["other.yaml", "in brackets"]);
    std::fs::remove_file(place.work("other.yaml")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.work("other.yaml")).status().unwrap();
    assert!(made.success());
    place.run(&args).expect(2).one_error(&["other.yaml", "not a regular file"]);
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}
