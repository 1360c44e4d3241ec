//! The profile format: what the JSON files under `profiles/` mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compile::EPERM;
use crate::resolved_profile::{Action, Comparison, Decision, ResolvedProfile};
use crate::{Arch, Error, Program, Result, constants, table};

/// A profile's text may not be longer than this; ours are a tenth of it.
pub(crate) const LONGEST: usize = 1 << 20;

/// What may be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What becomes of a call that no rule names, and with that what kind of list this is.
    pub default: Default,
    /// What is allowed; only in an allow-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Rule>,
    /// What gives `EPERM`; only in a deny-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuse: Vec<Rule>,
}

/// The kind of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Default {
    /// An allow-list: a known call that is not allowed gives `EPERM`, an unknown one (and `clone3`) `ENOSYS`.
    Enosys,
    /// A deny-list: a call that is not refused is allowed.
    Allow,
}

/// One call, what its arguments must be, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The call's name.
    pub syscall: String,
    /// Conditions that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Condition>,
    /// The architectures that have the call; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arch: Vec<Arch>,
    /// Why this rule is here.
    pub reason: String,
}

impl Rule {
    /// A rule for this call and these arguments as a proposal: its reason is empty, and no profile is read in which one is.
    pub fn proposed(syscall: &str, args: &[(u8, u64)]) -> Self {
        let condition = |(index, number): &(u8, u64)| {
            let len = if *number > u64::from(u32::MAX) { Length::Qword } else { Length::Dword };
            let family = constants::family(*number)
                .filter(|_| *index == 0 && matches!(syscall, "socket" | "socketpair"));
            let value = family.map_or(Value::Number(*number), |name| Value::Names(name.to_owned()));
            Condition { index: *index, len, op: Operator::Eq, mask: None, value }
        };
        let there: Vec<Arch> =
            Arch::ALL.into_iter().filter(|arch| table::number(*arch, syscall).is_some()).collect();
        let arch = if there.len() == Arch::ALL.len() { Vec::new() } else { there };
        let args = args.iter().map(condition).collect();
        Self { syscall: syscall.to_owned(), args, arch, reason: String::new() }
    }
}

/// A comparison of one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub index: u8,
    /// How much of it. The kernel reads an `int` from the low half only, so a comparison of the whole
    /// register could be evaded with junk in the high half.
    #[serde(default, skip_serializing_if = "Length::is_default")]
    pub len: Length,
    /// How.
    pub op: Operator,
    /// The bits of the argument that [`Operator::MaskedEq`] looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Value>,
    /// With what.
    pub value: Value,
}

/// How much of a register is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, std::default::Default)]
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

/// A comparison, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// `argument & mask == value`.
    MaskedEq,
}

/// A number, or names of constants joined by `|`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
            Self::Names(names) => {
                constants::value(names).ok_or_else(|| format!("no constant is called {names}"))
            }
        }
    }
}

