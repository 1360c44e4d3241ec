//! Limits: the requested value, the mechanism that enforced it, and the value that was read back.

use super::{Found, Side, strings, unexpected};
use crate::format::untrusted::Node;

/// A limit: its name and unit, the mechanisms that may enforce it, and its name in the plan.
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

/// The first mechanism of a limit is the normal one. Any other is a substitute where no cgroup is available, and must give a reason.
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
    /// The largest value that the plan allows, in the unit of the observation.
    fn most(&self, plan: Node<'_>) -> Option<u64> {
        let planned = plan.get(self.planned);
        match self.name {
            "core" => Some(1),
            "cpu" => planned.f64().map(|cpus| (cpus * 1000.0).round() as u64),
            "wall" => {
                let (secs, nanos) = (planned.get("secs").u64()?, planned.get("nanos").u64()?);
                secs.checked_mul(1000)?.checked_add(nanos / 1_000_000)
            }
            _ => planned.u64(),
        }
    }

    /// The resource limit that enforces it, if one does.
    fn rlimit(&self) -> &'static str {
        match self.name {
            "memory" => "data",
            "pids" => "nproc",
            "files" => "nofile",
            name => name,
        }
    }

    fn check(&self, found: Node<'_>, side: &Side<'_>, plan: Option<Node<'_>>) -> Found {
        let by = found.get("by").str().unwrap_or_default();
        let Some(position) = self.by.iter().position(|mechanism| *mechanism == by) else {
            return unexpected(found, format_args!("enforced by one of {:?}", self.by));
        };
        let explained = found.get("reason").str().is_some_and(|reason| !reason.is_empty());
        if explained != (position > 0) {
            return unexpected(found, "a reason if a substitute replaces the cgroup, otherwise none");
        }
        let (Some(asked), Some(effective)) = (found.get("asked").u64(), found.get("effective").u64()) else {
            return unexpected(found, "a requested value and one that was read back");
        };
        let as_asked = match by {
            // It gives whole processors.
            "affinity" => effective <= asked.div_ceil(1000) * 1000,
            // The caller's hard limit may be lower.
            "rlimit" => {
                let set = side.observed("rlimits").get(self.rlimit()).get("hard").u64();
                effective <= asked && set == Some(effective)
            }
            _ => effective == asked,
        };
        if !as_asked || found.get("unit").str() != Some(self.unit) || (asked == 0 && self.name != "core") {
            return unexpected(found, format_args!("at most the requested value, in {}", self.unit));
        }
        let Some(plan) = plan else { return Ok(()) };
        if self.most(plan).is_none_or(|most| !is_rounded(asked, most)) {
            return unexpected(found, format_args!("the planned {}", plan.get(self.planned)));
        }
        let required = strings(plan.get("required")).is_some_and(|names| names.contains(&self.name));
        // A resource limit counts memory for each process, and a process can change its CPU affinity.
        match required && position > 0 && self.name != "pids" {
            true => unexpected(found, "enforced by a cgroup, since the user required it"),
            false => Ok(()),
        }
    }
}

/// Whether a value is the planned one, or that rounded down to a whole page of 4, 16 or 64 KiB.
fn is_rounded(asked: u64, planned: u64) -> bool {
    [1, 4 << 10, 16 << 10, 64 << 10].iter().any(|page| asked == planned / page * page)
}

pub(super) fn limits(side: &Side<'_>, value: Node<'_>) -> Found {
    let plan = side.planned.map(|planned| planned.get("limits"));
    let named = |entry: &Node<'_>, limit: &Limit| entry.get("name").str() == Some(limit.name);
    for limit in &LIMITS {
        let mut found = value.elements().filter(|entry| named(entry, limit));
        match (found.next(), found.next()) {
            (Some(entry), None) => limit.check(entry, side, plan)?,
            (None, _) => return Err(format!("{} lacks the {} limit", value.path(), limit.name)),
            (Some(_), Some(again)) => return unexpected(again, "one entry for each limit"),
        }
    }
    match value.elements().find(|entry| !LIMITS.iter().any(|limit| named(entry, limit))) {
        Some(unknown) => unexpected(unknown, "a known limit"),
        None => Ok(()),
    }
}

