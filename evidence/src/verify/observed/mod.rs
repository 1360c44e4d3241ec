//! What must have been observed of a container before its first instruction: every control of the boundary, by the right process, and with
//! values that this verifier judges by itself. A missing control counts as an open boundary.

mod files;
mod identity;
mod limits;

use crate::format::untrusted::Node;
use crate::format::untrusted::brief;
use serde_json::{Value, json};

/// The process outside the container, and the process inside that finished its set-up.
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
/// Variables that a measurement may get. Another program also has those of its image, which the plan lists.
const ENVIRONMENT: [&str; 1] = ["INVARLOCK_CONTAINER_EXECUTION"];

/// One control, and what follows if its value is not as expected.
struct Control {
    name: &'static str,
    observer: &'static str,
    why: &'static str,
    /// Checks the observed `value` of the control.
    check: fn(&Side<'_>, Node<'_>) -> Found,
}

/// The fault of an observed value: `path is X, expected Y`.
type Found = Result<(), String>;

const fn control(
    name: &'static str,
    observer: &'static str,
    why: &'static str,
    check: fn(&Side<'_>, Node<'_>) -> Found,
) -> Control {
    Control { name, observer, why, check }
}

const CONTROLS: [Control; 27] = [
    control("namespaces", SUPERVISOR, "the workload shared it with the launcher", namespaces),
    control("interfaces", SUPERVISOR, "the workload could reach a network", |_, v| is(v, &json!(["lo"]))),
    control("routes", SUPERVISOR, "the workload had a route to a network", |_, v| is(v, &json!([]))),
    control("sockets", SUPERVISOR, "the workload could reach a socket of the host", |_, v| is(v, &json!([]))),
    control("seccomp", SUPERVISOR, "the system-call filter was not active", seccomp),
    control("no_new_privs", SUPERVISOR, "the workload could gain privileges", |_, v| is(v, &json!(true))),
    control("capabilities", SUPERVISOR, "the workload had privileges", capabilities),
    control("secure_bits", INIT, "user id 0 could give the workload privileges", |_, v| {
        is(v, &json!(SECURE_BITS))
    }),
    // A second wall, which an older kernel has in part or not at all.
    control("landlock", INIT, "it is not known whether the workload was restricted twice", |_, v| {
        match v.str() {
            Some("full" | "partial" | "none") => Ok(()),
            _ => unexpected(v, "full, partial or none"),
        }
    }),
    control("identity", SUPERVISOR, "the workload had other ids on the host", identity::on_host),
    control("ids_inside", INIT, "the workload had other ids inside", identity::inside),
    control("id_maps", SUPERVISOR, "the workload's ids belonged to other users", identity::maps),
    control("host_name", INIT, "the workload knew the host's name", |_, v| {
        is(v, &json!({"host": "invarlock", "domain": "(none)"}))
    }),
    control("mounts", SUPERVISOR, "the workload could read or change more than planned", files::mounts),
    control("inputs", SUPERVISOR, "the workload read other files than those that were hashed", files::inputs),
    control("devices", SUPERVISOR, "the workload had other devices", files::devices),
    control("proc", SUPERVISOR, "the workload could read processes or files of the host", files::proc),
    control("descriptors", SUPERVISOR, "the workload had an open file of the launcher", |_, v| {
        let three =
            [(0, "/dev/null"), (1, "pipe"), (2, "pipe")].map(|(fd, what)| json!({"fd": fd, "what": what}));
        is(v, &json!(three))
    }),
    control("environment", INIT, "the workload had an unlisted variable", environment),
    control("process", SUPERVISOR, "the workload did not start as a separate process", process),
    control(
        "init",
        SUPERVISOR,
        "the container was not supervised, or its init was open to the workload",
        |_, v| {
            let expected =
                json!({"pid": 1, "child_of_supervisor": true, "parent_of_workload": true, "dumpable": false});
            is(v, &expected)
        },
    ),
    control("parent_death_signal", INIT, "the container could outlive its supervisor", |_, v| {
        is(v, &json!(KILL))
    }),
    control("limits", SUPERVISOR, "the workload was not limited as planned", limits::limits),
    control("rlimits", SUPERVISOR, "the workload's resource limits depended on the caller", limits::rlimits),
    control(
        "user_limits",
        INIT,
        "the workload could use up resources of other programs",
        limits::user_limits,
    ),
    control("core_dumps", SUPERVISOR, "a crash of the workload could start a program of the host", |_, v| {
        limits::core_dumps(v)
    }),
    control("cgroup", SUPERVISOR, "the limits did not apply to the workload", limits::cgroup),
];

/// The number of controls that are judged.
pub(super) const JUDGED: usize = CONTROLS.len();

/// One side of the manifest.
pub(super) struct Side<'a> {
    /// `context.sides.<name>`.
    pub(super) side: Node<'a>,
    /// `context.plan.content.sides.<name>`; `None` if the side was measured under another plan.
    pub(super) planned: Option<Node<'a>>,
    /// `context.delegated.plan.content.inputs`, of a run of another program, whose environment is that of its image, too.
    pub(super) inputs: Option<Node<'a>>,
    /// `context.delegated.plan.content.devices`, of such a run.
    pub(super) devices: Option<Node<'a>>,
}

