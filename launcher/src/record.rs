//! The runtime manifests: the plan, the observations and the digests of a run, written after its containers have ended.

use crate::error::{Context as _, Result};
use crate::measure_side::{Measurement, Side};
use crate::plan::Plan;
use crate::policy::Policy;
use invarlock_evidence::format::plan::Allowances;
use invarlock_evidence::format::runtime_manifest::{Launcher, Machine};
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest::{Config, ManifestInput, build, to_bytes};
use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use serde_json::{Map, Value, json};
use std::path::Path;

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
    pub fn plan(&self) -> Result<Value> {
        let mut sides = Map::new();
        for role in [Role::Baseline, Role::Subject] {
            let side = Measurement { plan: self.plan, policy: self.policy, role, windows: None };
            let mut value = match &self.plan.image {
                Some(_) => invarlock_runtime::describe(&side.run().container()?),
                None => {
                    json!({"program": self.plan.host_evaluator, "filter_digest": self.plan.filter.digest})
                }
            };
            if let Value::Object(members) = &mut value {
                members.insert("checkpoint".into(), json!(self.plan.digest(role)));
            }
            sides.insert(role.name().into(), value);
        }
        Ok(json!({
            "format_version": "plan-v1",
            "execution_mode": self.policy.mode.as_str(),
            "profile": self.plan.request.profile.as_str(),
            "tier": self.plan.request.tier.as_str(),
            "allowances": self.allowances(),
            "image": self.image(),
            "custom_seccomp_profile": self.plan.custom_filter,
            "dataset": self.plan.dataset_settings(),
            "dataset_files": self.plan.digests.data,
            "sides": sides,
        }))
    }

    /// Bytes of the manifest of one run report.
    pub fn side_manifest(&self, role: Role, side: &Side) -> Result<Vec<u8>> {
        let mut context = self.common("measure")?;
        context.insert("role".into(), json!(role.name()));
        context.insert("sides".into(), json!({role.name(): side.evidence}));
        self.manifest(&side.path, &side.sha256, context)
    }

    /// Bytes of the manifest of the evaluation report at `path`.
    pub fn evaluation_manifest(
        &self,
        path: &Path,
        report: &[u8],
        baseline: &Side,
        subject: &Side,
    ) -> Result<Vec<u8>> {
        let mut context = self.common("evaluate")?;
        let plan = self.plan()?;
        let digest = format!("sha256:{}", sha256_hex(canonical_json(&plan).as_bytes()));
        context.insert("plan".into(), json!({"digest": digest, "content": plan}));
        let sides = json!({"baseline": baseline.evidence, "subject": subject.evidence});
        context.insert("sides".into(), sides);
        self.manifest(path, &sha256_hex(report), context)
    }

    fn manifest(&self, path: &Path, sha256: &str, context: Map<String, Value>) -> Result<Vec<u8>> {
        let absolute = std::path::absolute(path).context("resolving the report's path")?;
        let filename = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = self.plan.image.as_ref().map(|image| &image.resolved);
        Ok(to_bytes(&build(&ManifestInput {
            generated_at_utc: now(),
            report_path: absolute.to_string_lossy().into_owned(),
            report_filename: filename,
            report_sha256: sha256.to_owned(),
            config: Config::Inline(self.config()),
            execution_mode: self.policy.mode,
            image_ref: image.map_or_else(|| "host".into(), |image| image.reference.to_string()),
            image_digest: image.map(|image| image.manifest_digest.to_string()),
            allow_network: self.policy.allowances.network,
            allow_remote_code: false,
            allow_third_party_plugins: false,
            context,
        })))
    }

    /// The request, with the keys of the Python package.
    fn config(&self) -> Value {
        let (r, allowed) = (&self.plan.request, &self.policy.allowances);
        json!({
            "command": "evaluate", "baseline": r.baseline, "subject": r.subject, "baseline_adapter": "hf_causal",
            "subject_adapter": "hf_causal", "profile": r.profile.as_str(), "tier": r.tier.as_str(), "preset": r.data.preset(),
            "dataset": r.data.file(), "out": r.out, "report_out": r.report_out, "baseline_report": r.baseline_report,
            "edit_config": null, "edit_label": r.edit_label, "allow_network": allowed.network,
            "allow_remote_code": false, "allow_third_party_plugins": false,
            "execution_mode": self.policy.mode.report_name(),
        })
    }

    fn common(&self, command: &str) -> Result<Map<String, Value>> {
        let value = json!({
            "command": command,
            "profile": self.plan.request.profile.as_str(),
            "tier": self.plan.request.tier.as_str(),
            "execution_mode": self.policy.mode.report_name(),
            "allowances": self.allowances(),
            "dataset": self.plan.dataset_settings(),
            "loosened": self.policy.loosened(),
            "custom_seccomp_profile": self.plan.custom_filter,
            "image": self.image(),
            "launcher": Launcher {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                sha256: own_digest()?,
                network_filter: self.policy.network.filter_digest().map(str::to_owned),
            },
            "machine": machine(),
            "started_at_utc": self.started_at,
            "finished_at_utc": now(),
        });
        match value {
            Value::Object(map) => Ok(map),
            _ => Ok(Map::new()),
        }
    }

    fn allowances(&self) -> Allowances {
        let allowances = &self.policy.allowances;
        Allowances {
            network: allowances.network,
            host_execution: allowances.host_execution,
            custom_seccomp_profile: self.policy.user_profile,
            granted_by: self.policy.exceptions().map(|(name, source)| (name.to_owned(), source)).collect(),
        }
    }

    fn image(&self) -> Value {
        let Some(image) = &self.plan.image else { return Value::Null };
        let resolved = &image.resolved;
        json!({
            "reference": resolved.reference.to_string(),
            "manifest_digest": resolved.manifest_digest.to_string(),
            "config_digest": resolved.config_digest.to_string(),
            "layers": resolved.layers,
            "verification": image.rootfs.level,
            "speaks": resolved.speaks,
        })
    }
}

/// SHA-256 of this program's executable.
fn own_digest() -> Result<String> {
    let bytes = std::fs::read("/proc/self/exe").context("hashing this program")?;
    Ok(sha256_hex(&bytes))
}

fn machine() -> Machine {
    let kernel = rustix::system::uname();
    Machine {
        kernel: kernel.release().to_string_lossy().into_owned(),
        arch: kernel.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
    }
}
