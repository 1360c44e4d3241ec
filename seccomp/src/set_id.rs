//! Profiles for containers that can write a directory of the host: no file gets a set-user-id or set-group-id bit.
//!
//! A mount with `nosuid` ignores the bits inside the container only. On the host, another user could execute the file with the id of its owner.

use crate::bpf::{ENOSYS, EPERM};
use crate::resolved_profile::{Action, Comparison, Decision, Operator, ResolvedProfile};
use crate::table;

/// `S_ISUID` and `S_ISGID`.
const SET_ID: [u64; 2] = [0o4000, 0o2000];
/// `O_CREAT` and the bit of `O_TMPFILE` that is not `O_DIRECTORY`: with one of them, open(2) has a mode.
const CREATE: [u64; 2] = [0o100, 0o20_000_000];
/// Calls with a mode, and the index of that argument.
const WITH_MODE: [(&str, u8); 7] = [
    ("chmod", 1),
    ("creat", 1),
    ("fchmod", 1),
    ("fchmodat", 2),
    ("fchmodat2", 2),
    ("mknod", 1),
    ("mknodat", 2),
];
/// Calls with flags, and a mode after them.
const WITH_FLAGS: [(&str, u8); 2] = [("open", 1), ("openat", 2)];
/// The call whose mode is in memory, which a filter cannot read. Programs fall back to openat(2).
const UNREADABLE: &str = "openat2";

impl ResolvedProfile {
    /// The profile without calls that set the bits.
    pub fn without_set_id(mut self) -> Self {
        self.name.push_str("-no-set-id");
        for (call, mode) in WITH_MODE {
            self.deny(call, &SET_ID.map(|bit| vec![has(mode, bit)]), &[vec![has_none(mode, &SET_ID)]]);
        }
        for (call, flags) in WITH_FLAGS {
            let mode = flags + 1;
            let denied: Vec<_> = CREATE
                .iter()
                .flat_map(|create| SET_ID.map(|bit| vec![has(flags, *create), has(mode, bit)]))
                .collect();
            self.deny(call, &denied, &[vec![has_none(flags, &CREATE)], vec![has_none(mode, &SET_ID)]]);
        }
        self.decisions.retain(|decision| decision.syscall != UNREADABLE);
        self.extend(UNREADABLE, &[Vec::new()], Action::Errno(ENOSYS));
        self
    }

    /// Denies `call` where one of `denied` holds. `allowed` is the opposite: one of it holds exactly where none of `denied` does.
    fn deny(&mut self, call: &str, denied: &[Vec<Comparison>], allowed: &[Vec<Comparison>]) {
        let (of_call, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.decisions).into_iter().partition(|decision| decision.syscall == call);
        self.decisions = others;
        let is_denied = |action| action != Action::Allow;
        // What the profile denies stays as it is; what it allows is allowed with one of `allowed` in addition.
        for decision in of_call {
            if is_denied(decision.action) {
                self.decisions.push(decision);
                continue;
            }
            self.decisions.extend(allowed.iter().map(|more| Decision {
                when: decision.when.iter().chain(more).copied().collect(),
                ..decision.clone()
            }));
        }
        if !is_denied(self.otherwise) {
            self.extend(call, denied, Action::Errno(EPERM));
        }
    }

    fn extend(&mut self, call: &str, when: &[Vec<Comparison>], action: Action) {
        let Some(number) = table::number(self.arch, call) else { return };
        self.decisions.extend(when.iter().map(|when| Decision {
            syscall: call.to_owned(),
            number,
            when: when.clone(),
            action,
            reason: "no set-id bits in directories of the host".to_owned(),
        }));
    }
}

fn has(index: u8, bit: u64) -> Comparison {
    masked(index, bit, bit)
}

fn has_none(index: u8, bits: &[u64]) -> Comparison {
    masked(index, bits.iter().fold(0, |all, bit| all | bit), 0)
}

fn masked(index: u8, mask: u64, value: u64) -> Comparison {
    Comparison { index, wide: false, op: Operator::MaskedEq, mask, value }
}