/// Prefix of the name of a run's own cgroup.
const OWN: &str = "invarlock-";

/// If a cgroup enforces a limit, the workload must have been in a cgroup of the run.
pub(super) fn cgroup(side: &Side<'_>, value: Node<'_>) -> Found {
    let Some(lines) = strings(value) else { return unexpected(value, "the lines of /proc/<pid>/cgroup") };
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
    let limits = side.observed("limits").elements();
    let by_cgroup = limits.filter(|entry| entry.get("by").str() == Some("cgroup"));
    for name in by_cgroup.filter_map(|entry| entry.get("name").str()) {
        if !inside(name) {
            return unexpected(value, format_args!("a cgroup of the run, which enforces its {name} limit"));
        }
    }
    Ok(())
}

/// The sixteen resource limits, with the largest value that each may have; none: any. That of `data` depends on the memory limit.
const RLIMITS: [(&str, Option<u64>); 16] = [
    ("as", None),
    ("core", Some(1)),
    ("cpu", None),
    ("data", None),
    ("fsize", None),
    ("locks", None),
    ("memlock", Some(8 << 20)),
    ("msgqueue", Some(0)),
    ("nice", Some(0)),
    ("nofile", Some(1 << 30)),
    ("nproc", None),
    ("rss", None),
    ("rtprio", Some(0)),
    ("rttime", None),
    ("sigpending", Some(1024)),
    ("stack", Some(8 << 20)),
];

/// With a memory cgroup, a process can map this many times the memory limit.
const MAPPED: u64 = 4;

/// All are observed, and in each the soft limit is the hard one.
pub(super) fn rlimits(side: &Side<'_>, value: Node<'_>) -> Found {
    let memory = side.observed("limits").elements().find(|entry| entry.get("name").str() == Some("memory"));
    let times = |entry: &Node<'_>| if entry.get("by").str() == Some("cgroup") { MAPPED } else { 1 };
    let data = memory.and_then(|entry| Some(entry.get("asked").u64()?.saturating_mul(times(&entry))));
    for (name, most) in RLIMITS {
        let most = if name == "data" { Some(data.unwrap_or_default()) } else { most };
        let limit = value.get(name);
        let (soft, hard) = (limit.get("soft"), limit.get("hard"));
        if !soft.exists() || !hard.exists() || soft.value() != hard.value() {
            return unexpected(limit, "the same soft and hard limit");
        }
        if most.is_some_and(|most| hard.u64().is_none_or(|found| found > most)) {
            return unexpected(hard, format_args!("at most {}", most.unwrap_or_default()));
        }
    }
    Ok(())
}

/// The largest values of `user.max_*`. The run's own namespaces exist already, and it may create no others.
const USER_LIMITS: [(&str, u64); 11] = [
    ("max_cgroup_namespaces", 0),
    ("max_fanotify_groups", 0),
    ("max_fanotify_marks", 0),
    ("max_inotify_instances", 4),
    ("max_inotify_watches", 1024),
    ("max_ipc_namespaces", 0),
    ("max_net_namespaces", 0),
    ("max_pid_namespaces", 0),
    ("max_time_namespaces", 0),
    ("max_user_namespaces", 0),
    ("max_uts_namespaces", 0),
];

pub(super) fn user_limits(_: &Side<'_>, value: Node<'_>) -> Found {
    for (name, most) in USER_LIMITS {
        let limit = value.get(name);
        if limit.u64().is_none_or(|found| found > most) {
            return unexpected(limit, format_args!("at most {most}"));
        }
    }
    Ok(())
}

pub(super) fn core_dumps(value: Node<'_>) -> Found {
    let handler = value.get("handler");
    let limit = (value.at("limit.soft").u64(), value.at("limit.hard").u64());
    let prevented = match handler.str() {
        Some("file") => limit.0.is_some_and(|bytes| bytes <= 1) && limit.0 == limit.1,
        Some("program") => limit == (Some(1), Some(1)),
        _ => false,
    };
    if !prevented {
        return unexpected(value, "a limit that keeps the handler from starting");
    }
    match value.get("filter").u64() {
        Some(0) => Ok(()),
        _ => unexpected(value.get("filter"), "0"),
    }
}
