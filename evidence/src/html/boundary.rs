//! Where and how the measurement ran, from the manifest.

use super::text::{self, DASH};
use super::{Fact, Warning, at, first, flag, number, or_dash};
use crate::beside::{Beside, UNBOUND, UNBOUND_MEANING};
use crate::format::untrusted::Node;
use crate::host_execution;
use serde::Serialize;
use serde_json::Value;

/// Rows of a table that are shown; the others are counted.
const ROWS: usize = 64;
/// Members of one observation.
const MEMBERS: usize = 48;
/// Files and layers of one list.
const FILES: usize = 12;

#[derive(Serialize)]
pub(super) struct Boundary {
    /// Whether there is a readable manifest.
    known: bool,
    /// Whether the manifest declares a container.
    contained: bool,
    summary: Vec<Fact>,
    /// Observed controls.
    observed: Rows,
    /// Enforced limits.
    limits: Rows,
    /// Resources that the run used.
    usage: Rows,
    /// The plan.
    planned: Rows,
    digests: Vec<Group>,
}

/// A table with a column for each side.
#[derive(Serialize, Default)]
struct Rows {
    rows: Vec<Row>,
    more: usize,
}

#[derive(Serialize)]
struct Row {
    name: String,
    /// Purpose of the control, if known.
    what: &'static str,
    /// Whether both sides have the same value, which is then shown once.
    same: bool,
    baseline: Option<Cell>,
    subject: Option<Cell>,
}

#[derive(Serialize)]
struct Cell {
    observer: String,
    members: Vec<Member>,
    more: usize,
}

#[derive(Serialize)]
struct Member {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct Group {
    title: String,
    facts: Vec<Fact>,
    more: usize,
}

impl Boundary {
    pub(super) fn new(manifest: Option<&Value>) -> Boundary {
        let nothing = Value::Null;
        let manifest = manifest.unwrap_or(&nothing);
        let known = manifest.is_object();
        let context = at(manifest, "context");
        let sides = at(context, "sides");
        // The program of an image measures both sides in one container.
        let delegated = at(context, "delegated.run");
        let of = |name: &str, member: &str| at(sides.get(name).unwrap_or(delegated), member).clone();
        let (baseline, subject) = (of("baseline", "observations"), of("subject", "observations"));
        let limit = |name: &str| name.to_ascii_lowercase().contains("limit");
        let mut usage = [of("baseline", "usage"), of("subject", "usage")];
        for (side, usage) in ["baseline", "subject"].into_iter().zip(&mut usage) {
            let status = of(side, "status");
            if let (Some(usage), false) = (usage.as_object_mut(), status.is_null()) {
                usage.insert("ended".into(), status);
            }
        }
        let mut observed = rows(&baseline, &subject, |name| !limit(name), true);
        if devices(context).next().is_some() {
            let of_devices = text::label("devices");
            let row = observed.rows.iter_mut().find(|row| row.name == of_devices);
            row.into_iter().for_each(|row| {
                row.what = "null, zero, full, random, urandom, and the planned ones of the host"
            });
        }
        Boundary {
            known,
            contained: contained(manifest),
            summary: if known { summary(manifest) } else { Vec::new() },
            observed,
            limits: rows(&baseline, &subject, limit, true),
            usage: rows(&usage[0], &usage[1], |_| true, false),
            planned: rows(
                planned(context, "plan.content.sides.baseline"),
                planned(context, "plan.content.sides.subject"),
                // Its files are shown among the digests.
                |name| name != "checkpoint",
                false,
            ),
            digests: if known { digests(manifest) } else { Vec::new() },
        }
    }
}

/// The plan of a side, or that of the container in which the program of an image measured both.
fn planned<'a>(context: &'a Value, side: &'a str) -> &'a Value {
    match at(context, side) {
        Value::Null => at(context, "delegated.plan.content.container"),
        planned => planned,
    }
}

/// Whether every member that states it agrees on a container.
fn contained(manifest: &Value) -> bool {
    at(manifest, "execution_mode") == "container"
        && flag(manifest, "runtime.container_execution") == Some(true)
        && flag(manifest, "context.allowances.host_execution") != Some(true)
}

fn summary(manifest: &Value) -> Vec<Fact> {
    let machine = at(manifest, "context.machine");
    let mut facts = vec![
        Fact::new("Execution", text::string(at(manifest, "execution_mode"))),
        Fact::code("Image", first(manifest, &["runtime.image_ref", "context.image.reference"])),
        Fact::new("Image verified", first(manifest, &["context.image.verification"])),
        Fact::code("Kernel", text::string(at(machine, "kernel"))),
        Fact::new("Architecture", text::string(at(machine, "arch"))),
        Fact::new("Processors", or_dash(number(machine, "cpus").map(text::whole))),
    ];
    let required = 2;
    let mut place = 0;
    facts.retain(|f| {
        place += 1;
        place <= required || f.value != DASH
    });
    facts
}

/// The controls in the order of the page, with their purposes.
const CONTROLS: [(&str, &str); 24] = [
    ("mode", ""),
    ("namespaces", "separate processes, mounts, network and users"),
    ("host_name", "not the host’s name"),
    ("interfaces", "loopback only"),
    ("routes", "no route out of the container"),
    ("sockets", "no abstract socket of the host is reachable"),
    ("identity", "not root on the host"),
    ("ids_inside", "ids in the workload’s user namespace"),
    ("id_maps", "only ids of this run are mapped"),
    ("capabilities", "no capability in any set"),
    ("secure_bits", "user id 0 inside gives no capability"),
    ("no_new_privs", "privileges cannot be gained"),
    ("seccomp", "only the listed system calls are allowed"),
    ("mounts", "image and inputs are read-only; writable file systems are bounded and temporary"),
    ("inputs", "the files that were hashed by the launcher"),
    ("devices", "null, zero, full, random, urandom only"),
    ("proc", "own processes only"),
    ("descriptors", "standard input, output and error only"),
    ("environment", "listed variables only"),
    ("process", "its own session"),
    ("init", "when it ends, every process of the container ends"),
    ("parent_death_signal", "no process outlives the run"),
    ("cgroup", "enforces the limits"),
    ("limits", "read back after they were set"),
];

/// The position of a control on the page; unknown controls come last.
fn place(name: &str) -> usize {
    CONTROLS.iter().position(|(known, _)| *known == name).unwrap_or(CONTROLS.len())
}

fn purpose(name: &str) -> &'static str {
    CONTROLS.get(place(name)).map_or("", |(_, what)| what)
}

