//! Limits are enforced by a cgroup if one is available, otherwise by rlimits or the watchdog; the observations name the mechanism.

mod common;

use common::{Caller, assert_error, assert_leaves_nothing, callers, is_root_or_skip, launch, plan};
use serde_json::{Value, json};

fn limit<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    let limits = outcome["result"]["observations"]["limits"]["value"].as_array().expect("limits");
    limits.iter().find(|limit| limit["name"] == name).expect("the limit")
}

#[test]
fn every_limit_names_its_mechanism() {
    assert_leaves_nothing(|| {
        for caller in callers("every_limit_names_its_mechanism") {
            let outcome = launch(caller, &plan(&["noop"]));
            for (name, asked) in [
                ("memory", 256 << 20),
                ("pids", 64),
                ("files", 1024),
                ("core", 1),
                ("wall", 30_000),
                ("output", 1 << 20),
                ("output_files", 16),
                ("tmp", 64 << 20),
            ] {
                let limit = limit(&outcome, name);
                assert_eq!(limit["asked"], asked, "{limit}");
                assert_eq!(limit["effective"], asked, "{limit}");
            }
            let by = limit(&outcome, "memory")["by"].clone();
            if caller == Caller::Root {
                assert_eq!(by, "cgroup", "{outcome:#}");
                assert!(outcome["result"]["usage"]["peak_memory_bytes"].as_u64().is_some_and(|n| n > 0));
                assert_eq!(outcome["result"]["usage"]["peak_memory_by"], "cgroup");
                assert!(
                    outcome["result"]["observations"]["cgroup"]["value"].to_string().contains("invarlock-")
                );
            } else {
                assert!(by == "cgroup" || limit(&outcome, "memory")["reason"].is_string(), "{outcome:#}");
            }
        }
    });
}

#[test]
fn memory_limit_ends_the_run() {
    assert_leaves_nothing(|| {
        for caller in callers("memory_limit_ends_the_run") {
            let mut plan = plan(&["eat", "300000000"]);
            plan["memory"] = json!(64 << 20);
            let outcome = launch(caller, &plan);
            let by_cgroup = limit(&outcome, "memory")["by"] == "cgroup";
            if by_cgroup {
                assert_eq!(outcome["result"]["status"], "memory_limit", "{outcome:#}");
                assert!(outcome["result"]["usage"]["oom_kills"].as_u64().is_some_and(|n| n > 0));
            } else {
                // The allocation fails inside, and the program aborts.
                assert_eq!(outcome["result"]["status"], json!({"signaled": 6}), "{outcome:#}");
            }
        }
    });
}

#[test]
fn memory_of_all_processes_is_summed() {
    assert_leaves_nothing(|| {
        for caller in callers("memory_of_all_processes_is_summed") {
            let mut plan = plan(&["eat-together", "4", "50000000"]);
            plan["memory"] = json!(128 << 20);
            let start = std::time::Instant::now();
            let outcome = launch(caller, &plan);
            let usage = &outcome["result"]["usage"];
            assert_eq!(usage["limits_hit"], json!(["memory"]), "{outcome:#}");
            if limit(&outcome, "memory")["by"] != "cgroup" {
                assert_eq!(outcome["result"]["status"], "memory_limit", "{outcome:#}");
                assert_eq!(usage["peak_memory_by"], "watchdog");
                assert!(usage["peak_memory_bytes"].as_u64().is_some_and(|n| n > 128 << 20), "{usage}");
                assert!(start.elapsed() < std::time::Duration::from_secs(10), "the watchdog is too slow");
            }
        }
    });
}

