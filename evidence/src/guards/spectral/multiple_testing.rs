//! Tests of several families of modules together, as InvarLock 0.12 makes them.

pub use crate::format::evaluation_report::{MultipleTesting, TestingMethod as Method};
use std::collections::{BTreeMap, BTreeSet};

impl MultipleTesting {
    /// The families whose p-value is small enough.
    pub fn rejected(&self, p_values: &BTreeMap<String, f64>) -> BTreeSet<String> {
        let tests = self.m.max(p_values.len() as u64).max(1) as f64;
        let mut sorted: Vec<f64> = p_values.values().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = match self.method {
            Method::Bonferroni => 1,
            Method::Bh => (1..=sorted.len())
                .rev()
                .find(|rank| sorted[rank - 1] <= self.alpha * *rank as f64 / tests)
                .unwrap_or(0),
        };
        let most = self.alpha * rank as f64 / tests;
        p_values.iter().filter(|(_, p)| rank > 0 && **p <= most).map(|(family, _)| family.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(method: Method, m: u64, p_values: &[f64]) -> Vec<String> {
        let p_values = p_values.iter().enumerate().map(|(i, p)| (i.to_string(), *p)).collect();
        MultipleTesting { method, alpha: 0.05, m }.rejected(&p_values).into_iter().collect()
    }

    #[test]
    fn methods_reject_what_their_definition_says() {
        // The second is above 0.05/4, but below 2 · 0.05/4.
        assert_eq!(rejected(Method::Bh, 4, &[0.001, 0.02]), ["0", "1"]);
        assert_eq!(rejected(Method::Bonferroni, 4, &[0.001, 0.02]), ["0"]);
        // The first alone is above 0.05/4, and both together are rejected.
        assert_eq!(rejected(Method::Bh, 4, &[0.02, 0.021]), ["0", "1"]);
        assert!(rejected(Method::Bh, 4, &[0.03, 0.2]).is_empty());
        // More families than `m`.
        assert!(rejected(Method::Bonferroni, 1, &[0.011, 1.0, 1.0, 1.0, 1.0]).is_empty());
        assert!(rejected(Method::Bh, 4, &[]).is_empty());
    }
}
