//! Profiles that users bring: in our own format, or in that of Docker, Podman and the OCI runtime specification.
//!
//! Whatever a profile says, three things are not its to decide: another architecture and the x32 numbers kill the process, a number that
//! this crate does not know gives `ENOSYS`, and so does `clone3`. They only ever narrow what a profile allows.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::profile::LONGEST;
use crate::{Arch, Error, Profile, ResolvedProfile, Result, docker};

/// What a profile may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its architecture.
    pub arch: Arch,
    /// Its kernel: the first two numbers of its release.
    pub kernel: (u32, u32),
}

/// How a profile was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As [`Profile`].
    BuiltinProfile,
    /// As Docker, Podman and the OCI runtime specification write it.
    Docker,
}

impl Format {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltinProfile => "invarlock",
            Self::Docker => "docker",
        }
    }
}

/// A profile that a user brought, read for one machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UserProfile {
    /// How it was written.
    pub format: Format,
    /// What it means there.
    pub meaning: ResolvedProfile,
    /// Names in it that are no call there: of other architectures, or unknown to this crate. No number is theirs, so nothing of them is
    /// allowed.
    pub elsewhere: Vec<String>,
}

/// Enough of a text to tell the formats apart.
#[derive(Deserialize)]
struct Outline {
    default: Option<IgnoredAny>,
    #[serde(rename = "defaultAction")]
    default_action: Option<IgnoredAny>,
    linux: Option<IgnoredAny>,
}

impl UserProfile {
    /// Reads a profile and resolves it for `machine`. What cannot be expressed exactly is an error; a profile under which no program
    /// could be started, too.
    pub fn parse(text: &[u8], machine: Machine) -> Result<Self> {
        let given = Self::read(text, machine)?;
        given.meaning.check_needed()?;
        Ok(given)
    }

    fn read(text: &[u8], machine: Machine) -> Result<Self> {
        if text.len() > LONGEST {
            let what = format!("{} bytes are more than the {LONGEST} a profile may have", text.len());
            return Err(bad(what));
        }
        let outline: Outline = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        match outline {
            Outline { default: Some(_), default_action: None, .. } => {
                let profile = Profile::parse(text)?;
                let elsewhere = |name: &String| crate::syscall_number(machine.arch, name).is_none();
                let names = profile.rules().iter().map(|rule| rule.syscall.clone()).filter(elsewhere).collect();
                let meaning = ResolvedProfile { closed: true, ..profile.meaning(machine.arch)? };
                Ok(Self { format: Format::BuiltinProfile, meaning, elsewhere: names })
            }
            Outline { default_action: Some(_), default: None, .. } => docker::profile(text, machine),
            Outline { linux: Some(_), .. } => docker::of_config(text, machine),
            _ => Err(bad(
                "it is no profile: ours has \"default\", Docker's and the OCI's \"defaultAction\", an OCI configuration linux.seccomp"
                    .to_owned(),
            )),
        }
    }
}

pub(crate) fn bad(what: impl std::fmt::Display) -> Error {
    Error::input(format!("reading a system-call profile failed: {what}"))
}
