//! A third-party image as an OCI layout: one layer and any number of image configurations.

use crate::Place;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A layout with one layer.
pub struct Layout {
    /// Its directory.
    pub dir: PathBuf,
    layer: Value,
}

/// Creates the layout `name` with `program` as `/workload` and returns its reference. Such an image
/// runs under the general profile.
pub fn of_program(place: &Place, name: &str, program: &Path) -> String {
    let fill = |rootfs: &Path| _ = std::fs::copy(program, rootfs.join("workload")).unwrap();
    let config = json!({"Cmd": ["/workload"], "Env": ["PATH=/", "ODD=\u{9b}31m\u{202e}"]});
    Layout::of_tree(place, name, fill).image("test", &config)
}

impl Layout {
    /// Creates the layout `name`. `fill` writes the content of its layer.
    pub fn of_tree(place: &Place, name: &str, fill: impl FnOnce(&Path)) -> Self {
        Self::archive(place, name, fill, "--mode=a+rX")
    }

    /// The same, and the modes that `restrict` sets are kept.
    pub fn of_tree_with_modes(
        place: &Place,
        name: &str,
        fill: impl FnOnce(&Path),
        restrict: impl FnOnce(&Path),
    ) -> Self {
        let fill = |rootfs: &Path| {
            fill(rootfs);
            restrict(rootfs);
        };
        Self::archive(place, name, fill, "--mode=u+rX")
    }

    fn archive(place: &Place, name: &str, fill: impl FnOnce(&Path), mode: &str) -> Self {
        let dir = place.path(name);
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(dir.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        let rootfs = tempfile::tempdir().unwrap();
        fill(rootfs.path());
        let names = std::fs::read_dir(rootfs.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", mode, "--sort=name", "-cf", "-", "--"]).args(names);
        let tar = tar.current_dir(rootfs.path()).output().unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let layer = blob(&dir, &tar.stdout, "layer.v1.tar");
        Layout { dir, layer }
    }

    /// Adds an image with this configuration and returns its reference.
    pub fn image(&self, tag: &str, config: &Value) -> String {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [self.layer["digest"]]},
        });
        let config = blob(&self.dir, config.to_string().as_bytes(), "config.v1+json");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [self.layer],
        });
        let mut manifest = blob(&self.dir, manifest.to_string().as_bytes(), "manifest.v1+json");
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let mut index = crate::read_json(&self.dir.join("index.json"));
        index["manifests"].as_array_mut().unwrap().push(manifest);
        std::fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
        format!("oci:{}:{tag}", self.dir.display())
    }
}

fn blob(layout: &Path, bytes: &[u8], kind: &str) -> Value {
    let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    std::fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    let kind = format!("application/vnd.oci.image.{kind}");
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}
