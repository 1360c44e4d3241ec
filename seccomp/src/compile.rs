//! Compiles a resolved profile to BPF.
//!
//! seccompiler supports one action for a match, one for all other calls, and no user notification. A profile with more
//! actions is therefore compiled in several passes that are concatenated, and for a program with notification the
//! returns of `EPERM` are replaced. A prologue in front of the passes returns `ENOSYS` for unknown numbers and kills for
//! x32 numbers. It is not a filter of its own: of two filters that both return an errno the newest wins, and the
//! installation of a second filter would need `seccomp` and `prctl` in every profile. Jumps in BPF are relative, so a
//! prologue that falls through does not change the code after it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::bpf::{
    ENOSYS, JUMP, JUMP_EQ, JUMP_GE, JUMP_GT, LOAD, RET_ALLOW, RET_EPERM, RET_ERRNO, RET_KILL_PROCESS,
    RET_USER_NOTIF, RETURN, instruction,
};
use crate::resolved_profile::{Action, Comparison, Operator, ResolvedProfile};
use crate::{Arch, Error, Program, Result, table};

/// First number of the x32 calls. x86_64 kernels may support them beside their own calls under the same architecture.
const X32: u32 = 0x4000_0000;

/// Descriptor of init's socket while a profile is traced. No program of an image expects a descriptor with this number.
pub const TRACE_FD: u32 = 1021;

/// Which calls the supervisor is notified of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notify {
    /// None.
    Never,
    /// Calls that would give `EPERM`.
    Denied,
    /// Calls that would give `EPERM`, and allowed calls.
    All,
}

impl ResolvedProfile {
    /// Compiles a program that denies calls with `EPERM`.
    pub fn compile(&self) -> Result<Program> {
        compile(self, Notify::Never)
    }

    /// Compiles a program with user notification of denied calls: each waits until the holder of the program's
    /// [`crate::Listener`] has answered. Only calls that [`ResolvedProfile::compile`] answers with `EPERM` differ.
    pub fn compile_notify(&self) -> Result<Program> {
        compile(self, Notify::Denied)
    }

    /// Compiles a program with user notification of allowed and of denied calls. Excepted are reads and writes of
    /// [`TRACE_FD`], by which init reports that it is ready: the supervisor does not have the listener yet.
    pub fn compile_trace(&self) -> Result<Program> {
        compile(self, Notify::All)
    }
}

fn compile(profile: &ResolvedProfile, notify: Notify) -> Result<Program> {
    let mut body = body(profile)?;
    for step in body.iter_mut().filter(|step| step.code == RETURN) {
        match (step.k, notify) {
            (RET_EPERM, Notify::Denied | Notify::All) | (RET_ALLOW, Notify::All) => step.k = RET_USER_NOTIF,
            _ => {}
        }
    }
    let mut filter = prologue(profile.closed, profile.arch);
    if notify == Notify::All {
        filter.extend(allow_trace_socket(profile.arch));
    }
    filter.extend(body);
    Program::new(&profile.name, profile.arch, vec![filter])
}

/// The decisions of a profile: one pass of seccompiler for each action. A pass without a match jumps to the next.
fn body(profile: &ResolvedProfile) -> Result<BpfProgram> {
    type Rules = BTreeMap<i64, Vec<SeccompRule>>;
    let mut passes: BTreeMap<Action, Rules> = BTreeMap::new();
    for decision in profile.decisions.iter().filter(|decision| decision.action != profile.otherwise) {
        let rules = passes.entry(decision.action).or_default();
        let alternatives = rules.entry(i64::from(decision.number)).or_default();
        if !decision.when.is_empty() {
            let conditions = decision.when.iter().map(|comparison| condition(profile, comparison));
            let rule = SeccompRule::new(conditions.collect::<Result<Vec<_>>>()?);
            alternatives.push(rule.map_err(|source| failed(profile, source))?);
        }
    }
    let target = match profile.arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    let Some((last, rules)) = passes.pop_last() else {
        return Ok(vec![instruction(RETURN, 0, 0, return_value(&profile.otherwise.into()))]);
    };
    let mut body = BpfProgram::new();
    for (action, rules, mismatch) in passes
        .into_iter()
        .map(|(action, rules)| (action, rules, NEXT_PASS))
        .chain([(last, rules, profile.otherwise.into())])
    {
        let pass: BpfProgram = SeccompFilter::new(rules, mismatch, action.into(), target)
            .and_then(TryInto::try_into)
            .map_err(|source| failed(profile, source))?;
        let length = pass.len();
        body.extend(pass.into_iter().enumerate().map(|(at, step)| {
            match step.code == RETURN && step.k == return_value(&NEXT_PASS) {
                true => instruction(JUMP, 0, 0, (length - at - 1) as u32),
                false => step,
            }
        }));
    }
    Ok(body)
}

