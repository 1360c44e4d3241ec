//! The token ids that windows use.

use std::collections::BTreeSet;

/// Ids below it take a bit each in a set. Vocabularies have fewer tokens.
const SMALL: u32 = 1 << 24;

/// Ids, masks and labels of an arm.
pub(super) type Rows<'a> = (&'a [Vec<u32>], &'a [Vec<u8>], Option<&'a [Vec<i64>]>);

/// The ids of rows where their masks are 1, and the labels that are tokens, sorted.
pub(super) fn used_ids(arms: [Rows<'_>; 2]) -> Vec<u32> {
    let mut used = Ids::default();
    for (ids, masks, labels) in arms {
        let tokens = ids.iter().flatten().zip(masks.iter().flatten());
        tokens.filter(|(_, bit)| **bit == 1).for_each(|(id, _)| used.insert(*id));
        let labels = labels.unwrap_or_default().iter().flatten();
        labels.filter_map(|label| u32::try_from(*label).ok()).for_each(|id| used.insert(id));
    }
    used.sorted()
}

/// A set of ids.
#[derive(Default)]
struct Ids {
    /// A bit for each small id, up to the largest one.
    small: Vec<u64>,
    others: BTreeSet<u32>,
}

impl Ids {
    #[inline]
    fn insert(&mut self, id: u32) {
        if id >= SMALL {
            self.others.insert(id);
            return;
        }
        let (word, bit) = ((id / u64::BITS) as usize, id % u64::BITS);
        if word >= self.small.len() {
            self.small.resize(word + 1, 0);
        }
        self.small[word] |= 1 << bit;
    }

    fn sorted(self) -> Vec<u32> {
        let ids = (0..).step_by(u64::BITS as usize).zip(&self.small).flat_map(|(first, word)| {
            (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        });
        ids.chain(self.others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sorted_and_distinct() {
        let rows = [vec![7, 7, 64, 63, 0, SMALL, u32::MAX, SMALL - 1, 5]];
        let masks = [vec![1, 1, 1, 1, 1, 1, 1, 1, 0]];
        let labels = [vec![-100, 128, i64::from(u32::MAX) + 1, 7]];
        let expected = [0, 7, 63, 64, 128, SMALL - 1, SMALL, u32::MAX];
        assert_eq!(used_ids([(&rows, &masks, Some(&labels)), (&[], &[], None)]), expected);
        assert_eq!(used_ids([(&[], &[], None), (&[], &[], None)]), [] as [u32; 0]);
    }
}
