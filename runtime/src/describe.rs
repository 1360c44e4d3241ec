//! The plan of a run as JSON: printed by `--dry-run`, digested and recorded.

use crate::boundary::{DEVICES, NAMESPACES, SETGROUPS};
use crate::identity::{HOST_IDS, Identity};
use crate::spec::{ContainerSpec, InputSource, Rootfs};
use crate::user_mounts::Mount;
use serde_json::{Value, json};

/// The plan of a container as JSON. Starts no process.
pub fn describe(spec: &ContainerSpec) -> Value {
    let layers = match &spec.rootfs {
        Rootfs::Layers(layers) => layers.clone(),
        Rootfs::Directory(source) => vec![source.path().to_owned()],
    };
    let mut mounts = vec![
        json!({"target": "/", "kind": "image", "options": ["ro", "nosuid", "nodev"], "layers": layers}),
        json!({"target": "/in", "kind": "tmpfs", "options": ["ro", "nosuid", "nodev", "noexec"]}),
        json!({"target": "/out", "kind": "tmpfs", "options": ["rw", "nosuid", "nodev", "noexec"],
               "bytes": spec.limits.output_bytes, "files": spec.limits.output_files}),
        json!({"target": "/tmp", "kind": "tmpfs", "options": ["rw", "nosuid", "nodev", "noexec"], "bytes": spec.limits.tmp_bytes}),
        json!({"target": "/dev", "kind": "tmpfs", "options": ["ro", "nosuid", "noexec"], "devices": DEVICES.map(|(name, _)| name)}),
        json!({"target": "/proc", "kind": "proc", "options": ["nosuid", "nodev", "noexec"]}),
    ];
    for input in &spec.inputs {
        mounts.push(match &input.source {
            InputSource::File { path, .. } => {
                json!({"target": input.target, "kind": "file", "source": path, "options": ["ro", "nosuid", "nodev", "noexec"]})
            }
            InputSource::Bytes(bytes) => json!({"target": input.target, "kind": "bytes", "bytes": bytes.len()}),
        });
    }
    mounts.extend(spec.mounts.iter().map(Mount::describe));
    json!({
        "argv": spec.argv,
        "cwd": spec.cwd,
        "environment": spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "namespaces": NAMESPACES,
        "network": "lo only",
        "identity": identity(),
        "capabilities": [],
        "no_new_privileges": true,
        "seccomp": {"profile": spec.filter.name, "digest": spec.filter.digest},
        "mounts": mounts,
        "limits": spec.limits,
    })
}

/// A user's run has the user's ids. The ids of root's run are chosen when it starts, so the plan only has their range.
fn identity() -> Value {
    let identity = Identity::of_own_run();
    if identity.by_root {
        let host_ids = [HOST_IDS.start(), HOST_IDS.end()];
        return json!({"inside": identity.inside.uid, "host_ids": host_ids, "setgroups": SETGROUPS});
    }
    let (uid_map, gid_map) = identity.maps();
    json!({
        "inside": identity.inside.uid,
        "host_uid": identity.host_uid,
        "host_gid": identity.host_gid,
        "uid_map": uid_map.lines().collect::<Vec<_>>(),
        "gid_map": gid_map.lines().collect::<Vec<_>>(),
        "setgroups": SETGROUPS,
    })
}
