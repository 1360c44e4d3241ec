//! From a profile to BPF.
//!
//! seccompiler knows one action for a match and one for everything else, and no notification: where refused calls are to be heard, the
//! returns of its program that say `EPERM` are made to say that. What an allow-list needs besides (`ENOSYS` for
//! numbers nobody knows, death for x32) is a prologue in front of its program, not a second filter: of two
//! filters that both answer with an errno the newest wins, and installing a second one would need `seccomp` and `prctl`
//! in every profile. Jumps of BPF are relative, so a prologue that falls through changes nothing behind it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::profile::{Condition, Default, Length, Operator, Profile};
use crate::{Arch, Error, Program, Result, table};

/// First number of the x32 calls, which x86_64 kernels may offer beside their own under the same architecture.
const X32: u32 = 0x4000_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// What becomes of a call that the profile refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// `EPERM`, by the kernel itself.
    Errno,
    /// Whoever holds the listener is asked.
    Heard,
}

impl Profile {
    /// Compiles it for `arch`: a refused call gives `EPERM`.
    pub fn compile_for(&self, arch: Arch) -> Result<Program> {
        compile(self, arch, Refused::Errno)
    }

    /// Compiles it for `arch` so that refused calls are heard: each waits until whoever holds the program's [`crate::Listener`]
    /// has answered. What decides is the same; only calls that [`Profile::compile_for`] answers with `EPERM` differ.
    pub fn compile_heard_for(&self, arch: Arch) -> Result<Program> {
        compile(self, arch, Refused::Heard)
    }
}

fn compile(profile: &Profile, arch: Arch, refused: Refused) -> Result<Program> {
    profile.validate()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in profile.rules() {
        // Validated: an unnamed architecture is one that lacks the call.
        let Some(number) = table::number(arch, &rule.syscall) else { continue };
        let alternatives = rules.entry(i64::from(number)).or_default();
        if !rule.args.is_empty() {
            let conditions = rule.args.iter().map(|it| condition(profile, it)).collect::<Result<Vec<_>>>()?;
            alternatives.push(SeccompRule::new(conditions).map_err(|source| failed(profile, source))?);
        }
    }
    let (mismatch, matched) = match profile.default {
        Default::Enosys => (SeccompAction::Errno(EPERM), SeccompAction::Allow),
        Default::Allow => (SeccompAction::Allow, SeccompAction::Errno(EPERM)),
    };
    let target = match arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    let mut body: BpfProgram = SeccompFilter::new(rules, mismatch, matched, target)
        .and_then(TryInto::try_into)
        .map_err(|source| failed(profile, source))?;
    if refused == Refused::Heard {
        let by_errno = |it: &&mut sock_filter| it.code == RETURN && it.k == ERRNO | EPERM;
        body.iter_mut().filter(by_errno).for_each(|it| it.k = USER_NOTIF);
    }
    let mut filter = prologue(profile.default, arch);
    filter.extend(body);
    Program::new(&profile.name, arch, vec![filter])
}

fn failed(profile: &Profile, source: seccompiler::BackendError) -> Error {
    profile.wrong(format!("compiling it failed: {source}"))
}

fn condition(profile: &Profile, it: &Condition) -> Result<SeccompCondition> {
    let resolve = |value: &crate::Value| value.resolve().map_err(|what| profile.wrong(what));
    let mask = it.mask.as_ref().map(resolve).transpose()?.unwrap_or(u64::MAX);
    let operator = match it.op {
        Operator::Eq => SeccompCmpOp::Eq,
        Operator::Ne => SeccompCmpOp::Ne,
        Operator::Lt => SeccompCmpOp::Lt,
        Operator::Le => SeccompCmpOp::Le,
        Operator::Gt => SeccompCmpOp::Gt,
        Operator::Ge => SeccompCmpOp::Ge,
        Operator::MaskedEq => SeccompCmpOp::MaskedEq(mask),
    };
    let length = match it.len {
        Length::Dword => SeccompCmpArgLen::Dword,
        Length::Qword => SeccompCmpArgLen::Qword,
    };
    SeccompCondition::new(it.index, length, operator, resolve(&it.value)?)
        .map_err(|source| failed(profile, source))
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
pub(crate) const USER_NOTIF: u32 = 0x7fc0_0000;

/// What is decided before the profile is asked. Falls through to what follows it.
fn prologue(default: Default, arch: Arch) -> BpfProgram {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut filter = vec![
        step(LOAD, 0, 0, 4), // seccomp_data.arch
        step(JUMP_EQ, 1, 0, arch.audit()),
        step(RETURN, 0, 0, KILL_PROCESS),
        step(LOAD, 0, 0, 0), // seccomp_data.nr
    ];
    if arch == Arch::X86_64 {
        filter.extend([step(JUMP_GE, 0, 1, X32), step(RETURN, 0, 0, KILL_PROCESS)]);
    }
    if default == Default::Enosys {
        let unknown = step(RETURN, 0, 0, ERRNO | ENOSYS);
        filter.extend([step(JUMP_GT, 0, 1, table::highest(arch)), unknown.clone()]);
        for (first, last) in table::gaps(arch) {
            filter.extend([step(JUMP_GE, 0, 2, first), step(JUMP_GT, 1, 0, last), unknown.clone()]);
        }
        if let Some(clone3) = table::number(arch, "clone3") {
            filter.extend([step(JUMP_EQ, 0, 1, clone3), unknown]);
        }
    }
    filter
}
