//! What a workload leaves in `/out`, and what it prints.

mod common;

use common::{assert_error, everybody, launch, leaving_nothing, plan, scratch, stage};
use serde_json::json;

#[test]
fn files_come_back() {
    leaving_nothing(|| {
        for who in everybody("files_come_back") {
            let outcome = launch(who, &plan(&["write", "report.json", "{\"a\":1}"]));
            assert_eq!(outcome["result"]["output"], json!({"report.json": "{\"a\":1}"}), "{outcome:#}");
        }
    });
}

#[test]
fn only_regular_files_come_back() {
    leaving_nothing(|| {
        for who in everybody("only_regular_files_come_back") {
            assert_error(
                &launch(who, &plan(&["symlink", "/etc/shadow"])),
                "safety",
                &["/out/link", "symbolic link"],
            );
            assert_error(&launch(who, &plan(&["fifo"])), "safety", &["/out/fifo"]);
            assert_error(&launch(who, &plan(&["hardlink"])), "safety", &["several names"]);
            assert_error(
                &launch(who, &plan(&["write", "a\u{1b}[31m", "x"])),
                "safety",
                &["control character"],
            );
        }
    });
}

#[test]
fn output_is_bounded() {
    leaving_nothing(|| {
        for who in everybody("output_is_bounded") {
            let filled = launch(who, &plan(&["fill", "/out"]));
            // ENOSPC inside; what fitted comes back.
            assert!(filled["stdout"].as_str().is_some_and(|s| s.ends_with(" 28\n")), "{filled:#}");
            let big = filled["result"]["output"]["big"].as_str().map_or(0, str::len);
            assert!(big > 0 && big <= 1 << 20, "{big}");
            let files = launch(who, &plan(&["files", "1000"]));
            assert!(files["stdout"].as_str().is_some_and(|s| s.ends_with(" 28\n")), "{files:#}");
            let tmp = launch(who, &plan(&["fill", "/tmp"]));
            assert!(tmp["stdout"].as_str().is_some_and(|s| s.ends_with(" 28\n")), "{tmp:#}");
        }
    });
}

#[test]
fn a_flood_is_drained_and_cut() {
    leaving_nothing(|| {
        for who in everybody("a_flood_is_drained_and_cut") {
            let flood = invarlock_runtime::MAX_LOG + (8 << 20);
            let outcome = launch(who, &plan(&["flood", &flood.to_string()]));
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{:#}", outcome["result"]);
            let usage = &outcome["result"]["usage"];
            assert_eq!(usage["stdout_bytes"], flood);
            assert_eq!(usage["log_bytes_dropped"], 8 << 20);
        }
    });
}

#[test]
fn host_execution_says_so() {
    leaving_nothing(|| {
        for who in everybody("host_execution_says_so") {
            let out = scratch(who);
            std::fs::write(out.join("x"), "left").expect("a file");
            let mut plan = plan(&[]);
            plan["argv"] = json!([stage().join("bare/workload"), "exit", "4"]);
            plan["host"] = json!(out);
            plan["filter"] = json!("no-network");
            let outcome = launch(who, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 4}), "{outcome:#}");
            assert_eq!(outcome["result"]["observations"]["mode"], "host-bypass");
            assert_eq!(outcome["result"]["observations"]["seccomp"]["value"]["mode"], 2);
            assert_eq!(outcome["result"]["output"], json!({"x": "left"}));
        }
    });
}
