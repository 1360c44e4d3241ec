//! What plans of all containers have in common: constants, mounts, digests.

use crate::format::devices::Devices;
use crate::format::observations::Usage;
use crate::format::plan::{Files, Image, Layer, PlannedLimits, PlannedMount, tree_sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Limits that a user can require.
pub(super) const LIMITS: [&str; 6] = ["memory", "pids", "cpu", "wall", "tmp", "output"];
/// How an image's files can have been verified.
const VERIFICATION: [&str; 3] = ["full", "quick", "fs-verity"];
const INPUT: &[&str] = &["ro", "nosuid", "nodev", "noexec"];
const DEVICE: &[&str] = &["ro", "nosuid", "noexec"];
const DEVICE_FILE: &[&str] = &["ro", "nosuid", "nodev"];
const SCRATCH: &[&str] = &["rw", "nosuid", "nodev", "noexec"];

/// The namespaces of every container.
pub(super) fn namespaces() -> Vec<String> {
    ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"].map(str::to_owned).to_vec()
}

/// The faults of the image of a plan; `speaks` are the protocols that it may have.
pub(super) fn image_faults(image: &Image, speaks: &[Option<&str>]) -> Vec<String> {
    let digests = image.layers.iter().flat_map(|layer| [&layer.digest, &layer.diff_id]);
    let mut digests = digests.chain([&image.manifest_digest, &image.config_digest]);
    let mut faults = Vec::new();
    if !digests.all(|digest| is_digest(digest)) {
        faults.push("context.image has a digest that is not a SHA-256".to_owned());
    }
    if image.layers.is_empty() {
        faults.push("context.image has no layer".to_owned());
    }
    if !speaks.contains(&image.speaks.as_deref()) {
        let expected = speaks.iter().flatten().next().unwrap_or(&"");
        faults.push(format!("context.image.speaks is not {expected:?}"));
    }
    if !VERIFICATION.contains(&image.verification.as_str()) {
        faults.push(format!(
            "context.image.verification is {:?}, expected one of {VERIFICATION:?}",
            image.verification
        ));
    }
    faults
}

/// The faults of a list of files at this path. With `nested`, a name can have several parts.
pub(super) fn files_faults(path: &str, files: &Files, nested: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if tree_sha256(&files.files) != files.tree_sha256 {
        faults.push(format!("context.{path}.tree_sha256 is not the digest of its files"));
    }
    let names: BTreeSet<&str> = files.files.iter().map(|file| file.name.as_str()).collect();
    let is_plain = |name: &&str| {
        let mut parts = name.split('/');
        parts.all(|part| !matches!(part, "" | "." | "..")) && (nested || !name.contains('/'))
    };
    if names.len() != files.files.len() || !names.iter().all(is_plain) {
        faults.push(format!("context.{path}.files has a wrong name, or one name twice"));
    }
    faults
}

/// Whether the numbers of what a run used agree with each other.
pub(super) fn usage_is_consistent(usage: &Usage) -> bool {
    usage.log_bytes_dropped <= usage.stdout_bytes.saturating_add(usage.stderr_bytes)
        && usage.peak_memory_bytes.is_some() == usage.peak_memory_by.is_some()
        && usage.limits_hit.iter().all(|name| LIMITS.contains(&name.as_str()))
}

/// Whether the root of planned mounts consists of the extracted layers of the image.
pub(super) fn has_layers_of_image(mounts: &[PlannedMount], layers: &[Layer]) -> bool {
    let directories = mounts.first().and_then(|root| root.layers.as_deref()).unwrap_or_default();
    directories.len() == layers.len()
        && directories.iter().zip(layers).all(|(directory, layer)| {
            directory.ends_with(&format!("/trees/{}/root", layer.diff_id.replace(':', "-")))
        })
}

/// The mounts of a container that this program plans, from those that it recorded. What follows from nothing else, the paths on the host, is
/// taken from them.
pub(super) struct Mounts<'a> {
    recorded: &'a [PlannedMount],
    places: BTreeMap<&'a str, usize>,
}

impl<'a> Mounts<'a> {
    pub(super) fn new(recorded: &'a [PlannedMount]) -> Self {
        let places = recorded.iter().enumerate().map(|(i, mount)| (mount.target.as_str(), i)).collect();
        Mounts { recorded, places }
    }

    /// A file of the host at this target.
    pub(super) fn file(&self, target: &str) -> PlannedMount {
        let recorded = self.places.get(target).and_then(|place| self.recorded.get(*place));
        let source = recorded.and_then(|mount| mount.source.clone()).unwrap_or_default();
        PlannedMount { source: Some(source), ..mount(target, "file", INPUT) }
    }

    /// The devices, and their files.
    pub(super) fn of_devices(&self, devices: &Devices) -> Vec<PlannedMount> {
        let nodes = devices.nodes.iter().map(|node| PlannedMount {
            source: Some(node.source.clone()),
            ..mount(&node.path, "device", DEVICE)
        });
        let files = devices.files.iter().map(|target| PlannedMount {
            source: self.file(target).source,
            ..mount(target, "bind", DEVICE_FILE)
        });
        nodes.chain(files).collect()
    }

    /// All mounts: those of every container, and `inputs`.
    pub(super) fn with(&self, limits: &PlannedLimits, mut inputs: Vec<PlannedMount>) -> Vec<PlannedMount> {
        let layers = self.recorded.first().and_then(|root| root.layers.clone()).unwrap_or_default();
        let mut mounts = vec![
            PlannedMount { layers: Some(layers), ..mount("/", "image", &["ro", "nosuid", "nodev"]) },
            mount("/in", "tmpfs", INPUT),
            PlannedMount {
                bytes: Some(limits.output_bytes),
                files: Some(limits.output_files),
                ..mount("/out", "tmpfs", SCRATCH)
            },
            PlannedMount { bytes: Some(limits.tmp_bytes), ..mount("/tmp", "tmpfs", SCRATCH) },
            PlannedMount {
                devices: Some(["full", "null", "random", "urandom", "zero"].map(str::to_owned).to_vec()),
                ..mount("/dev", "tmpfs", &["ro", "nosuid", "noexec"])
            },
            mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
        ];
        // Inputs are planned in the order in which they were opened, which nothing depends on.
        inputs.sort_by_key(|mount| self.places.get(mount.target.as_str()));
        mounts.append(&mut inputs);
        mounts
    }
}

/// A file that is written for the run.
pub(super) fn written(target: &str, bytes: u64) -> PlannedMount {
    PlannedMount { options: None, bytes: Some(bytes), ..mount(target, "bytes", &[]) }
}

fn mount(target: &str, kind: &str, options: &[&str]) -> PlannedMount {
    PlannedMount {
        target: target.to_owned(),
        kind: kind.to_owned(),
        options: Some(options.iter().map(|option| (*option).to_owned()).collect()),
        layers: None,
        bytes: None,
        files: None,
        devices: None,
        source: None,
    }
}

pub(super) fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex)
}
