//! What the manifest says about where and how was measured.

use super::text::{self, DASH};
use super::{Fact, Warning, at, first, flag, number, or_dash};
use serde::Serialize;
use serde_json::Value;

/// Rows of a table; the rest is counted.
const ROWS: usize = 64;
/// Members of one observation.
const MEMBERS: usize = 24;
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
                at(context, "plan.sides.baseline"),
                at(context, "plan.sides.subject"),
                |_| true,
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

/// What a control is for, by words of its name.
fn purpose(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    [
        ("namespace", "own view of processes, mounts, network, users"),
        ("network", "no way out: loopback only, no route"),
        ("interface", "no way out: loopback only, no route"),
        ("identit", "not root on the host"),
        ("capabilit", "no privilege in any set"),
        ("no_new_priv", "privileges cannot be gained"),
        ("seccomp", "only the listed system calls"),
        ("system_call", "only the listed system calls"),
        ("syscall", "only the listed system calls"),
        ("root", "the image, read-only"),
        ("input", "read-only, hashed as they were opened"),
        ("output", "the one place that could be written to"),
        ("scratch", "bounded, gone afterwards"),
        ("proc", "own processes only"),
        ("dev", "null, zero, full, random, urandom only"),
        ("descriptor", "standard input, output and error only"),
        ("environment", "listed variables only"),
        ("limit", "read back after they were set"),
        ("life", "nothing outlives the run"),
        ("clean", "nothing was left behind"),
    ]
    .into_iter()
    .find(|(word, _)| name.contains(word))
    .map_or("", |(_, what)| what)
}

fn rows(baseline: &Value, subject: &Value, wanted: impl Fn(&str) -> bool, observed: bool) -> Rows {
    let names = |side: &Value| -> Vec<String> {
        side.as_object().map(|o| o.keys().filter(|k| wanted(k)).cloned().collect()).unwrap_or_default()
    };
    let mut all = names(baseline);
    let known: std::collections::HashSet<String> = all.iter().cloned().collect();
    all.extend(names(subject).into_iter().filter(|name| !known.contains(name)));
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
    let Some(members) = value.as_object() else {
        let member = Member { name: String::new(), value: text::compact(name, value) };
        return Cell { observer: String::new(), members: vec![member], more: 0 };
    };
    let observer = members.get("observer").and_then(Value::as_str);
    let shown = members.iter().filter(|(key, _)| observer.is_none() || *key != "observer");
    Cell {
        observer: observer.unwrap_or_default().to_owned(),
        more: members.len().saturating_sub(usize::from(observer.is_some())).saturating_sub(MEMBERS),
        members: shown
            .take(MEMBERS)
            .map(|(key, value)| Member { name: text::label(key), value: text::compact(key, value) })
            .collect(),
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
