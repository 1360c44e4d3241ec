//! What the manifest says about where and how was measured.

use super::text::{self, DASH};
use super::{Fact, Warning, at, first, flag, number, or_dash};
use serde::Serialize;
use serde_json::Value;

/// Rows of a table; the rest is counted.
const ROWS: usize = 64;
/// Members of one observation.
const MEMBERS: usize = 48;
/// Files and layers of one list.
const FILES: usize = 12;

#[derive(Serialize)]
pub(super) struct Boundary {
    /// There is a manifest.
    known: bool,
    /// Container execution is declared.
    contained: bool,
    summary: Vec<Fact>,
    /// What was observed, control by control.
    observed: Rows,
    /// Limits that were in force.
    limits: Rows,
    /// What the run took.
    usage: Rows,
    /// What had been planned.
    planned: Rows,
    digests: Vec<Group>,
}

/// Two sides of the same rows.
#[derive(Serialize, Default)]
struct Rows {
    rows: Vec<Row>,
    more: usize,
}

#[derive(Serialize)]
struct Row {
    name: String,
    /// What the control is for, where its name tells.
    what: &'static str,
    /// Both sides say the same, which is written once.
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
        let of = |name: &str, member: &str| at(sides.get(name).unwrap_or(&nothing), member).clone();
        let (baseline, subject) = (of("baseline", "observations"), of("subject", "observations"));
        let limit = |name: &str| name.to_ascii_lowercase().contains("limit");
        let mut usage = [of("baseline", "usage"), of("subject", "usage")];
        for (side, usage) in ["baseline", "subject"].into_iter().zip(&mut usage) {
            let status = of(side, "status");
            if let (Some(usage), false) = (usage.as_object_mut(), status.is_null()) {
                usage.insert("ended".into(), status);
            }
        }
        Boundary {
            known,
            contained: contained(manifest),
            summary: if known { summary(manifest) } else { Vec::new() },
            observed: rows(&baseline, &subject, |name| !limit(name), true),
            limits: rows(&baseline, &subject, limit, true),
            usage: rows(&usage[0], &usage[1], |_| true, false),
            planned: rows(
                at(context, "plan.content.sides.baseline"),
                at(context, "plan.content.sides.subject"),
                // Its files stand among the digests.
                |name| name != "checkpoint",
                false,
            ),
            digests: if known { digests(manifest) } else { Vec::new() },
        }
    }
}

/// Both places of the manifest that tell it agree on a container.
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

/// The rows of the boundary in the order of the page, and what each is for.
const CONTROLS: [(&str, &str); 24] = [
    ("mode", ""),
    ("namespaces", "own view of processes, mounts, network, users"),
    ("host_name", "not the host’s"),
    ("interfaces", "no way out: loopback only"),
    ("routes", "no way out: none"),
    ("sockets", "abstract sockets of the host in reach: none"),
    ("identity", "not root on the host"),
    ("ids_inside", "the same, as the workload sees it"),
    ("id_maps", "no ids of others"),
    ("capabilities", "no privilege in any set"),
    ("secure_bits", "being root inside gives none"),
    ("no_new_privs", "privileges cannot be gained"),
    ("seccomp", "only the listed system calls"),
    ("mounts", "image and inputs read-only; what can be written is bounded and gone afterwards"),
    ("inputs", "the files that were hashed"),
    ("devices", "null, zero, full, random, urandom only"),
    ("proc", "own processes only"),
    ("descriptors", "standard input, output and error only"),
    ("environment", "listed variables only"),
    ("process", "a session of its own"),
    ("init", "its end is the end of every process of the container"),
    ("parent_death_signal", "nothing outlives the run"),
    ("cgroup", "where limits are held"),
    ("limits", "read back after they were set"),
];

