//! From a profile to BPF.
//!
//! seccompiler knows one action for a match and one for everything else, and no notification: a profile with more actions is several
//! of its programs, one behind the other, and where calls are to be heard, the returns that say `EPERM` are made to say that. What an allow-list needs besides (`ENOSYS` for
//! numbers nobody knows, death for x32) is a prologue in front of its program, not a second filter: of two
//! filters that both answer with an errno the newest wins, and installing a second one would need `seccomp` and `prctl`
//! in every profile. Jumps of BPF are relative, so a prologue that falls through changes nothing behind it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::profile::{Operator, Profile};
use crate::resolved_profile::{Action, Comparison, ResolvedProfile};
use crate::{Arch, Error, Program, Result, table};

/// First number of the x32 calls, which x86_64 kernels may offer beside their own under the same architecture.
const X32: u32 = 0x4000_0000;

pub(crate) const EPERM: u16 = 1;
pub(crate) const ENOSYS: u16 = 38;

/// Where the workload-to-be has its socket while a profile is learned: no program of an image expects a descriptor there.
pub const LEARNING_FD: u32 = 1021;

/// What becomes of a call that gives `EPERM`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// `EPERM`, by the kernel itself.
    Errno,
    /// Whoever holds the listener is asked.
    Heard,
    /// Whoever holds the listener is asked, and of calls that are allowed, too.
    Learning,
}

impl Profile {
    /// Compiles it for `arch`: a refused call gives `EPERM`.
    pub fn compile_for(&self, arch: Arch) -> Result<Program> {
        self.meaning(arch)?.compile()
    }

    /// Compiles it for `arch` so that refused calls are heard, as [`ResolvedProfile::compile_heard`] does.
    pub fn compile_heard_for(&self, arch: Arch) -> Result<Program> {
        self.meaning(arch)?.compile_heard()
    }
}

impl ResolvedProfile {
    /// Compiles it.
    pub fn compile(&self) -> Result<Program> {
        compile(self, Refused::Errno)
    }

    /// Compiles it so that refused calls are heard: each waits until whoever holds the program's [`crate::Listener`]
    /// has answered. What decides is the same; only calls that [`ResolvedProfile::compile`] answers with `EPERM` differ.
    pub fn compile_heard(&self) -> Result<Program> {
        compile(self, Refused::Heard)
    }

    /// Compiles it so that allowed calls are heard as well as refused ones. All but reads and writes of descriptor
    /// [`LEARNING_FD`], by which the workload-to-be says that it is ready: nobody has its listener yet who could answer.
    pub fn compile_learning(&self) -> Result<Program> {
        compile(self, Refused::Learning)
    }
}

fn compile(meaning: &ResolvedProfile, refused: Refused) -> Result<Program> {
    let mut body = body(meaning)?;
    for it in body.iter_mut().filter(|it| it.code == RETURN) {
        match (it.k, refused) {
            (EPERM_BY_KERNEL, Refused::Heard | Refused::Learning) | (ALLOW, Refused::Learning) => {
                it.k = USER_NOTIF
            }
            _ => {}
        }
    }
    let mut filter = prologue(meaning.closed, meaning.arch);
    if refused == Refused::Learning {
        filter.extend(first_words(meaning.arch));
    }
    filter.extend(body);
    Program::new(&meaning.name, meaning.arch, vec![filter])
}

