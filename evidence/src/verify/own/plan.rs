//! The plan: its digests follow from its lists of files, its containers are those that this program plans, and what was measured is what was
//! planned.

use crate::evaluation::Facts;
use crate::format::compute_dtype::ComputeDtype;
use crate::format::observations::Observations;
use crate::format::plan::{
    ExecutionMode, Files, PLAN_FORMAT, Plan, PlannedContainer, PlannedMount, PlannedSide,
};
use crate::format::runtime_manifest::Side;
use crate::host_execution;
use crate::job::Role;
use crate::verify::differences::differences;
use crate::verify::planned::{
    LIMITS, Mounts, files_faults, has_layers_of_image, image_faults, is_digest, is_hex, namespaces,
    usage_is_consistent, written,
};

/// Names in `allowances.granted_by`.
const ALLOWANCES: [&str; 3] = ["allow_network", host_execution::ALLOWANCE, "custom_seccomp_profile"];

/// The built-in system-call profile of a measurement. Only the matrix unit needs the other one.
fn filter_profile(dtype: ComputeDtype) -> &'static str {
    match dtype {
        ComputeDtype::Float32 => "evaluator",
        ComputeDtype::Bf16x3 => "evaluator-amx",
    }
}

/// Checks the plan; contradictions are added to `faults`.
pub(super) fn faults(facts: &Facts, faults: &mut Vec<String>) {
    let mut check = Check { facts, plan: &facts.plan, faults };
    check.constants();
    check.digests();
    check.paths();
    for role in [Role::Baseline, Role::Subject] {
        check.side(role);
    }
}

struct Check<'a> {
    facts: &'a Facts,
    plan: &'a Plan,
    faults: &'a mut Vec<String>,
}

