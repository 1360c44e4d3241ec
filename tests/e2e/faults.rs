//! Fault injection: a process of the run is killed at each of its steps. The error names the killed
//! process, and nothing is left behind.
#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_runtime::hooks;
use invarlock_tests::leaks::{self, Places, Snapshot};
use invarlock_tests::{As, Place, Ran, both, demo, is_root, set_mode};
use serde_json::json;
use std::sync::{Mutex, MutexGuard};

/// Runs one test at a time, because leftovers are searched among all descendants of this process
/// and on the whole machine.
fn run_exclusively() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    leaks::adopt_orphans();
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A [`Place`] whose default image contains `noop`, and a snapshot of the machine.
struct Stage {
    place: Place,
    places: Places,
    before: Snapshot,
}

impl Stage {
    fn new(user: As) -> Self {
        let place = Place::new(user);
        for name in ["run", "tmp"] {
            std::fs::create_dir(place.path(name)).unwrap();
            set_mode(&place.path(name), 0o700);
            place.give(&place.path(name));
        }
        place.hold("noop");
        let data = demo("valid.jsonl");
        let preset = json!({"dataset": {"provider": {"kind": "local_jsonl", "file": data}, "seq_len": 32, "preview_n": 4, "final_n": 4}});
        place.write("preset.yaml", preset.to_string().as_bytes());
        let places = Places { states: vec![place.path("run/invarlock")], temporary: vec![place.path("tmp")] };
        let before = places.snapshot();
        Stage { place, places, before }
    }

    fn command(&self, args: &[&str], step: Option<&str>) -> std::process::Command {
        let mut command = self.place.command(args);
        command.env("XDG_RUNTIME_DIR", self.place.path("run")).env("TMPDIR", self.place.path("tmp"));
        if let Some(step) = step {
            command.env("INVARLOCK_TEST_KILL_AT", step);
        }
        command
    }

    /// `runtime run` of `noop`, with a kill at `step`.
    fn run(&self, step: Option<&str>) -> Ran {
        Ran::from(self.command(&["runtime", "run", "invarlock-runtime:local"], step).output().unwrap())
    }

    /// `evaluate` of two checkpoints on a few windows, with a kill at `step`.
    fn evaluate(&self, mode: &str, step: Option<&str>) -> Ran {
        let args = ["evaluate", "--quiet", "--profile", "dev", "--execution-mode", mode];
        let mut command = self.command(&args, step);
        command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy"));
        Ran::from(command.args(["--preset", "preset.yaml"]).output().unwrap())
    }

    /// Checks that nothing is left behind. If the supervisor or the launcher was killed, files that
    /// it would have removed may remain; the next run must remove them.
    #[track_caller]
    fn nothing_left(&self, step: &str, next: impl Fn() -> Ran) {
        let process = step.split_once(':').map(|(process, _)| process);
        if matches!(process, Some("supervisor" | "launcher")) {
            let left = self.places.left_without_processes(&self.before);
            let removed_by_next_run = match process {
                Some("supervisor") => Snapshot {
                    cgroups: left.cgroups.clone(),
                    states: left.states.clone(),
                    ..Snapshot::default()
                },
                _ => Snapshot {
                    temporary: left.temporary.clone(),
                    // The file of the command in the directory of running commands.
                    states: left.states.iter().filter(|state| state.contains("/running/")).cloned().collect(),
                    ..Snapshot::default()
                },
            };
            assert_eq!(left, removed_by_next_run, "after {step:?} more is left than the next run removes");
            next().expect(0);
        }
        self.places.left_since(&self.before).is_nothing(step);
    }
}

/// Checks the end of a command in which a process was killed at `step`: one error with exit code
/// `code`, or death by signal if that process was the launcher.
#[track_caller]
fn assert_killed_process_is_reported(ran: &Ran, step: &str, code: i32) {
    let (process, _) = step.split_once(':').unwrap();
    if process == "launcher" {
        assert_eq!((ran.code, ran.err.as_str()), (-1, ""), "{step:?}: the launcher was not killed: {ran:?}");
        return;
    }
    assert_eq!(ran.code, code, "{step:?}: {ran:?}");
    match process {
        "supervisor" => {
            ran.one_error(&["error[system]", "supervisor of the run died", "the next run removes"])
        }
        _ => ran.one_error(&[
            "error[system]",
            "of the run was killed by signal",
            "before the workload was started",
        ]),
    }
    let expected_name = match process {
        "supervisor" => "the supervisor",
        "workload" => "the future workload",
        _ => "the init",
    };
    assert!(ran.err.contains(expected_name), "{step:?}: {}", ran.err);
}

