//! Orders of rows that a seed decides, as Python and numpy give them. Both draw from the Mersenne Twister MT19937.

use rand_mt::Mt;

/// The order of `random.Random(seed).shuffle` of CPython 3 for the numbers below `n`.
pub(super) fn python_shuffle(seed: u64, n: usize) -> Vec<usize> {
    // CPython seeds with the digits of the number in base 2³², at least one.
    let words = [seed as u32, (seed >> 32) as u32];
    let mut twister = Mt::new_with_key(words.into_iter().take(if words[1] == 0 { 1 } else { 2 }));
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        let count = last as u64 + 1;
        let bits = 64 - count.leading_zeros();
        let chosen = loop {
            let drawn = random_bits(&mut twister, bits);
            if drawn < count {
                break drawn;
            }
        };
        order.swap(last, chosen as usize);
    }
    order
}

/// `getrandbits`, for at most 64 bits.
fn random_bits(twister: &mut Mt, bits: u32) -> u64 {
    match bits {
        0..=32 => u64::from(twister.next_u32() >> (32 - bits.max(1))),
        _ => u64::from(twister.next_u32()) | u64::from(twister.next_u32() >> (64 - bits)) << 32,
    }
}

/// The order of `numpy.random.RandomState(seed).permutation(n)`; `n` is at most 2³².
pub(super) fn numpy_permutation(seed: u32, n: usize) -> Vec<usize> {
    let mut twister = Mt::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        let mask = u32::MAX >> (last as u32).leading_zeros();
        let chosen = loop {
            let drawn = (twister.next_u32() & mask) as usize;
            if drawn <= last {
                break drawn;
            }
        };
        order.swap(last, chosen);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_of_python_and_numpy() {
        assert_eq!(python_shuffle(42, 12), [7, 5, 2, 8, 9, 6, 11, 3, 4, 0, 1, 10]);
        assert_eq!(numpy_permutation(42, 12), [10, 9, 0, 8, 5, 2, 1, 11, 4, 7, 3, 6]);
        assert_eq!(python_shuffle(PYTHON_LARGE.0, 8), PYTHON_LARGE.1);
        assert_eq!((python_shuffle(1, 0), numpy_permutation(1, 1)), (vec![], vec![0]));
    }

    /// A seed of more than 32 bits, from CPython 3.13.
    const PYTHON_LARGE: (u64, [usize; 8]) = ((1 << 40) + 7, [0, 5, 6, 3, 1, 4, 2, 7]);
}
