//! The runtime manifests: the plan, the observations and the digests of a run, written after its containers have ended.

use crate::error::{Context as _, Result};
use crate::image::Image;
use crate::measure_side::{Measurement, Side};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::recorded::typed;
use invarlock_evidence::evaluation::Facts;
use invarlock_evidence::format::plan::{self as format, Allowances, PLAN_FORMAT};
use invarlock_evidence::format::runtime_manifest::{Launcher, Machine};
use invarlock_evidence::format::to_value;
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest;
use invarlock_evidence::numerics::digest::sha256_of;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The facts of one `evaluate` that its manifests share.
pub struct Record<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The policy.
    pub policy: &'a Policy,
    /// UTC, ISO-8601.
    pub started_at: String,
}

/// UTC now, ISO-8601 with microseconds and `+00:00`.
pub fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

impl Record<'_> {
    /// The plan as `--dry-run` prints it.
    pub fn plan(&self) -> Result<format::Plan> {
        let (plan, request) = (self.plan, &self.plan.request);
        let sides =
            [Role::Baseline, Role::Subject].map(|role| Ok((role.name().to_owned(), self.side(role)?)));
        Ok(format::Plan {
            format_version: PLAN_FORMAT.to_owned(),
            request: request.recorded(&plan.preset_warnings, plan.lock.as_ref()),
            execution_mode: self.policy.mode,
            profile: request.profile.as_str().to_owned(),
            tier: request.tier.as_str().to_owned(),
            tiers: request.tiers.clone(),
            compute_dtype: Some(request.dtype),
            weight_only: request.weight_only,
            guards: request.guards,
            allowances: allowances(self.policy),
            image: plan.image.as_ref().map(image).transpose()?,
            custom_seccomp_profile: typed("the seccomp profile", json!(plan.custom_filter))?,
            dataset: plan.dataset_settings(),
            dataset_files: plan.digests.data.clone(),
            sides: sides.into_iter().collect::<Result<_>>()?,
        })
    }

    /// What the plan says of one side.
    fn side(&self, role: Role) -> Result<format::PlannedSide> {
        let side = Measurement { plan: self.plan, policy: self.policy, role, windows: None };
        let mut value = match &self.plan.image {
            Some(_) => invarlock_runtime::describe(&side.run().container()?),
            None => json!({"program": self.plan.host_evaluator, "filter_digest": self.plan.filter.digest}),
        };
        value["checkpoint"] = to_value(self.plan.digest(role));
        typed("the planned container", value)
    }

    /// Bytes of the manifest of one run report.
    pub fn side_manifest(&self, role: Role, side: &Side) -> Result<Vec<u8>> {
        let sides = BTreeMap::from([(role.name().to_owned(), side.evidence.clone())]);
        Ok(manifest::to_bytes(&self.facts(sides, &side.path)?.side_manifest(role)?))
    }

    /// The finished evaluation, whose report will be at `path`.
    pub fn evaluation(&self, path: &Path, baseline: &Side, subject: &Side) -> Result<Facts> {
        let sides = [(Role::Baseline, baseline), (Role::Subject, subject)];
        let sides = sides.map(|(role, side)| (role.name().to_owned(), side.evidence.clone()));
        self.facts(BTreeMap::from(sides), path)
    }

    fn facts(
        &self,
        sides: BTreeMap<String, invarlock_evidence::format::runtime_manifest::Side>,
        report: &Path,
    ) -> Result<Facts> {
        Ok(Facts {
            plan: self.plan()?,
            started_at: self.started_at.clone(),
            finished_at: now(),
            launcher: launcher(self.policy)?,
            machine: machine(),
            boundary: self.policy.boundary,
            sides,
            report_path: absolute(report)?,
        })
    }
}

/// The absolute path of a report.
pub fn absolute(report: &Path) -> Result<String> {
    let absolute = std::path::absolute(report).context("resolving the report's path")?;
    Ok(absolute.to_string_lossy().into_owned())
}

/// What the evidence records of the exceptions.
pub fn allowances(policy: &Policy) -> Allowances {
    let allowances = &policy.allowances;
    Allowances {
        network: allowances.network,
        host_execution: allowances.host_execution,
        custom_seccomp_profile: policy.user_profile,
        device: policy.device,
        granted_by: policy.exceptions().map(|(name, source)| (name.to_owned(), source)).collect(),
    }
}

/// What the evidence records of an image.
pub fn image(image: &Image) -> Result<format::Image> {
    let resolved = &image.resolved;
    typed(
        "the image",
        json!({
            "reference": resolved.reference.to_string(),
            "manifest_digest": resolved.manifest_digest.to_string(),
            "config_digest": resolved.config_digest.to_string(),
            "layers": resolved.layers,
            "verification": image.rootfs.level,
            "speaks": resolved.speaks,
        }),
    )
}

/// This program.
pub fn launcher(policy: &Policy) -> Result<Launcher> {
    Ok(Launcher {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sha256: own_digest()?,
        network_filter: policy.network.filter_digest().map(str::to_owned),
    })
}

/// Hashes this program in a thread, so that the first manifest need not wait for it.
pub fn hash_launcher_early() {
    // Without the thread, the first manifest hashes it.
    drop(std::thread::Builder::new().spawn(own_digest));
}

/// SHA-256 of this program's executable. Read once: a command writes more than one manifest.
fn own_digest() -> Result<String> {
    static DIGEST: Mutex<Option<String>> = Mutex::new(None);
    let mut digest = DIGEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*digest {
        return Ok(known.clone());
    }
    let hashed = File::open("/proc/self/exe").and_then(sha256_of).context("hashing this program")?;
    Ok(digest.insert(hashed.0).clone())
}

/// This machine.
pub fn machine() -> Machine {
    let kernel = rustix::system::uname();
    Machine {
        kernel: kernel.release().to_string_lossy().into_owned(),
        arch: kernel.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
    }
}
