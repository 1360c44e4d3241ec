//! System-call profiles as data, compiled to BPF.
//!
//! The way through this crate, and its files in that order:
//!
//! 1. [`Profile`] (`profile.rs`): what a JSON file under `profiles/` says, one rule a line, each with a reason. A *condition* compares one
//!    argument; the conditions of one *rule* must all hold; several rules for one call are alternatives.
//! 2. [`UserProfile`] (`given.rs`): what users bring, in our format or in Docker's (`docker.rs`).
//! 3. [`ResolvedProfile`] (`meaning.rs`): either of them for one [`Arch`], numbers instead of names. `table/` has both.
//! 4. [`ResolvedProfile::compile`] (`compile.rs`): a meaning becomes a [`Program`].
//!    Those of the profiles for containers are compiled ahead of time ([`BuiltinProfile`], `ours.rs`).
//! 5. [`Program`] (`program.rs`): the BPF as bytes with its digest; [`Program::install`] hands it to the kernel.
//! 6. [`Listener`] (`listener.rs`): where a program is compiled so that refused calls are heard, what hears and answers them.
//!    All `unsafe` is in `sys.rs`.
//! 7. [`NotifyHandler`] (`learn.rs`, `interpret.rs`): where a profile is learned, what answers every call as its program would have.
//!
//! An allow-list ([`Default::Enosys`]) decides, in this order: another architecture or the x32 numbers kill the process; a
//! number this crate does not know gives `ENOSYS`, so that libc falls back, and so does `clone3`, whose flags lie
//! in memory where no filter can see them; a listed call whose conditions hold is allowed; any other gives `EPERM`.
//!
//! A filter judges calls, not descriptors: an open socket that was inherited or received works under [`Profile::no_network`].
//!
//! ```
//! let program = invarlock_seccomp::Profile::no_network().compile()?;
//! assert!(program.digest.starts_with("sha256:"));
//! std::thread::spawn(move || program.install()).join().expect("thread")?; // that thread only, for good
//! # Ok::<(), invarlock_seccomp::Error>(())
//! ```

#![deny(unsafe_code)]

mod builtin_profile;
mod compile;
mod constants;
mod docker;
mod interpret;
mod listener;
mod profile;
mod profile_trace;
mod program;
mod resolved_profile;
mod sys;
mod table;
mod user_profile;

pub use builtin_profile::BuiltinProfile;
pub use compile::LEARNING_FD;
pub use invarlock_error::{Error, Kind, Result};
pub use listener::{Call, Listener};
pub use profile::{Condition, Default, Length, Operator, Profile, Rule, Value};
pub use profile_trace::{Answer, NotifyHandler};
pub use program::{Program, Ready};
pub use resolved_profile::{Action, Comparison, Decision, NEEDED, ResolvedProfile};
pub use table::{name as syscall_name, number as syscall_number};
pub use user_profile::{Format, Machine, UserProfile};

/// A machine that programs can be compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one this program runs on.
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
    Error::unsupported(format!("system-call filters are not built for {arch}; x86_64 and aarch64 are"))
}
