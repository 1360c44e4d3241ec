//! Mounts, inputs and `/proc` as the workload had them.

use super::{Found, Side, is, strings, unexpected};
use crate::evaluation::JOURNAL;
use crate::format::untrusted::Node;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
/// Files of `/proc` that must be covered if the kernel has them.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
/// Files of `/proc` that must not be writable.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const INPUT: &[&str] = &["ro", "nosuid", "nodev", "noexec"];
const SCRATCH: &[&str] = &["rw", "nosuid", "nodev", "noexec"];
const DEVICE: &[&str] = &["ro", "nosuid", "noexec"];
const DEVICE_FILE: &[&str] = &["ro", "nosuid", "nodev"];
/// Mounts of every container: target, file system type, options.
const MOUNTS: [(&str, &str, &[&str]); 6] = [
    ("/", "", &["ro", "nosuid", "nodev"]),
    ("/dev", "tmpfs", &["ro", "nosuid", "noexec"]),
    ("/in", "tmpfs", INPUT),
    ("/out", "tmpfs", SCRATCH),
    ("/proc", "proc", &["nosuid", "nodev", "noexec"]),
    ("/tmp", "tmpfs", SCRATCH),
];

fn text<'a>(node: Node<'a>, member: &'a str) -> &'a str {
    node.get(member).str().unwrap_or_default()
}

/// Mount points of mounts, or paths of inputs.
pub(super) fn targets<'a>(list: Node<'a>) -> impl Iterator<Item = &'a str> {
    list.elements().map(|entry| text(entry, "target"))
}

/// The planned entries of `/dev` that are devices of the host: path in the container, major and minor number.
fn planned_nodes<'a>(side: &Side<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let nodes = side.devices.into_iter().flat_map(|devices| devices.get("nodes").elements());
    nodes.map(|node| (text(node, "path"), text(node, "numbers")))
}

/// The planned files of devices, as the container sees them.
fn planned_files<'a>(side: &Side<'a>) -> impl Iterator<Item = &'a str> {
    let files = side.devices.into_iter().flat_map(|devices| devices.get("files").elements());
    files.filter_map(|file| file.str())
}

/// The entries of `/dev`: those of every container, and those that are planned.
pub(super) fn devices(side: &Side<'_>, value: Node<'_>) -> Found {
    let mut expected =
        json!({"full": "1:7", "null": "1:3", "random": "1:8", "urandom": "1:9", "zero": "1:5"});
    for (path, numbers) in planned_nodes(side) {
        let name = path.strip_prefix("/dev/").unwrap_or_default();
        expected[name] = json!(numbers);
        if let Some((directory, _)) = name.split_once('/') {
            expected[directory] = json!("Directory");
        }
    }
    is(value, &expected)
}

/// The options that mounts of devices, and of their files, must have.
fn options_of_devices<'a>(side: &Side<'a>) -> BTreeMap<&'a str, &'static [&'static str]> {
    let nodes = planned_nodes(side).map(|(path, _)| (path, DEVICE));
    planned_files(side).map(|path| (path, DEVICE_FILE)).chain(nodes).collect()
}

/// The options that a mount must have; `None` for a mount that was not planned.
fn required_options(
    mount: Node<'_>,
    of_devices: &BTreeMap<&str, &'static [&'static str]>,
) -> Option<&'static [&'static str]> {
    let (target, kind) = (text(mount, "target"), text(mount, "kind"));
    if kind.is_empty() || text(mount, "options").is_empty() {
        return None;
    }
    if let Some((_, type_, options)) = MOUNTS.iter().find(|(place, ..)| *place == target) {
        return (type_.is_empty() || *type_ == kind).then_some(*options);
    }
    if READ_ONLY.contains(&target) {
        return (kind == "proc").then_some(INPUT);
    }
    match target.split_once('/').map(|(_, rest)| rest.split_once('/')) {
        Some(Some(("in", _))) => Some(INPUT),
        Some(Some(("dev", name))) if DEVICES.contains(&name) => Some(DEVICE),
        // An empty directory, or the null device in place of a file.
        Some(Some(("proc", _))) if MASKED.contains(&target) && kind == "tmpfs" => Some(&["ro"]),
        Some(Some(("proc", _))) if MASKED.contains(&target) && kind == "devtmpfs" => Some(&[]),
        _ => of_devices.get(target).copied(),
    }
}

