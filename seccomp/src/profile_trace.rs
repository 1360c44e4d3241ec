//! Learning: a program that asks about every call, and who answers it.
//!
//! The kernel asks about calls that a profile allows as well as about those that it refuses, so whoever holds the listener decides, and
//! only [`NotifyHandler`] lets a call through. It decides twice: by what the profile means, and by interpreting the program that would have
//! been installed, byte for byte. Both look at the call's registers only, and the kernel makes the call with the very registers it asked
//! about, so nothing that the workload changes meanwhile matters. A call goes through only where both allow it.

use crate::compile::{ALLOW, EPERM, EPERM_BY_KERNEL};
use crate::{Action, Call, Error, Listener, Program, ResolvedProfile, Result};

/// Answers the calls that a learning program asks about as the kernel would have answered them under the ordinary one.
#[derive(Debug)]
pub struct NotifyHandler {
    meaning: ResolvedProfile,
    program: Program,
}

/// How a call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was made: by which of the profile's decisions, or because none matched it.
    Allowed(Option<usize>),
    /// It gave `EPERM`.
    Refused,
}

impl NotifyHandler {
    /// A judge by this profile.
    pub fn new(meaning: ResolvedProfile) -> Result<Self> {
        let program = meaning.compile()?;
        Ok(Self { meaning, program })
    }

    /// The profile.
    pub fn meaning(&self) -> &ResolvedProfile {
        &self.meaning
    }

    /// Answers a call.
    pub fn answer(&self, listener: &Listener, call: &Call) -> Result<Answer> {
        let answer = self.judge(call.number, &call.args);
        match answer {
            Ok(Answer::Allowed(_)) => listener.let_through(call)?,
            Ok(Answer::Refused) | Err(_) => listener.refuse(call)?,
        }
        answer
    }

    /// What becomes of a call.
    pub fn judge(&self, number: u32, args: &[u64; 6]) -> Result<Answer> {
        let (meant, decision) = self.meaning.decide(number, args);
        let done = self.program.interpret(number, args);
        match (meant, done) {
            (Action::Allow, Some(ALLOW)) => Ok(Answer::Allowed(decision)),
            (Action::Errno(EPERM), Some(EPERM_BY_KERNEL)) => Ok(Answer::Refused),
            // Either they differ, or nobody should have asked: the kernel decides everything else by itself.
            _ => Err(Error::integrity(format!(
                "profile {} says {meant:?} of call {number}, its program {done:x?}",
                self.meaning.name
            ))),
        }
    }
}
