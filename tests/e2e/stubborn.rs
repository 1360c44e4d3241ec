//! Workloads that do not end when asked to: they stop themselves, are deaf, hide from init, multiply, go on writing, or kill whatever they
//! can. A time limit or a signal to the launcher ends each of them soon, says so, and leaves nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stage::Stage;
use invarlock_tests::{Ran, both, layout, program};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Commands of the tests' program.
const WORKLOADS: [&str; 6] = ["stop-itself", "deaf", "daemons", "multiply", "write-on", "kill-everything"];

/// What ends it.
#[derive(Debug, Clone, Copy)]
enum End {
    Timeout,
    /// A signal to the launcher.
    By(Signal),
    /// Two of them: the launcher does not wait for the end any more.
    Impatience,
    /// The launcher cannot do anything about it.
    Kill,
}

const ENDS: [End; 6] = [
    End::Timeout,
    End::By(Signal::INT),
    End::By(Signal::TERM),
    End::By(Signal::HUP),
    End::Impatience,
    End::Kill,
];
/// A workload has three seconds after it was asked; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Starts it and waits until it misbehaves.
fn begun(mut command: Command, what: &str) -> Child {
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

fn end(mut child: Child, end: End, what: &str) {
    let start = Instant::now();
    let signal = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
    match end {
        End::Timeout => {}
        End::By(which) => signal(which),
        End::Kill => signal(Signal::KILL),
        End::Impatience => {
            signal(Signal::INT);
            std::thread::sleep(Duration::from_millis(300));
            signal(Signal::INT);
        }
    }
    let mut err = String::new();
    // If another process had it open, that process would be a leftover.
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let status = child.wait().unwrap();
    assert!(start.elapsed() < SOON, "{what}: it took {:?}", start.elapsed());
    let ran = Ran { code: status.code().unwrap_or(-1), out: String::new(), err };
    match end {
        End::Timeout => {
            ran.expect(125).one_error(&["error[system]", "wall-time limit (2 s)", "raise --timeout"])
        }
        End::By(Signal::INT) => ran.expect(130).one_error(&["SIGINT", "no container is left running"]),
        End::By(Signal::TERM) => ran.expect(143).one_error(&["SIGTERM", "no container is left running"]),
        End::By(_) => ran.expect(129).one_error(&["SIGHUP", "no container is left running"]),
        // What ends before the second signal has obeyed the first.
        End::Impatience if ran.code == 130 => ran.one_error(&["SIGINT"]),
        End::Impatience | End::Kill => assert_eq!((ran.code, ran.err.as_str()), (-1, ""), "{what}"),
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
        let all: Vec<(&str, End)> =
            WORKLOADS.iter().flat_map(|workload| ENDS.iter().map(move |end| (*workload, *end))).collect();
        // At once, since each of them takes seconds; what multiplies takes processors, so there are never many of one kind.
        for some in all.chunks(WORKLOADS.len() * ENDS.len() / 2) {
            std::thread::scope(|scope| {
                for (workload, how) in some {
                    let what = format!("{user:?}: {workload}, {how:?}");
                    let timeout = if matches!(how, End::Timeout) { "--timeout=2" } else { "--timeout=60" };
                    let child = begun(run(workload, timeout), &what);
                    scope.spawn(move || end(child, *how, &what));
                }
            });
            stage.nothing_left(&format!("{some:?}"));
        }
    }
}

/// What is told of the ending is the workload's own code where it ends by itself, whatever it leaves behind inside.
#[test]
fn daemons_of_a_finished_workload_are_killed() {
    for user in both() {
        let stage = Stage::new(user);
        let image = layout::of_program(&stage.place, "image", &program("invarlock-workload"));
        let start = Instant::now();
        let run = ["runtime", "run", "--timeout=60", &image, "--", "/workload", "double-fork"];
        stage.end_of(stage.command(&run), "double-fork").expect(0);
        assert!(start.elapsed() < SOON, "{user:?}: it took {:?}", start.elapsed());
    }
}
