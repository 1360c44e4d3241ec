//! What evidence is about: the models, the data and the programs that it names. `verify` always shows it.

use crate::evaluation::Facts;
use crate::format::plan::{ExecutionMode, Files};
use crate::job::Role;
use crate::measured::Measured;
use crate::sentences::resumed;
use serde::Serialize;

/// A directory or file with its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Named {
    /// As the user named it.
    pub name: String,
    /// SHA-256 over names and digests of its files.
    pub sha256: String,
}

/// What one evaluation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
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
    /// SHA-256 of the file with limits that replace those of the tier; null without one.
    pub tiers: Option<String>,
    /// Whether the baseline was measured in an earlier evaluation.
    pub baseline_reused: bool,
    /// What earlier, interrupted runs measured; empty if there was none, or the run reports do not verify.
    pub resumed: Vec<Resumed>,
    /// When it was measured, UTC.
    pub measured_at: String,
    /// Operating system and architecture.
    pub machine: String,
    /// The keys that signed it.
    pub signers: Vec<Signer>,
    /// The plan lock that it was made under.
    pub lock: Option<Lock>,
}

/// A key that a signature names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Signer {
    /// Its fingerprint.
    pub key: String,
    /// Whether the verifier trusts the key, and the signature is right. The signature of another key was not checked.
    pub trusted: bool,
}

/// Windows that an earlier, interrupted run measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Resumed {
    /// The side.
    pub side: Role,
    /// Their number, in both arms.
    pub windows: usize,
    /// The number of all windows.
    pub of: usize,
}

impl Resumed {
    /// What a side resumed, if anything.
    pub(super) fn of(side: Role, measured: &Measured) -> Option<Self> {
        let windows = measured.resumed.iter().sum();
        let of = measured.preview.losses.len() + measured.final_.losses.len();
        (windows > 0).then_some(Self { side, windows, of })
    }

    fn line(&self) -> String {
        format!("{}: {}", self.side.name(), resumed(self.windows as u64, self.of as u64))
    }
}

/// A plan lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Lock {
    /// SHA-256 of its file.
    pub sha256: String,
    /// When it says that it was made, UTC.
    pub locked_at: String,
    /// The keys that signed it.
    pub signers: Vec<Signer>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Image {
    /// As the user named it.
    pub reference: String,
    /// `sha256:` and the digest of its manifest.
    pub digest: String,
}

/// The program that ran the evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
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
            tiers: plan.tiers.as_ref().map(|tiers| tiers.sha256.clone()),
            baseline_reused: facts.side(Role::Baseline).is_ok_and(|side| side.reused),
            resumed: Vec::new(),
            measured_at: facts.finished_at.clone(),
            machine: format!("Linux {}, {}", facts.machine.kernel, facts.machine.arch),
            signers: Vec::new(),
            lock: None,
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
        let tiers = (self.tiers.as_ref())
            .map_or_else(String::new, |sha256| format!(", limits of a tiers file sha256:{sha256}"));
        let mut lines = vec![
            ("baseline", named(&self.baseline) + reused),
            ("subject", named(&self.subject) + same),
            ("dataset", named(&self.dataset)),
            ("image", image),
            ("launcher", format!("invarlock {}  sha256:{}", launcher.version, launcher.sha256)),
            ("made with", format!("profile {}, tier {}{tiers}", self.profile, self.tier)),
            ("measured", format!("{} on {}", self.measured_at, self.machine)),
            ("lock", self.lock.as_ref().map_or_else(|| "none".to_owned(), Lock::line)),
            ("signed by", signed_by(&self.signers)),
        ];
        // After the time of the measurement.
        let at = lines.iter().position(|(name, _)| *name == "lock").unwrap_or(lines.len());
        lines.splice(at..at, self.resumed.iter().map(|resumed| ("resumed", resumed.line())));
        lines
    }
}

impl Lock {
    fn line(&self) -> String {
        format!("sha256:{}  made {}, signed by {}", self.sha256, self.locked_at, signed_by(&self.signers))
    }
}

fn signed_by(signers: &[Signer]) -> String {
    let line = |signer: &Signer| match signer.trusted {
        true => signer.key.clone(),
        false => format!("{} (not trusted, so not checked)", signer.key),
    };
    match signers {
        [] => "no key".to_owned(),
        signers => signers.iter().map(line).collect::<Vec<_>>().join(", "),
    }
}