pub(super) fn mounts(side: &Side<'_>, value: Node<'_>) -> Found {
    let mut mounted = BTreeSet::new();
    let of_devices = options_of_devices(side);
    for mount in value.elements() {
        let target = text(mount, "target");
        let Some(required) = required_options(mount, &of_devices) else {
            return unexpected(mount, "no such mount: it was not planned");
        };
        let missing = |option: &&&str| !text(mount, "options").split(',').any(|found| found == **option);
        if let Some(option) = required.iter().find(missing) {
            return unexpected(mount, format_args!("{option} at {target}"));
        }
        if text(mount, "propagation") != "private" {
            return unexpected(mount, format_args!("private at {target}"));
        }
        if !mounted.insert(target) {
            return unexpected(mount, format_args!("one mount at {target}"));
        }
    }
    let absent = strings(side.observed("proc").get("absent")).unwrap_or_default();
    let proc = MASKED.iter().chain(&READ_ONLY).copied().filter(|path| !absent.contains(path));
    let devices = DEVICES.map(|name| format!("/dev/{name}"));
    let hashed = hashed(side);
    let always =
        MOUNTS.iter().map(|(target, ..)| *target).chain(proc).chain(devices.iter().map(String::as_str));
    let mut needed =
        always.chain(hashed.iter().map(|(target, _)| target.as_str())).chain(of_devices.keys().copied());
    match needed.find(|target| !mounted.contains(target)) {
        Some(target) => Err(format!("{} lacks a mount at {target}", value.path())),
        None => Ok(()),
    }
}

/// The files that were hashed for this side, as the container sees them, and their sizes.
fn hashed<'a>(side: &Side<'a>) -> Vec<(String, Node<'a>)> {
    let files = |input: &'a str, files: Node<'a>| {
        let files = files.get("files").elements();
        files.map(move |file| (format!("/in/{input}/{}", text(file, "name")), file.get("bytes")))
    };
    if let Some(inputs) = side.inputs {
        let names = inputs.object().into_iter().flat_map(|inputs| inputs.keys());
        return names.flat_map(|name| files(name, inputs.get(name))).collect();
    }
    ["checkpoint", "dataset"].into_iter().flat_map(|name| files(name, side.side.get(name))).collect()
}

/// The files below `/in`: each hashed file, mounted from the file that was hashed, and no unplanned file.
pub(super) fn inputs(side: &Side<'_>, value: Node<'_>) -> Found {
    if value.array().is_none() {
        return unexpected(value, "a list");
    }
    let hashed: BTreeMap<String, Node<'_>> = hashed(side).into_iter().collect();
    let inputs: BTreeMap<&str, Node<'_>> =
        value.elements().map(|input| (text(input, "target"), input)).collect();
    for (target, bytes) in &hashed {
        let Some(input) = inputs.get(target.as_str()) else {
            return Err(format!("{} lacks {target}", value.path()));
        };
        if input.get("bytes") != *bytes {
            return unexpected(*input, format_args!("{bytes} bytes at {target}"));
        }
    }
    let mounted: BTreeSet<&str> = targets(side.observed("mounts")).collect();
    let mut listed = BTreeSet::new();
    for input in value.elements() {
        let target = text(input, "target");
        let is_hashed = hashed.contains_key(target);
        let file = input.get("file");
        let good = target.starts_with("/in/")
            && input.get("bytes").u64().is_some()
            && is_device_and_inode(file) == is_hashed
            && file.exists() == is_hashed
            && is_hashed == mounted.contains(target)
            && listed.insert(target);
        if !good {
            return unexpected(input, "a hashed file that is mounted once, or a file written for the run");
        }
    }
    if let Some(target) = mounted.iter().find(|t| t.starts_with("/in/") && !listed.contains(*t)) {
        return Err(format!("{} lacks {target}, which is mounted", value.path()));
    }
    let Some(planned) = side.planned else { return Ok(()) };
    // Whether a run resumes another one is not known when it is planned.
    let journal = side.side.get("resumed").exists().then_some(JOURNAL);
    let planned = targets(planned.get("mounts")).filter(|t| t.starts_with("/in/"));
    let planned: BTreeSet<&str> = planned.chain(journal).collect();
    match listed == planned {
        true => Ok(()),
        false => Err(format!("{} lists {listed:?}, expected {planned:?} as planned", value.path())),
    }
}

/// `major:minor inode`.
fn is_device_and_inode(node: Node<'_>) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    let parts = node.str().and_then(|text| text.split_once(' ')).and_then(|(device, inode)| {
        let (major, minor) = device.split_once(':')?;
        Some(number(major) && number(minor) && number(inode))
    });
    parts == Some(true)
}

/// The only processes are init and the workload; `absent` lists files that this kernel does not have.
pub(super) fn proc(_: &Side<'_>, value: Node<'_>) -> Found {
    is(value.get("processes"), &json!([1, 2]))?;
    let absent = value.get("absent");
    let known = |path: &&str| MASKED.contains(path) || READ_ONLY.contains(path);
    match strings(absent).is_some_and(|absent| absent.iter().all(known)) {
        true => Ok(()),
        false => unexpected(absent, "only paths that are covered where they exist"),
    }
}