fn rows(baseline: &Value, subject: &Value, wanted: impl Fn(&str) -> bool, observed: bool) -> Rows {
    let names = |side: &Value| -> Vec<String> {
        side.as_object().map(|o| o.keys().filter(|k| wanted(k)).cloned().collect()).unwrap_or_default()
    };
    let mut all = names(baseline);
    let known: std::collections::HashSet<String> = all.iter().cloned().collect();
    all.extend(names(subject).into_iter().filter(|name| !known.contains(name)));
    if observed {
        all.sort_by_key(|name| place(name));
    }
    let more = all.len().saturating_sub(ROWS);
    let rows = all
        .iter()
        .take(ROWS)
        .map(|name| {
            let (left, right) = (baseline.get(name), subject.get(name));
            let same = left == right;
            Row {
                name: text::label(name),
                what: if observed { purpose(name) } else { "" },
                same,
                baseline: left.map(|value| cell(name, value)),
                subject: if same { None } else { right.map(|value| cell(name, value)) },
            }
        })
        .collect();
    Rows { rows, more }
}

fn cell(name: &str, value: &Value) -> Cell {
    let observer = value.get("observer").and_then(Value::as_str);
    // An observed value is in a member of its own.
    let value = value.get("value").filter(|_| observer.is_some()).unwrap_or(value);
    let member = |name: &str, value: String| Member { name: text::label(name), value };
    let mut members: Vec<Member> = match value {
        Value::Object(members) => {
            let others = members.iter().filter(|(key, _)| observer.is_none() || *key != "observer");
            others.map(|(key, value)| member(key, text::compact(key, value))).collect()
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            items.iter().map(|item| Member { name: item_name(item), value: item_text(item) }).collect()
        }
        _ => vec![member("", text::compact(name, value))],
    };
    let more = members.len().saturating_sub(MEMBERS);
    members.truncate(MEMBERS);
    Cell { observer: observer.unwrap_or_default().to_owned(), members, more }
}

/// Members that name an item of a list.
const NAMES: [&str; 3] = ["target", "name", "fd"];

fn item_name(item: &Value) -> String {
    let name = NAMES.iter().find_map(|name| item.get(name));
    name.map_or(String::new(), |name| text::compact("", name))
}

/// The rest of an item: a limit as a sentence, anything else member by member.
fn item_text(item: &Value) -> String {
    let node = Node::root("", item);
    if let (Some(unit), Some(by)) = (node.get("unit").str(), node.get("by").str()) {
        let amount = |member: &str| match number(item, member) {
            Some(n) if unit == "bytes" => text::bytes(n),
            Some(n) => format!("{} {unit}", text::whole(n)),
            None => "unknown".to_owned(),
        };
        let reason = node.get("reason").str().map_or(String::new(), |why| format!(": {why}"));
        return format!("{} of {}, by {by}{reason}", amount("effective"), amount("asked"));
    }
    match item {
        Value::Object(members) => {
            let rest = members.iter().filter(|(key, _)| !NAMES.contains(&key.as_str()));
            text::compact("", &Value::Object(rest.map(|(key, value)| (key.clone(), value.clone())).collect()))
        }
        other => text::compact("", other),
    }
}

