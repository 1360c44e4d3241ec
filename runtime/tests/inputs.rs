//! Inputs are readable regardless of their owner, read-only, and always the file that was opened.

mod common;

use common::{
    Caller, assert_error, assert_leaves_nothing, callers, is_root_or_skip, launch, own, plan, scratch_dir,
};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn private_file(caller: Caller, dir_mode: u32, file_mode: u32) -> std::path::PathBuf {
    let dir = scratch_dir(caller);
    let file = dir.join("weights");
    fs::write(&file, "weights!").expect("a file");
    own(&file, caller);
    fs::set_permissions(&file, fs::Permissions::from_mode(file_mode)).expect("a mode");
    fs::set_permissions(&dir, fs::Permissions::from_mode(dir_mode)).expect("a mode");
    file
}

#[test]
fn owner_can_use_private_files_as_inputs() {
    assert_leaves_nothing(|| {
        for caller in callers("owner_can_use_private_files_as_inputs") {
            for (dir, file) in [(0o700, 0o600), (0o755, 0o644), (0o700, 0o400)] {
                let path = private_file(caller, dir, file);
                let mut plan = plan(&["cat", "/in/checkpoint/weights"]);
                plan["files"] = json!([["/in/checkpoint/weights", path]]);
                let outcome = launch(caller, &plan);
                assert_eq!(outcome["stdout"], "weights!", "{caller:?} {dir:o}/{file:o}: {outcome:#}");
                let mounts = outcome["result"]["observations"]["mounts"]["value"].as_array().expect("mounts");
                let row = mounts.iter().find(|m| m["target"] == "/in/checkpoint/weights").expect("its mount");
                for option in ["ro", "nosuid", "nodev", "noexec"] {
                    assert!(
                        row["options"].as_str().expect("options").split(',').any(|o| o == option),
                        "{row}"
                    );
                }
            }
        }
    });
}

#[test]
fn root_can_use_private_files_of_users_as_inputs() {
    if !is_root_or_skip("root_can_use_private_files_of_users_as_inputs") {
        return;
    }
    assert_leaves_nothing(|| {
        let path = private_file(Caller::User, 0o700, 0o600);
        let mut plan = plan(&["cat", "/in/w"]);
        plan["files"] = json!([["/in/w", path]]);
        assert_eq!(launch(Caller::Root, &plan)["stdout"], "weights!");
    });
}

#[test]
fn inline_inputs_are_complete() {
    assert_leaves_nothing(|| {
        for caller in callers("inline_inputs_are_complete") {
            let text = "0123456789abcdef".repeat(6_000);
            let mut plan = plan(&["cat", "/in/deep/er/windows.json"]);
            plan["bytes"] = json!([["/in/deep/er/windows.json", text], ["/in/empty", ""]]);
            assert_eq!(launch(caller, &plan)["stdout"], text.as_str());
        }
    });
}

#[test]
fn replaced_file_is_never_mounted() {
    assert_leaves_nothing(|| {
        for caller in callers("replaced_file_is_never_mounted") {
            for kept in [true, false] {
                let path = private_file(caller, 0o755, 0o644);
                let other = path.with_file_name("other");
                fs::write(&other, "forged!!").expect("a file");
                own(&other, caller);
                let mut plan = plan(&["cat", "/in/w"]);
                plan["files"] = json!([["/in/w", path]]);
                plan["swap"] = json!([path, other, kept]);
                let outcome = launch(caller, &plan);
                match (caller, kept) {
                    // Root mounts the handle of the opened file, so its name does not matter.
                    (Caller::Root, true) => assert_eq!(outcome["stdout"], "weights!", "{outcome:#}"),
                    _ => assert_error(&outcome, "safety", &["replaced"]),
                }
            }
        }
    });
}

#[test]
fn hundreds_of_inputs_are_mounted() {
    assert_leaves_nothing(|| {
        for caller in callers("hundreds_of_inputs_are_mounted") {
            let dir = scratch_dir(caller);
            let files: Vec<_> = (0..300)
                .map(|i| {
                    let path = dir.join(format!("f{i}"));
                    fs::write(&path, format!("{i}")).expect("a file");
                    own(&path, caller);
                    (format!("/in/shards/{i}"), path)
                })
                .collect();
            let mut plan = plan(&["cat", "/in/shards/299"]);
            plan["files"] = json!(files);
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["stdout"], "299", "{outcome:#}");
        }
    });
}

#[test]
fn invalid_targets_are_rejected() {
    assert_leaves_nothing(|| {
        for target in ["/etc/passwd", "/in", "/in/", "/in/../etc/x", "/in/a//b", "/in/./x", "in/x"] {
            let mut plan = plan(&["noop"]);
            plan["bytes"] = json!([[target, "x"]]);
            assert_error(&launch(Caller::User, &plan), "input", &["below /in"]);
        }
        let mut plan = plan(&["noop"]);
        plan["bytes"] = json!([["/in/a", "x"], ["/in/a", "y"]]);
        assert_error(&launch(Caller::User, &plan), "input", &["/in/a"]);
        plan["bytes"] = json!([["/in/a", "x"], ["/in/a/b", "y"]]);
        assert_error(&launch(Caller::User, &plan), "system", &["/in/a"]);
    });
}

#[test]
fn only_regular_files_are_accepted() {
    assert_leaves_nothing(|| {
        let mut plan = plan(&["noop"]);
        plan["files"] = json!([["/in/x", Path::new("/dev/null")]]);
        assert_error(&launch(Caller::User, &plan), "safety", &["/dev/null"]);
        plan["files"] = json!([["/in/x", Path::new("/tmp")]]);
        assert_error(&launch(Caller::User, &plan), "safety", &["/tmp"]);
    });
}
