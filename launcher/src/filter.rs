//! The system-call filter of a workload: a built-in profile, or a user profile (`--seccomp FILE`). A user profile is recorded as a
//! disabled control, because it may allow any call.

use crate::error::{Context as _, Error, Result};
use crate::inputs;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_seccomp::{Arch, BuiltinProfile, Machine, Program, ResolvedProfile, UserProfile};
use serde::Serialize;
use std::path::Path;

/// Name of the disabled control, in manifests and in the verifier's options.
pub const USER_PROFILE: &str = "custom_seccomp_profile";
/// Largest user profile in bytes.
const MAX_PROFILE_BYTES: u64 = 1 << 20;
/// How many calls that this machine does not have are listed in the evidence.
const MAX_UNKNOWN_CALLS: usize = 64;

/// A filter for containers.
pub struct Filter {
    /// The filter as it is installed: denied calls are reported.
    pub program: Program,
    /// What the evidence records of a user profile; none for a built-in profile.
    pub custom: Option<CustomProfile>,
    source: Source,
}

/// A user profile, in evidence and JSON output.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct CustomProfile {
    /// Its file as the user named it.
    path: String,
    /// SHA-256 of the file, hexadecimal.
    sha256: String,
    /// The format of the file.
    format: &'static str,
    /// `sha256:` and the digest of the compiled program.
    program_digest: String,
    /// Calls of the file that this machine does not have: the first 64.
    no_calls_here: Vec<String>,
}

/// A filter in JSON output.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct FilterOutput<'a> {
    /// Name of the profile.
    profile: &'a str,
    /// `sha256:` and the digest of the compiled program.
    digest: &'a str,
    /// The user profile; null for a built-in profile.
    custom: Option<&'a CustomProfile>,
}

/// What a filter was made from.
enum Source {
    Builtin(BuiltinProfile),
    Resolved(Box<ResolvedProfile>),
}

impl Filter {
    /// The user's profile if there is one, otherwise `builtin`.
    pub fn choose(user_profile: Option<&Path>, builtin: BuiltinProfile) -> Result<Self> {
        match user_profile {
            Some(path) => Filter::read(path),
            None => {
                Ok(Filter { program: builtin.program()?, custom: None, source: Source::Builtin(builtin) })
            }
        }
    }

    /// The stricter of this filter and the profile in the configuration of an OCI bundle, whose text is `config`.
    pub fn restricted_by_config(self, config: &[u8], path: &Path) -> Result<Self> {
        let what = format!("linux.seccomp of {}", path.display());
        let theirs = UserProfile::parse(config, machine()?).context(&what)?;
        let resolved = self.resolved()?.combined(&theirs.resolved).context(&what)?;
        resolved.check_required_calls().context(&what)?;
        let program = resolved.compile_notify().context(&what)?;
        Ok(Filter { program, custom: self.custom, source: Source::Resolved(Box::new(resolved)) })
    }

    /// The same without calls that give files a set-id bit, for containers that can write a directory of the host.
    pub fn without_set_id(self) -> Result<Self> {
        let resolved = self.resolved()?.without_set_id();
        let program = resolved.compile_notify()?;
        Ok(Filter { program, custom: self.custom, source: Source::Resolved(Box::new(resolved)) })
    }

    /// The same with the requests to the drivers of accelerators. A user profile stays as it is.
    pub fn with_device_requests(self) -> Result<Self> {
        if self.custom.is_some() {
            return Ok(self);
        }
        let resolved = self.resolved()?.with_device_requests();
        let program = resolved.compile_notify()?;
        Ok(Filter { program, custom: None, source: Source::Resolved(Box::new(resolved)) })
    }

    /// The profile with every condition resolved for this machine.
    pub fn resolved(&self) -> Result<ResolvedProfile> {
        match &self.source {
            Source::Builtin(builtin) => Ok(builtin.profile().resolve(Arch::native()?)?),
            Source::Resolved(resolved) => Ok(ResolvedProfile::clone(resolved)),
        }
    }

    /// The filter in JSON output.
    pub fn output(&self) -> FilterOutput<'_> {
        FilterOutput {
            profile: &self.program.name,
            digest: &self.program.digest,
            custom: self.custom.as_ref(),
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let what = format!("--seccomp {}", path.display());
        let text = inputs::read_small(&what, path, MAX_PROFILE_BYTES)?;
        let profile = UserProfile::parse(&text, machine()?).context(&what)?;
        let program = profile.resolved.compile_notify().context(&what)?;
        let custom = CustomProfile {
            path: path.display().to_string(),
            sha256: sha256_hex(&text),
            format: profile.format.as_str(),
            program_digest: program.digest.clone(),
            no_calls_here: profile.unknown_calls.iter().take(MAX_UNKNOWN_CALLS).cloned().collect(),
        };
        Ok(Filter { program, custom: Some(custom), source: Source::Resolved(Box::new(profile.resolved)) })
    }
}

/// This machine, for the conditions of a profile.
fn machine() -> Result<Machine> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok(Machine { arch: Arch::native()?, kernel: (major, minor) }),
        _ => Err(Error::system(format!("the kernel release {release:?} does not start with two numbers"))),
    }
}
