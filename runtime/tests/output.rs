//! Files that a workload leaves in `/out`, and its standard output.

mod common;

use common::{assert_error, assert_leaves_nothing, callers, launch, plan, scratch_dir, stage};
use serde_json::json;

#[test]
fn output_files_are_collected() {
    assert_leaves_nothing(|| {
        for caller in callers("output_files_are_collected") {
            let outcome = launch(caller, &plan(&["write", "report.json", "{\"a\":1}"]));
            assert_eq!(outcome["result"]["output"], json!({"report.json": "{\"a\":1}"}), "{outcome:#}");
        }
    });
}

#[test]
fn only_regular_output_files_are_collected() {
    assert_leaves_nothing(|| {
        for caller in callers("only_regular_output_files_are_collected") {
            assert_error(
                &launch(caller, &plan(&["symlink", "/etc/shadow"])),
                "safety",
                &["/out/link", "symbolic link"],
            );
            assert_error(&launch(caller, &plan(&["fifo"])), "safety", &["/out/fifo"]);
            assert_error(&launch(caller, &plan(&["hardlink"])), "safety", &["several hard links"]);
            assert_error(
                &launch(caller, &plan(&["write", "a\u{1b}[31m", "x"])),
                "safety",
                &["control character"],
            );
        }
    });
}

#[test]
fn output_size_is_limited() {
    assert_leaves_nothing(|| {
        for caller in callers("output_size_is_limited") {
            let filled = launch(caller, &plan(&["fill", "/out"]));
            // The workload gets ENOSPC (28); the bytes that fit are collected.
            assert!(filled["stdout"].as_str().is_some_and(|s| s.ends_with(" 28\n")), "{filled:#}");
            let big = filled["result"]["output"]["big"].as_str().map_or(0, str::len);
            assert!(big > 0 && big <= 1 << 20, "{big}");
            let files = launch(caller, &plan(&["files", "1000"]));
            assert!(files["stdout"].as_str().is_some_and(|s| s.ends_with(" 28\n")), "{files:#}");
            let tmp = launch(caller, &plan(&["fill", "/tmp"]));
            assert!(tmp["stdout"].as_str().is_some_and(|s| s.ends_with(" 28\n")), "{tmp:#}");
        }
    });
}

#[test]
fn log_beyond_the_maximum_is_dropped() {
    assert_leaves_nothing(|| {
        for caller in callers("log_beyond_the_maximum_is_dropped") {
            let flood = invarlock_runtime::MAX_LOG + (8 << 20);
            let outcome = launch(caller, &plan(&["flood", &flood.to_string()]));
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{:#}", outcome["result"]);
            let usage = &outcome["result"]["usage"];
            assert_eq!(usage["stdout_bytes"], flood);
            assert_eq!(usage["log_bytes_dropped"], 8 << 20);
        }
    });
}

#[test]
fn host_execution_is_recorded() {
    assert_leaves_nothing(|| {
        for caller in callers("host_execution_is_recorded") {
            let out = scratch_dir(caller);
            std::fs::write(out.join("x"), "left").expect("a file");
            let mut plan = plan(&[]);
            plan["argv"] = json!([stage().join("bare/workload"), "exit", "4"]);
            plan["host"] = json!(out);
            plan["filter"] = json!("no-network");
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 4}), "{outcome:#}");
            assert_eq!(outcome["result"]["observations"]["mode"], "host-bypass");
            assert_eq!(outcome["result"]["observations"]["seccomp"]["value"]["mode"], 2);
            assert_eq!(outcome["result"]["output"], json!({"x": "left"}));
        }
    });
}
