//! What the manifest of a report of this program must contain besides the digest of the report: the checkpoints that were measured,
//! the outputs of each container, and observations from the kernel that show the boundary was enforced.
//!
//! The manifest is not signed, so this check adds no trust. It rejects a manifest that contradicts itself or its report.

use super::observed;
use crate::format::untrusted::Node;
use crate::format::untrusted::brief;
use crate::numerics::digest::{canonical_json, sha256_hex};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The sides of a comparison: their paths in the manifest, and in the report.
const SIDES: [SidePaths; 2] = [
    SidePaths {
        name: "baseline",
        manifest: "context.sides.baseline",
        plan: "context.plan.content.sides.baseline",
        report: "provenance.baseline",
    },
    SidePaths {
        name: "subject",
        manifest: "context.sides.subject",
        plan: "context.plan.content.sides.subject",
        report: "provenance.edited",
    },
];

struct SidePaths {
    name: &'static str,
    manifest: &'static str,
    plan: &'static str,
    report: &'static str,
}

/// One side, as the manifest and the report describe it.
struct Side<'a> {
    name: &'static str,
    /// `context.sides.<name>` of the manifest.
    recorded: Node<'a>,
    /// `context.plan.content.sides.<name>` of the manifest.
    planned: Node<'a>,
    /// `provenance.baseline` or `provenance.edited` of the report.
    reported: Node<'a>,
}

/// What is missing or wrong in the manifest's context of a container run.
pub(super) fn faults(report: Node<'_>, manifest: Node<'_>) -> Vec<String> {
    let mut check = Check { manifest, faults: Vec::new() };
    check.allowances();
    check.plan(report);
    for paths in &SIDES {
        check.side(&Side {
            name: paths.name,
            recorded: manifest.at(paths.manifest),
            planned: manifest.at(paths.plan),
            reported: report.at(paths.report),
        });
    }
    check.faults
}

struct Check<'a> {
    manifest: Node<'a>,
    faults: Vec<String>,
}

