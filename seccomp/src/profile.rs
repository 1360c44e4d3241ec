//! InvarLock's profile format, in which the files under `profiles/` are written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bpf::EPERM;
use crate::resolved_profile::{Action, Comparison, Decision, Operator, ResolvedProfile};
use crate::{Arch, Error, Program, Result, constants, table};

/// Limit of the size of a profile. Built-in profiles are smaller than a tenth of it.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The kind of list, which decides about calls that no rule names.
    pub default: Default,
    /// Allowed calls; only in an allow-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Rule>,
    /// Calls that give `EPERM`; only in a deny-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuse: Vec<Rule>,
}

/// The kind of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Default {
    /// An allow-list: a known call that is not allowed gives `EPERM`; an unknown call and `clone3` give `ENOSYS`.
    Enosys,
    /// A deny-list: a call that is not listed is allowed.
    Allow,
}

/// A call, conditions on its arguments, and the reason for the rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The call's name.
    pub syscall: String,
    /// Conditions that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Condition>,
    /// The architectures that have the call; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arch: Vec<Arch>,
    /// Why the rule exists.
    pub reason: String,
}

impl Rule {
    /// A proposed rule for this call and these arguments. Its reason is empty, so a profile with it is invalid until the user
    /// writes one.
    pub fn proposed(syscall: &str, args: &[(u8, u64)]) -> Self {
        let condition = |(index, number): &(u8, u64)| {
            let len = if *number > u64::from(u32::MAX) { Length::Qword } else { Length::Dword };
            let family = constants::family(*number)
                .filter(|_| *index == 0 && matches!(syscall, "socket" | "socketpair"));
            let value = family.map_or(Value::Number(*number), |name| Value::Names(name.to_owned()));
            Condition { index: *index, len, op: Operator::Eq, mask: None, value }
        };
        let arches: Vec<Arch> =
            Arch::ALL.into_iter().filter(|arch| table::number(*arch, syscall).is_some()).collect();
        let arch = if arches.len() == Arch::ALL.len() { Vec::new() } else { arches };
        let args = args.iter().map(condition).collect();
        Self { syscall: syscall.to_owned(), args, arch, reason: String::new() }
    }
}

/// A comparison of one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub index: u8,
    /// The compared part. The kernel reads an `int` from the low half only, so a comparison of the whole register could be
    /// evaded by setting bits of the high half.
    #[serde(default, skip_serializing_if = "Length::is_default")]
    pub len: Length,
    /// The operator.
    pub op: Operator,
    /// The bits of the argument that [`Operator::MaskedEq`] compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Value>,
    /// The value.
    pub value: Value,
}

/// The compared part of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, std::default::Default)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// The low half: `int` arguments.
    #[default]
    Dword,
    /// All of it: pointers and sizes.
    Qword,
}

impl Length {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A number, or names of constants joined by `|`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Value {
    /// The number itself.
    Number(u64),
    /// Names, such as `CLONE_VM|CLONE_THREAD`.
    Names(String),
}

impl Value {
    pub(crate) fn resolve(&self) -> std::result::Result<u64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Names(names) => constants::value(names).ok_or_else(|| format!("unknown constant {names}")),
        }
    }
}

