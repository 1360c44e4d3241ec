//! The ids of the workload. Started by a user, the workload has that user's ids, mapped alone as 0. Started by root, it has otherwise unused
//! ids on the host, mapped as 65532.

use super::{Found, Side, is, unexpected};
use crate::format::untrusted::Node;
use serde_json::{Value, json};

/// The workload's id inside, where the map has it.
const INSIDE: u64 = 65_532;

/// A map of one or two single ids: (inside, host) of init, and of the workload.
struct IdMap {
    by_root: bool,
    /// The host id of init.
    first: u64,
    workload: (u64, u64),
}

impl IdMap {
    /// Reads `uid` or `gid` of the control "id_maps". Id 0 of the host is allowed only as the group of the user who started the run.
    fn of(side: &Side<'_>, name: &str) -> Option<IdMap> {
        let line = |line: &Value| -> Option<(u64, u64)> {
            let mut numbers = line.as_str()?.split(' ').map(str::parse::<u64>);
            match (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()) {
                (Ok(inside), Ok(host), Ok(1), None) => Some((inside, host)),
                _ => None,
            }
        };
        let lines = side.observed("id_maps").value().get(name)?.as_array()?;
        match (lines.len(), lines.first().and_then(line)?, lines.get(1).and_then(line)) {
            (1, single @ (0, host), None) if host != 0 || name == "gid" => {
                Some(IdMap { by_root: false, first: host, workload: single })
            }
            (2, (0, first), Some(workload @ (INSIDE, host))) if first != 0 && host != 0 && host != first => {
                Some(IdMap { by_root: true, first, workload })
            }
            _ => None,
        }
    }

    fn host_ids(&self) -> [u64; 2] {
        [self.first, self.workload.1]
    }
}

pub(super) fn maps(side: &Side<'_>, value: Node<'_>) -> Found {
    for (name, planned) in [("uid", "identity.uid_map"), ("gid", "identity.gid_map")] {
        let Some(map) = IdMap::of(side, name) else {
            return unexpected(value.get(name), "one or two ids, none of them root of the host");
        };
        let Some(plan) = side.planned else { continue };
        // The plan of a run by root has the range of its ids, because they are chosen when the run starts.
        let range = plan.at("identity.host_ids");
        match (range.index(0).u64(), range.index(1).u64()) {
            (Some(first), Some(last)) if plan.at(planned).value().is_null() => {
                let planned = first..=last;
                if !map.by_root || !map.host_ids().iter().all(|id| planned.contains(id)) {
                    return unexpected(value.get(name), format_args!("two ids from {first} to {last}"));
                }
            }
            _ => is(value.get(name), plan.at(planned).value())?,
        }
    }
    is(value.get("setgroups"), &json!("deny"))
}

/// The ids on the host must be those that the maps give the workload.
pub(super) fn on_host(side: &Side<'_>, value: Node<'_>) -> Found {
    let mut by_root = false;
    for name in ["uid", "gid"] {
        let Some(map) = IdMap::of(side, name) else { continue };
        let host = map.workload.1;
        if value.get(name) != json!(vec![host; 4]) {
            return unexpected(value.get(name), format_args!("{host} four times"));
        }
        by_root |= map.by_root;
    }
    let groups = value.get("groups");
    let numbers = groups.array().is_some_and(|groups| groups.iter().all(Value::is_u64));
    match numbers && (!by_root || groups == json!([])) {
        true => Ok(()),
        false => unexpected(groups, "no group if root started the run, otherwise those of the user"),
    }
}

pub(super) fn inside(side: &Side<'_>, value: Node<'_>) -> Found {
    for name in ["uid", "gid"] {
        let Some(map) = IdMap::of(side, name) else { continue };
        let inside = map.workload.0;
        if value.get(name) != json!(vec![inside; 4]) {
            return unexpected(value.get(name), format_args!("{inside} four times"));
        }
    }
    Ok(())
}