/// Placeholder for a jump to the next pass, until the passes are concatenated. No profile can contain this action.
const NEXT_PASS: SeccompAction = SeccompAction::Trace(0x7777);

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

fn return_value(action: &SeccompAction) -> u32 {
    action.clone().into()
}

fn failed(profile: &ResolvedProfile, source: seccompiler::BackendError) -> Error {
    Error::input(format!("compiling seccomp profile {}: {source}", profile.name))
}

fn condition(profile: &ResolvedProfile, comparison: &Comparison) -> Result<SeccompCondition> {
    let operator = match comparison.op {
        Operator::Eq => SeccompCmpOp::Eq,
        Operator::Ne => SeccompCmpOp::Ne,
        Operator::Lt => SeccompCmpOp::Lt,
        Operator::Le => SeccompCmpOp::Le,
        Operator::Gt => SeccompCmpOp::Gt,
        Operator::Ge => SeccompCmpOp::Ge,
        Operator::MaskedEq => SeccompCmpOp::MaskedEq(comparison.mask),
    };
    let length = if comparison.wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    SeccompCondition::new(comparison.index, length, operator, comparison.value)
        .map_err(|source| failed(profile, source))
}

/// What is decided before the profile. Falls through to the code after it.
fn prologue(closed: bool, arch: Arch) -> BpfProgram {
    let mut filter = vec![
        instruction(LOAD, 0, 0, 4), // seccomp_data.arch
        instruction(JUMP_EQ, 1, 0, arch.audit()),
        instruction(RETURN, 0, 0, RET_KILL_PROCESS),
        instruction(LOAD, 0, 0, 0), // seccomp_data.nr
    ];
    if arch == Arch::X86_64 {
        filter.extend([instruction(JUMP_GE, 0, 1, X32), instruction(RETURN, 0, 0, RET_KILL_PROCESS)]);
    }
    if closed {
        let unknown = instruction(RETURN, 0, 0, RET_ERRNO | u32::from(ENOSYS));
        filter.extend([instruction(JUMP_GT, 0, 1, table::highest(arch)), unknown.clone()]);
        for (first, last) in table::gaps(arch) {
            filter.extend([
                instruction(JUMP_GE, 0, 2, first),
                instruction(JUMP_GT, 1, 0, last),
                unknown.clone(),
            ]);
        }
        if let Some(clone3) = table::number(arch, "clone3") {
            filter.extend([instruction(JUMP_EQ, 0, 1, clone3), unknown]);
        }
    }
    filter
}

/// Allows reads and writes of [`TRACE_FD`]. Falls through to the code after it. The number of the call is loaded before and
/// afterwards.
fn allow_trace_socket(arch: Arch) -> BpfProgram {
    let number = |name| table::number(arch, name).unwrap_or(u32::MAX);
    vec![
        instruction(JUMP_EQ, 1, 0, number("read")),
        instruction(JUMP_EQ, 0, 4, number("write")),
        instruction(LOAD, 0, 0, 16), // low half of seccomp_data.args[0], the descriptor
        instruction(JUMP_EQ, 0, 1, TRACE_FD),
        instruction(RETURN, 0, 0, RET_ALLOW),
        instruction(LOAD, 0, 0, 0),
    ]
}