impl Check<'_> {
    fn require(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }

    fn constants(&mut self) {
        let plan = self.plan;
        self.require(plan.format_version == PLAN_FORMAT, || {
            format!(
                "context.plan.content.format_version is {:?}, expected {PLAN_FORMAT:?}",
                plan.format_version
            )
        });
        if let Err(error) = self.facts.policy() {
            self.faults.push(error.to_string());
        }
        let allowances = &plan.allowances;
        let granted = |name: &str| allowances.granted_by.contains_key(name);
        for (name, stated) in ALLOWANCES.into_iter().zip([
            allowances.network,
            allowances.host_execution,
            allowances.custom_seccomp_profile,
        ]) {
            self.require(stated == granted(name), || {
                format!("context.plan.content.allowances contradict themselves about {name}")
            });
        }
        self.require(!allowances.device, || {
            "context.plan.content.allowances: the evaluator gets no device".to_owned()
        });
        for (name, by) in &allowances.granted_by {
            self.require(ALLOWANCES.contains(&name.as_str()) && !by.is_empty(), || {
                format!("context.plan.content.allowances.granted_by has an unknown member {name:?}")
            });
        }
        let host = plan.execution_mode == ExecutionMode::HostBypass;
        self.require(host == granted(host_execution::ALLOWANCE), || {
            "context.plan.content.execution_mode contradicts its allowances".to_owned()
        });
        if let Some(tiers) = &plan.tiers {
            self.require(is_hex(&tiers.sha256) && tiers.limits.check().is_ok(), || {
                "context.plan.content.tiers has a wrong digest or a limit out of its range".to_owned()
            });
        }
        self.require(host || self.facts.boundary.is_none(), || {
            "context.boundary contradicts its execution_mode".to_owned()
        });
        self.require(host == plan.image.is_none(), || {
            "context.plan.content.image contradicts its execution_mode".to_owned()
        });
        self.require(allowances.custom_seccomp_profile == plan.custom_seccomp_profile.is_some(), || {
            "context.plan.content.custom_seccomp_profile contradicts its allowances".to_owned()
        });
        let launcher = &self.facts.launcher;
        self.require(is_hex(&launcher.sha256), || "context.launcher.sha256 is not a SHA-256".to_owned());
        self.require(allowances.network == launcher.network_filter.is_none(), || {
            "context.launcher.network_filter contradicts the allowances".to_owned()
        });
        self.require(launcher.network_filter.as_deref().is_none_or(is_digest), || {
            "context.launcher.network_filter is not a digest".to_owned()
        });
        self.require(self.facts.machine.cpus > 0 && !self.facts.machine.kernel.is_empty(), || {
            "context.machine is incomplete".to_owned()
        });
        self.require(same_launcher(self.facts), || {
            "context.sides: the containers of baseline and subject were not started by the same launcher"
                .to_owned()
        });
        if let Some(image) = &plan.image {
            self.faults.extend(image_faults(image, &[Some("measure")]));
        }
    }

    /// Digests of directories follow from those of their files.
    fn digests(&mut self) {
        let plan = self.plan;
        self.files("plan.content.dataset_files", &plan.dataset_files);
        self.require(plan.dataset.tree_sha256 == plan.dataset_files.tree_sha256, || {
            "context.plan.content.dataset.tree_sha256 is not that of dataset_files".to_owned()
        });
        for (name, side) in &plan.sides {
            self.files(&format!("plan.content.sides.{name}.checkpoint"), side.checkpoint());
        }
    }

    fn files(&mut self, path: &str, files: &Files) {
        self.faults.extend(files_faults(path, files, false));
    }

    /// Paths that stand in two places.
    fn paths(&mut self) {
        let request = &self.plan.request;
        for (role, name) in [(Role::Baseline, &request.baseline), (Role::Subject, &request.subject)] {
            let planned = self.plan.sides.get(role.name());
            self.require(planned.is_some_and(|side| side.checkpoint().path == *name), || {
                format!("context.plan.content has two names of the {} checkpoint", role.name())
            });
        }
        let data = &self.plan.dataset_files.path;
        self.require(request.dataset.as_ref().is_none_or(|dataset| dataset == data), || {
            "context.plan.content has two names of the dataset".to_owned()
        });
        self.require(request.dataset.is_some() != request.preset.is_some(), || {
            "context.plan.content.request needs either a dataset or a preset".to_owned()
        });
        let written = format!("{}/{}", request.report_out, crate::evaluation::REPORT);
        self.require(ends_with(&self.facts.report_path, &written), || {
            format!("report.path is {:?}, which does not end with {written:?}", self.facts.report_path)
        });
    }

    fn side(&mut self, role: Role) {
        let name = role.name();
        let (Ok(side), Some(planned)) = (self.facts.side(role), self.plan.sides.get(name)) else {
            return self
                .faults
                .push(format!("the manifest has no {name}: it is unknown how it was measured"));
        };
        self.measured(role, side, planned);
        match planned {
            PlannedSide::Container(container) => self.container(role, container),
            PlannedSide::Host(host) => self.require(host.filter_digest == side.filter_digest, || {
                format!("context.sides.{name}.filter_digest is not the planned one")
            }),
        }
    }

    /// What was measured is what was planned.
    fn measured(&mut self, role: Role, side: &Side, planned: &PlannedSide) {
        let name = role.name();
        let planned_files = planned.checkpoint();
        // The path of a reused baseline is the one that its user gave then.
        let same = side.checkpoint.files == planned_files.files
            && side.checkpoint.tree_sha256 == planned_files.tree_sha256
            && (side.reused || side.checkpoint.path == planned_files.path);
        self.require(same, || format!("context.sides.{name}.checkpoint is not the planned one"));
        let dataset = match role {
            Role::Baseline => side.dataset.as_ref().is_some_and(|files| {
                files.files == self.plan.dataset_files.files
                    && files.tree_sha256 == self.plan.dataset_files.tree_sha256
                    && (side.reused || files.path == self.plan.dataset_files.path)
            }),
            Role::Subject => side.dataset.is_none(),
        };
        self.require(dataset, || format!("context.sides.{name}.dataset is not the planned one"));
        let request = &self.plan.request;
        match (role, &request.baseline_report) {
            (Role::Baseline, Some(path)) => self.require(side.reused && side.report_path == *path, || {
                "context.sides.baseline is not the measurement of request.baseline_report".to_owned()
            }),
            _ => {
                let directory = if role == Role::Baseline { "source" } else { "edited" };
                let below = format!("{}/{directory}/", request.out);
                self.require(!side.reused && is_run_report(&side.report_path, &below), || {
                    format!("context.sides.{name}.report_path is not a run report below {below}")
                });
            }
        }
        let finished = side.status == crate::format::observations::Status::Exited(0);
        self.require(finished, || {
            format!(
                "context.sides.{name}.status: the run did not end with exit code 0, so nothing was measured"
            )
        });
        let usage = &side.usage;
        self.require(usage.oom_kills.unwrap_or(0) == 0, || {
            format!("context.sides.{name}.usage.oom_kills: a process was killed for memory")
        });
        self.require(usage_is_consistent(usage), || format!("context.sides.{name}.usage contradicts itself"));
        let mut names: Vec<&str> = side.outputs.iter().map(|file| file.name.as_str()).collect();
        names.sort_unstable();
        self.require(names == ["events.jsonl", "report.json"], || {
            format!("context.sides.{name}.outputs are {names:?}, expected events.jsonl and report.json")
        });
    }

    /// A planned container is the one that this program plans for a measurement.
    fn container(&mut self, role: Role, planned: &PlannedContainer) {
        let path = format!("context.plan.content.sides.{}", role.name());
        let argv = ["/invarlock-evaluator", "--job", "/in/job.json", "--out", "/out"];
        let expected = PlannedContainer {
            argv: argv.map(str::to_owned).to_vec(),
            cwd: "/".to_owned(),
            environment: vec!["INVARLOCK_CONTAINER_EXECUTION=1".to_owned()],
            namespaces: namespaces(),
            network: "lo only".to_owned(),
            capabilities: Vec::new(),
            no_new_privileges: true,
            mounts: self.mounts(role, planned),
            ..planned.clone()
        };
        if expected != *planned {
            let (recorded, derived) = (crate::format::to_value(planned), crate::format::to_value(&expected));
            self.faults.extend(differences(&path, &recorded, &derived, 0.0));
        }
        self.host_paths(&path, planned);
        let built_in = planned.seccomp.profile == filter_profile(self.plan.compute_dtype.unwrap_or_default());
        self.require(built_in == self.plan.custom_seccomp_profile.is_none(), || {
            format!(
                "{path}.seccomp.profile is {:?}, which contradicts the allowances or the type of numbers",
                planned.seccomp.profile
            )
        });
        let limits = &planned.limits;
        self.require(limits.required.iter().all(|name| LIMITS.contains(&name.as_str())), || {
            format!("{path}.limits.required has an unknown name")
        });
        let side = self.facts.side(role);
        self.require(side.as_ref().is_ok_and(|side| side.filter_digest == planned.seccomp.digest), || {
            format!("{path}.seccomp.digest is not that of the filter of the run")
        });
        let report = side.ok().and_then(|side| side.outputs.iter().find(|file| file.name == "report.json"));
        self.require(report.is_some_and(|file| file.bytes <= limits.output_bytes), || {
            format!("{path}.limits.output_bytes is smaller than the report of the run")
        });
        let other = self.plan.sides.values().all(|side| match side {
            PlannedSide::Container(other) => {
                (&other.identity, &other.limits, &other.seccomp)
                    == (&planned.identity, limits, &planned.seccomp)
            }
            PlannedSide::Host(_) => false,
        });
        self.require(other, || format!("{path} has other ids, limits or another filter than the other side"));
    }

    /// The mounts of a measurement.
    fn mounts(&self, role: Role, planned: &PlannedContainer) -> Vec<PlannedMount> {
        let mounts = Mounts::new(&planned.mounts);
        let mut inputs = Vec::new();
        let dataset = (role == Role::Baseline).then_some(("dataset", &self.plan.dataset_files));
        for (directory, files) in [("checkpoint", &planned.checkpoint)].into_iter().chain(dataset) {
            inputs.extend(
                files.files.iter().map(|file| mounts.file(&format!("/in/{directory}/{}", file.name))),
            );
        }
        let job = serde_json::to_vec(&self.facts.job(role, &planned.checkpoint.path)).unwrap_or_default();
        inputs.push(written("/in/job.json", job.len() as u64));
        if role == Role::Subject {
            // Not known before the baseline is measured: planned as `null`.
            inputs.push(written("/in/windows.json", "null".len() as u64));
        }
        mounts.with(&planned.limits, inputs)
    }

    /// Paths on the host: the layers in the store by their digests, inputs by their names or in the blobs of a cache.
    fn host_paths(&mut self, path: &str, planned: &PlannedContainer) {
        let layers = self.plan.image.as_ref().map_or(&[][..], |image| &image.layers);
        let named = has_layers_of_image(&planned.mounts, layers);
        self.require(named, || format!("{path}.mounts: the layers are not those of the image"));
        for mount in planned.mounts.iter().filter(|mount| mount.kind == "file") {
            let source = mount.source.as_deref().unwrap_or_default();
            let name = mount.target.rsplit('/').next().unwrap_or_default();
            // A dataset file is numbered in the container.
            let known = mount.target.starts_with("/in/dataset/")
                || source.ends_with(&format!("/{name}"))
                || source.contains("/blobs/");
            self.require(known && source.starts_with('/'), || {
                format!("{path}.mounts: {source:?} is not the source of {}", mount.target)
            });
        }
    }
}

