//! The devices of the host in the plan of a run of another program: the container has those that were asked for, and nothing else of them.

use super::planned::is_hex;
use crate::delegated::{ALL, CUDA, NVIDIA, PASSED_ON, fixed, is_device};
use crate::format::delegated::DelegatedPlan;
use crate::format::devices::{DeviceNode, Devices, parse_name};
use std::collections::BTreeSet;

const PATH: &str = "context.delegated.plan.content.devices";
/// Devices, nodes, files and variables of a record.
const MAX: usize = 1024;
/// The devices of every container.
const HARMLESS: [(&str, &str); 5] =
    [("full", "1:7"), ("null", "1:3"), ("random", "1:8"), ("urandom", "1:9"), ("zero", "1:5")];
/// The major numbers of the memory of a machine, and of its terminals. No container of this program has these devices.
const MEMORY: u32 = 1;
const TERMINALS: [u32; 10] = [4, 5, 136, 137, 138, 139, 140, 141, 142, 143];
/// Directories that belong to the container.
const RESERVED: [&str; 5] = ["/dev", "/in", "/out", "/proc", "/sys"];

/// The faults of the record of devices.
pub(super) fn faults(plan: &DelegatedPlan) -> Vec<String> {
    let asked = &plan.request.device;
    let Some(devices) = &plan.devices else {
        return match is_device(asked) {
            true => vec![format!("{PATH} is missing, but --device {asked} was asked for")],
            false => Vec::new(),
        };
    };
    let mut faults = Vec::new();
    let mut require = |holds: bool, fault: &str| {
        if !holds {
            faults.push(format!("{PATH}{fault}"));
        }
    };
    require(are_asked_for(asked, devices), ".devices are not those that were asked for");
    let good = |device: &crate::format::devices::Device| {
        is_hex(&device.sha256) && !device.specification.is_empty() && parse_name(&device.name).is_some()
    };
    let names: BTreeSet<&str> = devices.devices.iter().map(|device| device.name.as_str()).collect();
    require(
        devices.devices.iter().all(good) && names.len() == devices.devices.len(),
        ".devices has a wrong name or digest, or one device twice",
    );
    require(devices.nodes.iter().all(is_of_accelerator), ".nodes has an entry that no container has");
    require(
        devices.files.iter().all(|path| is_plain(path) && !RESERVED.iter().any(|top| is_below(path, top))),
        ".files has a path that belongs to the container",
    );
    let lists = [&devices.files, &devices.environment, &devices.libraries, &devices.left_out];
    let size = lists.into_iter().map(Vec::len).sum::<usize>() + devices.nodes.len() + devices.devices.len();
    require(size <= MAX, " has too many members");
    require(
        devices.driver.is_none() || names.iter().any(|name| name.starts_with(NVIDIA)),
        ".driver is that of NVIDIA, of which there is no device",
    );
    let fixed = fixed(&plan.image);
    let later = |name: &str| PASSED_ON.contains(&name) || fixed.iter().any(|(fixed, _)| *fixed == name);
    require(
        devices.are_in(&plan.container.environment, later),
        ".environment and libraries are not in the environment of the container",
    );
    faults
}

/// Whether these are the devices of `--device`. Of the GPUs of NVIDIA, a job can have been given some.
fn are_asked_for(asked: &str, devices: &Devices) -> bool {
    let wanted = match asked {
        CUDA => Some((NVIDIA, ALL)),
        name => parse_name(name),
    };
    let Some((kind, name)) = wanted else { return false };
    let found: Option<Vec<_>> = devices.devices.iter().map(|device| parse_name(&device.name)).collect();
    match found.as_deref() {
        None | Some([]) => false,
        Some(found) if (kind, name) == (NVIDIA, ALL) => found.iter().all(|(found, _)| *found == kind),
        Some(found) => *found == [(kind, name)],
    }
}

fn is_of_accelerator(node: &DeviceNode) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some((high, _)) = node.numbers.split_once(':').and_then(|(high, low)| number(high).zip(number(low)))
    else {
        return false;
    };
    let known = HARMLESS.iter().any(|(_, numbers)| *numbers == node.numbers);
    let own = HARMLESS.iter().any(|(name, _)| is_below(&node.path, &format!("/dev/{name}")));
    (high != MEMORY || known)
        && !TERMINALS.contains(&high)
        && !own
        && [&node.path, &node.source].into_iter().all(|path| is_plain(path) && path.starts_with("/dev/"))
}

/// An absolute path without `.`, `..` and empty parts.
fn is_plain(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
