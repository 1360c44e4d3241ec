//! Tracing a profile: answers the notifications of a program from [`ResolvedProfile::compile_trace`].
//!
//! Such a program notifies of calls that the profile allows as well as of those that it denies, so the holder of the listener
//! decides. Only [`NotifyHandler`] can allow a call. It decides twice: by the resolved profile, and by interpreting the
//! program that would have been installed. Both use the registers of the call only, and the kernel executes the call with
//! these registers, so changes of memory by the workload have no effect. A call is allowed only where both allow it.

use crate::bpf::{EPERM, RET_ALLOW, RET_EPERM};
use crate::{Action, Call, Error, Listener, Program, ResolvedProfile, Result};

/// Answers the calls of a traced workload as the kernel would have answered them under the ordinary program.
#[derive(Debug)]
pub struct NotifyHandler {
    profile: ResolvedProfile,
    program: Program,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was executed: because of the profile's decision with this index, or because no decision matches it.
    Allowed(Option<usize>),
    /// It was denied with `EPERM`.
    Denied,
}

impl NotifyHandler {
    /// A handler for this profile.
    pub fn new(profile: ResolvedProfile) -> Result<Self> {
        let program = profile.compile()?;
        Ok(Self { profile, program })
    }

    /// The profile.
    pub fn profile(&self) -> &ResolvedProfile {
        &self.profile
    }

    /// Answers a call. A call is denied where [`NotifyHandler::decide`] fails.
    pub fn answer(&self, listener: &Listener, call: &Call) -> Result<Answer> {
        let answer = self.decide(call.number, &call.args);
        match answer {
            Ok(Answer::Allowed(_)) => listener.allow(call)?,
            Ok(Answer::Denied) | Err(_) => listener.deny(call)?,
        }
        answer
    }

    /// The answer to a call; an error where profile and program differ.
    pub fn decide(&self, number: u32, args: &[u64; 6]) -> Result<Answer> {
        let (by_profile, decision) = self.profile.decide(number, args);
        let by_program = self.program.interpret(number, args);
        match (by_profile, by_program) {
            (Action::Allow, Some(RET_ALLOW)) => Ok(Answer::Allowed(decision)),
            (Action::Errno(EPERM), Some(RET_EPERM)) => Ok(Answer::Denied),
            // The two differ, or the kernel decides this call without a notification.
            _ => Err(Error::integrity(format!(
                "seccomp profile {} decides {by_profile:?} for call {number}, its program {by_program:x?}",
                self.profile.name
            ))),
        }
    }
}
