//! Upstream's verifier, 0.12.1 and 0.8.0, accepts the evidence of this program, and 0.17.1 publishes and verifies packs of its
//! own from an export of it. The tests need the installation by `tests/tools/upstream-venvs.sh`, which needs Python 3.12 or newer.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, read_json, skip, target};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

fn upstream_program(version: &str) -> Option<PathBuf> {
    let path = target().join("upstream").join(version).join("bin/invarlock");
    path.is_file().then_some(path)
}

fn check(version: &str, verify_flags: &[&[&str]]) {
    let Some(program) = upstream_program(version) else {
        return skip(
            &format!("upstream::{version}"),
            "upstream's package is not installed (Python 3.12 or newer needed)",
        );
    };
    let place = Place::new(As::Caller);
    for (subject, code) in [("healthy", 0), ("damaged", 1)] {
        let (baseline, subject_dir, preset) = (demo("baseline"), demo(subject), demo("preset.yaml"));
        let args = ["evaluate", "--quiet", "--baseline", baseline.to_str().unwrap(), "--subject"];
        let args = [
            &args[..],
            &[subject_dir.to_str().unwrap(), "--preset", preset.to_str().unwrap(), "--report-out", subject],
        ]
        .concat();
        place.run(&args).expect(code);
        let report = place.work(subject).join("evaluation.report.json");
        let manifest = report.with_file_name("runtime.manifest.json");
        let run = |args: &[&str]| {
            let mut command = Command::new(&program);
            command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.path("home"));
            Ran::from(command.output().unwrap())
        };
        run(&[
            "advanced",
            "runtime-verify",
            "--report",
            report.to_str().unwrap(),
            "--manifest",
            manifest.to_str().unwrap(),
        ])
        .expect(0);
        for flags in verify_flags {
            run(&[&["verify", "--profile", "ci"], *flags, &[report.to_str().unwrap()]].concat()).expect(code);
        }
    }
}

#[test]
fn upstream_0_12_1_accepts_the_evidence() {
    check("0.12.1", &[&["--assurance", "off"], &["--assurance", "report"], &["--assurance", "strict"]]);
}

#[test]
fn upstream_0_8_0_accepts_the_evidence() {
    check("0.8.0", &[&[]]);
}

/// A command line in the work directory of a place, in which `invarlock` is 0.17.1.
fn shell(place: &Place, program: &Path, line: &str) -> Ran {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).current_dir(place.work("")).env_clear().env("HOME", place.path("home"));
    command.env("PATH", format!("{}:/usr/bin:/bin", program.parent().unwrap().display()));
    Ran::from(command.output().unwrap())
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(std::fs::read(path).unwrap());
    format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-12 * other.abs()
}

/// The mean over the final windows of the negative log-likelihood per byte, from a run report and the baseline's texts.
fn nll_per_byte(run_report: &Value, baseline: &Value) -> f64 {
    let windows = &run_report["evaluation_windows"]["final"];
    let texts = baseline["evaluation_windows"]["final"]["predicted_texts"].as_array().unwrap();
    let number = |list: &str, index: usize| windows[list][index].as_f64().unwrap();
    let nll = texts.iter().enumerate().map(|(index, text)| {
        number("logloss", index) * (number("token_counts", index) - 1.0) / text.as_str().unwrap().len() as f64
    });
    nll.sum::<f64>() / texts.len() as f64
}

#[test]
fn upstream_0_17_1_publishes_and_verifies_packs_of_the_export() {
    let Some(program) = upstream_program("0.17.1") else {
        return skip("upstream::0.17.1", "upstream's package is not installed (Python 3.12 or newer needed)");
    };
    let place = Place::new(As::Caller);
    let data = demo("valid.jsonl");
    let dataset =
        json!({"provider": "local_jsonl", "file": data, "seq_len": 64, "preview_n": 16, "final_n": 16});
    place.write("preset.yaml", json!({ "dataset": dataset }).to_string().as_bytes());
    let signer = place.run(&["advanced", "attest", "keygen", "private.pem", "--json"]).expect(0).json();
    let signer = signer["fingerprint"].as_str().unwrap().to_owned();
    // The baseline itself, its weights in int8, and random changes.
    for (subject, gates, decision, code) in
        [("baseline", 0, "pass", 0), ("healthy", 0, "pass", 0), ("damaged", 1, "regression", 7)]
    {
        let (baseline_dir, subject_dir) = (demo("baseline"), demo(subject));
        let [base, subj] = [&baseline_dir, &subject_dir].map(|dir| dir.to_str().unwrap());
        let args = ["evaluate", "--quiet", "--profile", "dev", "--preset", "preset.yaml", "--baseline", base];
        place.run(&[&args[..], &["--subject", subj, "--report-out", subject]].concat()).expect(gates);
        place.run(&["verify", "--profile", "dev", subject]).expect(gates);
        let captured = format!("captured {subject}");
        let export = ["report", "export", subject, "--format", "invarlock-captured", "-o", &captured];
        let export = place.run(&export).expect(0);
        let command = export.out.lines().last().unwrap();

        let published = shell(&place, &program, &format!("{command} --json")).expect(0).json();
        assert_eq!(published["decision"], decision, "{subject}: {published}");
        let file = |name: &str| place.work(&captured).join(name);
        for side in ["baseline", "subject"] {
            let digest = sha256(&file(&format!("{side}.run.json")));
            assert_eq!(published[format!("{side}_run_digest")], digest, "the file is canonical");
        }
        let metric = read_json(&file("evidence/reports/evaluation.report.json"))["metrics"][0].clone();
        let figure = |name: &str| metric[name].as_f64().unwrap();
        let run_report = |side: &str| read_json(&place.work(subject).join(format!("{side}.report.json")));
        let baseline = run_report("baseline");
        for (name, ours) in [
            ("baseline_mean", nll_per_byte(&baseline, &baseline)),
            ("subject_mean", nll_per_byte(&run_report("subject"), &baseline)),
        ] {
            assert!(close(figure(name), ours), "{subject}: {name} is {}, ours {ours}", figure(name));
        }
        let line = export.out.lines().find(|line| line.starts_with("normalized NLL")).unwrap();
        let printed: Vec<f64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        let theirs = ["baseline_mean", "subject_mean", "ratio"].map(figure);
        assert!(printed.iter().zip(theirs).all(|(one, other)| close(*one, other)), "{line}: {theirs:?}");
        assert_eq!(printed.len(), 3, "{line}");

        let anchor = |name: &str| published[name].as_str().unwrap();
        let verify = format!(
            "invarlock verify '{captured}/evidence' --policy '{captured}/policy.json' --expected-signer {signer} \
             --expected-baseline-run {} --expected-subject-run {} --expected-request-digest {} \
             --receipt {subject}.receipt.json --verifier-signing-key private.pem --verifier-identity tests --json",
            anchor("baseline_run_digest"),
            anchor("subject_run_digest"),
            anchor("request_digest")
        );
        let verified = shell(&place, &program, &verify).expect(code).json();
        assert_eq!(verified["integrity_ok"], true, "{verified}");
        let unsigned = format!(
            "invarlock evaluate '{captured}/request.json' --unsigned --output '{captured}/unsigned' --json"
        );
        let unsigned = shell(&place, &program, &unsigned).expect(0).json();
        assert_eq!(
            (&unsigned["decision"], &unsigned["authentication"]),
            (&json!(decision), &json!("unsigned_local"))
        );
    }
}
