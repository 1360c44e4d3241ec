//! Limits: what was asked for, what held it, and what was read back.

use super::{Found, Side, other, strings};
use serde_json::{Value, json};

/// A limit: its name and unit, what may hold it, and its place in the plan.
struct Limit {
    name: &'static str,
    unit: &'static str,
    by: &'static [&'static str],
    planned: &'static str,
}

const fn limit(
    name: &'static str,
    unit: &'static str,
    by: &'static [&'static str],
    planned: &'static str,
) -> Limit {
    Limit { name, unit, by, planned }
}

/// Whatever comes after the first holder of a limit stands in where no cgroup can be had, and must say why.
const LIMITS: [Limit; 9] = [
    limit("memory", "bytes", &["cgroup", "rlimit"], "memory_bytes"),
    limit("pids", "processes", &["cgroup", "rlimit"], "pids"),
    limit("cpu", "millicpus", &["cgroup", "affinity"], "cpus"),
    limit("core", "bytes", &["rlimit"], ""),
    limit("files", "files", &["rlimit"], "open_files"),
    limit("wall", "milliseconds", &["watchdog"], "wall"),
    limit("output", "bytes", &["tmpfs"], "output_bytes"),
    limit("output_files", "files", &["tmpfs"], "output_files"),
    limit("tmp", "bytes", &["tmpfs"], "tmp_bytes"),
];

impl Limit {
    /// The most that the plan allows, in the unit of the observation.
    fn most(&self, plan: &Value) -> Option<u64> {
        let planned = &plan[self.planned];
        match self.name {
            "core" => Some(0),
            "cpu" => planned.as_f64().map(|cpus| (cpus * 1000.0).round() as u64),
            "wall" => {
                let (secs, nanos) = (planned["secs"].as_u64()?, planned["nanos"].as_u64()?);
                secs.checked_mul(1000)?.checked_add(nanos / 1_000_000)
            }
            _ => planned.as_u64(),
        }
    }

    fn check(&self, found: &Value, plan: Option<&Value>) -> Found {
        let bad = |must_be: String| other("value", found, must_be);
        let by = found["by"].as_str().unwrap_or_default();
        let Some(place) = self.by.iter().position(|holder| *holder == by) else {
            return bad(format!("held by one of {:?}", self.by));
        };
        let said = found["reason"].as_str().is_some_and(|reason| !reason.is_empty());
        if said != (place > 0) {
            return bad("with a reason where something stands in for a cgroup, and only there".into());
        }
        let (Some(asked), Some(effective)) = (found["asked"].as_u64(), found["effective"].as_u64()) else {
            return bad("asked for and read back".into());
        };
        // Whole processors.
        let room = if by == "affinity" { asked.div_ceil(1000) * 1000 } else { asked };
        if effective > room || found["unit"] != json!(self.unit) || (asked == 0) != (self.name == "core") {
            return bad(format!("at most what was asked for, in {}", self.unit));
        }
        let Some(plan) = plan else { return Ok(()) };
        if self.most(plan).is_none_or(|most| asked > most) {
            return bad(format!("at most the planned {}", plan[self.planned]));
        }
        let insisted = strings(&plan["required"]).is_some_and(|names| names.contains(&self.name));
        // A resource limit counts memory process by process, and a process may choose its processors anew.
        match insisted && place > 0 && self.name != "pids" {
            true => bad("held by a cgroup, since the user insisted on it".into()),
            false => Ok(()),
        }
    }
}

pub(super) fn limits(side: &Side<'_>, row: &Value) -> Found {
    let rows = row["value"].as_array().map(Vec::as_slice).unwrap_or_default();
    let plan = side.planned.map(|planned| &planned["limits"]);
    for limit in &LIMITS {
        let mut found = rows.iter().filter(|row| row["name"] == json!(limit.name));
        match (found.next(), found.next()) {
            (Some(row), None) => limit.check(row, plan)?,
            (None, _) => return Err(format!("value has no {} limit, it must have", limit.name)),
            (Some(_), Some(again)) => return other("value", again, "there once"),
        }
    }
    match rows.iter().find(|row| !LIMITS.iter().any(|limit| row["name"] == json!(limit.name))) {
        Some(unknown) => other("value", unknown, "one of the known limits"),
        None => Ok(()),
    }
}

/// Start of the name of a run's own cgroup.
const OWN: &str = "invarlock-";

/// Where a cgroup holds a limit, the workload was in one of the run's own.
pub(super) fn cgroup(side: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    let Some(lines) = strings(value) else { return other("value", value, "the lines of /proc/<pid>/cgroup") };
    let inside = |name: &str| {
        lines.iter().any(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
            let holds =
                controllers.split(',').any(|c| c == name) || (number == Some("0") && controllers.is_empty());
            let last = path.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            holds && last.strip_prefix(OWN).is_some_and(|id| !id.is_empty())
        })
    };
    let rows = side.seen("limits").as_array().map(Vec::as_slice).unwrap_or_default();
    let held = rows.iter().filter(|row| row["by"] == json!("cgroup"));
    for name in held.filter_map(|row| row["name"].as_str()) {
        if !inside(name) {
            return other(
                "value",
                value,
                format_args!("in a cgroup of the run, which holds its {name} limit"),
            );
        }
    }
    Ok(())
}
