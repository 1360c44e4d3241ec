//! The outcome of a run counts the system calls that its filter denied.

mod common;

use common::{assert_error, assert_leaves_nothing, callers, launch, plan};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn denied_calls_are_counted_by_name() {
    assert_leaves_nothing(|| {
        for caller in callers("denied_calls_are_counted_by_name") {
            let mut plan = plan(&["sockets", "16", "17", "16", "16", "40", "1"]);
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
            assert_eq!(outcome["stdout"], "1 1 1 1 1 0\n");
            let refused = json!({"socket(AF_NETLINK)": 3, "socket(AF_PACKET)": 1, "socket(AF_VSOCK)": 1});
            assert_eq!(outcome["result"]["refused"], refused, "{outcome:#}");
            plan["argv"] = json!(["/workload", "exit", "0"]);
            assert_eq!(launch(caller, &plan)["result"]["refused"], json!({}));
        }
    });
}

/// A run that fails because of a denied call reports that call. Calls of child processes count too.
#[test]
fn denied_calls_of_children_are_counted() {
    assert_leaves_nothing(|| {
        for caller in callers("denied_calls_of_children_are_counted") {
            let mut plan = plan(&["double-fork"]);
            plan["filter"] = json!("evaluator");
            let outcome = launch(caller, &plan);
            let refused = outcome["result"]["refused"].as_object().expect("denied calls");
            assert_eq!(outcome["result"]["status"], json!({"exited": 101}), "{outcome:#}");
            // posix_spawn creates a pipe or a socket pair, then a process.
            assert!(
                !refused.is_empty() && refused.keys().all(|name| !name.contains("unknown")),
                "{refused:?}"
            );
        }
    });
}

/// Eight threads that only make denied calls do not delay the wall-time limit or a cancellation.
#[test]
fn flood_of_denied_calls_does_not_block_the_supervisor() {
    assert_leaves_nothing(|| {
        for caller in callers("flood_of_denied_calls_does_not_block_the_supervisor") {
            for (limit, ended) in [("wall_ms", "timed_out"), ("cancel_after_ms", "cancelled")] {
                let mut plan = plan(&["spam"]);
                plan[limit] = json!(500);
                let start = Instant::now();
                let outcome = launch(caller, &plan);
                assert_eq!(outcome["result"]["status"], ended, "{outcome:#}");
                assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
                let count = outcome["result"]["refused"]["socket(AF_NETLINK)"].as_u64();
                assert!(count.is_some_and(|count| count > 100), "{count:?}");
            }
        }
    });
}

#[test]
fn launcher_under_a_notifying_filter_is_unsupported() {
    assert_leaves_nothing(|| {
        for caller in callers("launcher_under_a_notifying_filter_is_unsupported") {
            let mut plan = plan(&["exit", "0"]);
            plan["heard"] = json!(true);
            let words = ["\"system calls\"", "Device or resource busy", "outside that container"];
            assert_error(&launch(caller, &plan), "unsupported", &words);
        }
    });
}

/// Host execution uses a deny-list without notifications: denied calls are not counted, which differs from a count of zero.
#[test]
fn host_execution_does_not_count_denied_calls() {
    assert_leaves_nothing(|| {
        for caller in callers("host_execution_does_not_count_denied_calls") {
            let mut plan = plan(&["exit", "0"]);
            plan["argv"] = json!([common::stage().join("bare/workload"), "exit", "0"]);
            plan["host"] = json!(common::scratch_dir(caller));
            plan["filter"] = json!("no-network");
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
            assert_eq!(outcome["result"]["refused"], json!(null));
        }
    });
}
