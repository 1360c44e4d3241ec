//! A run under a traced profile allows the same calls as an ordinary run, and every call is counted.

mod common;

use common::{Caller, assert_error, assert_leaves_nothing, callers, launch, plan};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn traced(argv: &[&str], profile: &str) -> Value {
    let mut plan = plan(argv);
    (plan["filter"], plan["learn"]) = (json!(profile), json!(true));
    plan
}

/// How often each rule for a call was used, in the order of the profile.
fn used(outcome: &Value, syscall: &str) -> Vec<u64> {
    let rules = outcome["result"]["learned"]["used"].as_array().unwrap_or_else(|| panic!("{outcome:#}"));
    rules
        .iter()
        .filter(|rule| rule["syscall"] == syscall)
        .map(|rule| rule["count"].as_u64().expect("a count"))
        .collect()
}

#[test]
fn allowed_and_denied_calls_are_counted() {
    assert_leaves_nothing(|| {
        for caller in callers("allowed_and_denied_calls_are_counted") {
            let plan = traced(&["sockets", "2", "1", "2"], "evaluator");
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
            assert_eq!(outcome["stdout"], "1 1 1\n");
            // The workload reads its auxiliary vector by prctl and by open, which the evaluator's profile does not allow.
            let denied = json!({"prctl": 1, "open": 1, "socket(AF_INET)": 2, "socket(AF_UNIX)": 1});
            assert_eq!(outcome["result"]["refused"], denied);
            let tried = json!([
                {"syscall": "open", "args": [], "count": 1},
                {"syscall": "prctl", "args": [], "count": 1},
                {"syscall": "socket", "args": [[0, 1]], "count": 1},
                {"syscall": "socket", "args": [[0, 2]], "count": 2},
            ]);
            assert_eq!(outcome["result"]["learned"]["refused"], tried);
            // Calls of every program, calls that the workload makes once, and a call that it does not make.
            assert!(used(&outcome, "read")[0] > 0 && used(&outcome, "mmap")[0] > 0, "{outcome:#}");
            let once = [used(&outcome, "execve"), used(&outcome, "exit_group"), used(&outcome, "write")];
            assert_eq!(once, [[1], [1], [1]]);
            assert_eq!(used(&outcome, "clone"), [0]);
            // The same run without tracing.
            let mut ordinary = plan.clone();
            ordinary["learn"] = json!(false);
            let ordinary = launch(caller, &ordinary);
            assert_eq!(ordinary["result"]["refused"], outcome["result"]["refused"]);
            assert_eq!(
                (&ordinary["stdout"], &ordinary["result"]["learned"]),
                (&outcome["stdout"], &Value::Null)
            );
        }
    });
}

#[test]
fn child_processes_are_traced() {
    assert_leaves_nothing(|| {
        for caller in callers("child_processes_are_traced") {
            let outcome = launch(caller, &traced(&["double-fork"], "general"));
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
            let sum = |name: &str| used(&outcome, name).iter().sum::<u64>();
            // The workload, a child and a grandchild, which is killed with the run.
            assert_eq!((sum("execve"), sum("exit_group")), (3, 2), "{outcome:#}");
            assert!(sum("clone") + sum("vfork") + sum("fork") >= 2, "{outcome:#}");
        }
    });
}

/// A deny-list allows the calls that it does not list; they are counted by name.
#[test]
fn unlisted_calls_of_a_deny_list_are_counted_by_name() {
    assert_leaves_nothing(|| {
        let outcome = launch(Caller::User, &traced(&["sockets", "1", "2"], "no-network"));
        assert_eq!(outcome["stdout"], "0 1\n", "{outcome:#}");
        let learned = &outcome["result"]["learned"];
        assert_eq!(
            (&learned["unmatched"]["socket(AF_UNIX)"], &learned["unmatched"]["execve"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(learned["refused"], json!([{"syscall": "socket", "args": [[0, 2]], "count": 1}]));
    });
}

/// The memory that a workload can make the supervisor use is bounded.
#[test]
fn number_of_distinct_denied_calls_is_bounded() {
    assert_leaves_nothing(|| {
        let families: Vec<String> = (100..800).map(|family| family.to_string()).collect();
        let argv: Vec<&str> = std::iter::once("sockets").chain(families.iter().map(String::as_str)).collect();
        let outcome = launch(Caller::User, &traced(&argv, "evaluator"));
        let denied = outcome["result"]["learned"]["refused"].as_array().expect("denied calls");
        assert_eq!(denied.len(), 513, "{outcome:#}");
        // The first 512 distinct calls are listed; some of them belong to the start of the program.
        let before = denied.iter().filter(|rule| rule["syscall"] != "socket").count();
        let rest = json!({"syscall": "socket", "args": [], "count": 700 - (512 - before)});
        assert!(denied.contains(&rest), "{outcome:#}");
    });
}

/// Limits, cancellation, signals and failed starts end a traced run too.
#[test]
fn traced_run_ends_like_other_runs() {
    assert_leaves_nothing(|| {
        for caller in callers("traced_run_ends_like_other_runs") {
            for (limit, ended) in [("wall_ms", "timed_out"), ("cancel_after_ms", "cancelled")] {
                let mut plan = traced(&["spam"], "general");
                plan[limit] = json!(500);
                let start = Instant::now();
                assert_eq!(launch(caller, &plan)["result"]["status"], ended);
                assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            }
            let killed = launch(caller, &traced(&["raise", "9"], "general"));
            assert_eq!(killed["result"]["status"], json!({"signaled": 9}), "{killed:#}");
            let mut nothing = traced(&[], "evaluator");
            nothing["argv"] = json!(["/nothing"]);
            assert_error(&launch(caller, &nothing), "input", &["starting \"/nothing\"", "No such file"]);
        }
    });
}