// ---------------------------------------------------------------------------------------------------- digests

fn digests(manifest: &Value) -> Vec<Group> {
    let context = at(manifest, "context");
    let image = at(context, "image");
    let mut run = vec![
        Fact::code("Report", hex(at(manifest, "report.sha256"))),
        Fact::code("Settings", hex(at(manifest, "config.sha256"))),
        Fact::code("Plan", hex(at(context, "plan.digest"))),
        Fact::code("Plan", hex(at(context, "delegated.plan.digest"))),
        Fact::code("Launcher", hex(at(context, "launcher.sha256"))),
        Fact::code(
            "Image manifest",
            first(manifest, &["context.image.manifest_digest", "runtime.image_digest"]),
        ),
        Fact::code("Image config", text::string(at(image, "config_digest"))),
    ];
    let declared = text::string(at(manifest, "runtime.image_digest"));
    if declared != DASH && run.iter().all(|f| f.value != declared) {
        run.push(Fact::code("Image, as declared", declared));
    }
    run.retain(|f| f.value != DASH);
    let mut groups = vec![Group { title: "Run".into(), facts: run, more: 0 }];

    if let Some(layers) = at(image, "layers").as_array().filter(|l| !l.is_empty()) {
        let facts = layers.iter().take(FILES).enumerate().map(|(i, layer)| {
            let size = number(layer, "size").map_or(String::new(), |n| format!(", {}", text::bytes(n)));
            let digest = match layer.as_str() {
                Some(digest) => digest.to_owned(),
                None => text::string(at(layer, "digest")),
            };
            let unpacked = match at(layer, "diff_id").as_str() {
                Some(diff) if diff != digest => format!(" (uncompressed {diff})"),
                _ => String::new(),
            };
            Fact::code(&format!("Layer {}{size}", i + 1), format!("{digest}{unpacked}"))
        });
        groups.push(Group {
            title: "Image layers".into(),
            facts: facts.collect(),
            more: layers.len().saturating_sub(FILES),
        });
    }
    for (side, name) in [("baseline", "Baseline"), ("subject", "Subject")] {
        let Some(side) = at(context, "sides").get(side).filter(|s| s.is_object()) else { continue };
        let mut facts = vec![
            Fact::code("System-call filter", hex(at(side, "filter_digest"))),
            Fact::code("Checkpoint", hex(at(side, "checkpoint.tree_sha256"))),
        ];
        facts.retain(|f| f.value != DASH);
        let mut more = 0;
        for (member, words) in
            [("checkpoint.files", "Input"), ("dataset.files", "Dataset"), ("outputs", "Output")]
        {
            let Some(files) = at(side, member).as_array() else { continue };
            more += files.len().saturating_sub(FILES);
            facts.extend(files.iter().take(FILES).map(|file| file_fact(words, file)));
        }
        if !facts.is_empty() {
            groups.push(Group { title: name.into(), facts, more });
        }
    }
    groups.extend(delegated_digests(at(context, "delegated")));
    let specification = |device: &Value| {
        let (name, file) = (text::string(at(device, "name")), text::string(at(device, "specification")));
        Fact::code(&format!("{name}, specified in {file}"), hex(at(device, "sha256")))
    };
    groups.push(Group {
        title: "Devices".into(),
        facts: devices(context).map(specification).collect(),
        more: 0,
    });
    groups.retain(|g| !g.facts.is_empty());
    groups
}

/// The devices of the host that the program of an image had, at most as many as are shown.
fn devices(context: &Value) -> impl Iterator<Item = &Value> {
    at(context, "delegated.plan.content.devices.devices").as_array().into_iter().flatten().take(FILES)
}

/// The digests of the run of the program of an image: its inputs, and what it left.
fn delegated_digests(delegated: &Value) -> Vec<Group> {
    let inputs = at(delegated, "plan.content.inputs").as_object().into_iter().flatten();
    let mut listed: Vec<_> =
        inputs.map(|(name, files)| (text::label(name), "Input", at(files, "files"))).collect();
    listed.push(("Program of the image".to_owned(), "Output", at(delegated, "run.outputs")));
    let group = |(title, words, files): (String, &str, &Value)| {
        let files = files.as_array().map_or(&[][..], |files| files);
        let facts = files.iter().take(FILES).map(|file| file_fact(words, file)).collect();
        Group { title, facts, more: files.len().saturating_sub(FILES) }
    };
    listed.into_iter().map(group).collect()
}

