//! Names and numbers of system calls, as data, for each architecture.

mod aarch64;
mod x86_64;

use crate::Arch;

fn calls(arch: Arch) -> &'static [(&'static str, u32)] {
    match arch {
        Arch::X86_64 => x86_64::CALLS,
        Arch::Aarch64 => aarch64::CALLS,
    }
}

/// The number of the call `name` on `arch`.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    calls(arch).iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of the call `number` on `arch`.
pub fn name(arch: Arch, number: u32) -> Option<&'static str> {
    let calls = calls(arch);
    calls.binary_search_by_key(&number, |(_, known)| *known).ok().map(|at| calls[at].0)
}

/// Whether `name` is a call of any architecture this crate knows.
pub(crate) fn known_anywhere(name: &str) -> bool {
    Arch::ALL.iter().any(|arch| number(*arch, name).is_some())
}

/// The highest number of a call on `arch`.
pub(crate) fn highest(arch: Arch) -> u32 {
    calls(arch).last().map_or(0, |(_, number)| *number)
}

/// Ranges of numbers below the highest one without a call, both ends included.
pub(crate) fn gaps(arch: Arch) -> Vec<(u32, u32)> {
    let mut next = 0;
    let mut gaps = Vec::new();
    for (_, number) in calls(arch) {
        if *number > next {
            gaps.push((next, number - 1));
        }
        next = number + 1;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_names_unique() {
        for arch in Arch::ALL {
            let calls = calls(arch);
            assert!(calls.windows(2).all(|pair| pair[0].1 < pair[1].1), "{arch:?}");
            let names: std::collections::BTreeSet<_> = calls.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), calls.len(), "{arch:?}");
        }
    }

    #[test]
    fn gaps_are_those_of_the_kernel() {
        assert_eq!(gaps(Arch::X86_64), [(336, 423)]);
        assert_eq!(gaps(Arch::Aarch64), [(244, 259), (295, 423)]);
        assert_eq!(name(Arch::X86_64, 435), Some("clone3"));
        assert_eq!(number(Arch::Aarch64, "clone3"), Some(435));
        assert_eq!(number(Arch::Aarch64, "open"), None);
    }
}
