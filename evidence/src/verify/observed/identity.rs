//! Who the workload was. Started by a user it is that user, alone in the map as 0; started by root it is an id of nobody's, 65532 inside.

use super::{Found, Side, is, other};
use serde_json::{Value, json};

/// The workload's id inside, where the map has it.
const INSIDE: u64 = 65_532;

/// A map of one or two single ids: (inside, host) of init, and of the workload.
struct Map {
    by_root: bool,
    workload: (u64, u64),
}

impl Map {
    /// Reads `uid` or `gid` of the row "id_maps". `0` on the host is nobody's but, as a group, that of the user who started it.
    fn of(side: &Side<'_>, name: &str) -> Option<Map> {
        let line = |line: &Value| -> Option<(u64, u64)> {
            let mut numbers = line.as_str()?.split(' ').map(str::parse::<u64>);
            match (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()) {
                (Ok(inside), Ok(host), Ok(1), None) => Some((inside, host)),
                _ => None,
            }
        };
        let lines = side.seen("id_maps")[name].as_array()?;
        match (lines.len(), lines.first().and_then(line)?, lines.get(1).and_then(line)) {
            (1, own @ (0, host), None) if host != 0 || name == "gid" => {
                Some(Map { by_root: false, workload: own })
            }
            (2, (0, first), Some(workload @ (INSIDE, host))) if first != 0 && host != 0 && host != first => {
                Some(Map { by_root: true, workload })
            }
            _ => None,
        }
    }
}

pub(super) fn maps(side: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    for name in ["uid", "gid"] {
        if Map::of(side, name).is_none() {
            return other(
                &format!("value.{name}"),
                &value[name],
                "one id or two, none of them root of the host",
            );
        }
        if let Some(planned) = side.planned {
            let planned = &planned["identity"][format!("{name}_map")];
            is(value, name, planned).map_err(|fault| format!("value.{fault}"))?;
        }
    }
    is(value, "setgroups", &json!("deny")).map_err(|fault| format!("value.{fault}"))
}

/// Ids on the host are those that the maps give the workload.
pub(super) fn on_host(side: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    let mut by_root = false;
    for name in ["uid", "gid"] {
        let Some(map) = Map::of(side, name) else { continue };
        let found = &value[name];
        if *found != json!(vec![map.workload.1; 4]) {
            return other(&format!("value.{name}"), found, format_args!("{} four times", map.workload.1));
        }
        by_root |= map.by_root;
    }
    let groups = &value["groups"];
    let numbers = groups.as_array().is_some_and(|groups| groups.iter().all(Value::is_u64));
    match numbers && (!by_root || *groups == json!([])) {
        true => Ok(()),
        false => other("value.groups", groups, "no group where root started it, else those of the user"),
    }
}

pub(super) fn inside(side: &Side<'_>, row: &Value) -> Found {
    for name in ["uid", "gid"] {
        let Some(map) = Map::of(side, name) else { continue };
        let found = &row["value"][name];
        if *found != json!(vec![map.workload.0; 4]) {
            return other(&format!("value.{name}"), found, format_args!("{} four times", map.workload.0));
        }
    }
    Ok(())
}
