//! `invarlock sweep --executor slurm` and `invarlock export slurm`, with a real cluster on this machine.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests; two of them print measurements")]

use invarlock_tests::slurm::{Cluster, missing};
use invarlock_tests::{As, Place, Ran, demo, read_json, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A place with a baseline, two subjects, and a plan with so many seeds; none where no cluster can be started.
fn place(test: &str, seeds: u64) -> Option<Place> {
    if let Some(why) = missing() {
        skip(test, &why);
        return None;
    }
    let place = Place::new(As::Caller);
    for (from, to) in [("baseline", "base"), ("healthy", "healthy"), ("damaged", "damaged")] {
        place.copy_dir(&demo(from), to);
    }
    let preset = json!({"dataset": {
        "provider": {"kind": "local_jsonl", "file": demo("valid.jsonl")}, "seq_len": 32, "preview_n": 4, "final_n": 4
    }});
    place.write("preset.yaml", preset.to_string().as_bytes());
    let plan = json!({
        "baseline": "base", "subjects": {"healthy": "healthy", "damaged": "damaged"},
        "presets": ["preset.yaml"], "seeds": (1..=seeds).collect::<Vec<_>>()
    });
    place.write("plan.yaml", plan.to_string().as_bytes());
    place.run(&["runtime", "image", "build"]).expect(0);
    Some(place)
}

fn sweep(place: &Place, cluster: &Cluster, more: &[&str]) -> Ran {
    let args = ["sweep", "plan.yaml", "-o", "sw", "--executor", "slurm", "--json"];
    let command = place.command(&[&args[..], more, &["--", "--profile", "dev"]].concat());
    Ran::from(cluster.inside(&command).output().unwrap())
}

/// The verdicts of a table; each of its runs was isolated by the launcher on the node.
fn verdicts(place: &Place, table: &Value) -> Vec<String> {
    let verdict = |row: &Value| {
        let evidence = place.work("sw").join(row["evidence"].as_str().unwrap());
        let manifest = read_json(&evidence.join("runtime.manifest.json"));
        assert_eq!(manifest["execution_mode"], "container", "{row}");
        row["status"].as_str().unwrap().to_owned()
    };
    table["runs"].as_array().unwrap().iter().map(verdict).collect()
}

#[test]
fn tasks_of_slurm_measure_the_runs() {
    let Some(place) = place("tasks_of_slurm_measure_the_runs", 2) else { return };
    let cluster = Cluster::start(&place, 1, 2);
    let table = sweep(&place, &cluster, &["--tasks", "2"]).expect(1).json();
    assert_eq!(verdicts(&place, &table), ["PASS", "FAIL", "PASS", "FAIL"]);
    assert_eq!(read_json(&place.work("sw/sweep.json")), table);
    assert_eq!(place.names("work/sw/slurm"), ["0.log", "1.log"]);
    // Nothing is submitted again.
    let again = sweep(&place, &cluster, &[]).expect(1).json();
    assert!(again["runs"].as_array().unwrap().iter().all(|row| row["found"] == true), "{again:#}");
    // Only the task of a run that is missing starts.
    std::fs::remove_dir_all(place.work("sw").join(table["runs"][3]["evidence"].as_str().unwrap())).unwrap();
    let again = sweep(&place, &cluster, &["--tasks", "2"]).expect(1).json();
    let found: Vec<bool> = again["runs"].as_array().unwrap().iter().map(|row| row["found"] == true).collect();
    assert_eq!(found, [true, true, true, false]);
    // Evidence that does not verify is measured again, and is no result until then.
    let report =
        place.work("sw").join(table["runs"][1]["evidence"].as_str().unwrap()).join("evaluation.report.json");
    let text = std::fs::read_to_string(&report).unwrap();
    std::fs::write(&report, text.replacen("\"FAIL\"", "\"PASS\"", 1).replacen("false", "true", 1)).unwrap();
    let again = sweep(&place, &cluster, &["--tasks", "2"]).expect(1).json();
    let found: Vec<bool> = again["runs"].as_array().unwrap().iter().map(|row| row["found"] == true).collect();
    assert_eq!((found, verdicts(&place, &again)), (vec![true, false, true, true], verdicts(&place, &table)));
}

#[test]
fn what_slurm_refuses_is_reported() {
    let Some(place) = place("what_slurm_refuses_is_reported", 1) else { return };
    let cluster = Cluster::start(&place, 1, 1);
    let output = sweep(&place, &cluster, &["--sbatch=--partition=nowhere"]).expect(3).json();
    let message = output["error"]["message"].as_str().unwrap();
    assert!(message.contains("sbatch did not accept the job") && message.contains("partition"), "{output}");
    // A run that fails is reported with its own error, and the others are kept.
    let mut config = read_json(&place.work("healthy/config.json"));
    config["model_type"] = json!("mamba");
    place.write("healthy/config.json", config.to_string().as_bytes());
    let table = sweep(&place, &cluster, &[]).expect(3).json();
    assert_eq!((&table["runs"][0]["status"], &table["runs"][1]["status"]), (&json!("ERROR"), &json!("FAIL")));
    assert!(table["runs"][0]["error"].as_str().unwrap().contains("mamba"), "{table:#}");
}

#[test]
fn exported_scripts_run_as_they_are() {
    let Some(place) = place("exported_scripts_run_as_they_are", 1) else { return };
    let cluster = Cluster::start(&place, 1, 2);
    let script = place
        .run(&["export", "slurm", "plan.yaml", "--out", "sw", "--tasks", "2", "--", "--profile", "dev"])
        .expect(0)
        .out;
    assert!(script.contains("#SBATCH --array=0,1\n") && !script.contains("--container"), "{script}");
    let file = place.write("sweep.sh", script.as_bytes());
    let submit = place.command_of("sbatch".as_ref(), &["--wait", file.to_str().unwrap()]);
    Ran::from(cluster.inside(&submit).output().unwrap()).expect(0);
    let table =
        place.run(&["sweep", "plan.yaml", "-o", "sw", "--json", "--", "--profile", "dev"]).expect(1).json();
    assert_eq!(verdicts(&place, &table), ["PASS", "FAIL"]);
    assert!(table["runs"].as_array().unwrap().iter().all(|row| row["found"] == true), "{table:#}");
}

#[test]
fn a_signal_cancels_the_job() {
    let Some(place) = place("a_signal_cancels_the_job", 20) else { return };
    let cluster = Cluster::start(&place, 1, 1);
    let args = ["sweep", "plan.yaml", "-o", "sw", "--executor", "slurm", "--", "--profile", "dev"];
    let mut command = cluster.inside(&place.command(&args));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let queued = || cluster.ask("squeue", &["--noheader", "--states=pending,running"]);
    while place.names("work/sw/runs").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", queued());
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    Ran::from(child.wait_with_output().unwrap())
        .expect(143)
        .one_error(&["SIGTERM", "the same command goes on"]);
    let start = Instant::now();
    while !queued().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", queued());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(place.names("work/sw/runs").len() < 40);
}

#[test]
#[ignore = "takes a minute and a half: make slurm"]
fn the_loss_of_a_node_is_survived() {
    let Some(place) = place("the_loss_of_a_node_is_survived", 10) else { return };
    let mut cluster = Cluster::start(&place, 2, 1);
    let args = [
        "sweep",
        "plan.yaml",
        "-o",
        "sw",
        "--executor",
        "slurm",
        "--json",
        "--tasks",
        "2",
        "--",
        "--profile",
        "dev",
    ];
    let mut command = cluster.inside(&place.command(&args));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while place.names("work/sw/runs").len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.lose("n2");
    let table = Ran::from(child.wait_with_output().unwrap()).expect(1).json();
    assert_eq!(verdicts(&place, &table), ["PASS", "FAIL"].repeat(10));
    println!("10 seeds, one of two nodes lost: {:.0} s", start.elapsed().as_secs_f64());
}

#[test]
#[ignore = "a benchmark: make slurm"]
fn fifty_runs_are_nearly_as_fast_as_here() {
    let Some(place) = place("fifty_runs_are_nearly_as_fast_as_here", 25) else { return };
    let cluster = Cluster::start(&place, 1, 2);
    let start = Instant::now();
    let here = ["sweep", "plan.yaml", "-o", "here", "--jobs", "2", "--quiet", "--", "--profile", "dev"];
    place.run(&here).expect(1);
    let here = start.elapsed();
    let start = Instant::now();
    let table = sweep(&place, &cluster, &[]).expect(1).json();
    let slurm = start.elapsed();
    assert_eq!(verdicts(&place, &table), ["PASS", "FAIL"].repeat(25));
    let (here, slurm) = (here.as_secs_f64(), slurm.as_secs_f64());
    println!(
        "50 runs: here with 2 jobs {here:.1} s, Slurm with 2 slots {slurm:.1} s, speed {:.2}",
        here / slurm
    );
}
