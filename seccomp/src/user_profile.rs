//! Profiles of users: in InvarLock's format, or in that of Docker, Podman and the OCI runtime specification.
//!
//! No profile can change three decisions: another architecture and the x32 numbers kill the process, a number that this
//! crate does not know gives `ENOSYS`, and so does `clone3`. They only narrow what a profile allows.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::profile::{MAX_BYTES, invalid};
use crate::resolved_profile::Machine;
use crate::{Profile, ResolvedProfile, Result, docker};

/// The format of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`Profile`].
    Invarlock,
    /// The format of Docker, Podman and the OCI runtime specification.
    Docker,
}

impl Format {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invarlock => "invarlock",
            Self::Docker => "docker",
        }
    }
}

/// A user's profile, resolved for one machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UserProfile {
    /// Its format.
    pub format: Format,
    /// Its decisions on the machine.
    pub resolved: ResolvedProfile,
    /// Names in it that are not system calls of the machine: calls of other architectures, or calls unknown to this crate.
    /// They have no number, so they are not allowed.
    pub unknown_calls: Vec<String>,
}

/// The members by which the formats are told apart.
#[derive(Deserialize)]
struct Outline {
    default: Option<IgnoredAny>,
    #[serde(rename = "defaultAction")]
    default_action: Option<IgnoredAny>,
    linux: Option<IgnoredAny>,
}

impl UserProfile {
    /// Parses a profile and resolves it for `machine`. An error where it cannot be expressed exactly, or where no program
    /// could be started under it.
    pub fn parse(text: &[u8], machine: Machine) -> Result<Self> {
        let profile = Self::read(text, machine)?;
        profile.resolved.check_required_calls()?;
        Ok(profile)
    }

    fn read(text: &[u8], machine: Machine) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(invalid(format!("{} bytes are more than the limit of {MAX_BYTES}", text.len())));
        }
        let outline: Outline = serde_json::from_slice(text).map_err(invalid)?;
        let docker = |(resolved, unknown_calls)| Self { format: Format::Docker, resolved, unknown_calls };
        match outline {
            Outline { default: Some(_), default_action: None, .. } => {
                let profile = Profile::parse(text)?;
                let is_unknown = |name: &String| crate::syscall_number(machine.arch, name).is_none();
                let unknown_calls =
                    profile.rules().iter().map(|rule| rule.syscall.clone()).filter(is_unknown).collect();
                let resolved = ResolvedProfile { closed: true, ..profile.resolve(machine.arch)? };
                Ok(Self { format: Format::Invarlock, resolved, unknown_calls })
            }
            Outline { default_action: Some(_), default: None, .. } => docker::resolve(text, machine).map(docker),
            Outline { linux: Some(_), .. } => docker::resolve_config(text, machine).map(docker),
            _ => Err(invalid("unknown format").with_hint(
                "an InvarLock profile has the member \"default\", a profile of Docker or the OCI \"defaultAction\", \
                 an OCI configuration \"linux.seccomp\"",
            )),
        }
    }
}
