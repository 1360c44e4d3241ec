//! The built-in profiles for containers. Their programs in `programs/` are compiled ahead of time, so a run neither parses nor
//! compiles a profile. `cargo run -p invarlock-seccomp --example compile` writes them; `tests/profiles.rs` compares them with the
//! profiles.

use crate::{Arch, Profile, Program, Result};

/// A built-in profile for containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinProfile {
    /// [`Profile::evaluator`].
    Evaluator,
    /// [`Profile::evaluator_amx`].
    EvaluatorAmx,
    /// [`Profile::general`].
    General,
    /// [`Profile::terminal`].
    Terminal,
}

impl BuiltinProfile {
    /// All built-in profiles.
    pub const ALL: [Self; 4] = [Self::Evaluator, Self::EvaluatorAmx, Self::General, Self::Terminal];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evaluator => "evaluator",
            Self::EvaluatorAmx => "evaluator-amx",
            Self::General => "general",
            Self::Terminal => "terminal",
        }
    }

    /// The profile.
    pub fn profile(self) -> Profile {
        match self {
            Self::Evaluator => Profile::evaluator(),
            Self::EvaluatorAmx => Profile::evaluator_amx(),
            Self::General => Profile::general(),
            Self::Terminal => Profile::terminal(),
        }
    }

    /// Its program for this machine, with user notification of denied calls.
    pub fn program(self) -> Result<Program> {
        let arch = Arch::native()?;
        let bytes: &[u8] = match (self, arch) {
            (Self::Evaluator, Arch::X86_64) => include_bytes!("../programs/evaluator-x86_64.bpf"),
            (Self::Evaluator, Arch::Aarch64) => include_bytes!("../programs/evaluator-aarch64.bpf"),
            (Self::EvaluatorAmx, Arch::X86_64) => include_bytes!("../programs/evaluator-amx-x86_64.bpf"),
            (Self::EvaluatorAmx, Arch::Aarch64) => include_bytes!("../programs/evaluator-amx-aarch64.bpf"),
            (Self::General, Arch::X86_64) => include_bytes!("../programs/general-x86_64.bpf"),
            (Self::General, Arch::Aarch64) => include_bytes!("../programs/general-aarch64.bpf"),
            (Self::Terminal, Arch::X86_64) => include_bytes!("../programs/terminal-x86_64.bpf"),
            (Self::Terminal, Arch::Aarch64) => include_bytes!("../programs/terminal-aarch64.bpf"),
        };
        Program::compiled(self.as_str(), arch, bytes)
    }
}
