//! Sets of processors and nodes, as the kernel writes them.

/// Numbers of processors or nodes, sorted.
pub(super) type Set = Vec<usize>;

/// A list of the kernel, such as `0-3,8`.
pub(super) fn set(text: &str) -> Option<Set> {
    let mut set = Set::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        let is_next = set.last().is_none_or(|before| *before < first);
        if !is_next || first > last || last >= 1 << 16 {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

/// The members that are usable.
pub(super) fn within(members: &[usize], usable: &[usize]) -> Set {
    members.iter().copied().filter(|member| usable.binary_search(member).is_ok()).collect()
}

/// A set as the kernel lists it.
pub(super) fn list(set: &[usize]) -> String {
    let runs = set.chunk_by(|a, b| a + 1 == *b).filter_map(|run| Some((*run.first()?, *run.last()?)));
    let text = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    runs.map(text).collect::<Vec<_>>().join(",")
}

/// A set as the kernel writes a mask: words of 32 bits, the highest first.
pub(super) fn mask(set: &[usize]) -> String {
    let mut words = vec![0_u32; set.last().map_or(1, |last| last / 32 + 1)];
    for number in set {
        if let Some(word) = words.get_mut(number / 32) {
            *word |= 1 << (number % 32);
        }
    }
    let words = words.iter().rev().map(|word| format!("{word:08x}"));
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{list, mask, set};

    #[test]
    fn lists_and_masks_are_those_of_the_kernel() {
        for (text, numbers, bits) in [
            ("0", vec![0], "00000001"),
            ("0-3,8", vec![0, 1, 2, 3, 8], "0000010f"),
            ("31-32,64", vec![31, 32, 64], "00000001,00000001,80000000"),
        ] {
            assert_eq!(set(text).as_deref(), Some(numbers.as_slice()));
            assert_eq!((list(&numbers), mask(&numbers)), (text.to_owned(), bits.to_owned()));
        }
        for bad in ["", "a", "3-1", "1,1", "2,1", "0-99999999", "-1", "1-", "0x1"] {
            assert_eq!(set(bad), None, "{bad}");
        }
    }
}
