//! The combination of two profiles: for each call the stricter of both actions.

use std::collections::{BTreeMap, BTreeSet};

use crate::pattern::{self, Pattern};
use crate::resolved_profile::{Action, Comparison, Decision, Operator, ResolvedProfile};
use crate::{Error, Result};

/// Most decisions: no program can contain more.
const MAX_DECISIONS: usize = 4096;
/// Most regions of one call, and most pairs of regions of all calls, so that no profile takes long.
const MAX_REGIONS: usize = 1024;
const MAX_PAIRS: usize = 50_000;

/// Arguments for which all comparisons hold, and the action for them.
type Region = (Vec<Comparison>, Action);

impl ResolvedProfile {
    /// A profile that gives each call the stricter of the actions of `self` and `other`, profiles of the same architecture. Of two errno
    /// values that of `self` counts.
    pub fn combined(&self, other: &Self) -> Result<Self> {
        debug_assert_eq!(self.arch, other.arch, "profiles of different machines");
        let otherwise = stricter(self.otherwise, other.otherwise);
        let names: BTreeMap<u32, &str> = self
            .decisions
            .iter()
            .chain(&other.decisions)
            .map(|decision| (decision.number, decision.syscall.as_str()))
            .collect();
        let too_complex = |what: &str| {
            Error::input(format!(
                "seccomp profiles {} and {}: together they have {what}",
                self.name, other.name
            ))
            .with_hint("use fewer conditions")
        };
        let (mut decisions, mut pairs) = (Vec::new(), 0);
        for (number, syscall) in names {
            let regions = |profile: &Self, with: &Self| {
                profile.regions(number, with, otherwise).ok_or_else(|| too_complex("too many conditions"))
            };
            let (own, others) = (regions(self, other)?, regions(other, self)?);
            pairs += own.len() * others.len();
            if pairs > MAX_PAIRS {
                return Err(too_complex("too many conditions"));
            }
            for (when, action) in &own {
                let as_strict = others.iter().filter(|(_, theirs)| stricter(*action, *theirs) == *action);
                if *action != otherwise && is_in(when, as_strict.map(|(when, _)| when.as_slice())) {
                    let (when, syscall, reason) = (when.clone(), syscall.to_owned(), "combined".to_owned());
                    decisions.push(Decision { syscall, number, when, action: *action, reason });
                    continue;
                }
                for (more, other_action) in &others {
                    let action = stricter(*action, *other_action);
                    let Some(when) = both(when, more).filter(|_| action != otherwise) else { continue };
                    let (syscall, reason) = (syscall.to_owned(), "combined".to_owned());
                    decisions.push(Decision { syscall, number, when, action, reason });
                }
            }
            if decisions.len() > MAX_DECISIONS {
                return Err(too_complex(&format!("more than {MAX_DECISIONS} decisions")));
            }
        }
        let name = format!("{}-and-{}", self.name, other.name);
        let closed = self.closed || other.closed;
        Ok(ResolvedProfile { name, arch: self.arch, closed, decisions, otherwise })
    }

    /// The actions for a call: those of the decisions, and that of the profile for all other arguments. The regions are disjoint, or have the
    /// same action. None if there are too many.
    ///
    /// The other arguments are left out if the combination with the profile `with` gives them `otherwise` in any case.
    fn regions(&self, number: u32, with: &Self, otherwise: Action) -> Option<Vec<Region>> {
        let of_call: Vec<&Decision> =
            self.decisions.iter().filter(|decision| decision.number == number).collect();
        let theirs = with.decisions.iter().filter(|decision| decision.number == number);
        let is_other = |action| {
            stricter(self.otherwise, action) != otherwise || stricter(action, self.otherwise) != otherwise
        };
        let mut rest = Vec::new();
        if theirs.map(|decision| decision.action).chain([with.otherwise]).any(is_other) {
            rest.push(Vec::new());
        }
        for decision in &of_call {
            rest = rest.iter().flat_map(|region| without(region, &decision.when)).collect();
            if rest.len() > MAX_REGIONS {
                return None;
            }
        }
        let decided = of_call.iter().map(|decision| (decision.when.clone(), decision.action));
        Some(decided.chain(rest.into_iter().map(|when| (when, self.otherwise))).collect())
    }
}

/// Whether all arguments of a region are in others. The answer false may be wrong, the answer true is correct: each combination of patterns
/// must be in one of the others.
fn is_in<'a>(region: &[Comparison], others: impl Iterator<Item = &'a [Comparison]>) -> bool {
    let Some(own) = pattern::combinations(region) else { return false };
    let others: Vec<_> = others.filter_map(pattern::combinations).flatten().take(MAX_REGIONS).collect();
    let contains = |other: &[Pattern; 6], own: &[Pattern; 6]| {
        other.iter().zip(own).all(|(other, own)| other.contains(*own))
    };
    own.iter().all(|own| others.iter().any(|other| contains(other, own)))
}

/// The more severe action.
fn stricter(own: Action, other: Action) -> Action {
    let severity = |action| match action {
        Action::Allow => 0,
        Action::Errno(_) => 1,
        Action::Trap => 2,
        Action::KillThread => 3,
        Action::KillProcess => 4,
    };
    if severity(other) > severity(own) { other } else { own }
}

/// The arguments of two regions; none if there are none. A comparison that holds in the first region anyway is not repeated.
fn both(one: &[Comparison], other: &[Comparison]) -> Option<Vec<Comparison>> {
    let mut when = one.to_vec();
    for comparison in other {
        let is_implied = opposite(comparison).into_iter().all(|opposite| {
            let contrary: Vec<_> = when.iter().copied().chain([opposite]).collect();
            is_empty(&contrary)
        });
        if !is_implied {
            when.push(*comparison);
        }
    }
    (!is_empty(&when)).then_some(when)
}

/// The arguments of a region for which not all of `when` hold.
fn without(region: &[Comparison], when: &[Comparison]) -> Vec<Vec<Comparison>> {
    let mut rest = Vec::new();
    // The first comparison that does not hold decides in which part the arguments are.
    let mut before = region.to_vec();
    for comparison in when {
        rest.extend(opposite(comparison).into_iter().filter_map(|opposite| both(&before, &[opposite])));
        match both(&before, &[*comparison]) {
            Some(more) => before = more,
            None => break,
        }
    }
    rest
}

/// Comparisons of which one holds exactly where `comparison` does not.
fn opposite(comparison: &Comparison) -> Vec<Comparison> {
    let with = |op| vec![Comparison { op, ..*comparison }];
    match comparison.op {
        Operator::Eq => with(Operator::Ne),
        Operator::Ne => with(Operator::Eq),
        Operator::Lt => with(Operator::Ge),
        Operator::Le => with(Operator::Gt),
        Operator::Gt => with(Operator::Le),
        Operator::Ge => with(Operator::Lt),
        Operator::MaskedEq => {
            let bits = (0..64).map(|at| 1u64 << at).filter(|bit| comparison.mask & bit != 0);
            bits.map(|bit| Comparison { mask: bit, value: !comparison.value & bit, ..*comparison }).collect()
        }
    }
}

/// Whether no arguments satisfy all comparisons.
fn is_empty(when: &[Comparison]) -> bool {
    let indexes: BTreeSet<u8> = when.iter().map(|comparison| comparison.index).collect();
    indexes.into_iter().any(|index| {
        let of_arg: Vec<&Comparison> = when.iter().filter(|when| when.index == index).collect();
        pattern::is_empty(&of_arg)
    })
}
