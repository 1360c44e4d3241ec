//! What the verifier requires, besides evidence that does not contradict itself.

use super::times::time;
use crate::evaluation::Facts;
use crate::format::plan::ExecutionMode;
use crate::host_execution;
use crate::job::Role;
use crate::numerics::digest::sha256_hex;
use crate::verify::read::{RUN_REPORT_LIMIT, read_evidence};
use crate::verify::{RuntimeProvenance, VerifyOptions};
use invarlock_error::{Error, Result};

/// The digest of something that an evaluation did not have.
const NONE: &str = "none";

/// The demands that are not met, and the names of the digests that match.
#[derive(Debug, Default)]
pub(super) struct Demands {
    pub(super) unmet: Vec<String>,
    pub(super) matched: Vec<String>,
}

impl Demands {
    /// Compares the facts with what the options require.
    ///
    /// # Errors
    /// The file of `--baseline` cannot be read, or the manifest has no run report of the baseline.
    pub(super) fn of(facts: &Facts, options: &VerifyOptions) -> Result<Self> {
        let mut demands = Self::default();
        demands.isolation(facts, options);
        demands.digests(facts, options);
        demands.tiers(facts, options);
        demands.age(facts, options);
        demands.baseline_report(facts, options)?;
        Ok(demands)
    }

    fn isolation(&mut self, facts: &Facts, options: &VerifyOptions) {
        let plan = &facts.plan;
        let host = plan.execution_mode == ExecutionMode::HostBypass;
        if host && options.runtime_provenance != RuntimeProvenance::Host {
            self.unmet.push(
                "the measurement ran on the host, not in a container; measure again without --execution-mode host, or \
                 accept it with --runtime-provenance host"
                    .to_owned(),
            );
        }
        for (name, by) in &plan.allowances.granted_by {
            let of_host = host && name == host_execution::ALLOWANCE;
            if !of_host && !options.granted.contains(name) {
                self.unmet.push(format!("{name}: a control was disabled by {by}; measure again without it, or accept it with --allow {name}"));
            }
        }
    }

    fn digests(&mut self, facts: &Facts, options: &VerifyOptions) {
        let plan = &facts.plan;
        let checkpoint = |role: Role| {
            let side = plan.sides.get(role.name());
            side.map(|side| side.checkpoint().tree_sha256.as_str()).unwrap_or_default()
        };
        let image = plan.image.as_ref().map_or(NONE, |image| &image.manifest_digest);
        let pins = &options.pins;
        for (name, required, found) in [
            ("baseline", &pins.baseline, checkpoint(Role::Baseline)),
            ("subject", &pins.subject, checkpoint(Role::Subject)),
            ("dataset", &pins.dataset, &plan.dataset_files.tree_sha256),
            ("image", &options.expected_image_digest, image),
            ("plan lock", &options.lock, plan.request.lock.as_deref().unwrap_or(NONE)),
        ] {
            let Some(required) = required else { continue };
            let bare = |digest: &str| digest.trim().to_lowercase().trim_start_matches("sha256:").to_owned();
            let (required, found) = (bare(required), bare(found));
            match required == found {
                true => self.matched.push(name.to_owned()),
                false if found == NONE => self
                    .unmet
                    .push(format!("the evaluation had no {name}, the verifier requires sha256:{required}")),
                false => self.unmet.push(format!(
                    "the {name} has the digest sha256:{found}, the verifier requires sha256:{required}"
                )),
            }
        }
    }

    /// Limits that replace those of the tier must be the ones that the verifier has: with others, any subject passes.
    fn tiers(&mut self, facts: &Facts, options: &VerifyOptions) {
        let tier = &facts.plan.tier;
        let required = options.tiers.as_ref().and_then(|file| file.of(tier));
        let unmet = match (&facts.plan.tiers, &options.tiers) {
            (Some(_), _) if options.any_tiers => return,
            (None, None) => return,
            (Some(found), Some(_)) if required.as_ref() == Some(found) => {
                return self.matched.push("tiers file".to_owned());
            }
            (Some(found), None) => format!(
                "the guards were judged with the limits of a tiers file (sha256:{}), not with those of tier {tier}; accept \
                 them with --tiers FILE",
                found.sha256
            ),
            (Some(found), Some(file)) => format!(
                "the guards were judged with the limits of a tiers file with the digest sha256:{}, the verifier requires \
                 those of tier {tier} in the file sha256:{}",
                found.sha256, file.sha256
            ),
            (None, Some(_)) => {
                format!("the guards were judged with the limits of tier {tier}, not with those of --tiers")
            }
        };
        self.unmet.push(unmet);
    }

    fn age(&mut self, facts: &Facts, options: &VerifyOptions) {
        let Some(oldest) = options.oldest else { return };
        if time(&facts.finished_at).is_none_or(|finished| finished < oldest) {
            self.unmet.push(format!(
                "the evidence is of {}, the verifier accepts none from before {}",
                facts.finished_at,
                oldest.to_rfc3339()
            ));
        }
    }

    /// `--baseline` must be the run report that was compared.
    fn baseline_report(&mut self, facts: &Facts, options: &VerifyOptions) -> Result<()> {
        let Some(path) = &options.baseline else { return Ok(()) };
        let shown = path.display();
        let bytes = read_evidence(path, RUN_REPORT_LIMIT)
            .map_err(|why| Error::input(format!("the baseline {shown} cannot be read: {why}")))?;
        let (found, stated) = (sha256_hex(&bytes), &facts.run_report(Role::Baseline)?.sha256);
        match found == *stated {
            true => self.matched.push("baseline report".to_owned()),
            false => self.unmet.push(format!(
                "--baseline {shown} is not the run report that was compared: its SHA-256 is {found}, the manifest has {stated}"
            )),
        }
        Ok(())
    }
}
