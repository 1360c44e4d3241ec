//! System-call profiles as data, compiled to BPF.
//!
//! From a profile to the kernel:
//!
//! 1. [`Profile`] (`profile.rs`): a JSON file under `profiles/` with one rule per line, each with a reason. A *condition* compares
//!    one argument; the conditions of one *rule* must all hold; several rules for one call are alternatives.
//! 2. [`UserProfile`] (`user_profile.rs`): a user's profile, in InvarLock's format or in Docker's (`docker.rs`).
//! 3. [`ResolvedProfile`] (`resolved_profile.rs`): a profile for one [`Arch`], with numbers instead of names (`table/`).
//! 4. [`ResolvedProfile::compile`] (`compile.rs`, `bpf.rs`) compiles a [`Program`]. Programs of the built-in profiles are compiled
//!    ahead of time ([`BuiltinProfile`]).
//! 5. [`Program`] (`program.rs`): the bytes of the BPF program and their digest. [`Program::install`] installs it.
//! 6. [`Listener`] (`listener.rs`): receives and answers denied calls by seccomp user notification. All `unsafe` code is in
//!    `sys.rs`.
//! 7. For other runtimes, [`ResolvedProfile::to_oci`] (`oci_profile.rs`) writes it in the format of the OCI; [`ResolvedProfile::combined`]
//!    (`combined_profile.rs`) is the stricter of two profiles.
//! 8. [`NotifyHandler`] (`profile_trace.rs`, `interpret.rs`): answers every call while a profile is traced.
//!
//! An allow-list ([`Default::Enosys`]) decides in this order: another architecture or an x32 number kills the process; a number
//! that this crate does not know gives `ENOSYS`, so that libc falls back, and so does `clone3`, whose flags are in memory, which
//! a filter cannot read; a listed call whose conditions hold is allowed; any other call gives `EPERM`.
//!
//! A filter decides about calls, not descriptors: an inherited or received socket works under [`Profile::no_network`].
//!
//! ```
//! let program = invarlock_seccomp::Profile::no_network().compile()?;
//! assert!(program.digest.starts_with("sha256:"));
//! std::thread::spawn(move || program.install()).join().expect("thread")?; // irrevocably, on that thread only
//! # Ok::<(), invarlock_seccomp::Error>(())
//! ```

#![deny(unsafe_code)]

mod bpf;
mod builtin_profile;
mod combined_profile;
mod compile;
mod constants;
mod device_requests;
mod docker;
mod interpret;
mod listener;
mod oci_profile;
mod pattern;
mod profile;
mod profile_trace;
mod program;
mod resolved_profile;
mod set_id;
mod sys;
mod table;
mod user_profile;

pub use builtin_profile::BuiltinProfile;
pub use compile::TRACE_FD;
pub use invarlock_error::{Error, Kind, Result};
pub use listener::{Call, Listener};
pub use oci_profile::OciProfile;
pub use profile::{Condition, Default, Length, Profile, Rule, Value};
pub use profile_trace::{Answer, NotifyHandler};
pub use program::{Program, Ready};
pub use resolved_profile::{
    Action, Comparison, Decision, Machine, Operator, REQUIRED_CALLS, ResolvedProfile,
};
pub use table::{name as syscall_name, number as syscall_number};
pub use user_profile::{Format, UserProfile};

/// An architecture for which programs can be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// All architectures.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture of this machine.
    pub fn native() -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.as_str() == std::env::consts::ARCH)
            .ok_or_else(|| unsupported(std::env::consts::ARCH))
    }

    /// Its name, as in profiles.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `AUDIT_ARCH_*` of the kernel.
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }
}

fn unsupported(arch: &str) -> Error {
    Error::unsupported(format!("seccomp filters are not supported on {arch}; supported: x86_64 and aarch64"))
}
