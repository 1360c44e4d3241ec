//! What the workload tries and is refused comes back with the outcome, as root and as an ordinary user.

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

/// The count of a run that failed says what it wanted. A process of its own makes no difference.
#[test]
fn denied_calls_of_children_are_counted() {
    assert_leaves_nothing(|| {
        for caller in callers("denied_calls_of_children_are_counted") {
            let mut plan = plan(&["double-fork"]);
            plan["filter"] = json!("evaluator");
            let outcome = launch(caller, &plan);
            let refused = outcome["result"]["refused"].as_object().expect("refusals");
            assert_eq!(outcome["result"]["status"], json!({"exited": 101}), "{outcome:#}");
            // posix_spawn: a pipe or a pair of sockets, then a process.
            assert!(
                !refused.is_empty() && refused.keys().all(|name| !name.contains("unknown")),
                "{refused:?}"
            );
        }
    });
}

/// Eight threads that do nothing but make refused calls cannot keep the supervisor from its clock or its launcher.
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
            let words = ["row \"system calls\"", "hears its refused calls already", "outside that container"];
            assert_error(&launch(caller, &plan), "unsupported", &words);
        }
    });
}

/// A plain child has a deny-list and no listener: what it refuses is not counted, which is not the same as nothing.
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
