//! `invarlock sweep`: many evaluations from one plan, in processes of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{Place, demo, read_json, set_mode, small};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

const DEV: [&str; 3] = ["--", "--profile", "dev"];

/// A place with a baseline, the subjects `healthy` and `damaged`, and a plan.
fn place(plan: &Value) -> Place {
    let place = small::place();
    for name in ["healthy", "damaged"] {
        place.copy_dir(&demo(name), name);
    }
    place.write("plan.yaml", plan.to_string().as_bytes());
    place
}

fn two() -> Value {
    json!({"baseline": "base", "subjects": {"healthy": "healthy", "damaged": "damaged"}, "presets": {"valid": "preset.yaml"}})
}

/// The rows of a table as `subject seed verdict found`.
fn rows(table: &Value) -> Vec<String> {
    let row = |row: &Value| {
        let found = if row["found"] == true { " found" } else { "" };
        format!(
            "{} {} {}{found}",
            row["subject"].as_str().unwrap(),
            row["seed"],
            row["status"].as_str().unwrap()
        )
    };
    table["runs"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn runs_that_are_there_are_not_repeated() {
    let place = place(&two());
    let sweep = |more: &[&str]| {
        place.run(&[&["sweep", "plan.yaml", "-o", "sw", "--jobs", "2", "--json"][..], more, &DEV].concat())
    };
    assert_eq!(
        rows(&sweep(&["--dry-run"]).expect(0).json()),
        ["healthy null MISSING", "damaged null MISSING"]
    );
    let table = sweep(&[]).expect(1).json();
    assert_eq!(rows(&table), ["healthy null PASS", "damaged null FAIL"]);
    assert_eq!(read_json(&place.work("sw/sweep.json")), table);
    // One measurement of the baseline for both.
    let measured = place.names("work/sw/measured");
    assert_eq!(measured.len(), 1);
    assert_eq!(place.names(&format!("work/sw/measured/{}/source", measured[0])).len(), 1);
    let evidence = |row: usize| place.work("sw").join(table["runs"][row]["evidence"].as_str().unwrap());
    place.run(&["verify", "--profile", "dev", evidence(0).to_str().unwrap()]).expect(0);

    assert_eq!(rows(&sweep(&[]).expect(1).json()), ["healthy null PASS found", "damaged null FAIL found"]);
    // Guards that judge in another way give other evidence.
    let upstream = [
        "sweep",
        "plan.yaml",
        "-o",
        "sw",
        "--json",
        "--dry-run",
        "--",
        "--profile",
        "dev",
        "--guards",
        "upstream",
    ];
    assert_eq!(
        rows(&place.run(&upstream).expect(0).json()),
        ["healthy null MISSING", "damaged null MISSING"]
    );
    // Evidence that does not verify is made again, and so is that of another subject.
    let report = evidence(1).join("evaluation.report.json");
    let text = std::fs::read_to_string(&report).unwrap();
    set_mode(&report, 0o644);
    std::fs::write(&report, text.replacen("\"FAIL\"", "\"PASS\"", 1).replacen("false", "true", 1)).unwrap();
    assert_eq!(rows(&sweep(&[]).expect(1).json()), ["healthy null PASS found", "damaged null FAIL"]);
    place.copy_dir(&demo("baseline"), "healthy");
    let table = sweep(&[]).expect(1).json();
    assert_eq!(rows(&table), ["healthy null PASS", "damaged null FAIL found"]);
    assert_eq!(table["runs"][0]["result"]["ratio"], 1.0);
    for name in ["sweep.csv", "sweep.md", "sweep.html"] {
        let text = std::fs::read_to_string(place.work("sw").join(name)).unwrap();
        assert!(text.contains("healthy") && text.contains("FAIL"), "{name}: {text}");
    }
}

#[test]
fn seeds_draw_other_windows() {
    let mut plan = two();
    plan["seeds"] = json!([1, 2]);
    plan["subjects"] = json!({"healthy": "healthy"});
    let place = place(&plan);
    let args = ["sweep", "plan.yaml", "-o", "sw", "--json"];
    let table = place.run(&[&args[..], &DEV].concat()).expect(0).json();
    assert_eq!(rows(&table), ["healthy 1 PASS", "healthy 2 PASS"]);
    let of = |row: usize| &table["runs"][row]["result"]["baseline_final"];
    assert_ne!(of(0), of(1));
    let evidence = table["runs"][1]["evidence"].as_str().unwrap();
    let manifest = read_json(&place.work("sw").join(evidence).join("runtime.manifest.json"));
    let dataset = &manifest["context"]["dataset"];
    assert_eq!((&dataset["provider"], &dataset["seed"]), (&json!("hf_text"), &json!(2)));
}

#[test]
fn a_failed_run_leaves_the_others_alone() {
    let mut plan = two();
    plan["subjects"] = json!({"unknown": "unknown", "healthy": "healthy"});
    let place = place(&plan);
    place.copy_dir(&demo("healthy"), "unknown");
    let mut config = read_json(&demo("healthy").join("config.json"));
    config["model_type"] = json!("mamba");
    place.write("unknown/config.json", config.to_string().as_bytes());
    let args = ["sweep", "plan.yaml", "-o", "sw", "--json"];
    let table = place.run(&[&args[..], &DEV].concat()).expect(3).json();
    assert_eq!(rows(&table), ["unknown null ERROR", "healthy null PASS"]);
    assert!(table["runs"][0]["error"].as_str().unwrap().contains("mamba"), "{table:#}");
}

#[test]
fn a_killed_sweep_goes_on_where_it_was() {
    let mut plan = two();
    plan["seeds"] = json!([1, 2, 3]);
    let place = place(&plan);
    let mut command = place.command(&[&["sweep", "plan.yaml", "-o", "sw"][..], &DEV].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.map(|line| line.unwrap()).find(|line| line.starts_with("[1/6]"));
    assert!(first.is_some());
    // `setpriv` replaced itself, so the child is the sweep.
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    // Its run ends with it.
    let start = Instant::now();
    while !processes_of(&place).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "left: {:?}", processes_of(&place));
        std::thread::sleep(Duration::from_millis(50));
    }
    let table =
        place.run(&[&["sweep", "plan.yaml", "-o", "sw", "--json"][..], &DEV].concat()).expect(1).json();
    let rows = rows(&table);
    assert_eq!(rows[0], "healthy 1 PASS found");
    assert!(rows.iter().any(|row| !row.ends_with("found")), "{rows:?}");
    assert_eq!(table["runs"].as_array().unwrap().len(), 6);
}

/// Processes whose program is that of this place.
fn processes_of(place: &Place) -> Vec<String> {
    let program = place.path("bin/invarlock");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ours = processes
        .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program));
    ours.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn faults_of_a_plan_are_found_before_anything_runs() {
    let place = place(&two());
    let refused = |plan: Value, more: &[&str], needles: &[&str]| {
        place.write("plan.yaml", plan.to_string().as_bytes());
        place.run(&[&["sweep", "plan.yaml", "-o", "sw"][..], more].concat()).expect(2).one_error(needles);
        assert!(!place.work("sw").exists());
    };
    let with = |key: &str, value: Value| {
        let mut plan = two();
        plan[key] = value;
        plan
    };
    refused(with("subject", json!({})), &DEV, &["the plan.subject is not a known setting", "did you mean"]);
    refused(with("subjects", json!({})), &DEV, &["an axis is empty"]);
    refused(with("subjects", json!({"a": "nowhere"})), &DEV, &["--subject nowhere"]);
    refused(with("presets", json!(["nowhere.yaml"])), &DEV, &["nowhere.yaml"]);
    refused(with("seeds", json!([1, 1])), &DEV, &["1 occurs twice"]);
    refused(
        two(),
        &["--tasks", "2", "--", "--profile", "dev"],
        &["options of a Slurm job", "--executor slurm"],
    );
    refused(two(), &["--", "--bogus"], &["options of evaluate", "--bogus"]);
    refused(two(), &["--", "--baseline", "x"], &["options of evaluate", "--baseline"]);
    refused(two(), &["--", "--profile", "nightly"], &["nightly"]);

    std::fs::create_dir(place.work("sw")).unwrap();
    place.give(&place.work("sw"));
    let lock = std::fs::File::create(place.work("sw/.lock")).unwrap();
    set_mode(&place.work("sw/.lock"), 0o666);
    lock.lock().unwrap();
    place.write("plan.yaml", two().to_string().as_bytes());
    let ran = place.run(&[&["sweep", "plan.yaml", "-o", "sw"][..], &DEV].concat()).expect(2);
    ran.one_error(&["another sweep uses the directory"]);
}
