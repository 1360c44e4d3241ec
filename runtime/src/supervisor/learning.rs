//! Which calls of a workload a profile allows and which it does not, counted while the supervisor is asked about every call.

use crate::spec::{DeniedCall, Learned};
use invarlock_error::{Context as _, Kind, Result};
use invarlock_seccomp::{Answer, Arch, Call, Listener, NotifyHandler, ResolvedProfile};
use std::collections::{BTreeMap, BTreeSet};

/// Most refused calls that are told apart by their arguments; those after them by their name.
const MOST_TRIED: usize = 512;

pub(super) struct Learning {
    judge: NotifyHandler,
    arch: Arch,
    learned: Learned,
    tried: BTreeMap<(String, Vec<(u8, u64)>), u64>,
}

impl Learning {
    pub(super) fn new(profile: ResolvedProfile) -> Result<Self> {
        let learned = Learned { used: vec![0; profile.decisions.len()], ..Learned::default() };
        let arch = profile.arch;
        let judge = NotifyHandler::new(profile).context("preparing to learn a profile")?;
        Ok(Learning { judge, arch, learned, tried: BTreeMap::new() })
    }

    /// Answers a call; gives whether it was refused.
    pub(super) fn answer(&mut self, listener: &Listener, call: &Call) -> Result<bool> {
        let answer = self.judge.answer(listener, call).map_err(|error| match error.kind() {
            Kind::Integrity => error,
            _ => error.with_kind(Kind::System),
        })?;
        match answer {
            Answer::Allowed(Some(decision)) => {
                if let Some(count) = self.learned.used.get_mut(decision) {
                    *count += 1;
                }
            }
            Answer::Allowed(None) => *self.learned.unmatched.entry(call.name(self.arch)).or_default() += 1,
            Answer::Refused => self.refused(call),
        }
        Ok(answer == Answer::Refused)
    }

    fn refused(&mut self, call: &Call) {
        let name = invarlock_seccomp::syscall_name(self.arch, call.number).unwrap_or("unknown").to_owned();
        let room = self.tried.len() < MOST_TRIED;
        let known = |key: &(String, Vec<(u8, u64)>)| self.tried.contains_key(key);
        let key = (name, self.arguments(call));
        let key = if room || known(&key) { key } else { (key.0, Vec::new()) };
        *self.tried.entry(key).or_default() += 1;
    }

    /// The arguments that the profile looks at in such calls, and of sockets the family.
    fn arguments(&self, call: &Call) -> Vec<(u8, u64)> {
        let decisions = self.judge.meaning().decisions.iter().filter(|it| it.number == call.number);
        let compared = decisions.flat_map(|it| &it.when).map(|it| (it.index, it.wide));
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

    pub(super) fn learned(self) -> Learned {
        let tried =
            self.tried.into_iter().map(|((syscall, args), count)| DeniedCall { syscall, args, count });
        Learned { refused: tried.collect(), ..self.learned }
    }
}
