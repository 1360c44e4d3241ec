//! A bare matrix product: the bound of the arithmetic.

use std::time::Instant;

use invarlock_evaluator::math::gemm::{View, ViewMut};
use invarlock_evaluator::math::products::Products;

/// Rows of the left matrix: those of a group of windows.
const ROWS: usize = 512;
const SECONDS: f64 = 3.0;

/// Multiplications and additions per second of all threads together, each with matrices of its own of this size.
pub fn rate(threads: usize, inputs: usize, outputs: usize) -> f64 {
    let work = || {
        let value = |i: usize| (i % 31) as f32 / 16.0 - 1.0;
        let x: Vec<f32> = (0..ROWS * inputs).map(value).collect();
        let weights: Vec<f32> = (0..inputs * outputs).map(value).collect();
        let mut out = vec![0.0; ROWS * outputs];
        let mut product = || {
            let weights = View::dense(&weights, outputs, inputs).transposed();
            Products::default().multiply(
                &mut ViewMut::dense(&mut out, ROWS, outputs),
                View::dense(&x, ROWS, inputs),
                weights,
                1.0,
            );
        };
        product();
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed().as_secs_f64() < SECONDS {
            product();
            count += 1;
        }
        (count * 2 * ROWS * inputs * outputs) as f64 / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(f64::NAN)).sum()
    })
}
