//! A device of the Container Device Interface that every machine has: its entries of `/dev` are harmless ones.

use crate::Place;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixListener;

/// Its name.
pub const DEVICE: &str = "invarlock.test/accelerator=0";
/// Its entries of `/dev`, which are the host's `/dev/null` and `/dev/full`.
pub const NODES: [&str; 2] = ["/dev/accelerator0", "/dev/accelerators/control"];

/// Writes the specification in the directory `cdi`, and what it names.
pub fn write_specification(place: &Place) {
    for name in ["cdi", "driver"] {
        fs::create_dir(place.work(name)).unwrap();
        place.give(&place.work(name));
    }
    place.write("driver/libaccelerator.so.1.2", b"of the driver");
    drop(UnixListener::bind(place.work("driver/socket")).unwrap());
    place.write("cdi/accelerator.json", specification(place).to_string().as_bytes());
}

/// A specification with two entries of `/dev`, a library with a link, a socket and variables.
pub fn specification(place: &Place) -> Value {
    let library = place.work("driver/libaccelerator.so.1.2");
    json!({
        "cdiVersion": "0.6.0",
        "kind": "invarlock.test/accelerator",
        "containerEdits": {
            "env": ["ACCELERATOR=0"],
            "mounts": [
                {"hostPath": library, "containerPath": "/usr/lib/libaccelerator.so.1.2", "options": ["ro", "nosuid", "nodev", "bind"]},
                {"hostPath": place.work("driver/socket"), "containerPath": "/run/accelerator/socket"},
            ],
            "hooks": [
                {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
                 "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "libaccelerator.so.1.2::/usr/lib/libaccelerator.so.1"]},
                {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
                 "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib"]},
            ],
        },
        "devices": [{"name": "0", "containerEdits": {"deviceNodes": [
            {"path": NODES[0], "hostPath": "/dev/null"},
            {"path": NODES[1], "hostPath": "/dev/full", "type": "c", "permissions": "rw"},
        ]}}],
    })
}