#[test]
fn mapped_memory_is_limited() {
    assert_leaves_nothing(|| {
        for caller in callers("mapped_memory_is_limited") {
            let mut plan = plan(&["reserve", "2000000000"]);
            plan["memory"] = json!(64 << 20);
            let outcome = launch(caller, &plan);
            let mapped = outcome["stdout"].as_str().and_then(|text| text.trim().parse::<u64>().ok());
            let most = if limit(&outcome, "memory")["by"] == "cgroup" { 256 << 20 } else { 64 << 20 };
            assert!(mapped.is_some_and(|bytes| bytes <= most), "{mapped:?}: {outcome:#}");
            let data = &outcome["result"]["observations"]["rlimits"]["value"]["data"];
            assert_eq!(data, &json!({"soft": most, "hard": most}));
        }
    });
}

#[test]
fn page_tables_count() {
    assert_leaves_nothing(|| {
        for caller in callers("page_tables_count") {
            for profile in ["evaluator", "general"] {
                let mut plan = plan(&["page-tables", "200000000"]);
                plan["memory"] = json!(128 << 20);
                plan["filter"] = json!(profile);
                let outcome = launch(caller, &plan);
                assert_eq!(outcome["result"]["status"], "memory_limit", "{profile}: {outcome:#}");
            }
        }
    });
}

#[test]
fn shared_memory_counts_once() {
    assert_leaves_nothing(|| {
        for caller in callers("shared_memory_counts_once") {
            let mut plan = plan(&["share", "5", "50000000"]);
            plan["memory"] = json!(128 << 20);
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
            assert_eq!(outcome["stdout"], "50000000\n");
            assert_eq!(outcome["result"]["usage"]["limits_hit"], json!([]), "{outcome:#}");
        }
    });
}

#[test]
fn full_file_systems_are_reported() {
    assert_leaves_nothing(|| {
        for caller in callers("full_file_systems_are_reported") {
            let hit = |argv: &[&str]| launch(caller, &plan(argv))["result"]["usage"]["limits_hit"].clone();
            assert_eq!(hit(&["fill", "/out"]), json!(["output"]));
            assert_eq!(hit(&["files", "1000"]), json!(["output_files"]));
            assert_eq!(hit(&["fill", "/tmp"]), json!(["tmp"]));
            assert_eq!(hit(&["write", "x", "y"]), json!([]));
        }
    });
}

#[test]
fn sizes_are_rounded_down_to_pages() {
    assert_leaves_nothing(|| {
        for caller in callers("sizes_are_rounded_down_to_pages") {
            let mut plan = plan(&["fill", "/out"]);
            plan["output_bytes"] = json!(10_001);
            let outcome = launch(caller, &plan);
            assert_eq!(
                (&limit(&outcome, "output")["asked"], &limit(&outcome, "output")["effective"]),
                (&json!(8192), &json!(8192))
            );
            assert_eq!(outcome["result"]["output"]["big"].as_str().map(str::len), Some(8192), "{outcome:#}");
            plan["output_bytes"] = json!(4095);
            assert_error(&launch(caller, &plan), "input", &["output bytes", "4096"]);
        }
    });
}

#[test]
fn fork_bomb_is_limited() {
    assert_leaves_nothing(|| {
        for caller in callers("fork_bomb_is_limited") {
            let mut plan = plan(&["fork-bomb"]);
            plan["pids"] = json!(20);
            let outcome = launch(caller, &plan);
            let text = outcome["stdout"].as_str().unwrap_or_default();
            let (children, errno) = text.trim().split_once(' ').unwrap_or_else(|| panic!("{outcome:#}"));
            assert_eq!(errno, "11", "{outcome:#}");
            assert!(children.parse::<u32>().is_ok_and(|n| n < 20), "{text}");
            // Only a cgroup counts denied forks.
            let usage = &outcome["result"]["usage"];
            if limit(&outcome, "pids")["by"] == "cgroup" {
                assert!(usage["forks_refused"].as_u64().is_some_and(|n| n > 0), "{usage}");
                assert_eq!(usage["limits_hit"], json!(["pids"]));
            } else {
                assert_eq!((&usage["forks_refused"], &usage["limits_hit"]), (&Value::Null, &json!([])));
            }
        }
    });
}

