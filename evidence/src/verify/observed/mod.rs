//! What must have been seen of a container before its first instruction: every row of the boundary, by whom, and with values that this
//! verifier judges by itself. A row that is missing is as bad as one that says that the boundary was open.

mod files;
mod identity;
mod limits;

use super::context::brief;
use serde_json::{Value, json};

/// Outside of the container, and the process that finished it from inside.
const SUPERVISOR: &str = "supervisor";
const INIT: &str = "init";

const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];
const CAPABILITY_SETS: [&str; 5] = ["ambient", "bounding", "effective", "inheritable", "permitted"];
/// NOROOT and NO_CAP_AMBIENT_RAISE, both locked, and KEEP_CAPS locked while off.
const SECURE_BITS: &str = "0xe3";
/// `SECCOMP_MODE_FILTER`.
const SECCOMP_FILTER: u64 = 2;
/// `SIGKILL`.
const KILL: i64 = 9;
/// Variables that a measuring may get.
const ENVIRONMENT: [&str; 1] = ["INVARLOCK_CONTAINER_EXECUTION"];

/// One row, and what it means where it is not as it must be.
struct Row {
    name: &'static str,
    observer: &'static str,
    why: &'static str,
    check: fn(&Side<'_>, &Value) -> Found,
}

/// What is wrong with a row's value: `place is this, it must be that`.
type Found = Result<(), String>;

const fn row(
    name: &'static str,
    observer: &'static str,
    why: &'static str,
    check: fn(&Side<'_>, &Value) -> Found,
) -> Row {
    Row { name, observer, why, check }
}

const ROWS: [Row; 23] = [
    row("namespaces", SUPERVISOR, "the workload shared it with the launcher", namespaces),
    row("interfaces", SUPERVISOR, "the workload could reach a network", |_, v| {
        is(v, "value", &json!(["lo"]))
    }),
    row("routes", SUPERVISOR, "the workload had a way to a network", |_, v| is(v, "value", &json!([]))),
    row("sockets", SUPERVISOR, "the workload could reach a socket of the host", |_, v| {
        is(v, "value", &json!([]))
    }),
    row("seccomp", SUPERVISOR, "the system-call filter was not on", seccomp),
    row("no_new_privs", SUPERVISOR, "the workload could gain privileges", |_, v| {
        is(v, "value", &json!(true))
    }),
    row("capabilities", SUPERVISOR, "the workload had privileges", capabilities),
    row("secure_bits", INIT, "being id 0 could give the workload privileges", |_, v| {
        is(v, "value", &json!(SECURE_BITS))
    }),
    row("identity", SUPERVISOR, "the workload was somebody else on the host", identity::on_host),
    row("ids_inside", INIT, "the workload was somebody else inside", identity::inside),
    row("id_maps", SUPERVISOR, "the workload's ids were those of others", identity::maps),
    row("host_name", INIT, "the workload knew the host's name", |_, v| {
        is(v, "value", &json!({"host": "invarlock", "domain": "(none)"}))
    }),
    row("mounts", SUPERVISOR, "the workload saw or could change more than it should", files::mounts),
    row("inputs", SUPERVISOR, "the workload read something else than what was hashed", files::inputs),
    row("devices", SUPERVISOR, "the workload had other devices", |_, v| {
        let five = json!({"full": "1:7", "null": "1:3", "random": "1:8", "urandom": "1:9", "zero": "1:5"});
        is(v, "value", &five)
    }),
    row("proc", SUPERVISOR, "the workload saw processes or files of the host", files::proc),
    row("descriptors", SUPERVISOR, "the workload had an open file of the launcher's", |_, v| {
        let three =
            [(0, "/dev/null"), (1, "pipe"), (2, "pipe")].map(|(fd, what)| json!({"fd": fd, "what": what}));
        is(v, "value", &json!(three))
    }),
    row("environment", INIT, "the workload had a variable that nobody listed", environment),
    row("process", SUPERVISOR, "the workload began as part of something else", process),
    row("init", SUPERVISOR, "the container was not held together, or open to its workload", |_, v| {
        let must_be =
            json!({"pid": 1, "child_of_supervisor": true, "parent_of_workload": true, "dumpable": false});
        is(v, "value", &must_be)
    }),
    row("parent_death_signal", INIT, "the container could outlive its supervisor", |_, v| {
        is(v, "value", &json!(KILL))
    }),
    row("limits", SUPERVISOR, "the workload was not limited as planned", limits::limits),
    row("cgroup", SUPERVISOR, "the limits held something else", limits::cgroup),
];

/// One side of the manifest.
pub(super) struct Side<'a> {
    /// `context.sides.<name>`.
    pub(super) side: &'a Value,
    /// `context.plan.content.sides.<name>`; none where it was measured under another plan.
    pub(super) planned: Option<&'a Value>,
}

impl Side<'_> {
    fn seen(&self, row: &str) -> &Value {
        &self.side["observations"][row]["value"]
    }
}