/// The place of a control on the page; what is not known comes last.
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
    // What somebody saw stands in a member of its own.
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
    if let (Some(unit), Some(by)) = (item["unit"].as_str(), item["by"].as_str()) {
        let amount = |member: &str| match number(item, member) {
            Some(n) if unit == "bytes" => text::bytes(n),
            Some(n) => format!("{} {unit}", text::whole(n)),
            None => "unknown".to_owned(),
        };
        let reason = item["reason"].as_str().map_or(String::new(), |why| format!(": {why}"));
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
                Some(diff) if diff != digest => format!(" (unpacked {diff})"),
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
            Fact::code("Checkpoint tree", hex(at(side, "checkpoint.tree_sha256"))),
        ];
        facts.retain(|f| f.value != DASH);
        let mut more = 0;
        for (member, words) in
            [("checkpoint.files", "Input"), ("dataset.files", "Dataset"), ("outputs", "Output")]
        {
            let Some(files) = at(side, member).as_array() else { continue };
            more += files.len().saturating_sub(FILES);
            facts.extend(files.iter().take(FILES).map(|file| {
                let size = number(file, "bytes").map_or(String::new(), |n| format!(", {}", text::bytes(n)));
                let name = first(file, &["name", "path"]);
                Fact::code(&format!("{words} {name}{size}"), hex(at(file, "sha256")))
            }));
        }
        if !facts.is_empty() {
            groups.push(Group { title: name.into(), facts, more });
        }
    }
    groups.retain(|g| !g.facts.is_empty());
    groups
}

/// A bare sha256 with its algorithm before it; anything else as it is.
fn hex(value: &Value) -> String {
    match value.as_str() {
        Some(s) if s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit()) => format!("sha256:{s}"),
        _ => text::string(value),
    }
}

// ---------------------------------------------------------------------------------------------------- warnings

/// What was given up of the boundary, and what is not known about it.
pub(super) fn warnings(manifest: Option<&Value>) -> Vec<Warning> {
    let danger = |title: &str, text: &str| Warning {
        class: "danger",
        title: title.into(),
        text: text.into(),
        items: Vec::new(),
    };
    let Some(manifest) = manifest else {
        return vec![danger(
            "No runtime manifest",
            "Nothing is known about where and how this was measured. The default verification refuses such a report.",
        )];
    };
    if !manifest.is_object() {
        return vec![danger(
            "The runtime manifest cannot be read",
            "It is not a JSON object, so nothing is known about where and how this was measured. The default verification refuses such a report.",
        )];
    }
    let mut found = Vec::new();
    if at(manifest, "execution_mode") == "host-bypass"
        || flag(manifest, "runtime.container_execution") == Some(false)
        || flag(manifest, "context.allowances.host_execution") == Some(true)
    {
        found.push(danger(
            "Measured on the host, outside the boundary",
            "No container isolated this evaluation: what it read, and what could change its numbers, is not known. The default verification refuses it.",
        ));
    } else if !contained(manifest) {
        found.push(danger(
            "The manifest does not say that a container was used",
            "Its execution mode is missing or unknown. The default verification refuses it.",
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
        ("network", "allow_network", "Network: its use was allowed."),
        ("remote_code", "allow_remote_code", "Remote code: code shipped with a model may have run."),
        ("third_party_plugins", "allow_third_party_plugins", "Third-party plug-ins may have run."),
        ("unverified_provenance", "", "Unverified provenance: the image may be anything."),
        ("host_execution", "", "Host execution."),
        (
            "custom_seccomp_profile",
            "",
            "System calls: the workload ran under a profile that the user brought.",
        ),
    ]
    .into_iter()
    .filter(|(context, runtime, _)| either(context, runtime))
    .map(|(_, _, words)| words.to_owned())
    .collect();
    // An allowance this version does not know is named all the same.
    let known = [
        "network",
        "remote_code",
        "third_party_plugins",
        "unverified_provenance",
        "host_execution",
        "custom_seccomp_profile",
    ];
    // `granted_by` says by what, for allowances named beside it.
    let known = |name: &str| name == "granted_by" || known.contains(&name);
    if let Some(all) = at(manifest, "context.allowances").as_object() {
        let given = |v: &Value| !matches!(v, Value::Null | Value::Bool(false));
        let others: Vec<&String> =
            all.iter().filter(|(k, v)| !known(k) && given(v)).map(|(k, _)| k).collect();
        loosened.extend(others.iter().take(FILES).map(|k| format!("{}.", text::label(k))));
        if others.len() > FILES {
            loosened.push(format!("… and {} more", text::whole((others.len() - FILES) as f64)));
        }
    }
    if !loosened.is_empty() {
        found.push(Warning {
            class: "caution",
            title: "Controls were loosened".into(),
            text: "Flags of this run gave up part of the default boundary:".into(),
            items: loosened,
        });
    }
    found
}
