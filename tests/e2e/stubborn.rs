//! Workloads that do not end on request: they stop themselves, ignore signals, daemonize, fork,
//! keep writing, or kill every process they can. A time limit or a signal to the launcher ends each
//! of them within seconds. The launcher reports the cause, and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stage::Stage;
use invarlock_tests::{Ran, both, layout, program};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Commands of `invarlock-workload`.
const WORKLOADS: [&str; 6] = ["stop-itself", "deaf", "daemons", "multiply", "write-on", "kill-everything"];

/// How the run is stopped.
#[derive(Debug, Clone, Copy)]
enum StopMethod {
    Timeout,
    /// One signal to the launcher.
    Signal(Signal),
    /// Two signals to the launcher. After the second one it does not wait for the container.
    TwoSignals,
    /// SIGKILL to the launcher, which it cannot handle.
    Kill,
}

const STOP_METHODS: [StopMethod; 6] = [
    StopMethod::Timeout,
    StopMethod::Signal(Signal::INT),
    StopMethod::Signal(Signal::TERM),
    StopMethod::Signal(Signal::HUP),
    StopMethod::TwoSignals,
    StopMethod::Kill,
];
/// A workload has three seconds after the request to stop. The rest allows for a busy machine.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Starts the command and waits until the workload prints that it has begun.
fn start_and_wait(mut command: Command, what: &str) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if !line.starts_with("begun") {
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        panic!("{what}: {line:?}: {err}");
    }
    child
}

/// Stops the run and checks its error and its duration.
fn stop(mut child: Child, method: StopMethod, what: &str) {
    let start = Instant::now();
    let signal = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
    match method {
        StopMethod::Timeout => {}
        StopMethod::Signal(which) => signal(which),
        StopMethod::Kill => signal(Signal::KILL),
        StopMethod::TwoSignals => {
            signal(Signal::INT);
            std::thread::sleep(Duration::from_millis(300));
            signal(Signal::INT);
        }
    }
    let mut err = String::new();
    // This waits until no process has the pipe open.
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let status = child.wait().unwrap();
    assert!(start.elapsed() < STOP_DEADLINE, "{what}: the stop took {:?}", start.elapsed());
    let ran = Ran { code: status.code().unwrap_or(-1), out: String::new(), err };
    match method {
        StopMethod::Timeout => {
            ran.expect(125).one_error(&["error[system]", "wall-time limit (2 s)", "raise --timeout"])
        }
        StopMethod::Signal(Signal::INT) => {
            ran.expect(130).one_error(&["SIGINT", "no container is left running"])
        }
        StopMethod::Signal(Signal::TERM) => {
            ran.expect(143).one_error(&["SIGTERM", "no container is left running"])
        }
        StopMethod::Signal(_) => ran.expect(129).one_error(&["SIGHUP", "no container is left running"]),
        // The launcher may end before the second signal.
        StopMethod::TwoSignals if ran.code == 130 => ran.one_error(&["SIGINT"]),
        StopMethod::TwoSignals | StopMethod::Kill => {
            assert_eq!((ran.code, ran.err.as_str()), (-1, ""), "{what}")
        }
    }
}

#[test]
fn time_limit_or_signal_ends_every_workload_and_leaves_nothing() {
    for user in both() {
        let stage = Stage::new(user);
        let image = layout::of_program(&stage.place, "image", &program("invarlock-workload"));
        let run = |workload: &str, timeout: &str| {
            stage.command(&["runtime", "run", "--pids=24", timeout, &image, "--", "/workload", workload])
        };
        let all: Vec<(&str, StopMethod)> = WORKLOADS
            .iter()
            .flat_map(|workload| STOP_METHODS.iter().map(move |method| (*workload, *method)))
            .collect();
        // Each case takes seconds, so the cases run in parallel. Only half of them run at a time,
        // because some workloads use whole processors.
        for batch in all.chunks(WORKLOADS.len() * STOP_METHODS.len() / 2) {
            std::thread::scope(|scope| {
                for (workload, method) in batch {
                    let what = format!("{user:?}: {workload}, {method:?}");
                    let timeout =
                        if matches!(method, StopMethod::Timeout) { "--timeout=2" } else { "--timeout=60" };
                    let child = start_and_wait(run(workload, timeout), &what);
                    scope.spawn(move || stop(child, *method, &what));
                }
            });
            stage.no_command_runs();
            stage.nothing_left(&format!("{batch:?}"));
        }
    }
}

/// The exit code is that of the workload, even if it leaves daemons in the container.
#[test]
fn daemons_of_a_finished_workload_are_killed() {
    for user in both() {
        let stage = Stage::new(user);
        let image = layout::of_program(&stage.place, "image", &program("invarlock-workload"));
        let start = Instant::now();
        let run = ["runtime", "run", "--timeout=60", &image, "--", "/workload", "double-fork"];
        stage.end_of(stage.command(&run), "double-fork").expect(0);
        assert!(start.elapsed() < STOP_DEADLINE, "{user:?}: the run took {:?}", start.elapsed());
    }
}
