//! What the runtime manifests say: the plan, the observations and the digests of a run, written after the containers are
//! dead (design section 6).

use crate::args::{EvaluateArgs, ExecutionMode};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::side::{self, Run, Side};
use invarlock_error::Context as _;
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest::{Config, ExecutionMode as Mode, ManifestInput, build, to_bytes};
use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Facts of one `evaluate` that its manifests share.
pub struct Record<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The arguments it was made from.
    pub args: &'a EvaluateArgs,
    /// What was allowed.
    pub policy: &'a Policy,
    /// UTC, ISO-8601.
    pub started_at: String,
}

/// UTC now, ISO-8601 with microseconds and `+00:00`.
pub fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// The evidence crate's name of an execution mode.
pub fn mode(mode: ExecutionMode) -> Mode {
    match mode {
        ExecutionMode::Container => Mode::Container,
        ExecutionMode::Host => Mode::HostBypass,
    }
}

impl Record<'_> {
    /// The plan as `--dry-run` prints it.
    pub fn plan(&self) -> Result<Value> {
        let mut sides = Map::new();
        for role in [Role::Baseline, Role::Subject] {
            let run = Run { plan: self.plan, args: self.args, policy: self.policy, role, windows: None };
            let mut value = match &self.plan.image {
                Some(_) => invarlock_runtime::describe(&run.container()?),
                None => {
                    json!({"program": self.plan.host_evaluator, "filter_digest": self.plan.filter.digest})
                }
            };
            if let Value::Object(members) = &mut value {
                members.insert("checkpoint".into(), json!(self.plan.checkpoint(role).digest));
            }
            sides.insert(side::name(role).into(), value);
        }
        Ok(json!({
            "format_version": "plan-v1",
            "execution_mode": mode(self.policy.mode).as_str(),
            "profile": self.plan.profile.as_str(),
            "tier": self.plan.tier.as_str(),
            "allowances": self.allowances(),
            "image": self.image(),
            "custom_seccomp_profile": self.plan.custom_filter,
            "dataset": self.plan.dataset_settings(),
            "dataset_files": self.plan.data.digest,
            "sides": sides,
        }))
    }

    /// Bytes of the manifest that binds one run report.
    pub fn side_manifest(&self, role: Role, side: &Side) -> Result<Vec<u8>> {
        let mut context = self.common("measure")?;
        context.insert("role".into(), json!(side::name(role)));
        context.insert("sides".into(), json!({side::name(role): side.evidence}));
        self.manifest(&side.path, &side.sha256, context)
    }

    /// Bytes of the manifest that binds the evaluation report at `path`.
    pub fn manifest_of(
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
        let image = self.plan.image.as_ref().map(|i| &i.resolved);
        Ok(to_bytes(&build(&ManifestInput {
            generated_at_utc: now(),
            report_path: absolute.to_string_lossy().into_owned(),
            report_filename: filename,
            report_sha256: sha256.to_owned(),
            config: Config::Inline(self.config()),
            execution_mode: mode(self.policy.mode),
            image_ref: image.map_or_else(|| "host".into(), |i| i.reference.to_string()),
            image_digest: image.map(|i| i.manifest_digest.to_string()),
            allow_network: self.policy.allowances.network,
            allow_remote_code: false,
            allow_third_party_plugins: false,
            context,
        })))
    }

    /// The request, with upstream's keys (`spec/manifest.md` section 3).
    fn config(&self) -> Value {
        let (a, allowed) = (self.args, &self.policy.allowances);
        json!({
            "command": "evaluate", "baseline": a.baseline, "subject": a.subject, "baseline_adapter": "hf_causal",
            "subject_adapter": "hf_causal", "profile": a.profile, "tier": a.tier, "preset": a.preset,
            "dataset": a.dataset, "out": a.out, "report_out": a.report_out, "baseline_report": a.baseline_report,
            "edit_config": null, "edit_label": a.edit_label, "allow_network": allowed.network,
            "allow_remote_code": false, "allow_third_party_plugins": false,
            "execution_mode": mode(self.policy.mode).report_name(),
        })
    }

    fn common(&self, command: &str) -> Result<Map<String, Value>> {
        let value = json!({
            "command": command,
            "profile": self.plan.profile.as_str(),
            "tier": self.plan.tier.as_str(),
            "execution_mode": mode(self.policy.mode).report_name(),
            "allowances": self.allowances(),
            "dataset": self.plan.dataset_settings(),
            "loosened": self.policy.loosened(),
            "custom_seccomp_profile": self.plan.custom_filter,
            "image": self.image(),
            "launcher": {
                "version": env!("CARGO_PKG_VERSION"),
                "sha256": own_digest()?,
                "network_filter": self.policy.network_filter,
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

    fn allowances(&self) -> Value {
        let a = &self.policy.allowances;
        let granted: Map<String, Value> =
            self.policy.exceptions().map(|(what, by)| (what.into(), json!(by))).collect();
        json!({
            "network": a.network, "host_execution": a.host_execution, "custom_seccomp_profile": self.policy.custom_filter,
            "granted_by": granted,
        })
    }

    fn image(&self) -> Value {
        let Some(image) = &self.plan.image else { return Value::Null };
        let r = &image.resolved;
        json!({
            "reference": r.reference.to_string(),
            "manifest_digest": r.manifest_digest.to_string(),
            "config_digest": r.config_digest.to_string(),
            "layers": r.layers,
            "verification": image.rootfs.level,
            "speaks": r.speaks,
        })
    }
}

/// SHA-256 of this program's own file.
fn own_digest() -> Result<String> {
    let failed = |e: std::io::Error| Error::from(e).context("hashing this program");
    std::fs::read("/proc/self/exe").map(|bytes| sha256_hex(&bytes)).map_err(failed)
}

fn machine() -> Value {
    let kernel = rustix::system::uname();
    json!({
        "kernel": kernel.release().to_string_lossy(),
        "arch": kernel.machine().to_string_lossy(),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
    })
}