impl Check<'_> {
    /// A value that must exist and equal the value at another place of the manifest.
    fn agree(&mut self, found: Node<'_>, expected: Node<'_>) {
        self.agree_with(found, expected, "");
    }

    /// A value that must exist and equal one of the report.
    fn agree_with_report(&mut self, found: Node<'_>, expected: Node<'_>) {
        self.agree_with(found, expected, " of the report");
    }

    fn agree_with(&mut self, found: Node<'_>, expected: Node<'_>, document: &str) {
        if found != expected || found.is_null() {
            self.faults.push(format!(
                "{} is {}, but {}{document} is {}",
                found.path(),
                brief(found.value()),
                expected.path(),
                brief(expected.value())
            ));
        }
    }

    /// A value that must exist and equal `expected`, which follows from other values.
    fn derived(&mut self, found: Node<'_>, expected: &Value, why: &str) {
        if found != *expected || found.is_null() {
            let (path, found) = (found.path(), brief(found.value()));
            self.faults.push(format!("{path} is {found}, expected {}: {why}", brief(expected)));
        }
    }

    /// `allowances`, `granted_by`, `loosened` and the flags of `runtime` must agree.
    fn allowances(&mut self) {
        let context = self.manifest.get("context");
        let allowances = context.get("allowances");
        let loosened: Option<BTreeSet<&str>> =
            context.get("loosened").array().and_then(|names| names.iter().map(Value::as_str).collect());
        let granted: Option<BTreeSet<&str>> =
            allowances.get("granted_by").object().map(|map| map.keys().map(String::as_str).collect());
        let (Some(loosened), Some(granted)) = (loosened, granted) else {
            let why = "context.loosened or context.allowances.granted_by is missing: \
                       it is unknown which controls were disabled";
            return self.faults.push(why.to_owned());
        };
        if loosened != granted {
            self.faults.push(format!(
                "context.loosened names {loosened:?}, but context.allowances.granted_by names {granted:?}"
            ));
        }
        for (flag, name) in [("network", "allow_network"), ("host_execution", "allow_host_execution")] {
            let expected = json!(loosened.contains(name));
            self.derived(allowances.get(flag), &expected, "it follows from context.loosened");
        }
        let custom = !context.get("custom_seccomp_profile").is_null();
        if custom != loosened.contains("custom_seccomp_profile") {
            self.faults.push(format!(
                "context.custom_seccomp_profile is {}, which contradicts context.loosened",
                if custom { "present" } else { "missing" }
            ));
        }
        self.agree(allowances.get("network"), self.manifest.at("runtime.allow_network"));
    }

    /// The plan must have the recorded digest and belong to this report.
    fn plan(&mut self, report: Node<'_>) {
        let plan = self.manifest.at("context.plan");
        let content = plan.get("content");
        if content.object().is_none() {
            return self
                .faults
                .push("context.plan.content is missing: it is unknown what was planned".to_owned());
        }
        let digest = json!(format!("sha256:{}", sha256_hex(canonical_json(content.value()).as_bytes())));
        self.derived(plan.get("digest"), &digest, "the digest of context.plan.content");
        self.agree_with_report(content.get("profile"), report.at("context.profile"));
        self.agree_with_report(content.get("tier"), report.at("auto.tier"));
        self.agree(content.at("image.manifest_digest"), self.manifest.at("runtime.image_digest"));
        if content.get("custom_seccomp_profile") != self.manifest.at("context.custom_seccomp_profile") {
            let why =
                "context.plan.content.custom_seccomp_profile differs from context.custom_seccomp_profile";
            self.faults.push(why.to_owned());
        }
        self.agree(content.get("allowances"), self.manifest.at("context.allowances"));
    }

    /// One side: its inputs, its outputs and its boundary.
    fn side(&mut self, side: &Side<'_>) {
        if side.recorded.object().is_none() {
            let (path, name) = (side.recorded.path(), side.name);
            return self.faults.push(format!("{path} is missing: it is unknown how the {name} was measured"));
        }
        let checkpoint = side.recorded.at("checkpoint.tree_sha256");
        self.agree_with_report(checkpoint, side.reported.get("checkpoint_sha256"));
        self.agree(checkpoint, side.planned.at("checkpoint.tree_sha256"));
        self.outputs(side);
        self.observations(side);
    }

    /// The run report that was compared must be the output of the container.
    fn outputs(&mut self, side: &Side<'_>) {
        let (path, stated) = (side.recorded.path(), side.reported.get("report_sha256"));
        let reused = is_reused(side);
        if reused && side.name == "subject" {
            self.faults.push(format!("{path}.reused is true: only a baseline can be reused"));
        }
        if reused {
            self.agree_with_report(side.recorded.get("report_sha256"), stated);
        }
        let outputs = side.recorded.get("outputs").elements();
        let mut reports = outputs.filter(|output| output.get("name").str() == Some("report.json"));
        match (reports.next(), reports.next()) {
            (Some(output), None) => self.agree_with_report(output.get("sha256"), stated),
            (None, _) if reused => {}
            (None, _) => {
                self.faults.push(format!("{path}.outputs contains no report.json: nothing was measured"));
            }
            (Some(_), Some(_)) => self.faults.push(format!("{path}.outputs contains report.json twice")),
        }
    }

    /// What was observed of the container before its first instruction.
    fn observations(&mut self, side: &Side<'_>) {
        self.agree(side.recorded.get("filter_digest"), side.planned.at("seccomp.digest"));
        // A reused baseline was measured under a plan of its own, possibly by another user.
        let planned = (!is_reused(side)).then_some(side.planned);
        self.faults.extend(observed::faults(&observed::Side { side: side.recorded, planned }));
    }
}

fn is_reused(side: &Side<'_>) -> bool {
    side.recorded.get("reused").bool() == Some(true)
}
