//! What the workload saw of file systems.

use super::{Found, Side, is, other, strings};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
/// Files of `/proc` that must be covered where the kernel has them.
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
/// Those that must not be writable.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const INPUT: &[&str] = &["ro", "nosuid", "nodev", "noexec"];
const SCRATCH: &[&str] = &["rw", "nosuid", "nodev", "noexec"];
/// Mounts that every container has: where, of which type, with which options.
const MOUNTS: [(&str, &str, &[&str]); 6] = [
    ("/", "", &["ro", "nosuid", "nodev"]),
    ("/dev", "tmpfs", &["ro", "nosuid", "noexec"]),
    ("/in", "tmpfs", INPUT),
    ("/out", "tmpfs", SCRATCH),
    ("/proc", "proc", &["nosuid", "nodev", "noexec"]),
    ("/tmp", "tmpfs", SCRATCH),
];

fn text<'a>(row: &'a Value, member: &str) -> &'a str {
    row[member].as_str().unwrap_or_default()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Where something is mounted, or an input lies.
pub(super) fn targets(value: &Value) -> impl Iterator<Item = &str> {
    rows(value).map(|row| text(row, "target"))
}

/// Which options a mount must have; none where nobody asked for such a one.
fn wanted(row: &Value) -> Option<&'static [&'static str]> {
    let (target, kind) = (text(row, "target"), text(row, "kind"));
    if kind.is_empty() || text(row, "options").is_empty() {
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
        Some(Some(("dev", name))) if DEVICES.contains(&name) => Some(&["ro", "nosuid", "noexec"]),
        // An empty directory, or the null device in place of a file.
        Some(Some(("proc", _))) if MASKED.contains(&target) && kind == "tmpfs" => Some(&["ro"]),
        Some(Some(("proc", _))) if MASKED.contains(&target) && kind == "devtmpfs" => Some(&[]),
        _ => None,
    }
}

pub(super) fn mounts(side: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    let mut seen = BTreeSet::new();
    for mount in rows(value) {
        let target = text(mount, "target");
        let Some(options) = wanted(mount) else {
            return other("value", mount, "without this mount, which nobody asked for");
        };
        let has = |option: &&&str| !text(mount, "options").split(',').any(|found| found == **option);
        if let Some(option) = options.iter().find(has) {
            return other("value", mount, format_args!("{option} at {target}"));
        }
        if mount["propagation"] != json!("private") {
            return other("value", mount, format_args!("private at {target}"));
        }
        if !seen.insert(target) {
            return other("value", mount, format_args!("one mount at {target}"));
        }
    }
    let absent = strings(&side.seen("proc")["absent"]).unwrap_or_default();
    let own = MASKED.iter().chain(&READ_ONLY).copied().filter(|path| !absent.contains(path));
    let devices = DEVICES.map(|name| format!("/dev/{name}"));
    let hashed = hashed(side);
    let always =
        MOUNTS.iter().map(|(target, ..)| *target).chain(own).chain(devices.iter().map(String::as_str));
    let mut needed = always.chain(hashed.iter().map(|(target, _)| target.as_str()));
    match needed.find(|target| !seen.contains(target)) {
        Some(target) => Err(format!("value has nothing mounted at {target}, it must have")),
        None => Ok(()),
    }
}

/// Files that were hashed for this side, as the container sees them, and their sizes.
fn hashed<'a>(side: &Side<'a>) -> Vec<(String, &'a Value)> {
    let files = |input: &'a Value| rows(&input["files"]).map(|file| (text(file, "name"), &file["bytes"]));
    let (checkpoint, dataset) = (&side.side["checkpoint"], &side.side["dataset"]);
    let checkpoint = files(checkpoint).map(|(name, bytes)| (format!("/in/checkpoint/{name}"), bytes));
    let dataset = files(dataset).map(|(name, bytes)| (format!("/in/dataset/{name}"), bytes));
    checkpoint.chain(dataset).collect()
}

/// What lay below `/in`: every file that was hashed, from the file that was hashed; and nothing that nobody asked for.
pub(super) fn inputs(side: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    if !value.is_array() {
        return other("value", value, "a list");
    }
    let hashed = hashed(side);
    for (target, bytes) in &hashed {
        let Some(input) = rows(value).find(|input| text(input, "target") == target) else {
            return Err(format!("value has no {target}, it must have"));
        };
        if input["bytes"] != **bytes {
            return other("value", input, format_args!("{bytes} bytes at {target}"));
        }
    }
    let mounted: BTreeSet<&str> = targets(side.seen("mounts")).collect();
    let mut seen = BTreeSet::new();
    for input in rows(value) {
        let target = text(input, "target");
        let is_file = hashed.iter().any(|(name, _)| name == target);
        let file = input.get("file").is_some_and(is_device_and_inode);
        let good = target.starts_with("/in/")
            && input["bytes"].is_u64()
            && file == is_file
            && file == input.get("file").is_some()
            && is_file == mounted.contains(target)
            && seen.insert(target);
        if !good {
            return other("value", input, "a file that was hashed, mounted once, or written for the run");
        }
    }
    if let Some(target) = mounted.iter().find(|t| t.starts_with("/in/") && !seen.contains(*t)) {
        return Err(format!("value has no {target}, which is mounted"));
    }
    let Some(planned) = side.planned else { return Ok(()) };
    let planned: BTreeSet<&str> = targets(&planned["mounts"]).filter(|t| t.starts_with("/in/")).collect();
    match seen == planned {
        true => Ok(()),
        false => other("value", &json!(seen), format_args!("as planned, {planned:?}")),
    }
}

/// `major:minor inode`.
fn is_device_and_inode(value: &Value) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    let parts = value.as_str().and_then(|text| text.split_once(' ')).and_then(|(device, inode)| {
        let (major, minor) = device.split_once(':')?;
        Some(number(major) && number(minor) && number(inode))
    });
    parts == Some(true)
}

/// Init and the workload, and which files this kernel does not have.
pub(super) fn proc(_: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    is(value, "processes", &json!([1, 2])).map_err(|fault| format!("value.{fault}"))?;
    let absent = strings(&value["absent"]);
    let known = |path: &&str| MASKED.contains(path) || READ_ONLY.contains(path);
    match absent.is_some_and(|absent| absent.iter().all(known)) {
        true => Ok(()),
        false => other("value.absent", &value["absent"], "paths that would be covered"),
    }
}
