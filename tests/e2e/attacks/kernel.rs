//! Group C: identity and capabilities that an image could request. The probe and the tests of the
//! filter cover system calls.

use crate::stage::{Stage, config, inside_ids, printed_json};
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
fn assert_unprivileged((uid, gid): (u32, u32), printed: &Value) {
    for (field, id) in [("Uid", uid), ("Gid", gid)] {
        assert_eq!(printed["status"][field], format!("{id} {id} {id} {id}"), "{printed}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(printed["status"][set], NO_CAPABILITIES, "{set}");
    }
    assert_eq!(printed["status"]["NoNewPrivs"], "1");
}

/// The user that the image requests only names the ids inside. On the host they are the same unprivileged ids, and the workload has no
/// capability. A user that the image does not have is refused.
fn image_requests_a_user(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("user", |rootfs| {
        fs::create_dir(rootfs.join("etc")).unwrap();
        fs::write(rootfs.join("etc/passwd"), "evil:x:0:0:::\n-1:x:0:0:::\n").unwrap();
        fs::write(rootfs.join("etc/group"), "evil:x:0:\n").unwrap();
    });
    let users = [
        ("", Some((0, 0))),
        ("0", Some((0, 0))),
        ("0:0", Some((0, 0))),
        ("evil", Some((0, 0))),
        ("evil:evil", Some((0, 0))),
        ("-1", Some((0, 0))),
        ("1000:0", Some((1000, 0))),
        ("0:7", Some((0, 7))),
        ("65532", Some((65_532, 0))),
        ("65533:65533", Some((65_533, 65_533))),
        ("4294967293:4294967293", Some((4_294_967_293, 4_294_967_293))),
        ("4294967294", None),
        ("4294967295", None),
        ("4294967296", None),
        ("0:4294967295", None),
        ("root", None),
        ("0:0 ", None),
        (" ", None),
    ];
    for (i, (name, ids)) in users.into_iter().enumerate() {
        let image = layout.image(&format!("u{i}"), &config(&json!({"User": name})));
        let ran = stage.run(&[], &image, &["see"]);
        match ids {
            Some(ids) => assert_unprivileged(ids, &printed_json(&ran.expect(0))),
            None => ran.expect(125).one_error(&["error[input]", "user"]),
        }
    }
}

/// A program has both set-id bits, in an image and in a root file system that keeps the bits. It is
/// owned by root, by an id of root's runs, or by the user who starts the run.
fn set_uid_programs(user: As) {
    let stage = Stage::new(user);
    let set_id =
        |path: &std::path::Path| fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).unwrap();
    let image = stage.image("set-uid", |rootfs| set_id(&rootfs.join("workload")));
    assert_unprivileged((0, 0), &printed_json(&stage.run(&[], &image, &["see"]).expect(0)));
    let rootfs = stage.rootfs("tree");
    let user_id = if is_root() { invarlock_tests::USER } else { rustix::process::geteuid().as_raw() };
    for owner in if is_root() { vec![0, *HOST_IDS.start(), user_id] } else { vec![user_id] } {
        let program = rootfs.join("workload");
        std::os::unix::fs::chown(&program, Some(owner), Some(owner)).unwrap();
        set_id(&program);
        let outcomes = stage.launch(&json!({"rootfs": [rootfs], "argv": ["/workload", "see"], "env": []}));
        let printed: Value = serde_json::from_str(outcomes[0]["stdout"].as_str().unwrap())
            .unwrap_or_else(|e| panic!("{e}: {outcomes:?}"));
        assert_unprivileged(inside_ids(user), &printed);
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
    assert_unprivileged(inside_ids(user), &printed);
}
