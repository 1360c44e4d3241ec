//! A run leaves no process, cgroup, mount or file behind, whichever process ends it.

mod common;

use common::{
    Caller, assert_error, assert_leaves_nothing, callers, is_root_or_skip, launch, launcher, plan, printed,
};
use serde_json::{Value, json};
use std::io::BufRead as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Starts a launcher and waits until its workload runs; returns the launcher and the pid of its supervisor.
#[expect(clippy::zombie_processes, reason = "a start that fails ends the test")]
fn running(caller: Caller, command: &str) -> (Child, u32) {
    let child = launcher(caller, &plan(&[command])).spawn().expect("a launcher");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "the workload does not start");
        std::thread::sleep(Duration::from_millis(20));
        let Some(supervisor) = children_of(child.id()).first().copied() else { continue };
        // Init is the child of the supervisor, and the workload the child of init, once it has executed its program.
        let workload = children_of(supervisor).into_iter().flat_map(children_of).next();
        let line = workload.map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        if line.is_some_and(|l| l.starts_with(b"/workload")) {
            return (child, supervisor);
        }
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|n| n.parse::<u32>().ok()));
    }
    found
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("killing");
}

#[test]
fn supervisor_is_prepared_for_one_pair_of_ids() {
    assert_leaves_nothing(|| {
        for caller in callers("supervisor_is_prepared_for_one_pair_of_ids") {
            let mut same = plan(&["ids"]);
            same["ids"] = json!([[7, 8], [7, 8]]);
            assert_eq!(printed(&launch(caller, &same))["ids"], json!([7, 8]));
            let mut other = same.clone();
            other["ids"] = json!([[7, 8], [7, 9]]);
            assert_error(&launch(caller, &other), "system", &["already prepares a run with other ids"]);
        }
    });
}

#[test]
fn killed_launcher_leaves_nothing() {
    assert_leaves_nothing(|| {
        for caller in callers("killed_launcher_leaves_nothing") {
            for command in ["sleep", "ignore-term"] {
                let (mut launcher, _) = running(caller, command);
                launcher.kill().expect("killing");
                launcher.wait().expect("its end");
            }
        }
    });
}

#[test]
fn killed_supervisor_leaves_a_cgroup_that_the_next_run_removes() {
    assert_leaves_nothing(|| {
        for caller in callers("killing_the_supervisor") {
            let (launcher, supervisor) = running(caller, "ignore-term");
            kill(supervisor, rustix::process::Signal::KILL);
            let out = launcher.wait_with_output().expect("its end");
            let outcome: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            common::assert_error(&outcome, "system", &["supervisor", "died"]);
            let next = launch(caller, &plan(&["noop"]));
            assert_eq!(next["result"]["status"], json!({"exited": 0}), "{next:#}");
        }
    });
}