/// Whether the death of init was reported as the end of the workload. That is correct after the
/// fork, because the workload may have started.
fn was_reported_as_workload_end(ran: &Ran, step: &str, code: i32, message: &str) -> bool {
    let workload_may_have_started = ["init: workload forked", "init: workload ended"].contains(&step);
    workload_may_have_started && ran.code == code && ran.err.contains(message)
}

#[test]
fn container_run_killed_at_any_step_leaves_nothing() {
    let _guard = run_exclusively();
    for user in both() {
        let stage = Stage::new(user);
        stage.run(None).expect(0);
        let by_root = hooks::BY_ROOT.iter().filter(|_| is_root() && user == As::Caller);
        let steps = hooks::EVERY_RUN.iter().chain(&hooks::CONTAINER).chain(by_root);
        for step in steps.chain(&hooks::WORKLOAD) {
            let ran = stage.run(Some(step));
            if !was_reported_as_workload_end(&ran, step, 137, "") {
                assert_killed_process_is_reported(&ran, step, 125);
            }
            stage.nothing_left(step, || stage.run(None));
        }
    }
}

#[test]
fn host_run_killed_at_any_step_leaves_nothing() {
    let _guard = run_exclusively();
    for user in both() {
        let stage = Stage::new(user);
        stage.evaluate("host", None).expect(0);
        for step in hooks::EVERY_RUN.iter().chain(&hooks::HOST).chain(&hooks::WORKLOAD) {
            let ran = stage.evaluate("host", Some(step));
            if !was_reported_as_workload_end(&ran, step, 3, "ended with signal 9") {
                assert_killed_process_is_reported(&ran, step, 3);
            }
            stage.nothing_left(step, || stage.evaluate("host", None));
        }
    }
}

/// Run directories and hidden files below `work/runs`, and all files in the reports directory.
fn written_files(stage: &Stage) -> (Vec<String>, Vec<String>, Vec<String>) {
    let sides = ["source", "edited"].map(|side| format!("work/runs/{side}"));
    let names = sides
        .iter()
        .flat_map(|side| stage.place.names(side).into_iter().map(move |name| format!("{side}/{name}")));
    let (hidden, runs): (Vec<_>, Vec<_>) = names.partition(|name| name.contains("/."));
    (runs, hidden, stage.place.names("work/reports/eval"))
}

#[test]
fn evidence_is_complete_or_absent_after_a_kill_at_any_step() {
    let _guard = run_exclusively();
    for user in both() {
        for step in hooks::FILES {
            let stage = Stage::new(user);
            let ran = stage.evaluate("container", Some(step));
            assert_eq!(
                (ran.code, ran.err.as_str()),
                (-1, ""),
                "{step:?}: the launcher was not killed: {ran:?}"
            );
            stage.places.left_since(&stage.before).is_nothing(step);
            let (runs, _, reports) = written_files(&stage);
            for run in runs {
                let expected = ["events.jsonl", "report.json", "runtime.manifest.json"];
                assert_eq!(stage.place.names(&run), expected, "{step:?}");
            }
            let evidence: Vec<&str> =
                reports.iter().map(String::as_str).filter(|n| !n.starts_with('.')).collect();
            let report = "work/reports/eval/evaluation.report.json";
            let report = stage.place.path(report);
            let verify = || stage.command(&["verify", "--profile", "dev", report.to_str().unwrap()], None);
            const EVIDENCE: &[&str] = &[
                "baseline.report.json",
                "evaluation.report.json",
                "runtime.manifest.json",
                "subject.report.json",
            ];
            match evidence.as_slice() {
                [] => {}
                ["baseline.report.json", "evaluation.report.json", "subject.report.json"] => {
                    let verdict = Ran::from(verify().output().unwrap());
                    assert_ne!(
                        verdict.code, 0,
                        "{step:?}: verify accepted a report without its manifest: {verdict:?}"
                    );
                }
                EVIDENCE => {
                    Ran::from(verify().output().unwrap()).expect(0);
                }
                other => panic!("{step:?}: {other:?}"),
            }
            // The next evaluation is complete and removes the partial files of the killed one.
            stage.evaluate("container", None).expect(0);
            let (_, hidden, reports) = written_files(&stage);
            assert_eq!(hidden, Vec::<String>::new(), "{step:?}");
            assert_eq!(reports, EVIDENCE, "{step:?}");
            Ran::from(verify().output().unwrap()).expect(0);
            stage.places.left_since(&stage.before).is_nothing(step);
        }
    }
}
