//! What the manifest of one of our own reports must say besides the digest of the report: which checkpoints were measured,
//! what came out of each container, and that the kernel was seen to hold the boundary.
//!
//! Nothing of it is signed, so it raises no trust: it refuses a manifest that contradicts itself or its report.

use super::observed;
use crate::numerics::digest::{canonical_json, sha256_hex};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Sides, with the report's names of them.
const SIDES: [(&str, &str); 2] = [("baseline", "baseline"), ("subject", "edited")];

/// What is missing or wrong in the manifest's context of a container run.
pub(super) fn faults(report: &Value, manifest: &Value) -> Vec<String> {
    let mut check = Check { context: &manifest["context"], faults: Vec::new() };
    check.allowances(&manifest["runtime"]);
    check.plan(report, &manifest["runtime"]);
    for (side, named) in SIDES {
        check.side(side, &report["provenance"][named], &format!("provenance.{named}"));
    }
    check.faults
}

struct Check<'a> {
    context: &'a Value,
    faults: Vec<String>,
}

impl Check<'_> {
    /// A value that must be another.
    fn same(&mut self, place: &str, found: &Value, must_be: &Value, why: &str) {
        if found != must_be || found.is_null() {
            let found = brief(found);
            self.faults.push(format!("{place} is {found}, it must be {}: {why}", brief(must_be)));
        }
    }

    /// `allowances`, `granted_by`, `loosened` and the flags of `runtime` tell the same.
    fn allowances(&mut self, runtime: &Value) {
        let allowances = &self.context["allowances"];
        let names = |list: Option<&Vec<Value>>| -> Option<BTreeSet<String>> {
            list?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
        };
        let loosened = names(self.context["loosened"].as_array());
        let granted = allowances["granted_by"].as_object().map(|map| map.keys().cloned().collect());
        let (Some(loosened), Some(granted)) = (loosened, granted) else {
            let why =
                "context.loosened or context.allowances.granted_by is missing: what was loosened is unknown";
            return self.faults.push(why.to_owned());
        };
        if loosened != granted {
            self.faults.push(format!(
                "context.loosened names {loosened:?}, context.allowances.granted_by {granted:?}: they must be the same"
            ));
        }
        for (flag, name) in [("network", "allow_network"), ("host_execution", "allow_host_execution")] {
            let place = format!("context.allowances.{flag}");
            let must_be = json!(loosened.contains(name));
            self.same(&place, &allowances[flag], &must_be, "context.loosened says so");
        }
        let custom = !self.context["custom_seccomp_profile"].is_null();
        if custom != loosened.contains("custom_seccomp_profile") {
            self.faults.push(format!(
                "context.custom_seccomp_profile is {}, which context.loosened contradicts",
                if custom { "there" } else { "missing" }
            ));
        }
        self.same(
            "context.allowances.network",
            &allowances["network"],
            &runtime["allow_network"],
            "it is runtime.allow_network",
        );
    }

    /// The plan is the one whose digest is recorded, and it is the plan of this report.
    fn plan(&mut self, report: &Value, runtime: &Value) {
        let plan = &self.context["plan"];
        let content = &plan["content"];
        if !content.is_object() {
            return self
                .faults
                .push("context.plan.content is missing: what was asked for is unknown".to_owned());
        }
        let digest = json!(format!("sha256:{}", sha256_hex(canonical_json(content).as_bytes())));
        self.same("context.plan.digest", &plan["digest"], &digest, "the digest of context.plan.content");
        let why = "the report and its manifest speak of one run";
        self.same("context.plan.content.profile", &content["profile"], &report["context"]["profile"], why);
        self.same("context.plan.content.tier", &content["tier"], &report["auto"]["tier"], why);
        self.same(
            "context.plan.content.image.manifest_digest",
            &content["image"]["manifest_digest"],
            &runtime["image_digest"],
            "it is runtime.image_digest",
        );
        if content["custom_seccomp_profile"] != self.context["custom_seccomp_profile"] {
            self.faults.push(
                "context.plan.content.custom_seccomp_profile is not context.custom_seccomp_profile"
                    .to_owned(),
            );
        }
        self.same(
            "context.plan.content.allowances",
            &content["allowances"],
            &self.context["allowances"],
            "it is context.allowances",
        );
    }

    /// One side: its input, its output and its boundary.
    fn side(&mut self, name: &str, provenance: &Value, named: &str) {
        let place = format!("context.sides.{name}");
        let side = &self.context["sides"][name];
        if !side.is_object() {
            return self.faults.push(format!("{place} is missing: nothing says how the {name} was measured"));
        }
        let planned = &self.context["plan"]["content"]["sides"][name];
        let tree = &side["checkpoint"]["tree_sha256"];
        let at = format!("{place}.checkpoint.tree_sha256");
        self.same(
            &at,
            tree,
            &provenance["checkpoint_sha256"],
            &format!("it is {named}.checkpoint_sha256 of the report"),
        );
        self.same(&at, tree, &planned["checkpoint"]["tree_sha256"], "it is the planned checkpoint");
        self.outputs(&place, side, provenance, named);
        self.observations(&place, side, planned);
    }

    /// The run report that was compared is what the container left.
    fn outputs(&mut self, place: &str, side: &Value, provenance: &Value, named: &str) {
        let stated = &provenance["report_sha256"];
        let why = format!("it is {named}.report_sha256 of the report");
        let reused = side["reused"] == json!(true);
        if reused && place.ends_with("subject") {
            self.faults.push(format!("{place}.reused is true: only a baseline can be used again"));
        }
        if reused {
            self.same(&format!("{place}.report_sha256"), &side["report_sha256"], stated, &why);
        }
        let outputs = side["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut reports = outputs.iter().filter(|output| output["name"] == json!("report.json"));
        match (reports.next(), reports.next()) {
            (Some(output), None) => {
                self.same(
                    &format!("the sha256 of report.json in {place}.outputs"),
                    &output["sha256"],
                    stated,
                    &why,
                );
            }
            (None, _) if reused => {}
            (None, _) => {
                self.faults.push(format!("{place}.outputs names no report.json: nothing was measured"))
            }
            (Some(_), Some(_)) => self.faults.push(format!("{place}.outputs names report.json twice")),
        }
    }

    /// What was seen of the container before its first instruction.
    fn observations(&mut self, place: &str, side: &Value, planned: &Value) {
        let filter = &side["filter_digest"];
        let planned_filter = &planned["seccomp"]["digest"];
        self.same(&format!("{place}.filter_digest"), filter, planned_filter, "it is the planned filter");
        // A baseline that is used again was measured under a plan of its own, perhaps by somebody else.
        let planned = (side["reused"] != json!(true)).then_some(planned);
        self.faults.extend(observed::faults(place, &observed::Side { side, planned }));
    }
}

/// A value short enough for a message.
pub(super) fn brief(value: &Value) -> String {
    if value.is_null() {
        return "missing".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