/// A file with its digest.
fn file_fact(words: &str, file: &Value) -> Fact {
    let size = number(file, "bytes").map_or(String::new(), |n| format!(", {}", text::bytes(n)));
    let name = first(file, &["name", "path"]);
    Fact::code(&format!("{words} {name}{size}"), hex(at(file, "sha256")))
}

/// A SHA-256 digest behind its algorithm; any other value unchanged.
fn hex(value: &Value) -> String {
    match value.as_str() {
        Some(s) if s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit()) => format!("sha256:{s}"),
        _ => text::string(value),
    }
}

// ---------------------------------------------------------------------------------------------------- warnings

/// Host execution, disabled controls, and missing facts about the boundary.
pub(super) fn warnings(report: &Value, beside: Beside<'_>) -> Vec<Warning> {
    let danger = |title: &str, text: &str| Warning {
        class: "danger",
        title: title.into(),
        text: text.into(),
        items: Vec::new(),
    };
    let host = host_execution::recorded(report, beside.manifest());
    let on_host = host.is_some();
    let mut found: Vec<Warning> = host
        .map(|sentence| {
            danger(
                &sentence,
                "It is not known what this run read and what could change its numbers. The default verification rejects it.",
            )
        })
        .into_iter()
        .collect();
    let manifest = match beside {
        Beside::OfThisReport(manifest) => manifest,
        Beside::OfAnotherReport => {
            found.insert(0, danger(UNBOUND, UNBOUND_MEANING));
            return found;
        }
        Beside::Missing => {
            found.push(danger(
                "No runtime manifest",
                "It is not known where and how this was measured. The default verification rejects such a report.",
            ));
            return found;
        }
    };
    if !manifest.is_object() {
        found.push(danger(
            "The runtime manifest cannot be read",
            "It is not a JSON object. It is not known where and how this was measured. The default verification rejects such a report.",
        ));
        return found;
    }
    if !on_host && !contained(manifest) {
        found.push(danger(
            "The manifest does not say that a container was used",
            "Its execution mode is missing or unknown. The default verification rejects it.",
        ));
    }
    if at(manifest, "verifier_contract_version") != "runtime-manifest-v1" {
        found.push(Warning {
            class: "caution",
            title: "Unknown manifest contract".into(),
            text: "The manifest is not of contract runtime-manifest-v1; members may mean something else."
                .into(),
            items: Vec::new(),
        });
    }
    let either = |context: &str, runtime: &str| {
        flag(at(manifest, "context.allowances"), context) == Some(true)
            || (!runtime.is_empty() && flag(at(manifest, "runtime"), runtime) == Some(true))
    };
    let mut loosened: Vec<String> = [
        ("network", "allow_network", "Network: the launcher was allowed to use it (--allow-network)."),
        ("remote_code", "allow_remote_code", "Remote code: code shipped with a model may have run."),
        ("third_party_plugins", "allow_third_party_plugins", "Third-party plug-ins may have run."),
        ("unverified_provenance", "", "Unverified provenance: the image was not verified."),
        ("host_execution", "", "Host execution."),
        (
            "custom_seccomp_profile",
            "",
            "System calls: the workload ran under a seccomp profile that the user supplied.",
        ),
    ]
    .into_iter()
    .filter(|(context, runtime, _)| either(context, runtime))
    .map(|(_, _, words)| words.to_owned())
    .collect();
    if either("device", "") {
        let names: Vec<String> =
            devices(at(manifest, "context")).map(|device| text::string(at(device, "name"))).collect();
        loosened.push(format!("Devices of the host: the program could use {}.", super::listed(&names)));
    }
    // Allowances that this version does not know are listed by name.
    let known = [
        "network",
        "remote_code",
        "third_party_plugins",
        "unverified_provenance",
        "host_execution",
        "custom_seccomp_profile",
        "device",
    ];
    // `granted_by` names the flag of each allowance.
    let known = |name: &str| name == "granted_by" || known.contains(&name);
    if let Some(all) = at(manifest, "context.allowances").as_object() {
        let granted = |v: &Value| !matches!(v, Value::Null | Value::Bool(false));
        let others: Vec<&String> =
            all.iter().filter(|(k, v)| !known(k) && granted(v)).map(|(k, _)| k).collect();
        loosened.extend(others.iter().take(FILES).map(|k| format!("{}.", text::label(k))));
        if others.len() > FILES {
            loosened.push(format!("… and {} more", text::whole((others.len() - FILES) as f64)));
        }
    }
    if !loosened.is_empty() {
        found.push(Warning {
            class: "caution",
            title: "Controls were disabled".into(),
            text: "Flags of this run disabled part of the default boundary:".into(),
            items: loosened,
        });
    }
    found
}
