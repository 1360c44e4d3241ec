//! `numpy.random.default_rng(seed)`: SeedSequence, PCG64 (XSL-RR 128/64), bounded integers and weighted choice.

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// NumPy's default generator.
#[derive(Debug, Clone)]
pub struct Pcg64 {
    state: u128,
    increment: u128,
    /// The unused high half of the last draw of 64 bits.
    buffered: Option<u32>,
}

impl Pcg64 {
    /// As `numpy.random.default_rng(seed)`.
    pub fn seed_from(seed: u64) -> Self {
        let words = seed_sequence(seed);
        let join = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        let increment = (join(words[2], words[3]) << 1) | 1;
        let mut generator = Pcg64 { state: 0, increment, buffered: None };
        generator.step();
        generator.state = generator.state.wrapping_add(join(words[0], words[1]));
        generator.step();
        generator
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.step();
        let rotation = (self.state >> 122) as u32;
        ((self.state >> 64) as u64 ^ self.state as u64).rotate_right(rotation)
    }

    /// The next 32 bits: the low half of a draw first, then its high half.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if let Some(high) = self.buffered.take() {
            return high;
        }
        let draw = self.next_u64();
        self.buffered = Some((draw >> 32) as u32);
        draw as u32
    }

    /// A double in `[0, 1)`.
    #[inline]
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// As `Generator.integers(0, bound)` for one value, `0 < bound <= 2^32`: Lemire's method with rejection.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0 && bound <= 1 << 32);
        let last = (bound - 1) as u32;
        if last == 0 {
            return 0;
        }
        if last == u32::MAX {
            return u64::from(self.next_u32());
        }
        let bound = last + 1;
        let mut product = u64::from(self.next_u32()) * u64::from(bound);
        if (product as u32) < bound {
            let threshold = (u32::MAX - last) % bound;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(bound);
            }
        }
        product >> 32
    }
}

/// `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_sequence(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let mut entropy = [0u32; POOL];
    entropy[0] = seed as u32;
    entropy[1] = (seed >> 32) as u32;

    let mut constant: u32 = 0x43b0_d7e5;
    let mut hash = |value: u32| {
        let mut value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    let mut pool = [0u32; POOL];
    for (slot, word) in pool.iter_mut().zip(entropy) {
        *slot = hash(word);
    }
    for source in 0..POOL {
        for target in 0..POOL {
            if source != target {
                let mixed = pool[target]
                    .wrapping_mul(0xca01_f9dd)
                    .wrapping_sub(hash(pool[source]).wrapping_mul(0x4973_f715));
                pool[target] = mixed ^ (mixed >> 16);
            }
        }
    }

    let mut constant: u32 = 0x8b51_f9dd;
    let mut words = [0u32; 8];
    for (index, word) in words.iter_mut().enumerate() {
        let mut value = pool[index % POOL] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        value = value.wrapping_mul(constant);
        *word = value ^ (value >> 16);
    }
    std::array::from_fn(|i| u64::from(words[2 * i]) | (u64::from(words[2 * i + 1]) << 32))
}

/// `Generator.choice(n, p=...)` prepared for many draws.
#[derive(Debug, Clone)]
pub struct WeightedChoice {
    cumulative: Vec<f64>,
    /// For each of `cumulative.len()` equal cells of `[0, 1)`, the first index that a draw in it can give.
    start: Vec<u32>,
}

impl WeightedChoice {
    /// `probabilities` are non-negative and sum to about one; not empty.
    pub fn new(probabilities: &[f64]) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = probabilities
            .iter()
            .map(|p| {
                sum += p;
                sum
            })
            .collect();
        let last = sum;
        for value in &mut cumulative {
            *value /= last;
        }
        let cells = cumulative.len().max(1);
        let start = (0..cells)
            .map(|cell| {
                // A little below the cell's edge, so that rounding of the cell number cannot skip an index.
                let edge = (cell as f64 / cells as f64) - 1e-9;
                cumulative.partition_point(|&c| c <= edge) as u32
            })
            .collect();
        WeightedChoice { cumulative, start }
    }

    /// One index: `searchsorted(cdf, random(), side="right")`.
    #[inline]
    pub fn draw(&self, generator: &mut Pcg64) -> usize {
        let uniform = generator.next_f64();
        let cell = ((uniform * self.start.len() as f64) as usize).min(self.start.len() - 1);
        let mut index = self.start[cell] as usize;
        while index + 1 < self.cumulative.len() && self.cumulative[index] <= uniform {
            index += 1;
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_output_is_numpys() {
        let mut generator = Pcg64::seed_from(0);
        assert_eq!(generator.next_u64(), 11749869230777074271);
        assert_eq!(generator.next_u64(), 4976686463289251617);
    }

    #[test]
    fn doubles_are_numpys() {
        let mut generator = Pcg64::seed_from(0);
        assert_eq!(generator.next_f64(), 0.6369616873214543);
        assert_eq!(generator.next_f64(), 0.2697867137638703);
    }

    #[test]
    fn bounded_integers_are_numpys() {
        let mut generator = Pcg64::seed_from(0);
        let drawn: Vec<u64> = (0..10).map(|_| generator.below(5)).collect();
        assert_eq!(drawn, [4, 3, 2, 1, 1, 0, 0, 0, 0, 4]);
        let mut generator = Pcg64::seed_from(503);
        let drawn: Vec<u64> = (0..10).map(|_| generator.below(8)).collect();
        assert_eq!(drawn, [2, 3, 5, 1, 2, 5, 5, 4, 3, 7]);
    }

    #[test]
    fn weighted_choice_is_numpys() {
        let mut generator = Pcg64::seed_from(0);
        let choice = WeightedChoice::new(&[0.1, 0.2, 0.3, 0.4]);
        let drawn: Vec<usize> = (0..8).map(|_| choice.draw(&mut generator)).collect();
        assert_eq!(drawn, [3, 1, 0, 0, 3, 3, 3, 3]);
    }

    #[test]
    fn weighted_choice_equals_binary_search() {
        let weights: Vec<f64> = (0..97).map(|i| f64::from((i * 37) % 11) + 0.25).collect();
        let total: f64 = weights.iter().sum();
        let probabilities: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let choice = WeightedChoice::new(&probabilities);
        let mut one = Pcg64::seed_from(7);
        let mut other = one.clone();
        for _ in 0..20_000 {
            let uniform = other.next_f64();
            let expected = choice.cumulative.partition_point(|&c| c <= uniform);
            assert_eq!(choice.draw(&mut one), expected);
        }
    }

    #[test]
    fn one_choice_needs_no_draw() {
        let mut generator = Pcg64::seed_from(0);
        assert_eq!(generator.below(1), 0);
        assert_eq!(generator.next_u64(), 11749869230777074271);
    }
}
