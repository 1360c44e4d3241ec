//! Limits: held by a cgroup where there is one, by other means where there is none, and it is said which.

mod common;

use common::{As, assert_error, everybody, launch, leaving_nothing, plan, root_only};
use serde_json::{Value, json};

fn row<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    let rows = outcome["result"]["observations"]["limits"]["value"].as_array().expect("limits");
    rows.iter().find(|r| r["name"] == name).expect("the row")
}

#[test]
fn what_holds_each_limit_is_said() {
    leaving_nothing(|| {
        for who in everybody("what_holds_each_limit_is_said") {
            let outcome = launch(who, &plan(&["noop"]));
            for (name, asked) in [
                ("memory", 256 << 20),
                ("pids", 64),
                ("files", 1024),
                ("core", 0),
                ("wall", 30_000),
                ("output", 1 << 20),
                ("output_files", 16),
                ("tmp", 64 << 20),
            ] {
                let row = row(&outcome, name);
                assert_eq!(row["asked"], asked, "{row}");
                assert_eq!(row["effective"], asked, "{row}");
            }
            let by = row(&outcome, "memory")["by"].clone();
            if who == As::Root {
                assert_eq!(by, "cgroup", "{outcome:#}");
                assert!(outcome["result"]["usage"]["peak_memory_bytes"].as_u64().is_some_and(|n| n > 0));
                assert_eq!(outcome["result"]["usage"]["peak_memory_by"], "cgroup");
                assert!(
                    outcome["result"]["observations"]["cgroup"]["value"].to_string().contains("invarlock-")
                );
            } else {
                assert!(by == "cgroup" || row(&outcome, "memory")["reason"].is_string(), "{outcome:#}");
            }
        }
    });
}

#[test]
fn too_much_memory_ends_the_run() {
    leaving_nothing(|| {
        for who in everybody("too_much_memory_ends_the_run") {
            let mut plan = plan(&["eat", "300000000"]);
            plan["memory"] = json!(64 << 20);
            let outcome = launch(who, &plan);
            let by_cgroup = row(&outcome, "memory")["by"] == "cgroup";
            if by_cgroup {
                assert_eq!(outcome["result"]["status"], "memory_limit", "{outcome:#}");
                assert!(outcome["result"]["usage"]["oom_kills"].as_u64().is_some_and(|n| n > 0));
            } else {
                // Allocation fails inside: the program aborts.
                assert_eq!(outcome["result"]["status"], json!({"signaled": 6}), "{outcome:#}");
            }
        }
    });
}

#[test]
fn processes_that_have_too_much_together_are_ended() {
    leaving_nothing(|| {
        for who in everybody("processes_that_have_too_much_together_are_ended") {
            let mut plan = plan(&["eat-together", "4", "50000000"]);
            plan["memory"] = json!(128 << 20);
            let start = std::time::Instant::now();
            let outcome = launch(who, &plan);
            let usage = &outcome["result"]["usage"];
            assert_eq!(usage["limits_hit"], json!(["memory"]), "{outcome:#}");
            if row(&outcome, "memory")["by"] != "cgroup" {
                assert_eq!(outcome["result"]["status"], "memory_limit", "{outcome:#}");
                assert_eq!(usage["peak_memory_by"], "watchdog");
                assert!(usage["peak_memory_bytes"].as_u64().is_some_and(|n| n > 128 << 20), "{usage}");
                assert!(start.elapsed() < std::time::Duration::from_secs(10), "it took its time");
            }
        }
    });
}

