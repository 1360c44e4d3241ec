//! The run of another program, in evidence whose report that program wrote: this program ran it in a container, and recorded plan and
//! observations outside.
//!
//! 1. The manifest must be the one that its own facts give ([`DelegatedFacts::manifest`]).
//! 2. Every control of the boundary must have been observed, with the planned value.
//! 3. The container must be one that this program plans: command, environment, mounts and limits follow from the request, the image and the
//!    inputs.
//! 4. The report must be a file that the finished run left.

use super::devices;
use super::observed;
use super::own::times::{CLOCK, time};
use super::planned::{
    LIMITS, Mounts, files_faults, has_layers_of_image, image_faults, is_digest, is_hex, namespaces,
    usage_is_consistent, written,
};
use crate::delegated::{self, DelegatedFacts};
use crate::format::delegated::{DELEGATED_PLAN_FORMAT, DelegatedContainer, DelegatedPlan};
use crate::format::observations::Status;
use crate::format::plan::PlannedMount;
use crate::format::runtime_manifest::RuntimeManifest;
use crate::format::to_value;
use crate::format::untrusted::Node;
use crate::manifest::FILE_NAME;
use crate::verify::differences::differences;
use invarlock_error::{Error, Kind};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

/// The profile of a program whose system calls are not known, and of one with devices.
const FILTER: &str = "general";
const FILTER_WITH_DEVICES: &str = "general-devices";
/// The ids of a workload inside: started by a user, and by root.
const INSIDE: [u32; 2] = [0, 65_532];
/// Names of devices in a verdict.
const SHOWN_DEVICES: usize = 64;
/// Exceptions that such a run can have.
const ALLOWANCES: [&str; 3] = ["allow_network", "custom_seccomp_profile", "device"];

/// The run of the program that wrote the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DelegatedRunVerdict {
    /// The image, with the digest of its manifest.
    pub image: String,
    /// The version of InvarLock that the program in it stated.
    pub version: String,
    /// Whether the record of the run has no fault: every control of the boundary was observed, and the container was the planned one.
    pub isolated: bool,
    /// The number of controls that were judged.
    pub controls: usize,
    /// The names of the devices of the host that it had. Absent without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

impl DelegatedRunVerdict {
    /// The verdict in one sentence. It contains text of the evidence.
    pub fn sentence(&self) -> String {
        let Self { image, version, controls, devices, .. } = self;
        let with = match devices.as_slice() {
            [] => String::new(),
            names => format!(" with {} of the host", names.join(", ")),
        };
        match self.isolated {
            true => {
                format!(
                    "InvarLock {version} of image {image} ran isolated{with}; {controls} controls were observed"
                )
            }
            false => {
                format!(
                    "InvarLock {version} of image {image} ran{with}; the record of its isolation has faults"
                )
            }
        }
    }
}

/// Judges the run that a manifest records; none if it records none. Gives the verdict and the faults.
pub(super) fn judge(manifest: &Value, sha256: &str) -> Option<(DelegatedRunVerdict, Vec<String>)> {
    if !delegated::is_delegated(manifest) {
        return None;
    }
    let mut faults = Vec::new();
    let read = RuntimeManifest::deserialize(manifest).map_err(|why| Error::integrity(why.to_string()));
    match read.and_then(|manifest| DelegatedFacts::read(&manifest)) {
        Err(error) => faults.push(error.with_kind(Kind::Integrity).to_string()),
        Ok(facts) => Check { facts: &facts, plan: &facts.plan, faults: &mut faults }.all(manifest, sha256),
    }
    let text = |node: Node<'_>| node.str().unwrap_or("unknown").to_owned();
    let context = Node::root("", manifest).get("context").get("delegated");
    let (run, plan) = (context.get("run"), context.get("plan").get("content"));
    let planned = Some(plan.get("container"));
    let (inputs, devices) = (Some(plan.get("inputs")), Some(plan.get("devices")));
    faults.extend(observed::faults(&observed::Side { side: run, planned, inputs, devices }));
    let devices = plan.get("devices").get("devices").elements();
    let devices = devices.take(SHOWN_DEVICES).map(|device| text(device.get("name"))).collect();
    let verdict = DelegatedRunVerdict {
        image: text(Node::root("", manifest).at("runtime.image_ref")),
        version: text(plan.get("version")),
        isolated: faults.is_empty(),
        controls: observed::JUDGED,
        devices,
    };
    Some((verdict, faults))
}

struct Check<'a> {
    facts: &'a DelegatedFacts,
    plan: &'a DelegatedPlan,
    faults: &'a mut Vec<String>,
}

