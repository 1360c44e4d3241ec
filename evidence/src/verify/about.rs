//! What evidence is about: the models, the data and the programs that it names. `verify` always shows it.

use crate::evaluation::Facts;
use crate::format::plan::{ExecutionMode, Files};
use crate::job::Role;
use serde::Serialize;

/// A directory or file with its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// As the user named it.
    pub name: String,
    /// SHA-256 over names and digests of its files.
    pub sha256: String,
}

/// What one evaluation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// The baseline checkpoint.
    pub baseline: Named,
    /// The subject checkpoint.
    pub subject: Named,
    /// Whether both are the same files.
    pub same_checkpoint: bool,
    /// The dataset.
    pub dataset: Named,
    /// The image's reference and the digest of its manifest; none for a host run.
    pub image: Option<Image>,
    /// Version and SHA-256 of the launcher.
    pub launcher: Launcher,
    /// Name of the tier.
    pub tier: String,
    /// Name of the profile.
    pub profile: String,
    /// Whether the baseline was measured in an earlier evaluation.
    pub baseline_reused: bool,
    /// When it was measured, UTC.
    pub measured_at: String,
    /// Operating system and architecture.
    pub machine: String,
    /// The key that signed it; none if unsigned.
    pub signed_by: Option<String>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// As the user named it.
    pub reference: String,
    /// `sha256:` and the digest of its manifest.
    pub digest: String,
}

/// The program that ran the evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Launcher {
    /// Its version.
    pub version: String,
    /// SHA-256 of its file.
    pub sha256: String,
}

impl About {
    /// What the facts name.
    pub fn of(facts: &Facts) -> Self {
        let plan = &facts.plan;
        let named = |files: Option<&Files>| Named {
            name: files.map(|files| files.path.clone()).unwrap_or_default(),
            sha256: files.map(|files| files.tree_sha256.clone()).unwrap_or_default(),
        };
        let checkpoint = |role: Role| named(plan.sides.get(role.name()).map(|side| side.checkpoint()));
        let (baseline, subject) = (checkpoint(Role::Baseline), checkpoint(Role::Subject));
        Self {
            same_checkpoint: baseline.sha256 == subject.sha256,
            baseline,
            subject,
            dataset: named(Some(&plan.dataset_files)),
            image: plan.image.as_ref().filter(|_| plan.execution_mode == ExecutionMode::Container).map(
                |image| Image { reference: image.reference.clone(), digest: image.manifest_digest.clone() },
            ),
            launcher: Launcher {
                version: facts.launcher.version.clone(),
                sha256: facts.launcher.sha256.clone(),
            },
            tier: plan.tier.clone(),
            profile: plan.profile.clone(),
            baseline_reused: facts.side(Role::Baseline).is_ok_and(|side| side.reused),
            measured_at: facts.finished_at.clone(),
            machine: format!("Linux {}, {}", facts.machine.kernel, facts.machine.arch),
            signed_by: None,
        }
    }

    /// A line for each fact: its name and what it is. Can contain control characters of the evidence.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let named = |named: &Named| format!("{}  sha256:{}", named.name, named.sha256);
        let same = if self.same_checkpoint { "  (the same files as the baseline)" } else { "" };
        let reused = if self.baseline_reused { "  (measured in an earlier evaluation)" } else { "" };
        let image = match &self.image {
            Some(image) => format!("{}  {}", image.reference, image.digest),
            None => "none: measured on the host".to_owned(),
        };
        let launcher = &self.launcher;
        vec![
            ("baseline", named(&self.baseline) + reused),
            ("subject", named(&self.subject) + same),
            ("dataset", named(&self.dataset)),
            ("image", image),
            ("launcher", format!("invarlock {}  sha256:{}", launcher.version, launcher.sha256)),
            ("policy", format!("profile {}, tier {}", self.profile, self.tier)),
            ("measured", format!("{} on {}", self.measured_at, self.machine)),
            ("signed by", self.signed_by.clone().unwrap_or_else(|| "no key".to_owned())),
        ]
    }
}