/// `<below><YYYYmmdd_HHMMSS>[_n]/report.json`.
fn is_run_report(path: &str, below: &str) -> bool {
    let stamp = path.strip_prefix(below).and_then(|rest| rest.strip_suffix("/report.json"));
    stamp.is_some_and(|stamp| {
        stamp.len() >= 15 && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
    })
}

/// Whether the path ends with another one, `.` components apart.
fn ends_with(path: &str, end: &str) -> bool {
    let components = |text: &str| -> Vec<String> {
        text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
    };
    path.starts_with('/') && components(path).ends_with(&components(end))
}

/// What both sides have in common: the launcher, and what the processes inherit from it.
fn same_launcher(facts: &Facts) -> bool {
    let (Ok(one), Ok(other)) = (facts.side(Role::Baseline), facts.side(Role::Subject)) else { return false };
    let (one_seen, other_seen) = (&one.observations, &other.observations);
    let launchers = |seen: &Observations| -> Vec<u64> {
        seen.namespaces.value.values().map(|namespace| namespace.launcher).collect()
    };
    let inherited =
        |seen: &Observations| seen.contained.as_ref().map(|contained| contained.process.value.oom_score_adj);
    one.reused
        || (launchers(one_seen) == launchers(other_seen) && inherited(one_seen) == inherited(other_seen))
}
