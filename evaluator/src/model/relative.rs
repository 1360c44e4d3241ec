//! Biases of attention scores by the distance between key and query, in buckets that grow with the distance (T5, arXiv 1910.10683).

/// How distances fall into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// Number of buckets, at least 4.
    pub count: usize,
    /// The first distance that shares its bucket with all longer ones, at least `count`.
    pub max_distance: usize,
    /// Whether later keys have buckets of their own. Otherwise they share that of distance 0.
    pub bidirectional: bool,
}

impl Buckets {
    /// The bucket of a key this far after its query. Half of the buckets of a direction hold one distance each; the limits of the others grow
    /// by a constant factor. In single precision, as models were trained: the limits depend on it.
    fn of(self, distance: i64) -> usize {
        let (first, count, distance) = match self.bidirectional {
            true if distance > 0 => (self.count / 2, self.count / 2, distance.unsigned_abs() as usize),
            true => (0, self.count / 2, distance.unsigned_abs() as usize),
            false => (0, self.count, (-distance).max(0) as usize),
        };
        let exact = count / 2;
        if distance < exact {
            return first + distance;
        }
        let log = f64::from(distance as f32 / exact as f32).ln() as f32;
        let range = (self.max_distance as f64 / exact as f64).ln() as f32;
        let bucket = exact + (log / range * (count - exact) as f32) as usize;
        first + bucket.min(count - 1)
    }
}

/// The bias of each head and distance.
#[derive(Debug, PartialEq)]
pub struct RelativeBias {
    /// For each head the bias of each bucket.
    biases: Vec<Vec<f32>>,
    /// The bucket of each distance from -`reach` to `reach`, beyond which buckets do not change.
    buckets: Vec<u32>,
    reach: i64,
}

impl RelativeBias {
    /// Biases from a table of shape [buckets, heads].
    pub fn new(buckets: Buckets, heads: usize, table: &[f32]) -> Self {
        let of_head = |head: usize| table.iter().skip(head).step_by(heads).copied().collect();
        let reach = buckets.max_distance as i64;
        Self {
            biases: (0..heads).map(of_head).collect(),
            buckets: (-reach..=reach).map(|distance| buckets.of(distance) as u32).collect(),
            reach,
        }
    }

    /// The bias of a key this far after its query.
    pub fn bias(&self, head: usize, distance: i64) -> f32 {
        let bucket = self.buckets[(distance.clamp(-self.reach, self.reach) + self.reach) as usize];
        self.biases[head][bucket as usize]
    }

    /// Adds the biases of the keys from `first` on to a query's scores.
    pub fn add(&self, head: usize, query: usize, first: usize, scores: &mut [f32]) {
        let distances = first as i64 - query as i64..;
        for (score, distance) in scores.iter_mut().zip(distances) {
            *score += self.bias(head, distance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distances at which buckets change, as PyTorch gives them for T5's function.
    #[test]
    fn buckets_are_those_of_transformers() {
        let near = |n: i64| (1..n).collect::<Vec<i64>>();
        let cases: [(usize, usize, bool, Vec<i64>); 6] = [
            (32, 128, true, [near(9), vec![12, 16, 23, 32, 46, 64, 91]].concat()),
            (
                32,
                128,
                false,
                [near(17), vec![19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]].concat(),
            ),
            (10, 24, true, vec![1, 2, 5, 11]),
            (10, 24, false, vec![1, 2, 3, 4, 5, 7, 10, 13, 18]),
            (16, 64, true, vec![1, 2, 3, 4, 8, 16, 32]),
            (33, 100, true, [near(9), vec![11, 16, 21, 29, 39, 54, 73]].concat()),
        ];
        for (count, max_distance, bidirectional, changes) in cases {
            let buckets = Buckets { count, max_distance, bidirectional };
            for distance in 0..=300 {
                let passed = changes.iter().filter(|change| **change <= distance).count();
                assert_eq!(buckets.of(-distance), passed, "{buckets:?} -{distance}");
                let later = if bidirectional && distance > 0 { count / 2 + passed } else { 0 };
                assert_eq!(buckets.of(distance), later, "{buckets:?} {distance}");
            }
        }
    }

    #[test]
    fn biases_do_not_change_beyond_the_largest_distance() {
        let table: Vec<f32> = (0..20).map(|i| i as f32).collect();
        let bias = RelativeBias::new(Buckets { count: 10, max_distance: 24, bidirectional: true }, 2, &table);
        assert_eq!((bias.bias(0, 0), bias.bias(1, 1), bias.bias(1, -1)), (0.0, 13.0, 3.0));
        assert_eq!(bias.bias(1, 1_000_000), bias.bias(1, 24));
        let mut scores = [0.0; 3];
        bias.add(1, 5, 4, &mut scores);
        assert_eq!(scores, [bias.bias(1, -1), bias.bias(1, 0), bias.bias(1, 1)]);
    }
}
