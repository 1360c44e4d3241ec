//! An image of a stranger, as an OCI layout: one layer with one program.

use crate::Place;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::process::Command;

fn blob(layout: &Path, bytes: &[u8], kind: &str) -> Value {
    let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    std::fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    let kind = format!("application/vnd.oci.image.{kind}");
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// Makes the layout `name` in the place, with `program` as `/workload`, and gives its reference. It gets the general filter.
pub fn of_program(place: &Place, name: &str, program: &Path) -> String {
    let layout = place.path(name);
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let tree = tempfile::tempdir().unwrap();
    std::fs::copy(program, tree.path().join("workload")).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--mode=0755", "-cf", "-", "workload"]);
    let tar = tar.current_dir(tree.path()).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let layer = blob(&layout, &tar.stdout, "layer.v1.tar");
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": ["/workload"], "Env": ["PATH=/", "ODD=\u{9b}31m\u{202e}"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(&layout, config.to_string().as_bytes(), "config.v1+json");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(&layout, manifest.to_string().as_bytes(), "manifest.v1+json");
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "test"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("oci:{}:test", layout.display())
}
