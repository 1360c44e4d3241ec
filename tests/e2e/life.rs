//! The end of an evaluation by success, signal, time limit or error. No process, cgroup or partial
//! evidence is left behind.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, demo, is_root};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A process id and start time. The start time distinguishes a process from a later one with the
/// same id.
type Process = (u32, String);

/// The fields of `/proc/<pid>/stat` after the name: state, parent, …, start time.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The process with this id, unless it is a zombie.
fn process(pid: u32) -> Option<Process> {
    let fields = stat(pid)?;
    (fields[0] != "Z").then(|| (pid, fields[19].clone()))
}

/// `root` and all its living descendants.
fn process_tree(root: u32) -> BTreeSet<Process> {
    let all: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, stat(pid)?[1].parse().ok()?)))
        .collect();
    let mut found = BTreeSet::from([root]);
    while let Some(&(pid, _)) =
        all.iter().find(|(pid, parent)| found.contains(parent) && !found.contains(pid))
    {
        found.insert(pid);
    }
    found.into_iter().filter_map(process).collect()
}

/// The directories of the run cgroups of these processes.
fn cgroups(processes: &BTreeSet<Process>) -> Vec<PathBuf> {
    let lines =
        processes.iter().filter_map(|(pid, _)| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
    let mut found = Vec::new();
    for line in lines.flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()) {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) =
            (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if path.contains("/invarlock-") {
            let base = if controllers.is_empty() { "" } else { controllers };
            found.push(PathBuf::from(format!("/sys/fs/cgroup/{base}{path}")));
        }
    }
    found
}

/// Starts an evaluation and waits until the container of its baseline measures.
fn start_measuring(place: &Place) -> Child {
    start_measuring_of(place, &demo("baseline"))
}

/// The same with the baseline checkpoint `baseline`.
fn start_measuring_of(place: &Place, baseline: &Path) -> Child {
    let mut command = place.command(&["evaluate", "--verbose", "--baseline", baseline.to_str().unwrap()]);
    command.arg("--subject").arg(demo("healthy")).arg("--preset").arg(demo("preset.yaml"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap());
    let mut line = String::new();
    while !line.starts_with("baseline load") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the evaluation ended before it measured");
    }
    child
}

/// The process id of the launcher. `setpriv` executes the launcher without a fork, so the id is the
/// same.
fn launcher_pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn wait_until_removed(processes: &BTreeSet<Process>, cgroups: &[PathBuf]) {
    let start = Instant::now();
    loop {
        let alive: Vec<_> = processes.iter().filter(|p| process(p.0).as_ref() == Some(p)).collect();
        let left: Vec<_> = cgroups.iter().filter(|c| c.exists()).collect();
        if alive.is_empty() && left.is_empty() {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "left behind: processes {alive:?}, cgroups {left:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_no_evidence(place: &Place) {
    assert_eq!(place.names("work/reports/eval"), Vec::<String>::new(), "evidence of an incomplete run");
}

/// Sends `signal` to the launcher while the baseline is measured. Checks that nothing is left
/// behind.
fn signal_during_measurement(user: As, signal: Signal) -> Ran {
    let place = Place::new(user);
    let mut child = start_measuring(&place);
    let processes = process_tree(child.id());
    assert!(processes.len() >= 3, "no container was running: {processes:?}");
    let cgroups = cgroups(&processes);
    assert!(!is_root() || user == As::User || !cgroups.is_empty(), "the run by root had no cgroup");
    kill_process(launcher_pid(&child), signal).unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    wait_until_removed(&processes, &cgroups);
    assert_no_evidence(&place);
    Ran { code, out: String::new(), err }
}

#[test]
fn sigint_stops_the_container_and_reports_kept_files() {
    for user in both() {
        signal_during_measurement(user, Signal::INT).expect(130).one_error(&[
            "SIGINT",
            "no container is left running",
            "kept",
        ]);
    }
}

#[test]
fn sigterm_stops_the_container() {
    for user in both() {
        signal_during_measurement(user, Signal::TERM).expect(143).one_error(&["SIGTERM"]);
    }
}

#[test]
fn sigkill_of_the_launcher_removes_processes_and_cgroups() {
    for user in both() {
        signal_during_measurement(user, Signal::KILL).expect(-1);
    }
}

#[test]
fn time_limit_error_names_its_option() {
    let place = Place::new(As::Caller);
    let baseline = demo("baseline");
    let baseline = baseline.to_str().unwrap();
    let provider = "{kind: local_jsonl, file: big.jsonl, max_samples: 20000}";
    let preset = format!("dataset: {{provider: {provider}, seq_len: 128, preview_n: 9000, final_n: 9000}}");
    place.write("big.yaml", preset.as_bytes());
    // Each row occurs forty times with a different number in front, so that all windows differ.
    let text = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let numbered = |i: u32, line: &str| line.replacen("\"text\": \"", &format!("\"text\": \"{i} "), 1) + "\n";
    let rows: String = (0..40).flat_map(|i| text.lines().map(move |line| numbered(i, line))).collect();
    place.write("big.jsonl", rows.as_bytes());
    let args = [
        "evaluate",
        "--baseline",
        baseline,
        "--subject",
        baseline,
        "--profile",
        "dev",
        "--preset",
        "big.yaml",
    ];
    place.run(&[&args[..], &["--timeout", "1"]].concat()).expect(3).one_error(&["time limit", "--timeout"]);
    assert_no_evidence(&place);
}

#[test]
fn successful_run_leaves_only_its_files() {
    for user in both() {
        let place = Place::new(user);
        let mut child = start_measuring(&place);
        let processes = process_tree(child.id());
        let cgroups = cgroups(&processes);
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{err}");
        wait_until_removed(&processes, &cgroups);
        assert_eq!(place.names("work"), ["reports", "runs"]);
        assert_eq!(
            place.names("work/reports/eval"),
            [
                "baseline.report.json",
                "evaluation.report.json",
                "runtime.manifest.json",
                "subject.report.json"
            ]
        );
    }
}

#[test]
fn rejects_input_rewritten_in_place_during_the_run() {
    use std::os::unix::fs::FileExt as _;
    let place = Place::new(As::Caller);
    let checkpoint = place.copy_dir(&demo("baseline"), "checkpoint");
    let mut child = start_measuring_of(&place, &checkpoint);
    let weights = checkpoint.join("model.safetensors");
    let modified = std::fs::metadata(&weights).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&weights).unwrap();
    file.write_at(b"\x00\x00", file.metadata().unwrap().len() - 2).unwrap();
    // The owner of a file can restore the modification time, but not the status change time.
    file.set_modified(modified).unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    Ran { code, out: String::new(), err }.expect(3).one_error(&["model.safetensors", "changed or replaced"]);
    assert_no_evidence(&place);
}

/// The evaluator gets SIGBUS when it reads weights that are no longer there. The error names the reason and not the signal.
#[test]
fn rejects_input_truncated_during_the_run() {
    let place = Place::new(As::Caller);
    let checkpoint = place.copy_dir(&demo("baseline"), "checkpoint");
    let mut child = start_measuring_of(&place, &checkpoint);
    let weights = std::fs::File::options().write(true).open(checkpoint.join("model.safetensors")).unwrap();
    weights.set_len(0).unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    Ran { code, out: String::new(), err }.expect(3).one_error(&["model.safetensors", "changed or replaced"]);
    assert_no_evidence(&place);
}