#[test]
fn host_process_dies_with_its_supervisor() {
    assert_leaves_nothing(|| {
        for caller in callers("host_process_dies_with_its_supervisor") {
            let mut plan = plan(&[]);
            plan["argv"] = json!(["/bin/sleep", "3600"]);
            plan["host"] = json!(common::scratch_dir(caller));
            let launcher = launcher(caller, &plan).spawn().expect("a launcher");
            let deadline = Instant::now() + Duration::from_secs(20);
            let find = || {
                let supervisor = children_of(launcher.id()).first().copied()?;
                let workload = children_of(supervisor).into_iter().flat_map(children_of).next()?;
                let line = std::fs::read(format!("/proc/{workload}/cmdline")).ok()?;
                line.starts_with(b"/bin/sleep").then_some((supervisor, workload))
            };
            let (supervisor, workload) = loop {
                assert!(Instant::now() < deadline, "the workload does not start");
                if let Some(found) = find() {
                    break found;
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            kill(supervisor, rustix::process::Signal::KILL);
            let out = launcher.wait_with_output().expect("its end");
            let outcome: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            common::assert_error(&outcome, "system", &["supervisor", "died"]);
            let gone = || {
                let stat = std::fs::read_to_string(format!("/proc/{workload}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            };
            let deadline = Instant::now() + Duration::from_secs(5);
            while !gone() {
                assert!(Instant::now() < deadline, "{caller:?}: the workload outlives its supervisor");
                std::thread::sleep(Duration::from_millis(20));
            }
            let next = launch(caller, &common::plan(&["noop"]));
            assert_eq!(next["result"]["status"], json!({"exited": 0}), "{next:#}");
        }
    });
}

#[test]
fn killed_launcher_and_supervisor_leave_nothing() {
    assert_leaves_nothing(|| {
        for caller in callers("killed_launcher_and_supervisor_leave_nothing") {
            let (mut launcher, supervisor) = running(caller, "ignore-term");
            kill(supervisor, rustix::process::Signal::STOP);
            launcher.kill().expect("killing");
            kill(supervisor, rustix::process::Signal::KILL);
            launcher.wait().expect("its end");
            std::thread::sleep(Duration::from_millis(200));
            let next = launch(caller, &plan(&["noop"]));
            assert_eq!(next["result"]["status"], json!({"exited": 0}), "{next:#}");
        }
    });
}

#[test]
fn cancelled_run_stops() {
    assert_leaves_nothing(|| {
        for caller in callers("cancelled_run_stops") {
            for command in ["spam", "ignore-term"] {
                let start = Instant::now();
                let mut plan = plan(&[command]);
                plan["cancel_after_ms"] = json!(300);
                let outcome = launch(caller, &plan);
                assert_eq!(outcome["result"]["status"], "cancelled", "{outcome:#}");
                assert!(start.elapsed() < Duration::from_secs(15));
            }
        }
    });
}

#[test]
fn grandchild_dies_with_the_workload() {
    assert_leaves_nothing(|| {
        for caller in callers("grandchild_dies_with_the_workload") {
            let outcome = launch(caller, &plan(&["double-fork"]));
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
        }
    });
}

#[test]
fn threaded_caller_runs_containers_in_parallel() {
    assert_leaves_nothing(|| {
        for caller in callers("threaded_caller_runs_containers_in_parallel") {
            let mut plan = plan(&["write", "x", "y"]);
            plan["threads"] = json!(4);
            plan["runs"] = json!(10);
            let out = launcher(caller, &plan).output().expect("the launcher");
            let lines: Vec<Value> = out
                .stdout
                .lines()
                .map(|l| serde_json::from_str(&l.expect("a line")).expect("JSON"))
                .collect();
            assert_eq!(lines.len(), 40);
            for line in lines {
                assert_eq!(line["result"]["output"], json!({"x": "y"}), "{line:#}");
            }
        }
    });
}

#[test]
fn host_devices_keep_owner_and_mode() {
    if !is_root_or_skip("host_devices_keep_owner_and_mode") {
        return;
    }
    use std::os::unix::fs::MetadataExt as _;
    assert_leaves_nothing(|| {
        let state = || {
            ["null", "zero", "full", "random", "urandom", "tty"].map(|name| {
                let meta = std::fs::metadata(format!("/dev/{name}")).expect("a device");
                (meta.mode(), meta.uid(), meta.gid(), meta.rdev(), meta.ino())
            })
        };
        let before = state();
        launch(Caller::Root, &plan(&["noop"]));
        assert_eq!(before, state());
    });
}

#[test]
fn inherited_descriptor_does_not_leak() {
    assert_leaves_nothing(|| {
        for caller in callers("inherited_descriptor_does_not_leak") {
            // Descriptor 9 is open in the launcher without O_CLOEXEC.
            let (read, write) = std::io::pipe().expect("a pipe");
            let plan = plan(&["see"]);
            let mut command = launcher(caller, &plan);
            let program = command.get_program().to_owned();
            let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            let mut shell = Command::new("sh");
            shell.arg("-c").arg("exec 9<&0; exec \"$@\"").arg("sh").arg(program).args(args).stdin(read);
            let out = match caller {
                Caller::Root => shell.output().expect("the launcher"),
                Caller::User => command.output().expect("the launcher"),
            };
            drop(write);
            let outcome: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            assert_eq!(common::printed(&outcome)["descriptors"], json!([0, 1, 2]));
        }
    });
}