#[test]
fn wall_time_limit_ends_the_run() {
    assert_leaves_nothing(|| {
        for caller in callers("wall_time_limit_ends_the_run") {
            for command in ["sleep", "ignore-term", "double-fork"] {
                let mut plan = plan(&[command]);
                plan["wall_ms"] = json!(300);
                let outcome = launch(caller, &plan);
                let expected =
                    if command == "double-fork" { json!({"exited": 0}) } else { json!("timed_out") };
                assert_eq!(outcome["result"]["status"], expected, "{command}: {outcome:#}");
                let hit = if command == "double-fork" { json!([]) } else { json!(["wall"]) };
                assert_eq!(outcome["result"]["usage"]["limits_hit"], hit, "{command}");
            }
        }
    });
}

#[test]
fn required_limit_that_cannot_be_enforced_is_an_error() {
    assert_leaves_nothing(|| {
        // These limits need no cgroup, so every user can require them.
        let mut without_cgroup = plan(&["noop"]);
        without_cgroup["required"] = json!(["pids", "wall", "tmp", "output"]);
        assert_eq!(launch(Caller::User, &without_cgroup)["result"]["status"], json!({"exited": 0}));
        // The output of host execution is a directory of the host, which has no size limit.
        without_cgroup["argv"] = json!([common::stage().join("bare/workload"), "noop"]);
        without_cgroup["host"] = json!(common::scratch_dir(Caller::User));
        assert_error(
            &launch(Caller::User, &without_cgroup),
            "unsupported",
            &["limits", "cannot be enforced"],
        );
        let mut plan = plan(&["noop"]);
        plan["required"] = json!(["memory"]);
        let outcome = launch(Caller::User, &plan);
        if outcome["result"]["error"].is_null() {
            assert_eq!(limit(&outcome, "memory")["by"], "cgroup", "{outcome:#}");
        } else {
            assert_error(&outcome, "unsupported", &["limits", "the requested memory limit"]);
        }
        if is_root_or_skip("required_limit_that_cannot_be_enforced_is_an_error as root") {
            let outcome = launch(Caller::Root, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
        }
    });
}

/// Cgroups of version 1 owned by the ordinary user; removed on drop.
struct Delegated(Vec<std::path::PathBuf>);

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in &self.0 {
            drop(std::fs::remove_dir(dir));
        }
    }
}

#[test]
fn delegated_cgroups_enforce_the_limits_of_a_user() {
    let hierarchies = ["memory", "pids", "cpu"].map(|c| std::path::Path::new("/sys/fs/cgroup").join(c));
    let v1 = hierarchies.iter().all(|h| h.join("tasks").exists());
    if !v1 {
        common::report_skip("delegated_cgroups_enforce_the_limits_of_a_user: needs cgroup version 1");
        return;
    }
    if !is_root_or_skip("delegated_cgroups_enforce_the_limits_of_a_user") {
        return;
    }
    assert_leaves_nothing(|| {
        let dirs = Delegated(
            hierarchies.iter().map(|h| h.join(format!("delegated-{}", std::process::id()))).collect(),
        );
        for dir in &dirs.0 {
            std::fs::create_dir(dir).expect("a cgroup");
            common::own(dir, Caller::User);
        }
        let mut plan = plan(&["eat", "300000000"]);
        plan["memory"] = json!(64 << 20);
        plan["required"] = json!(["memory", "pids", "cpu"]);
        let command = common::launcher(Caller::User, &plan);
        let user = common::USER.to_string();
        let enter: String = dirs.0.iter().map(|d| format!("echo 0 > {}/tasks; ", d.display())).collect();
        let mut shell = std::process::Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("{enter} exec setpriv --reuid {user} --regid {user} --clear-groups -- \"$@\""))
            .arg("sh");
        let out = shell.arg(command.get_program()).args(command.get_args()).output().expect("the launcher");
        let outcome: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!(outcome["result"]["status"], "memory_limit", "{outcome:#}");
        for name in ["memory", "pids", "cpu"] {
            assert_eq!(limit(&outcome, name)["by"], "cgroup");
        }
    });
}
