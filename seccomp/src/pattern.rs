//! Bit patterns: the sets of arguments for which comparisons hold. A pattern fixes some bits of a register and leaves the others open.

use crate::resolved_profile::{Comparison, Operator};

/// The values whose bits of `mask` are those of `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub mask: u64,
    pub value: u64,
}

/// Most combinations of patterns of several arguments.
const MAX_COMBINATIONS: usize = 1024;

impl Pattern {
    /// All values.
    const ANY: Self = Pattern { mask: 0, value: 0 };

    /// The values of both.
    fn and(self, other: Self) -> Option<Self> {
        let contradiction = (self.value ^ other.value) & self.mask & other.mask;
        (contradiction == 0)
            .then_some(Pattern { mask: self.mask | other.mask, value: self.value | other.value })
    }

    /// Whether it has all values of another one.
    pub fn contains(self, other: Self) -> bool {
        self.mask & !other.mask == 0 && (self.value ^ other.value) & self.mask == 0
    }

    /// The values without one, as disjoint patterns. `width` is the mask of the compared part of the register.
    fn without(self, value: u64, width: u64) -> Vec<Self> {
        if (self.value ^ value) & self.mask & width != 0 {
            return vec![self];
        }
        let free = bits(width & !self.mask);
        free.map(|bit| {
            // Above the bit as in the value, and in the bit another one.
            let mask = width & !(bit - 1);
            let flipped = Pattern { mask, value: (value ^ bit) & mask };
            Pattern { mask: self.mask | flipped.mask, value: self.value | flipped.value & !self.mask }
        })
        .collect()
    }
}

/// Bits that are set.
fn bits(of: u64) -> impl Iterator<Item = u64> {
    (0..64).map(|at| 1 << at).filter(move |bit| of & bit != 0)
}

/// The values for which all comparisons hold, as disjoint patterns. All are of the same argument. Empty if no value satisfies them.
pub(crate) fn patterns<'a>(comparisons: impl IntoIterator<Item = &'a Comparison>) -> Vec<Pattern> {
    let narrow = |patterns: Vec<Pattern>, comparison: &Comparison| {
        let part = |pattern: &Pattern| restrict(*pattern, comparison);
        patterns.iter().flat_map(part).collect()
    };
    comparisons.into_iter().fold(vec![Pattern::ANY], narrow)
}

/// The arguments of a call for which all comparisons hold, as combinations of a pattern for each argument. None if there are too many.
pub(crate) fn combinations(when: &[Comparison]) -> Option<Vec<[Pattern; 6]>> {
    let mut found = vec![[Pattern::ANY; 6]];
    for index in 0..6u8 {
        let of_arg = patterns(when.iter().filter(|comparison| comparison.index == index));
        if found.len() * of_arg.len() > MAX_COMBINATIONS {
            return None;
        }
        let with = |arguments: &[Pattern; 6]| {
            let arguments = *arguments;
            of_arg.iter().map(move |pattern| {
                let mut with = arguments;
                with[usize::from(index)] = *pattern;
                with
            })
        };
        found = found.iter().flat_map(with).collect();
    }
    Some(found)
}

/// Whether no value satisfies all comparisons, which are of the same argument.
pub(crate) fn is_empty(comparisons: &[&Comparison]) -> bool {
    let (excluded, others): (Vec<&Comparison>, Vec<&Comparison>) =
        comparisons.iter().partition(|comparison| comparison.op == Operator::Ne);
    let found = patterns(others);
    // Each `Ne` takes at most one value of the low half away.
    let open_bits = |pattern: &Pattern| (!pattern.mask as u32).count_ones();
    let is_large = |pattern: &Pattern| 1u64 << open_bits(pattern) > excluded.len() as u64;
    !found.iter().any(is_large) && patterns(comparisons.iter().copied()).is_empty()
}

/// The values of a pattern for which a comparison holds.
fn restrict(pattern: Pattern, comparison: &Comparison) -> Vec<Pattern> {
    let width = if comparison.wide { u64::MAX } else { u64::from(u32::MAX) };
    let value = comparison.value;
    let all = |patterns: Vec<Pattern>| patterns.into_iter().filter_map(|p| pattern.and(p)).collect();
    match comparison.op {
        Operator::Eq if value > width => Vec::new(),
        Operator::Eq => all(vec![Pattern { mask: width, value }]),
        Operator::MaskedEq if value & !(comparison.mask & width) != 0 => Vec::new(),
        Operator::MaskedEq => all(vec![Pattern { mask: comparison.mask & width, value }]),
        Operator::Ne if value > width => vec![pattern],
        Operator::Ne => pattern.without(value, width),
        Operator::Le => all(at_most(value, width)),
        Operator::Lt => all(value.checked_sub(1).map_or(Vec::new(), |last| at_most(last, width))),
        Operator::Ge => all(at_least(value, width)),
        Operator::Gt => all(value.checked_add(1).map_or(Vec::new(), |first| at_least(first, width))),
    }
}

/// The values up to `last`: those that are less in their first differing bit, and `last` itself.
fn at_most(last: u64, width: u64) -> Vec<Pattern> {
    if last >= width {
        return vec![Pattern::ANY];
    }
    differing(last & width, width, last).chain([Pattern { mask: width, value: last }]).collect()
}

/// The values from `first` on.
fn at_least(first: u64, width: u64) -> Vec<Pattern> {
    match first {
        0 => vec![Pattern::ANY],
        _ if first > width => Vec::new(),
        _ => differing(!first & width, width, first).chain([Pattern { mask: width, value: first }]).collect(),
    }
}

/// For each bit of `at`: the values that agree with `value` above the bit and differ from it in the bit.
fn differing(at: u64, width: u64, value: u64) -> impl Iterator<Item = Pattern> {
    bits(at).map(move |bit| {
        let mask = width & !(bit - 1);
        Pattern { mask, value: (value ^ bit) & mask }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn comparison() -> impl Strategy<Value = Comparison> {
        let op = prop::sample::select(vec![
            Operator::Eq,
            Operator::Ne,
            Operator::Lt,
            Operator::Le,
            Operator::Gt,
            Operator::Ge,
            Operator::MaskedEq,
        ]);
        (any::<bool>(), op, number(), number()).prop_map(|(wide, op, mask, value)| {
            let (mask, value) =
                if op == Operator::MaskedEq { (mask, value & mask) } else { (u64::MAX, value) };
            Comparison { index: 0, wide, op, mask, value }
        })
    }

    /// Small numbers meet often; the others try the ends of both halves.
    fn number() -> impl Strategy<Value = u64> {
        let ends = [0, 1, u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 32, u64::MAX - 1, u64::MAX];
        prop_oneof![0..12u64, prop::sample::select(ends.to_vec()), any::<u64>()]
    }

    proptest! {
        #[test]
        fn one_pattern_contains_each_value_that_satisfies_the_comparisons(
            comparisons in prop::collection::vec(comparison(), 0..4),
            value in number(),
        ) {
            let holds = comparisons.iter().all(|comparison| comparison.holds(&[value; 6]));
            let containing = patterns(&comparisons).iter().filter(|p| value & p.mask == p.value).count();
            prop_assert_eq!(containing, usize::from(holds));
            let all: Vec<&Comparison> = comparisons.iter().collect();
            prop_assert_eq!(is_empty(&all), patterns(&comparisons).is_empty());
        }
    }
}
