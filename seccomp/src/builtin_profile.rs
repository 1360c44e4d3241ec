//! The profiles that containers get, with their programs compiled ahead of time: a run neither reads nor compiles one. What lies in
//! `programs/` is what the profiles compile to; `tests/profiles.rs` compiles them anew and compares, and
//! `cargo run -p invarlock-seccomp --example compile` writes them.

use crate::{Arch, Profile, Program, Result};

/// A profile of this crate for containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinProfile {
    /// [`Profile::evaluator`].
    Evaluator,
    /// [`Profile::general`].
    General,
}

impl BuiltinProfile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Evaluator, Self::General];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evaluator => "evaluator",
            Self::General => "general",
        }
    }

    /// As data.
    pub fn profile(self) -> Profile {
        match self {
            Self::Evaluator => Profile::evaluator(),
            Self::General => Profile::general(),
        }
    }

    /// Its program for this machine, whose refused calls are heard.
    pub fn program(self) -> Result<Program> {
        let arch = Arch::native()?;
        let bytes: &[u8] = match (self, arch) {
            (Self::Evaluator, Arch::X86_64) => include_bytes!("../programs/evaluator-x86_64.bpf"),
            (Self::Evaluator, Arch::Aarch64) => include_bytes!("../programs/evaluator-aarch64.bpf"),
            (Self::General, Arch::X86_64) => include_bytes!("../programs/general-x86_64.bpf"),
            (Self::General, Arch::Aarch64) => include_bytes!("../programs/general-aarch64.bpf"),
        };
        Program::compiled(self.as_str(), arch, bytes)
    }
}
