//! The system-call filter of a workload: one of ours, or a profile that the user brings (`--seccomp FILE`), which is recorded as a
//! loosened control because nobody here knows what it allows.

use crate::error::{Error, Kind, Result};
use crate::inputs;
use invarlock_error::Context as _;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_seccomp::{Arch, BuiltinProfile, Machine, Program, ResolvedProfile, UserProfile};
use serde_json::{Value, json};
use std::path::Path;

/// Name of the loosened control, in manifests and for whoever grants it.
pub const CUSTOM: &str = "custom_seccomp_profile";
/// The longest text that the reader of profiles takes.
const LONGEST: u64 = 1 << 20;
/// Most names that no call of this machine has which are listed.
const NAMES: usize = 64;

/// A filter for containers.
pub struct Filter {
    /// As it is installed: refused calls are heard.
    pub program: Program,
    /// What the evidence says of a profile that the user brought; null for one of ours.
    pub custom: Value,
    profile: Profile,
}

/// What a filter was made from.
enum Profile {
    BuiltinProfile(BuiltinProfile),
    UserProfile(Box<ResolvedProfile>),
}

impl Filter {
    /// The user's profile, where there is one, else `ours`.
    pub fn choose(given: Option<&Path>, ours: BuiltinProfile) -> Result<Self> {
        match given {
            Some(path) => Filter::read(path),
            None => Ok(Filter {
                program: ours.program()?,
                custom: Value::Null,
                profile: Profile::BuiltinProfile(ours),
            }),
        }
    }

    /// What it decides.
    pub fn meaning(&self) -> Result<ResolvedProfile> {
        match &self.profile {
            Profile::BuiltinProfile(ours) => Ok(ours.profile().meaning(Arch::native()?)?),
            Profile::UserProfile(meaning) => Ok(ResolvedProfile::clone(meaning)),
        }
    }

    /// For people's programs.
    pub fn as_json(&self) -> Value {
        json!({"profile": self.program.name, "digest": self.program.digest, "custom": self.custom})
    }

    fn read(path: &Path) -> Result<Self> {
        let what = format!("--seccomp {}", path.display());
        let text = inputs::read_small(&what, path, LONGEST)?;
        let given = UserProfile::parse(&text, machine()?)
            .and_then(|given| Ok((given.meaning.compile_heard()?, given)))
            .context(&what)?;
        let (program, given) = given;
        let custom = json!({
            "path": path,
            "sha256": sha256_hex(&text),
            "format": given.format.as_str(),
            "program_digest": program.digest,
            "no_calls_here": given.elsewhere.iter().take(NAMES).collect::<Vec<_>>(),
        });
        Ok(Filter { program, custom, profile: Profile::UserProfile(Box::new(given.meaning)) })
    }
}

/// This machine, as profiles ask for it.
fn machine() -> Result<Machine> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok(Machine { arch: Arch::native()?, kernel: (major, minor) }),
        _ => Err(Error::new(
            Kind::System,
            format!("the kernel's release {release:?} does not begin with two numbers"),
        )),
    }
}