impl Profile {
    /// Parses a profile and checks it for every architecture.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(invalid(format!("{} bytes are more than the limit of {MAX_BYTES}", text.len())));
        }
        let profile: Self = serde_json::from_slice(text).map_err(invalid)?;
        profile.validate()?;
        Ok(profile)
    }

    /// The calls of the static evaluator.
    pub fn evaluator() -> Self {
        Self::built_in(include_str!("../profiles/evaluator.json"))
    }

    /// [`Profile::evaluator`], and the request for the processor's matrix unit.
    pub fn evaluator_amx() -> Self {
        let (evaluator, more) =
            (Self::evaluator(), Self::built_in(include_str!("../profiles/evaluator-amx.json")));
        Self { allow: [evaluator.allow, more.allow].concat(), ..more }
    }

    /// The calls that Python images need.
    pub fn general() -> Self {
        Self::built_in(include_str!("../profiles/general.json"))
    }

    /// [`Profile::general`], and the requests that programs make to a terminal of their container.
    pub fn terminal() -> Self {
        let (general, more) = (Self::general(), Self::built_in(include_str!("../profiles/terminal.json")));
        Self { allow: [general.allow, more.allow].concat(), ..more }
    }

    /// Every call but those that give access to a network; for the launcher itself and for host execution.
    pub fn no_network() -> Self {
        Self::built_in(include_str!("../profiles/no-network.json"))
    }

    fn built_in(text: &str) -> Self {
        Self::parse(text.as_bytes()).expect("a built-in profile, which tests parse")
    }

    /// Compiles a program for this machine that denies calls with `EPERM`.
    pub fn compile(&self) -> Result<Program> {
        self.compile_for(Arch::native()?)
    }

    /// As [`ResolvedProfile::compile_notify`], for this machine.
    pub fn compile_notify(&self) -> Result<Program> {
        self.compile_notify_for(Arch::native()?)
    }

    /// As [`ResolvedProfile::compile`].
    pub fn compile_for(&self, arch: Arch) -> Result<Program> {
        self.resolve(arch)?.compile()
    }

    /// As [`ResolvedProfile::compile_notify`].
    pub fn compile_notify_for(&self, arch: Arch) -> Result<Program> {
        self.resolve(arch)?.compile_notify()
    }

    /// The rules of the list.
    pub fn rules(&self) -> &[Rule] {
        match self.default {
            Default::Enosys => &self.allow,
            Default::Allow => &self.refuse,
        }
    }

    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::input(format!("seccomp profile {}: {}", self.name, what.into()))
    }

    /// Resolves the names of calls and constants for `arch`.
    pub fn resolve(&self, arch: Arch) -> Result<ResolvedProfile> {
        self.validate()?;
        let (action, otherwise) = match self.default {
            Default::Enosys => (Action::Allow, Action::Errno(EPERM)),
            Default::Allow => (Action::Errno(EPERM), Action::Allow),
        };
        let mut decisions = Vec::new();
        for rule in self.rules() {
            // Validation has checked that an architecture is left out only where it lacks the call.
            let Some(number) = table::number(arch, &rule.syscall) else { continue };
            let when = rule.args.iter().map(|condition| self.comparison(condition)).collect::<Result<_>>()?;
            let (syscall, reason) = (rule.syscall.clone(), rule.reason.clone());
            decisions.push(Decision { syscall, number, when, action, reason });
        }
        let closed = self.default == Default::Enosys;
        Ok(ResolvedProfile { name: self.name.clone(), arch, closed, decisions, otherwise })
    }

    fn comparison(&self, condition: &Condition) -> Result<Comparison> {
        let resolve = |value: &Value| value.resolve().map_err(|what| self.wrong(what));
        let mask = condition.mask.as_ref().map(resolve).transpose()?.unwrap_or(u64::MAX);
        let (wide, value) = (condition.len == Length::Qword, resolve(&condition.value)?);
        Ok(Comparison { index: condition.index, wide, op: condition.op, mask, value })
    }

    fn validate(&self) -> Result<()> {
        let name_is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(name_is_plain) {
            return Err(self.wrong("a name has 1 to 64 letters, digits, '-', '_' or '.'"));
        }
        let stray = match self.default {
            Default::Enosys if !self.refuse.is_empty() => Some("an allow-list cannot have `refuse`"),
            Default::Allow if !self.allow.is_empty() => Some("a deny-list cannot have `allow`"),
            _ if self.rules().is_empty() => Some("it has no rule"),
            _ => None,
        };
        if let Some(what) = stray {
            return Err(self.wrong(what));
        }
        let mut seen: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
        for rule in self.rules() {
            self.validate_rule(rule)?;
            let earlier = seen.entry(&rule.syscall).or_default();
            // A rule without conditions would make the other rules for the same call ineffective.
            if earlier
                .iter()
                .any(|other| other.args == rule.args || other.args.is_empty() || rule.args.is_empty())
            {
                return Err(self.wrong(format!(
                    "{} is listed twice, or both with and without conditions",
                    rule.syscall
                )));
            }
            earlier.push(rule);
        }
        Ok(())
    }

    fn validate_rule(&self, rule: &Rule) -> Result<()> {
        let call = &rule.syscall;
        if rule.reason.trim().is_empty() {
            return Err(self.wrong(format!("the rule for {call} has no reason")));
        }
        if !table::known_anywhere(call) {
            return Err(self.wrong(format!("unknown system call {call}")));
        }
        if self.default == Default::Enosys && call == "clone3" {
            return Err(
                self.wrong("clone3 cannot be allowed: its flags are in memory, which a filter cannot read")
            );
        }
        for arch in Arch::ALL {
            let marked = rule.arch.is_empty() || rule.arch.contains(&arch);
            match (marked, table::number(arch, call).is_some()) {
                (true, false) => {
                    return Err(self.wrong(format!(
                        "{} has no {call}; list in `arch` the architectures that have it",
                        arch.as_str()
                    )));
                }
                (false, true) => {
                    return Err(
                        self.wrong(format!("{} has {call}, but `arch` does not list it", arch.as_str()))
                    );
                }
                _ => {}
            }
        }
        for condition in &rule.args {
            let masked = condition.op == Operator::MaskedEq;
            if condition.index > 5 {
                return Err(self.wrong(format!(
                    "{call}: `index` is {}; it counts the arguments from 0 to 5",
                    condition.index
                )));
            }
            if masked != condition.mask.is_some() {
                return Err(self
                    .wrong(format!("{call}: `mask` must be set with masked_eq and with no other operator")));
            }
            for value in condition.mask.iter().chain([&condition.value]) {
                let value = value.resolve().map_err(|what| self.wrong(format!("{call}: {what}")))?;
                if condition.len == Length::Dword && value > u64::from(u32::MAX) {
                    return Err(self.wrong(format!("{call}: {value} does not fit a dword")));
                }
            }
            let comparison = self.comparison(condition)?;
            if comparison.value & !comparison.mask != 0 {
                return Err(self.wrong(format!(
                    "{call}: the value has bits outside of the mask, so the condition never holds"
                )));
            }
        }
        Ok(())
    }
}

/// An error for a text that is not a profile.
pub(crate) fn invalid(what: impl std::fmt::Display) -> Error {
    Error::input(format!("parsing a seccomp profile failed: {what}"))
}
