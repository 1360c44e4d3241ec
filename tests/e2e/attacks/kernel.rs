//! Group C: identity and capabilities that an image could request. The probe and the tests of the
//! filter cover system calls.

use crate::stage::{Stage, config, inside_id, printed_json};
use invarlock_runtime::HOST_IDS;
use invarlock_tests::{As, is_root, skip};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

attack!(c5_image_requests_a_user_cve_2026_30892, image_requests_a_user);
attack!(c5_set_uid_programs, set_uid_programs);
attack!(c5_file_capabilities_cve_2022_27650, file_capabilities);

const NO_CAPABILITIES: &str = "0000000000000000";

#[track_caller]
fn assert_unprivileged(user: As, printed: &Value) {
    let inside = inside_id(user);
    for field in ["Uid", "Gid"] {
        assert_eq!(printed["status"][field], format!("{inside} {inside} {inside} {inside}"), "{printed}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(printed["status"][set], NO_CAPABILITIES, "{set}");
    }
    assert_eq!(printed["status"]["NoNewPrivs"], "1");
}

/// The user that the image requests has no effect: the workload runs with an unprivileged id.
fn image_requests_a_user(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("user", |rootfs| {
        fs::create_dir(rootfs.join("etc")).unwrap();
        fs::write(rootfs.join("etc/passwd"), "evil:x:0:0:::\n-1:x:0:0:::\n").unwrap();
        fs::write(rootfs.join("etc/group"), "evil:x:0:\n").unwrap();
    });
    let users =
        ["0", "root", "0:0", "0:0 ", "-1", "4294967295", "4294967296", "evil", "evil:evil", "1000:0", " "];
    for (i, name) in users.into_iter().enumerate() {
        let image = layout.image(&format!("u{i}"), &config(&json!({"User": name})));
        assert_unprivileged(user, &printed_json(&stage.run(&[], &image, &["see"]).expect(0)));
    }
}

/// A program has both set-id bits, in an image and in a root file system that keeps the bits. It is
/// owned by root, by an id of root's runs, or by the user who starts the run.
fn set_uid_programs(user: As) {
    let stage = Stage::new(user);
    let set_id =
        |path: &std::path::Path| fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).unwrap();
    let image = stage.image("set-uid", |rootfs| set_id(&rootfs.join("workload")));
    assert_unprivileged(user, &printed_json(&stage.run(&[], &image, &["see"]).expect(0)));
    let rootfs = stage.rootfs("tree");
    let user_id = if is_root() { invarlock_tests::USER } else { rustix::process::geteuid().as_raw() };
    for owner in if is_root() { vec![0, *HOST_IDS.start(), user_id] } else { vec![user_id] } {
        let program = rootfs.join("workload");
        std::os::unix::fs::chown(&program, Some(owner), Some(owner)).unwrap();
        set_id(&program);
        let outcomes = stage.launch(&json!({"rootfs": [rootfs], "argv": ["/workload", "see"], "env": []}));
        let printed: Value = serde_json::from_str(outcomes[0]["stdout"].as_str().unwrap())
            .unwrap_or_else(|e| panic!("{e}: {outcomes:?}"));
        assert_unprivileged(user, &printed);
    }
    stage.assert_unchanged();
}

/// The program's file has every file capability.
fn file_capabilities(user: As) {
    if !is_root() {
        return skip(
            "kernel::c5_file_capabilities_cve_2022_27650::started_by_a_user",
            "only root can give a file capabilities",
        );
    }
    let stage = Stage::new(user);
    let rootfs = stage.rootfs("tree");
    // Version 2 with the effective bit, then permitted and inheritable: low words, high words.
    let mut all = vec![1, 0, 0, 2];
    all.extend([[0xff; 4], [0xff; 4], [0xff, 1, 0, 0], [0xff, 1, 0, 0]].concat());
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(rootfs.join("workload"), "security.capability", &all, flags).unwrap();
    let outcomes = stage.launch(&json!({"rootfs": [rootfs], "argv": ["/workload", "see"], "env": []}));
    let printed: Value = serde_json::from_str(outcomes[0]["stdout"].as_str().unwrap())
        .unwrap_or_else(|e| panic!("{e}: {outcomes:?}"));
    assert_unprivileged(user, &printed);
}
