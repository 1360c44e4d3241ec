//! Inputs: readable whoever owns them, unwritable, and always the very file that was opened.

mod common;

use common::{As, assert_error, everybody, launch, leaving_nothing, own, plan, root_only, scratch};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn secret(who: As, dir_mode: u32, file_mode: u32) -> std::path::PathBuf {
    let dir = scratch(who);
    let file = dir.join("weights");
    fs::write(&file, "weights!").expect("a file");
    own(&file, who);
    fs::set_permissions(&file, fs::Permissions::from_mode(file_mode)).expect("a mode");
    fs::set_permissions(&dir, fs::Permissions::from_mode(dir_mode)).expect("a mode");
    file
}

#[test]
fn private_files_can_be_read_by_their_owners_run() {
    leaving_nothing(|| {
        for who in everybody("private_files_can_be_read_by_their_owners_run") {
            for (dir, file) in [(0o700, 0o600), (0o755, 0o644), (0o700, 0o400)] {
                let path = secret(who, dir, file);
                let mut plan = plan(&["cat", "/in/checkpoint/weights"]);
                plan["files"] = json!([["/in/checkpoint/weights", path]]);
                let outcome = launch(who, &plan);
                assert_eq!(outcome["stdout"], "weights!", "{who:?} {dir:o}/{file:o}: {outcome:#}");
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
fn root_reads_anothers_private_file() {
    if !root_only("root_reads_anothers_private_file") {
        return;
    }
    leaving_nothing(|| {
        let path = secret(As::User, 0o700, 0o600);
        let mut plan = plan(&["cat", "/in/w"]);
        plan["files"] = json!([["/in/w", path]]);
        assert_eq!(launch(As::Root, &plan)["stdout"], "weights!");
    });
}

#[test]
fn bytes_arrive_whole() {
    leaving_nothing(|| {
        for who in everybody("bytes_arrive_whole") {
            let text = "0123456789abcdef".repeat(6_000);
            let mut plan = plan(&["cat", "/in/deep/er/windows.json"]);
            plan["bytes"] = json!([["/in/deep/er/windows.json", text], ["/in/empty", ""]]);
            assert_eq!(launch(who, &plan)["stdout"], text.as_str());
        }
    });
}

#[test]
fn a_swapped_file_is_never_mounted() {
    leaving_nothing(|| {
        for who in everybody("a_swapped_file_is_never_mounted") {
            for kept in [true, false] {
                let path = secret(who, 0o755, 0o644);
                let other = path.with_file_name("other");
                fs::write(&other, "forged!!").expect("a file");
                own(&other, who);
                let mut plan = plan(&["cat", "/in/w"]);
                plan["files"] = json!([["/in/w", path]]);
                plan["swap"] = json!([path, other, kept]);
                let outcome = launch(who, &plan);
                match (who, kept) {
                    // Root mounts the handle itself: the file that was opened, whatever its name is now.
                    (As::Root, true) => assert_eq!(outcome["stdout"], "weights!", "{outcome:#}"),
                    _ => assert_error(&outcome, "safety", &["replaced"]),
                }
            }
        }
    });
}

#[test]
fn many_inputs_are_no_matter() {
    leaving_nothing(|| {
        for who in everybody("many_inputs_are_no_matter") {
            let dir = scratch(who);
            let files: Vec<_> = (0..300)
                .map(|i| {
                    let path = dir.join(format!("f{i}"));
                    fs::write(&path, format!("{i}")).expect("a file");
                    own(&path, who);
                    (format!("/in/shards/{i}"), path)
                })
                .collect();
            let mut plan = plan(&["cat", "/in/shards/299"]);
            plan["files"] = json!(files);
            let outcome = launch(who, &plan);
            assert_eq!(outcome["stdout"], "299", "{outcome:#}");
        }
    });
}

#[test]
fn bad_targets_are_refused() {
    leaving_nothing(|| {
        for target in ["/etc/passwd", "/in", "/in/", "/in/../etc/x", "/in/a//b", "/in/./x", "in/x"] {
            let mut plan = plan(&["noop"]);
            plan["bytes"] = json!([[target, "x"]]);
            assert_error(&launch(As::User, &plan), "input", &["below /in"]);
        }
        let mut plan = plan(&["noop"]);
        plan["bytes"] = json!([["/in/a", "x"], ["/in/a", "y"]]);
        assert_error(&launch(As::User, &plan), "input", &["/in/a"]);
        plan["bytes"] = json!([["/in/a", "x"], ["/in/a/b", "y"]]);
        assert_error(&launch(As::User, &plan), "system", &["/in/a"]);
    });
}

#[test]
fn only_regular_files_are_inputs() {
    leaving_nothing(|| {
        let mut plan = plan(&["noop"]);
        plan["files"] = json!([["/in/x", Path::new("/dev/null")]]);
        assert_error(&launch(As::User, &plan), "safety", &["/dev/null"]);
        plan["files"] = json!([["/in/x", Path::new("/tmp")]]);
        assert_error(&launch(As::User, &plan), "safety", &["/tmp"]);
    });
}
