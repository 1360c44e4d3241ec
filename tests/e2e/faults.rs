//! The power is cut at every step of a run, and the machine fails in every way it can: the right error, and nothing left behind.
#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_runtime::hooks;
use invarlock_tests::leaks::{self, Places, Snapshot};
use invarlock_tests::{As, Place, Ran, both, demo, set_mode};
use std::sync::{Mutex, MutexGuard};

/// One at a time: what is left is looked for below this process and on the whole machine.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    leaks::adopt_orphans();
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A place with an image of the no-op, and what was there before.
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

    /// `runtime run` of the no-op, cut at `step`.
    fn run(&self, step: Option<&str>) -> Ran {
        Ran::from(self.command(&["runtime", "run", "invarlock-runtime:local"], step).output().unwrap())
    }

    /// `evaluate` of two checkpoints, cut at `step`.
    fn evaluate(&self, mode: &str, step: Option<&str>) -> Ran {
        let mut command = self.command(&["evaluate", "--quiet", "--execution-mode", mode], step);
        command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy"));
        Ran::from(command.arg("--preset").arg(demo("preset.yaml")).output().unwrap())
    }

    /// Nothing is left, but for what the next start sweeps after the death of the one who would have removed it.
    #[track_caller]
    fn nothing_left(&self, step: &str, next: impl Fn() -> Ran) {
        let owner = step.split_once(':').map(|(owner, _)| owner);
        if matches!(owner, Some("supervisor" | "launcher")) {
            let left = self.places.left_without_processes(&self.before);
            let unswept = match owner {
                Some("supervisor") => Snapshot {
                    cgroups: left.cgroups.clone(),
                    states: left.states.clone(),
                    ..Snapshot::default()
                },
                _ => Snapshot { temporary: left.temporary.clone(), ..Snapshot::default() },
            };
            assert_eq!(left, unswept, "more than the next start sweeps is left after {step:?}");
            next().expect(0);
        }
        self.places.left_since(&self.before).is_nothing(step);
    }
}

/// The end of a command that was cut at `step`: one clear error with the right exit code, or the launcher's own death.
#[track_caller]
fn ended_rightly(ran: &Ran, step: &str, code: i32) {
    let (who, _) = step.split_once(':').unwrap();
    if who == "launcher" {
        assert_eq!((ran.code, ran.err.as_str()), (-1, ""), "{step:?}: it was not cut: {ran:?}");
        return;
    }
    assert_eq!(ran.code, code, "{step:?}: {ran:?}");
    match who {
        "supervisor" => {
            ran.one_error(&["error[system]", "supervisor of the run died", "the next run removes"])
        }
        _ => ran.one_error(&[
            "error[system]",
            "of the run was killed by signal",
            "before the workload was started",
        ]),
    }
    let named = match who {
        "supervisor" => "the supervisor",
        "workload" => "the future workload",
        _ => "the init",
    };
    assert!(ran.err.contains(named), "{step:?}: {}", ran.err);
}

/// Init takes its workload with it, which from its fork on may have been started.
fn ended_with_workload(ran: &Ran, step: &str, code: i32, message: &str) -> bool {
    let may = ["init: workload forked", "init: workload ended"].contains(&step);
    may && ran.code == code && ran.err.contains(message)
}

#[test]
fn container_run_killed_at_any_step_leaves_nothing() {
    let _alone = alone();
    for user in both() {
        let stage = Stage::new(user);
        stage.run(None).expect(0);
        for step in hooks::EVERY_RUN.iter().chain(&hooks::CONTAINER).chain(&hooks::WORKLOAD) {
            let ran = stage.run(Some(step));
            if !ended_with_workload(&ran, step, 137, "") {
                ended_rightly(&ran, step, 125);
            }
            stage.nothing_left(step, || stage.run(None));
        }
    }
}

#[test]
fn host_run_killed_at_any_step_leaves_nothing() {
    let _alone = alone();
    for user in both() {
        let stage = Stage::new(user);
        stage.evaluate("host", None).expect(0);
        for step in hooks::EVERY_RUN.iter().chain(&hooks::HOST).chain(&hooks::WORKLOAD) {
            let ran = stage.evaluate("host", Some(step));
            if !ended_with_workload(&ran, step, 3, "ended with signal 9") {
                ended_rightly(&ran, step, 3);
            }
            stage.nothing_left(step, || stage.evaluate("host", None));
        }
    }
}

/// Names of run directories and hidden names below `work/runs`, and of everything in the reports directory.
fn written(stage: &Stage) -> (Vec<String>, Vec<String>, Vec<String>) {
    let sides = ["source", "edited"].map(|side| format!("work/runs/{side}"));
    let names = sides
        .iter()
        .flat_map(|side| stage.place.names(side).into_iter().map(move |name| format!("{side}/{name}")));
    let (hidden, runs): (Vec<_>, Vec<_>) = names.partition(|name| name.contains("/."));
    (runs, hidden, stage.place.names("work/reports/eval"))
}

#[test]
fn evidence_is_complete_or_absent_after_a_kill_at_any_step() {
    let _alone = alone();
    for user in both() {
        for step in hooks::FILES {
            let stage = Stage::new(user);
            let ran = stage.evaluate("container", Some(step));
            assert_eq!((ran.code, ran.err.as_str()), (-1, ""), "{step:?}: it was not cut: {ran:?}");
            stage.places.left_since(&stage.before).is_nothing(step);
            let (runs, _, reports) = written(&stage);
            for run in runs {
                let whole = ["events.jsonl", "report.json", "runtime.manifest.json"];
                assert_eq!(stage.place.names(&run), whole, "{step:?}");
            }
            let evidence: Vec<&str> =
                reports.iter().map(String::as_str).filter(|n| !n.starts_with('.')).collect();
            let report = "work/reports/eval/evaluation.report.json";
            let verified = || stage.command(&["verify", stage.place.path(report).to_str().unwrap()], None);
            match evidence.as_slice() {
                [] => {}
                ["evaluation.report.json"] => {
                    let verdict = Ran::from(verified().output().unwrap());
                    assert_ne!(
                        verdict.code, 0,
                        "{step:?}: a report without its manifest was accepted: {verdict:?}"
                    );
                }
                ["evaluation.report.json", "runtime.manifest.json"] => {
                    Ran::from(verified().output().unwrap()).expect(0);
                }
                other => panic!("{step:?}: {other:?}"),
            }
            // The next evaluation is whole, and what the killed one had begun is gone.
            stage.evaluate("container", None).expect(0);
            let (_, hidden, reports) = written(&stage);
            assert_eq!(hidden, Vec::<String>::new(), "{step:?}");
            assert_eq!(reports, ["evaluation.report.json", "runtime.manifest.json"], "{step:?}");
            Ran::from(verified().output().unwrap()).expect(0);
            stage.places.left_since(&stage.before).is_nothing(step);
        }
    }
}