impl Check<'_> {
    fn all(&mut self, manifest: &Value, sha256: &str) {
        let stated = manifest.pointer("/report/sha256").and_then(Value::as_str).unwrap_or_default();
        let derived = to_value(&self.facts.manifest(stated));
        self.faults.extend(differences("runtime.manifest", manifest, &derived, 0.0));
        self.constants();
        self.faults.extend(devices::faults(self.plan));
        self.inputs();
        self.container();
        self.run(sha256);
        self.times();
    }

    fn require(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }

    fn constants(&mut self) {
        let plan = self.plan;
        self.require(plan.format_version == DELEGATED_PLAN_FORMAT, || {
            format!("context.delegated.plan.content.format_version is not {DELEGATED_PLAN_FORMAT:?}")
        });
        self.faults.extend(image_faults(&plan.image, &[Some("delegate"), None]));
        let allowances = &plan.allowances;
        let granted = |name: &str| allowances.granted_by.contains_key(name);
        let stated = [allowances.network, allowances.custom_seccomp_profile, allowances.device];
        let agree = ALLOWANCES.into_iter().zip(stated).all(|(name, stated)| stated == granted(name))
            && !allowances.host_execution
            && allowances.granted_by.keys().all(|name| ALLOWANCES.contains(&name.as_str()))
            && allowances.custom_seccomp_profile == plan.custom_seccomp_profile.is_some()
            && allowances.device == plan.devices.is_some();
        self.require(agree, || "context.delegated.plan.content.allowances contradict themselves".to_owned());
        let launcher = &self.facts.launcher;
        self.require(is_hex(&launcher.sha256), || "context.launcher.sha256 is not a SHA-256".to_owned());
        self.require(
            launcher.network_filter.as_deref().is_none_or(is_digest)
                && allowances.network == launcher.network_filter.is_none(),
            || "context.launcher.network_filter contradicts the allowances".to_owned(),
        );
        let supported =
            delegated::Version::parse(&plan.version).is_some_and(delegated::Version::is_supported);
        self.require(supported, || {
            format!("context.delegated.plan.content.version {:?} is not supported", plan.version)
        });
        let machine = &self.facts.machine;
        self.require(machine.cpus > 0 && !machine.kernel.is_empty(), || {
            "context.machine is incomplete".to_owned()
        });
    }

    /// Digests follow from those of the files, and each input that the request names is there.
    fn inputs(&mut self) {
        let DelegatedPlan { request, inputs, settings, .. } = self.plan;
        for (name, files) in inputs {
            let path = format!("delegated.plan.content.inputs.{name}");
            self.faults.extend(files_faults(&path, files, name == "dataset"));
        }
        let [baseline_report, _] = delegated::BASELINE_REPORT;
        let named = [
            ("baseline", Some(&request.baseline)),
            ("subject", Some(&request.subject)),
            (baseline_report, request.baseline_report.as_ref()),
        ];
        for (name, path) in named {
            self.require(inputs.get(name).map(|files| &files.path) == path, || {
                format!("context.delegated.plan.content.inputs.{name} is not what was asked for")
            });
        }
        let dataset = inputs.get("dataset");
        let in_dataset = |inside: &String| inside.starts_with("/in/dataset/");
        self.require(
            dataset.is_none_or(|files| files.path == request.preset)
                && settings.values().all(|settings| settings.replaced.values().all(in_dataset)),
            || "context.delegated.plan.content: the dataset is not that of the preset".to_owned(),
        );
        let known = |name: &String| name == "dataset" || named.iter().any(|(known, _)| known == name);
        self.require(inputs.keys().all(known), || {
            "context.delegated.plan.content.inputs has an unknown member".to_owned()
        });
        let files =
            [(delegated::PRESET, Some(&request.preset)), (delegated::EDIT, request.edit_config.as_ref())];
        for (name, path) in files {
            let found = settings.get(name);
            let good = found.map(|settings| &settings.path) == path
                && found.is_none_or(|settings| is_hex(&settings.sha256) && is_hex(&settings.source_sha256));
            self.require(good, || {
                format!("context.delegated.plan.content.settings: {name} is not what was asked for")
            });
        }
        let expected = 1 + usize::from(request.edit_config.is_some());
        self.require(settings.len() == expected, || {
            "context.delegated.plan.content.settings has an unknown member".to_owned()
        });
    }

    /// The container is the one that this program plans.
    fn container(&mut self) {
        let (plan, path) = (self.plan, "context.delegated.plan.content.container");
        let planned = &plan.container;
        let expected = DelegatedContainer {
            argv: [plan.entrypoint.clone(), delegated::arguments(plan)].concat(),
            cwd: delegated::CWD.to_owned(),
            namespaces: namespaces(),
            network: "lo only".to_owned(),
            capabilities: Vec::new(),
            no_new_privileges: true,
            mounts: self.mounts(),
            ..planned.clone()
        };
        if expected != *planned {
            self.faults.extend(differences(path, &to_value(planned), &to_value(&expected), 0.0));
        }
        self.require(!plan.entrypoint.is_empty(), || {
            "context.delegated.plan.content.entrypoint is empty".to_owned()
        });
        for (name, value) in delegated::fixed(&plan.image) {
            let mut found = planned.environment.iter().filter_map(|line| line.split_once('='));
            self.require(found.any(|(found, set)| found == name && set == value), || {
                format!("{path}.environment: {name} is not {value:?}")
            });
        }
        self.require(has_layers_of_image(&planned.mounts, &plan.image.layers), || {
            format!("{path}.mounts: the layers are not those of the image")
        });
        let identity = &planned.identity;
        self.require(identity.setgroups == "deny" && INSIDE.contains(&identity.inside), || {
            format!("{path}.identity is not that of a run of this program")
        });
        let absolute = |mount: &PlannedMount| {
            !["file", "bind", "device"].contains(&mount.kind.as_str())
                || mount.source.as_deref().is_some_and(|path| path.starts_with('/'))
        };
        self.require(planned.mounts.iter().all(absolute), || {
            format!("{path}.mounts has a file whose source is not an absolute path")
        });
        let profile = if plan.devices.is_some() { FILTER_WITH_DEVICES } else { FILTER };
        let built_in = planned.seccomp.profile == profile;
        self.require(built_in == plan.custom_seccomp_profile.is_none(), || {
            format!(
                "{path}.seccomp.profile is {:?}, which contradicts the allowances",
                planned.seccomp.profile
            )
        });
        self.require(planned.limits.required.iter().all(|name| LIMITS.contains(&name.as_str())), || {
            format!("{path}.limits.required has an unknown name")
        });
    }

    fn mounts(&self) -> Vec<PlannedMount> {
        let DelegatedPlan { inputs, settings, devices, container, .. } = self.plan;
        let mounts = Mounts::new(&container.mounts);
        let files = inputs.iter().flat_map(|(directory, files)| {
            files.files.iter().map(move |file| format!("/in/{directory}/{}", file.name))
        });
        let files = files.map(|target| mounts.file(&target));
        let settings =
            settings.iter().map(|(name, settings)| written(&format!("/in/{name}"), settings.bytes));
        let devices = devices.iter().flat_map(|devices| mounts.of_devices(devices));
        mounts.with(&container.limits, files.chain(settings).chain(devices).collect())
    }

    /// The run ended well, and the report is what it left.
    fn run(&mut self, sha256: &str) {
        let (run, planned) = (&self.facts.run, &self.plan.container);
        self.require(run.status == Status::Exited(0), || {
            "context.delegated.run.status: the run did not end with exit code 0".to_owned()
        });
        self.require(run.usage.oom_kills.unwrap_or(0) == 0, || {
            "context.delegated.run.usage.oom_kills: a process was killed for memory".to_owned()
        });
        self.require(usage_is_consistent(&run.usage), || {
            "context.delegated.run.usage contradicts itself".to_owned()
        });
        self.require(run.filter_digest == planned.seccomp.digest, || {
            "context.delegated.run.filter_digest is not the planned one".to_owned()
        });
        let mut reports = run.outputs.iter().filter(|file| file.name == delegated::REPORT);
        let left =
            matches!((reports.next(), reports.next()), (Some(report), None) if report.sha256 == sha256);
        self.require(left, || {
            format!(
                "the report is not the {} that the run left: it was changed afterwards",
                delegated::REPORT
            )
        });
        let bytes = run.outputs.iter().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        self.require(
            bytes <= planned.limits.output_bytes && run.outputs.len() as u64 <= planned.limits.output_files,
            || "context.delegated.run.outputs are more than the planned limits allow".to_owned(),
        );
        let known =
            |name: &str| name.starts_with(delegated::OF_REPORT) || name.starts_with(delegated::OF_RUNS);
        self.require(run.outputs.iter().all(|file| known(&file.name) && is_hex(&file.sha256)), || {
            "context.delegated.run.outputs has a file outside runs/ and report/, or a wrong digest".to_owned()
        });
    }

    fn times(&mut self) {
        let facts = self.facts;
        let (Some(started), Some(finished)) = (time(&facts.started_at), time(&facts.finished_at)) else {
            return self.faults.push(format!(
                "{FILE_NAME}: context.started_at_utc and finished_at_utc are not both times in UTC"
            ));
        };
        let took = (finished - started).num_milliseconds();
        let ran = i64::try_from(facts.run.usage.wall_ms).unwrap_or(i64::MAX);
        self.require(took >= 0 && ran <= took.saturating_add(CLOCK), || {
            format!("the container ran {ran} ms, but the whole evaluation took {took} ms")
        });
    }
}
