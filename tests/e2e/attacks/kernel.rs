//! Group C: identity and capabilities that an image could ask for. Calls of the kernel are the probe's and the filter's own tests.

use crate::stage::{Stage, config, ids, told};
use invarlock_tests::{As, is_root, skip};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

attack!(c5_user_of_the_image_cve_2026_30892, user_of_the_image);
attack!(c5_set_uid_programs, set_uid_programs);
attack!(c5_file_capabilities_cve_2022_27650, file_capabilities);

const NONE: &str = "0000000000000000";

#[track_caller]
fn assert_unprivileged(user: As, seen: &Value) {
    let (inside, _) = ids(user);
    for ids in ["Uid", "Gid"] {
        assert_eq!(seen["status"][ids], format!("{inside} {inside} {inside} {inside}"), "{seen}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(seen["status"][set], NONE, "{set}");
    }
    assert_eq!(seen["status"]["NoNewPrivs"], "1");
}

/// The user that the image requests has no effect: the workload runs with an unprivileged id.
fn user_of_the_image(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("user", |tree| {
        fs::create_dir(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/passwd"), "evil:x:0:0:::\n-1:x:0:0:::\n").unwrap();
        fs::write(tree.join("etc/group"), "evil:x:0:\n").unwrap();
    });
    let users =
        ["0", "root", "0:0", "0:0 ", "-1", "4294967295", "4294967296", "evil", "evil:evil", "1000:0", " "];
    for (i, name) in users.into_iter().enumerate() {
        let image = layout.image(&format!("u{i}"), &config(&json!({"User": name})));
        assert_unprivileged(user, &told(&stage.run(&[], &image, &["see"]).expect(0)));
    }
}

/// A program of root's, or of the run's own id, with both set-id bits: in an image, and in a tree that keeps them.
fn set_uid_programs(user: As) {
    let stage = Stage::new(user);
    let set_id =
        |path: &std::path::Path| fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).unwrap();
    let image = stage.image("set-uid", |tree| set_id(&tree.join("workload")));
    assert_unprivileged(user, &told(&stage.run(&[], &image, &["see"]).expect(0)));
    let tree = stage.tree("tree");
    let host = ids(user).1;
    for owner in if is_root() { vec![0, host - 1, host] } else { vec![host] } {
        let program = tree.join("workload");
        std::os::unix::fs::chown(&program, Some(owner), Some(owner)).unwrap();
        set_id(&program);
        let ends = stage.launch(&json!({"rootfs": [tree], "argv": ["/workload", "see"], "env": []}));
        let seen: Value = serde_json::from_str(ends[0]["stdout"].as_str().unwrap())
            .unwrap_or_else(|e| panic!("{e}: {ends:?}"));
        assert_unprivileged(user, &seen);
    }
    stage.is_unharmed();
}

/// A program that its file would give every capability.
fn file_capabilities(user: As) {
    if !is_root() {
        return skip(
            "kernel::c5_file_capabilities_cve_2022_27650::started_by_a_user",
            "only root can give a file capabilities",
        );
    }
    let stage = Stage::new(user);
    let tree = stage.tree("tree");
    // Version 2, effective; then permitted and inheritable, low and high.
    let mut all = vec![1, 0, 0, 2];
    all.extend([[0xff; 4], [0xff; 4], [0xff, 1, 0, 0], [0xff, 1, 0, 0]].concat());
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.join("workload"), "security.capability", &all, flags).unwrap();
    let ends = stage.launch(&json!({"rootfs": [tree], "argv": ["/workload", "see"], "env": []}));
    let seen: Value =
        serde_json::from_str(ends[0]["stdout"].as_str().unwrap()).unwrap_or_else(|e| panic!("{e}: {ends:?}"));
    assert_unprivileged(user, &seen);
}
