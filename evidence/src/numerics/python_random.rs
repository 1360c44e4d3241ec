//! CPython's `random.Random`: the Mersenne Twister MT19937, seeded and drawn from as CPython 3 does.

use rand_mt::Mt;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct PythonRandom(Mt);

impl PythonRandom {
    /// `random.Random(seed)`. The key is the seed in words of 32 bits, the lowest first, without zero words at the end.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key = [low, high];
        Self(Mt::new_with_key(key.into_iter().take(if high == 0 { 1 } else { 2 })))
    }

    /// `random()`: uniform in `[0, 1)`, with 53 random bits.
    pub fn random(&mut self) -> f64 {
        let (high, low) = (self.0.next_u32() >> 5, self.0.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `randrange(n)`: uniform below `n`, which is above 0.
    pub fn below(&mut self, n: u32) -> u32 {
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let random = self.0.next_u32() >> (u32::BITS - bits);
            if random < n {
                return random;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of CPython 3.13.
    #[test]
    fn streams_are_those_of_cpython() {
        let mut random = PythonRandom::new(42);
        assert_eq!([random.random(), random.random()], [0.6394267984578837, 0.025010755222666936]);
        assert_eq!(PythonRandom::new(17_872_303_526_579_716_721).random(), 0.8270531610082507);
        let mut random = PythonRandom::new(59);
        assert_eq!([0; 6].map(|_| random.below(2048)), [918, 346, 1882, 93, 557, 1228]);
        assert_eq!([0; 6].map(|_| random.below(5)), [0, 4, 0, 3, 3, 3]);
    }
}
