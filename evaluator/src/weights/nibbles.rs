//! Pairs of 4-bit codes in bytes, replaced by numbers of a table.

use crate::math::simd::multiversion;

/// The two numbers that each byte means.
pub type Pairs = [[f32; 2]; 256];

/// Which of a byte's codes comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Low,
    High,
}

/// The numbers of each byte.
pub fn pairs(table: &[f32; 16], first: First) -> Box<Pairs> {
    let mut pairs = Box::new([[0.0; 2]; 256]);
    for (byte, pair) in pairs.iter_mut().enumerate() {
        let (low, high) = (table[byte & 15], table[byte >> 4]);
        *pair = if first == First::Low { [low, high] } else { [high, low] };
    }
    pairs
}

/// The numbers of codes from `start` on, as many as `out` has.
pub fn lookup(pairs: &Pairs, bytes: &[u8], start: usize, out: &mut [f32]) {
    let bytes = &bytes[start / 2..];
    let odd = start % 2;
    let (head, rest) = out.split_at_mut(odd.min(out.len()));
    for out in head {
        *out = pairs[usize::from(bytes[0])][1];
    }
    let bytes = &bytes[odd.min(bytes.len())..];
    whole(pairs, bytes, rest);
    if rest.len() % 2 == 1 {
        let last = rest.len() - 1;
        rest[last] = pairs[usize::from(bytes[last / 2])][0];
    }
}

multiversion! {
    /// Whole bytes.
    pub fn whole(pairs: &Pairs, bytes: &[u8], out: &mut [f32]) {
        for (out, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *out = pairs[usize::from(*byte)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_the_codes_is_found() {
        let table = std::array::from_fn(|i| i as f32);
        let bytes = [0x10, 0x32, 0x54];
        for (first, codes) in
            [(First::Low, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), (First::High, [1.0, 0.0, 3.0, 2.0, 5.0, 4.0])]
        {
            let pairs = pairs(&table, first);
            for start in 0..6 {
                for end in start..=6 {
                    let mut out = vec![-1.0; end - start];
                    lookup(&pairs, &bytes, start, &mut out);
                    assert_eq!(out, codes[start..end], "{first:?} {start} {end}");
                }
            }
        }
    }
}
