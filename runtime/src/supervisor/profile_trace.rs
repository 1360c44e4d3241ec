//! Traces a profile: the filter reports every call of the workload, and the calls that the profile allows and denies are counted.

use crate::outcome::{DeniedCall, ProfileTrace};
use invarlock_error::{Context as _, Kind, Result};
use invarlock_seccomp::{Answer, Arch, Call, Listener, NotifyHandler, ResolvedProfile};
use std::collections::{BTreeMap, BTreeSet};

/// Most denied calls that are distinguished by their arguments; later ones are counted by name.
const MAX_DENIED: usize = 512;

/// Arguments by index.
type Arguments = Vec<(u8, u64)>;

pub(super) struct Tracer {
    handler: NotifyHandler,
    arch: Arch,
    trace: ProfileTrace,
    denied: BTreeMap<(String, Arguments), u64>,
}

impl Tracer {
    pub(super) fn new(profile: ResolvedProfile) -> Result<Self> {
        let trace = ProfileTrace { used: vec![0; profile.decisions.len()], ..ProfileTrace::default() };
        let arch = profile.arch;
        let handler = NotifyHandler::new(profile).context("preparing to trace a profile")?;
        Ok(Tracer { handler, arch, trace, denied: BTreeMap::new() })
    }

    /// Answers a call; true if it was denied.
    pub(super) fn answer(&mut self, listener: &Listener, call: &Call) -> Result<bool> {
        let answer = self.handler.answer(listener, call).map_err(|error| match error.kind() {
            Kind::Integrity => error,
            _ => error.with_kind(Kind::System),
        })?;
        match answer {
            Answer::Allowed(Some(decision)) => {
                if let Some(count) = self.trace.used.get_mut(decision) {
                    *count += 1;
                }
            }
            Answer::Allowed(None) => *self.trace.unmatched.entry(call.name(self.arch)).or_default() += 1,
            Answer::Denied => self.count_denied(call),
        }
        Ok(answer == Answer::Denied)
    }

    fn count_denied(&mut self, call: &Call) {
        let name = invarlock_seccomp::syscall_name(self.arch, call.number).unwrap_or("unknown").to_owned();
        let mut key = (name, self.compared_arguments(call));
        if self.denied.len() >= MAX_DENIED && !self.denied.contains_key(&key) {
            key.1.clear();
        }
        *self.denied.entry(key).or_default() += 1;
    }

    /// The arguments that the profile compares in such calls, and the address family of sockets.
    fn compared_arguments(&self, call: &Call) -> Arguments {
        let decisions =
            self.handler.profile().decisions.iter().filter(|decision| decision.number == call.number);
        let compared =
            decisions.flat_map(|decision| &decision.when).map(|condition| (condition.index, condition.wide));
        let mut indices: BTreeSet<(u8, bool)> = compared.collect();
        if call.name(self.arch).contains('(') {
            indices.insert((0, false));
        }
        let value = |(index, wide): (u8, bool)| {
            let all = call.args.get(usize::from(index)).copied().unwrap_or(0);
            (index, if wide { all } else { all & u64::from(u32::MAX) })
        };
        let mut values: Vec<_> = indices.into_iter().map(value).collect();
        values.dedup_by_key(|(index, _)| *index);
        values
    }

    pub(super) fn into_trace(self) -> ProfileTrace {
        let denied =
            self.denied.into_iter().map(|((syscall, args), count)| DeniedCall { syscall, args, count });
        ProfileTrace { denied: denied.collect(), ..self.trace }
    }
}