/// What the decisions say. One pass of seccompiler an action: where the first finds no match, it jumps to the next.
fn body(meaning: &ResolvedProfile) -> Result<BpfProgram> {
    type Rules = BTreeMap<i64, Vec<SeccompRule>>;
    let mut passes: BTreeMap<Action, Rules> = BTreeMap::new();
    for it in meaning.decisions.iter().filter(|it| it.action != meaning.otherwise) {
        let alternatives = passes.entry(it.action).or_default().entry(i64::from(it.number)).or_default();
        if !it.when.is_empty() {
            let conditions = it.when.iter().map(|it| condition(meaning, it)).collect::<Result<Vec<_>>>()?;
            alternatives.push(SeccompRule::new(conditions).map_err(|source| failed(meaning, source))?);
        }
    }
    let target = match meaning.arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    let Some((last, rules)) = passes.pop_last() else {
        return Ok(vec![step(RETURN, 0, 0, returned(&meaning.otherwise.into()))]);
    };
    let mut body = BpfProgram::new();
    for (action, rules, mismatch) in passes
        .into_iter()
        .map(|(action, rules)| (action, rules, NEXT))
        .chain([(last, rules, meaning.otherwise.into())])
    {
        let pass: BpfProgram = SeccompFilter::new(rules, mismatch, action.into(), target)
            .and_then(TryInto::try_into)
            .map_err(|source| failed(meaning, source))?;
        let length = pass.len();
        body.extend(pass.into_iter().enumerate().map(|(at, it)| {
            match it.code == RETURN && it.k == returned(&NEXT) {
                true => step(JUMP, 0, 0, (length - at - 1) as u32),
                false => it,
            }
        }));
    }
    Ok(body)
}

/// Stands for "ask the next pass" until the passes are put together. No profile says it.
const NEXT: SeccompAction = SeccompAction::Trace(0x7777);

impl From<Action> for SeccompAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Errno(errno) => Self::Errno(errno.into()),
            Action::Trap => Self::Trap,
            Action::KillThread => Self::KillThread,
            Action::KillProcess => Self::KillProcess,
        }
    }
}

fn returned(action: &SeccompAction) -> u32 {
    action.clone().into()
}

fn failed(meaning: &ResolvedProfile, source: seccompiler::BackendError) -> Error {
    Error::input(format!("system-call profile {}: compiling it failed: {source}", meaning.name))
}

fn condition(meaning: &ResolvedProfile, it: &Comparison) -> Result<SeccompCondition> {
    let operator = match it.op {
        Operator::Eq => SeccompCmpOp::Eq,
        Operator::Ne => SeccompCmpOp::Ne,
        Operator::Lt => SeccompCmpOp::Lt,
        Operator::Le => SeccompCmpOp::Le,
        Operator::Gt => SeccompCmpOp::Gt,
        Operator::Ge => SeccompCmpOp::Ge,
        Operator::MaskedEq => SeccompCmpOp::MaskedEq(it.mask),
    };
    let length = if it.wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    SeccompCondition::new(it.index, length, operator, it.value).map_err(|source| failed(meaning, source))
}

pub(crate) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(crate) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(crate) const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(crate) const JUMP_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(crate) const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
pub(crate) const EPERM_BY_KERNEL: u32 = ERRNO | EPERM as u32;
pub(crate) const ALLOW: u32 = 0x7fff_0000;
pub(crate) const USER_NOTIF: u32 = 0x7fc0_0000;

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// What is decided before the profile is asked. Falls through to what follows it.
fn prologue(closed: bool, arch: Arch) -> BpfProgram {
    let mut filter = vec![
        step(LOAD, 0, 0, 4), // seccomp_data.arch
        step(JUMP_EQ, 1, 0, arch.audit()),
        step(RETURN, 0, 0, KILL_PROCESS),
        step(LOAD, 0, 0, 0), // seccomp_data.nr
    ];
    if arch == Arch::X86_64 {
        filter.extend([step(JUMP_GE, 0, 1, X32), step(RETURN, 0, 0, KILL_PROCESS)]);
    }
    if closed {
        let unknown = step(RETURN, 0, 0, ERRNO | u32::from(ENOSYS));
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

/// Allows reads and writes of [`LEARNING_FD`]. Falls through to what follows it; what is loaded is the call's number, before and after.
fn first_words(arch: Arch) -> BpfProgram {
    let number = |name| table::number(arch, name).unwrap_or(u32::MAX);
    vec![
        step(JUMP_EQ, 1, 0, number("read")),
        step(JUMP_EQ, 0, 4, number("write")),
        step(LOAD, 0, 0, 16), // seccomp_data.args[0], the half of it that a descriptor is
        step(JUMP_EQ, 0, 1, LEARNING_FD),
        step(RETURN, 0, 0, ALLOW),
        step(LOAD, 0, 0, 0),
    ]
}