#[test]
fn shared_memory_of_copies_counts_once() {
    leaving_nothing(|| {
        for who in everybody("shared_memory_of_copies_counts_once") {
            let mut plan = plan(&["share", "5", "50000000"]);
            plan["memory"] = json!(128 << 20);
            let outcome = launch(who, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
            assert_eq!(outcome["stdout"], "50000000\n");
            assert_eq!(outcome["result"]["usage"]["limits_hit"], json!([]), "{outcome:#}");
        }
    });
}

#[test]
fn what_is_full_at_the_end_is_said() {
    leaving_nothing(|| {
        for who in everybody("what_is_full_at_the_end_is_said") {
            let hit = |argv: &[&str]| launch(who, &plan(argv))["result"]["usage"]["limits_hit"].clone();
            assert_eq!(hit(&["fill", "/out"]), json!(["output"]));
            assert_eq!(hit(&["files", "1000"]), json!(["output_files"]));
            assert_eq!(hit(&["fill", "/tmp"]), json!(["tmp"]));
            assert_eq!(hit(&["write", "x", "y"]), json!([]));
        }
    });
}

#[test]
fn odd_sizes_are_rounded_to_pages_and_still_held() {
    leaving_nothing(|| {
        for who in everybody("odd_sizes_are_rounded_to_pages_and_still_held") {
            let mut plan = plan(&["fill", "/out"]);
            plan["output_bytes"] = json!(10_001);
            let outcome = launch(who, &plan);
            assert_eq!(
                (&row(&outcome, "output")["asked"], &row(&outcome, "output")["effective"]),
                (&json!(8192), &json!(8192))
            );
            assert_eq!(outcome["result"]["output"]["big"].as_str().map(str::len), Some(8192), "{outcome:#}");
            plan["output_bytes"] = json!(4095);
            assert_error(&launch(who, &plan), "input", &["output bytes", "4096"]);
        }
    });
}

#[test]
fn a_fork_bomb_meets_its_limit() {
    leaving_nothing(|| {
        for who in everybody("a_fork_bomb_meets_its_limit") {
            let mut plan = plan(&["fork-bomb"]);
            plan["pids"] = json!(20);
            let outcome = launch(who, &plan);
            let text = outcome["stdout"].as_str().unwrap_or_default();
            let (children, errno) = text.trim().split_once(' ').unwrap_or_else(|| panic!("{outcome:#}"));
            assert_eq!(errno, "11", "{outcome:#}");
            assert!(children.parse::<u32>().is_ok_and(|n| n < 20), "{text}");
            // Refused forks are counted by a cgroup and by nothing else.
            let usage = &outcome["result"]["usage"];
            if row(&outcome, "pids")["by"] == "cgroup" {
                assert!(usage["forks_refused"].as_u64().is_some_and(|n| n > 0), "{usage}");
                assert_eq!(usage["limits_hit"], json!(["pids"]));
            } else {
                assert_eq!((&usage["forks_refused"], &usage["limits_hit"]), (&Value::Null, &json!([])));
            }
        }
    });
}

#[test]
fn time_runs_out() {
    leaving_nothing(|| {
        for who in everybody("time_runs_out") {
            for what in ["sleep", "ignore-term", "double-fork"] {
                let mut plan = plan(&[what]);
                plan["wall_ms"] = json!(300);
                let outcome = launch(who, &plan);
                let expected = if what == "double-fork" { json!({"exited": 0}) } else { json!("timed_out") };
                assert_eq!(outcome["result"]["status"], expected, "{what}: {outcome:#}");
                let hit = if what == "double-fork" { json!([]) } else { json!(["wall"]) };
                assert_eq!(outcome["result"]["usage"]["limits_hit"], hit, "{what}");
            }
        }
    });
}

#[test]
fn a_limit_that_was_asked_for_and_cannot_be_held_is_an_error() {
    leaving_nothing(|| {
        // These need no cgroup, so anybody can ask for them.
        let mut easy = plan(&["noop"]);
        easy["required"] = json!(["pids", "wall", "tmp", "output"]);
        assert_eq!(launch(As::User, &easy)["result"]["status"], json!({"exited": 0}));
        // The output of a plain child is a directory of the host, which nothing bounds.
        easy["argv"] = json!([common::stage().join("bare/workload"), "noop"]);
        easy["host"] = json!(common::scratch(As::User));
        assert_error(&launch(As::User, &easy), "unsupported", &["limits", "cannot be held"]);
        let mut plan = plan(&["noop"]);
        plan["required"] = json!(["memory"]);
        let outcome = launch(As::User, &plan);
        if outcome["result"]["error"].is_null() {
            assert_eq!(row(&outcome, "memory")["by"], "cgroup", "{outcome:#}");
        } else {
            assert_error(&outcome, "unsupported", &["limits", "Memory"]);
        }
        if root_only("a_limit_that_was_asked_for_and_cannot_be_held_is_an_error as root") {
            let outcome = launch(As::Root, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
        }
    });
}

/// Directories of cgroup version 1 that belong to the test's user, removed at the end.
struct Delegated(Vec<std::path::PathBuf>);

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in &self.0 {
            drop(std::fs::remove_dir(dir));
        }
    }
}

#[test]
fn a_user_with_delegated_cgroups_gets_real_limits() {
    let hierarchies = ["memory", "pids", "cpu"].map(|c| std::path::Path::new("/sys/fs/cgroup").join(c));
    let v1 = hierarchies.iter().all(|h| h.join("tasks").exists());
    if !v1 {
        common::skipped("a_user_with_delegated_cgroups_gets_real_limits: needs cgroup version 1");
        return;
    }
    if !root_only("a_user_with_delegated_cgroups_gets_real_limits") {
        return;
    }
    leaving_nothing(|| {
        let dirs = Delegated(
            hierarchies.iter().map(|h| h.join(format!("delegated-{}", std::process::id()))).collect(),
        );
        for dir in &dirs.0 {
            std::fs::create_dir(dir).expect("a cgroup");
            common::own(dir, As::User);
        }
        let mut plan = plan(&["eat", "300000000"]);
        plan["memory"] = json!(64 << 20);
        plan["required"] = json!(["memory", "pids", "cpu"]);
        let command = common::launcher(As::User, &plan);
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
            assert_eq!(row(&outcome, name)["by"], "cgroup");
        }
    });
}
