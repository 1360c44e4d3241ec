//! `--profile ci_cpu` and `--profile release`: how much is measured, and what InvarLock says of the evidence.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, read_json, skip, target};
use serde_json::{Value, json};
use std::process::Command;

/// A place with the demo's checkpoints and so many different rows.
fn place(rows: usize) -> Place {
    let place = Place::new(As::User);
    for name in ["baseline", "healthy", "damaged"] {
        place.copy_dir(&demo(name), &format!("models/{name}"));
    }
    let data = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let texts: Vec<Value> = data.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |row: usize| {
        let part = |part: usize| texts[(row + 3 * part) % texts.len()]["text"].as_str().unwrap();
        json!({"text": format!("{row} {} {}", part(0), part(1))}).to_string() + "\n"
    };
    place.write("rows.jsonl", (0..rows).map(row).collect::<String>().as_bytes());
    let preset =
        json!({"dataset": {"provider": {"kind": "local_jsonl", "file": "rows.jsonl"}, "seq_len": 128}});
    place.write("preset.yaml", preset.to_string().as_bytes());
    place
}

/// Evaluates a subject; the evidence is in the directory of its name.
fn evaluate(place: &Place, profile: &str, subject: &str) -> Ran {
    let args = ["evaluate", "--quiet", "--profile", profile, "--preset", "preset.yaml", "--baseline"];
    let models = ["models/baseline", "--subject", &format!("models/{subject}")];
    place.run(&[&args[..], &models, &["--report-out", subject]].concat())
}

#[test]
fn ci_cpu_measures_120_windows_and_decides_as_dev() {
    let place = place(260);
    evaluate(&place, "ci_cpu", "healthy").expect(0);
    let report = read_json(&place.work("healthy/subject.report.json"));
    let windows = |arm: &str| report["evaluation_windows"][arm]["window_ids"].as_array().unwrap().len();
    assert_eq!((windows("preview"), windows("final")), (120, 120));
    place.run(&["verify", "--profile", "ci_cpu", "healthy"]).expect(0);
    place.run(&["verify", "--profile", "dev", "healthy"]).expect(0);
    let refused = place.run(&["verify", "healthy"]).expect(1);
    assert!(refused.out.contains("made with profile ci_cpu; use --profile ci_cpu"), "{refused:?}");
    // Evidence that contradicts itself has the exit code of ci.
    let path = place.work("healthy/evaluation.report.json");
    let mut altered = read_json(&path);
    altered["primary_metric"]["ratio_vs_baseline"] = json!(0.9);
    std::fs::write(&path, altered.to_string()).unwrap();
    place.run(&["verify", "--profile", "ci_cpu", "healthy"]).expect(3);
    place.run(&["verify", "--profile", "dev", "healthy"]).expect(1);
}

#[test]
fn upstream_agrees_with_release_evidence() {
    let place = place(820);
    for (subject, code, word) in [("healthy", 0, "PASS"), ("damaged", 1, "FAIL")] {
        evaluate(&place, "release", subject).expect(code);
        place.run(&["verify", "--profile", "release", subject]).expect(code);
        let report = format!("{subject}/evaluation.report.json");
        for (version, more) in [("0.12.1", &["--assurance", "strict"][..]), ("0.8.0", &[])] {
            let verify = [&["verify", "--profile", "release"][..], more, &[&report]].concat();
            let Some(ran) = upstream(&place, version, &verify) else { return };
            ran.expect(code);
        }
        // The page of 0.8.0 says FAIL of every report, also of its own: it reads a member that no report has.
        let says =
            |args: &[&str]| upstream(&place, "0.12.1", &[&["report"], args].concat()).unwrap().expect(0).out;
        says(&["html", "-i", &report, "-o", "page.html", "--force"]);
        let page = std::fs::read_to_string(place.work("page.html")).unwrap();
        let overall = page
            .split_once("Overall")
            .unwrap()
            .1
            .split(['<', '>'])
            .find(|text| ["PASS", "FAIL"].contains(text));
        assert_eq!(overall, Some(word));
        let tags = says(&["export", "--format", "mlflow-tags", "-i", &report]);
        let status = format!("\"invarlock.status\": \"{}\"", word.to_lowercase());
        assert!(tags.contains(&status), "{tags}");
        let card = says(&["export", "--format", "model-card-md", "-i", &report]);
        assert!(card.contains(&format!("| Status | {word} |")), "{card}");
    }
}

/// What a version of InvarLock does in the work directory of a place; none if it is not installed.
fn upstream(place: &Place, version: &str, args: &[&str]) -> Option<Ran> {
    let program = target().join("upstream").join(version).join("bin/invarlock");
    if !program.is_file() {
        skip(
            &format!("upstream {version}"),
            "upstream's package is not installed (Python 3.12 or newer needed)",
        );
        return None;
    }
    let mut command = Command::new(program);
    command.args(args).current_dir(place.work("")).env_clear().env("PATH", "/usr/bin:/bin");
    Some(Ran::from(command.env("HOME", place.path("home")).output().unwrap()))
}