impl Profile {
    /// Reads a profile and checks that it means something on every architecture.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.len() > LONGEST {
            let what = format!("{} bytes are more than the {LONGEST} a profile may have", text.len());
            return Err(Error::input(format!("reading a system-call profile failed: {what}")));
        }
        let profile: Self = serde_json::from_slice(text)
            .map_err(|error| Error::input(format!("reading a system-call profile failed: {error}")))?;
        profile.validate()?;
        Ok(profile)
    }

    /// What our static evaluator needs, and nothing else.
    pub fn evaluator() -> Self {
        Self::built_in(include_str!("../profiles/evaluator.json"))
    }

    /// What Python images need.
    pub fn general() -> Self {
        Self::built_in(include_str!("../profiles/general.json"))
    }

    /// Everything but ways to a network; for the launcher itself and for host execution.
    pub fn no_network() -> Self {
        Self::built_in(include_str!("../profiles/no-network.json"))
    }

    fn built_in(text: &str) -> Self {
        Self::parse(text.as_bytes()).expect("a profile of this crate, which its tests read")
    }

    /// Compiles it for this machine.
    pub fn compile(&self) -> Result<Program> {
        self.compile_for(Arch::native()?)
    }

    /// Compiles it for this machine so that refused calls are heard.
    pub fn compile_heard(&self) -> Result<Program> {
        self.compile_heard_for(Arch::native()?)
    }

    /// The rules, whichever list they stand in.
    pub fn rules(&self) -> &[Rule] {
        match self.default {
            Default::Enosys => &self.allow,
            Default::Allow => &self.refuse,
        }
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) -> Error {
        Error::input(format!("system-call profile {}: {}", self.name, what.into()))
    }

    /// What it means on `arch`.
    pub fn meaning(&self, arch: Arch) -> Result<ResolvedProfile> {
        self.validate()?;
        let (action, otherwise) = match self.default {
            Default::Enosys => (Action::Allow, Action::Errno(EPERM)),
            Default::Allow => (Action::Errno(EPERM), Action::Allow),
        };
        let mut decisions = Vec::new();
        for rule in self.rules() {
            // Validated: an unnamed architecture is one that lacks the call.
            let Some(number) = table::number(arch, &rule.syscall) else { continue };
            let when = rule.args.iter().map(|it| self.comparison(it)).collect::<Result<_>>()?;
            let (syscall, reason) = (rule.syscall.clone(), rule.reason.clone());
            decisions.push(Decision { syscall, number, when, action, reason });
        }
        let closed = self.default == Default::Enosys;
        Ok(ResolvedProfile { name: self.name.clone(), arch, closed, decisions, otherwise })
    }

    fn comparison(&self, it: &Condition) -> Result<Comparison> {
        let resolve = |value: &Value| value.resolve().map_err(|what| self.wrong(what));
        let mask = it.mask.as_ref().map(resolve).transpose()?.unwrap_or(u64::MAX);
        let (wide, value) = (it.len == Length::Qword, resolve(&it.value)?);
        Ok(Comparison { index: it.index, wide, op: it.op, mask, value })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let name_is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(name_is_plain) {
            return Err(self.wrong("a name has 1 to 64 letters, digits, '-', '_' or '.'"));
        }
        let stray = match self.default {
            Default::Enosys if !self.refuse.is_empty() => {
                Some("an allow-list refuses by not listing; it has no `refuse`")
            }
            Default::Allow if !self.allow.is_empty() => {
                Some("a deny-list allows by not listing; it has no `allow`")
            }
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
            // Alternatives are told apart by their conditions; one without any would make the others dead text.
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
            return Err(self.wrong(format!("no system call is called {call}")));
        }
        if self.default == Default::Enosys && call == "clone3" {
            return Err(
                self.wrong("clone3 cannot be allowed: its flags lie in memory, out of a filter's sight")
            );
        }
        for arch in Arch::ALL {
            let marked = rule.arch.is_empty() || rule.arch.contains(&arch);
            match (marked, table::number(arch, call).is_some()) {
                (true, false) => {
                    return Err(
                        self.wrong(format!("{} has no {call}: say in `arch` which have it", arch.as_str()))
                    );
                }
                (false, true) => {
                    return Err(
                        self.wrong(format!("{} has {call}, too, but `arch` leaves it out", arch.as_str()))
                    );
                }
                _ => {}
            }
        }
        for condition in &rule.args {
            let masked = condition.op == Operator::MaskedEq;
            if condition.index > 5 {
                return Err(self.wrong(format!("{call}: there is no argument {}", condition.index)));
            }
            if masked != condition.mask.is_some() {
                return Err(
                    self.wrong(format!("{call}: `mask` belongs to masked_eq, and masked_eq needs it"))
                );
            }
            for value in condition.mask.iter().chain([&condition.value]) {
                let value = value.resolve().map_err(|what| self.wrong(format!("{call}: {what}")))?;
                if condition.len == Length::Dword && value > u64::from(u32::MAX) {
                    return Err(self.wrong(format!("{call}: {value} does not fit a dword")));
                }
            }
            let it = self.comparison(condition)?;
            if it.value & !it.mask != 0 {
                return Err(self.wrong(format!(
                    "{call}: its value has bits that its mask leaves out, so it never holds"
                )));
            }
        }
        Ok(())
    }
}