/// What is missing or wrong in the observations at `place`.
pub(super) fn faults(place: &str, side: &Side<'_>) -> Vec<String> {
    let seen = &side.side["observations"];
    let at = format!("{place}.observations");
    if !seen.is_object() {
        return vec![format!("{at} are missing: nobody saw the boundary of this container")];
    }
    let mut faults = Vec::new();
    if let Err(fault) = is(seen, "mode", &json!("container")) {
        faults.push(format!("{at}.{fault}: the run claims a container"));
    }
    for Row { name, observer, why, check } in &ROWS {
        let found = &seen[*name];
        let good = match found.is_object() {
            true => is(found, "observer", &json!(observer)).and_then(|()| check(side, found)),
            false => {
                faults.push(format!("{at}.{name} is missing: nobody saw this row of the boundary"));
                continue;
            }
        };
        if let Err(fault) = good {
            faults.push(format!("{at}.{name}.{fault}: {why}"));
        }
    }
    faults
}

/// That a member has the one value it may have.
fn is(parent: &Value, member: &str, must_be: &Value) -> Found {
    let found = &parent[member];
    if found == must_be { Ok(()) } else { other(member, found, brief(must_be)) }
}

/// A fault: what was found, and what it must be.
fn other(place: &str, found: &Value, must_be: impl std::fmt::Display) -> Found {
    Err(format!("{place} is {}, it must be {must_be}", brief(found)))
}

fn namespaces(_: &Side<'_>, row: &Value) -> Found {
    for name in NAMESPACES {
        let ids = &row["value"][name];
        let apart =
            ids["container"].is_u64() && ids["launcher"].is_u64() && ids["container"] != ids["launcher"];
        if ids["new"] != json!(true) || !apart {
            return other(&format!("value.{name}"), ids, "a new one");
        }
    }
    Ok(())
}

fn seccomp(side: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    is(value, "mode", &json!(SECCOMP_FILTER)).map_err(|fault| format!("value.{fault}"))?;
    is(value, "digest", &side.side["filter_digest"]).map_err(|fault| format!("value.{fault}"))?;
    // Before Linux 5.9 nobody counts them.
    let (filters, inherited) = (&value["filters"], &value["inherited"]);
    let added = filters.as_u64().zip(inherited.as_u64()).is_some_and(|(all, before)| all > before);
    let uncounted =
        value.get("filters").zip(value.get("inherited")).is_some_and(|(a, b)| a.is_null() && b.is_null());
    if added || uncounted { Ok(()) } else { other("value.filters", filters, "more than value.inherited") }
}

fn capabilities(_: &Side<'_>, row: &Value) -> Found {
    for set in CAPABILITY_SETS {
        let bits = &row["value"][set];
        let none = bits.as_str().is_some_and(|bits| bits.len() == 16 && bits.bytes().all(|bit| bit == b'0'));
        if !none {
            return other(&format!("value.{set}"), bits, "all zero");
        }
    }
    Ok(())
}

fn environment(side: &Side<'_>, row: &Value) -> Found {
    let names = &row["value"];
    let listed = strings(names).is_some_and(|names| names.iter().all(|name| ENVIRONMENT.contains(name)));
    if !listed {
        return other("value", names, format_args!("of {ENVIRONMENT:?}"));
    }
    let Some(planned) = side.planned else { return Ok(()) };
    let planned = strings(&planned["environment"]).unwrap_or_default();
    let planned: Vec<_> = planned.iter().map(|line| line.split('=').next()).collect();
    is(row, "value", &json!(planned))
}

fn process(side: &Side<'_>, row: &Value) -> Found {
    let value = &row["value"];
    let cwd = side.planned.map_or("/", |planned| planned["cwd"].as_str().unwrap_or_default());
    let wanted = [
        ("cwd", json!(cwd)),
        ("umask", json!("0022")),
        ("session_leader", json!(true)),
        ("group_leader", json!(true)),
        ("terminal", json!(false)),
    ];
    for (member, must_be) in &wanted {
        is(value, member, must_be).map_err(|fault| format!("value.{fault}"))?;
    }
    let (mount, score) = (&value["cwd_mount"], &value["oom_score_adj"]);
    let inside = files::targets(side.seen("mounts")).any(|target| Some(target) == mount.as_str());
    let below = mount.as_str().is_some_and(|mount| cwd.starts_with(mount));
    if !inside || !below {
        return other("value.cwd_mount", mount, "the mount that cwd is on");
    }
    match score.as_i64() {
        Some(-1000..=1000) => Ok(()),
        _ => other("value.oom_score_adj", score, "-1000 to 1000"),
    }
}

/// A list of strings and nothing else.
fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}