impl<'a> Side<'a> {
    /// The observed value of a control.
    fn observed(&self, control: &'a str) -> Node<'a> {
        self.side.get("observations").get(control).get("value")
    }
}

/// What is missing or wrong in the observations of a side.
pub(super) fn faults(side: &Side<'_>) -> Vec<String> {
    let observations = side.side.get("observations");
    let path = observations.path();
    if observations.object().is_none() {
        return vec![format!("{path} is missing: the boundary of this container was not observed")];
    }
    let mut faults = Vec::new();
    if let Err(fault) = is(observations.get("mode"), &json!("container")) {
        faults.push(format!("{fault}: the run claims a container"));
    }
    for Control { name, observer, why, check } in &CONTROLS {
        let found = observations.get(name);
        if found.object().is_none() {
            faults.push(format!("{path}.{name} is missing: this control was not observed"));
            continue;
        }
        let result =
            is(found.get("observer"), &json!(observer)).and_then(|()| check(side, found.get("value")));
        if let Err(fault) = result {
            faults.push(format!("{fault}: {why}"));
        }
    }
    faults
}

/// A value that must be `expected`.
fn is(node: Node<'_>, expected: &Value) -> Found {
    if node == *expected { Ok(()) } else { unexpected(node, brief(expected)) }
}

/// The fault of a node: what was found, and what was expected.
fn unexpected(node: Node<'_>, expected: impl std::fmt::Display) -> Found {
    Err(format!("{} is {}, expected {expected}", node.path(), brief(node.value())))
}

fn namespaces(_: &Side<'_>, value: Node<'_>) -> Found {
    for name in NAMESPACES {
        let namespace = value.get(name);
        let ids = namespace.get("container").u64().zip(namespace.get("launcher").u64());
        let apart = ids.is_some_and(|(container, launcher)| container != launcher);
        if namespace.get("new").bool() != Some(true) || !apart {
            return unexpected(namespace, "a new namespace");
        }
    }
    Ok(())
}

fn seccomp(side: &Side<'_>, value: Node<'_>) -> Found {
    is(value.get("mode"), &json!(SECCOMP_FILTER))?;
    is(value.get("digest"), side.side.get("filter_digest").value())?;
    // Linux before 5.9 does not count filters.
    let (filters, inherited) = (value.get("filters"), value.get("inherited"));
    let added =
        filters.u64().zip(inherited.u64()).is_some_and(|(all, before)| before.checked_add(1) == Some(all));
    let uncounted = [filters, inherited].iter().all(|count| count.exists() && count.is_null());
    if added || uncounted { Ok(()) } else { unexpected(filters, "one more than value.inherited") }
}

fn capabilities(_: &Side<'_>, value: Node<'_>) -> Found {
    for set in CAPABILITY_SETS {
        let bits = value.get(set);
        let none = bits.str().is_some_and(|bits| bits.len() == 16 && bits.bytes().all(|bit| bit == b'0'));
        if !none {
            return unexpected(bits, "all zero");
        }
    }
    Ok(())
}

fn environment(side: &Side<'_>, names: Node<'_>) -> Found {
    let listed = strings(names).is_some_and(|names| names.iter().all(|name| ENVIRONMENT.contains(name)));
    if !listed && side.inputs.is_none() {
        return unexpected(names, format_args!("only names of {ENVIRONMENT:?}"));
    }
    let Some(planned) = side.planned else { return Ok(()) };
    let planned = strings(planned.get("environment")).unwrap_or_default();
    let planned: Vec<_> = planned.iter().map(|line| line.split('=').next()).collect();
    is(names, &json!(planned))
}

fn process(side: &Side<'_>, value: Node<'_>) -> Found {
    let cwd = side.planned.map_or("/", |planned| planned.get("cwd").str().unwrap_or_default());
    let expected = [
        ("cwd", json!(cwd)),
        ("umask", json!("0022")),
        ("session_leader", json!(true)),
        ("group_leader", json!(true)),
        ("terminal", json!(false)),
    ];
    for (member, expected) in &expected {
        is(value.get(member), expected)?;
    }
    let (mount, score) = (value.get("cwd_mount"), value.get("oom_score_adj"));
    let mounted = files::targets(side.observed("mounts")).any(|target| Some(target) == mount.str());
    let above = mount.str().is_some_and(|mount| cwd.starts_with(mount));
    if !mounted || !above {
        return unexpected(mount, "the mount that contains cwd");
    }
    match score.value().as_i64() {
        Some(-1000..=1000) => Ok(()),
        _ => unexpected(score, "-1000 to 1000"),
    }
}

/// The elements of an array that contains only strings.
fn strings(node: Node<'_>) -> Option<Vec<&str>> {
    node.array()?.iter().map(Value::as_str).collect()
}
