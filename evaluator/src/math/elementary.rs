//! exp, tanh, erf and the logistic function as polynomials that the compiler vectorises.
//!
//! Errors are at most 3 units in the last place of f32 (see the tests). NaN gives NaN.

/// Below this argument, `exp` is less than the smallest normal number and is returned as 0.
const EXP_LOW: f32 = -87.336_54;

/// eˣ for x ≤ 0, the only sign that a stable softmax, logistic function or erf needs.
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts; the first has few bits, so that its product with a small integer is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding this number rounds to an integer and leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;

    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let y = p * (r * r) + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127);
    let scale = f32::from_bits((exponent as u32) << 23);
    if x < EXP_LOW { 0.0 } else { y * scale }
}

/// 1 / (1 + e⁻ˣ), accurate also for small results.
#[inline(always)]
pub fn logistic(x: f32) -> f32 {
    let e = exp_nonpositive(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let e = exp_nonpositive(-2.0 * magnitude);
    let large = ((1.0 - e) / (1.0 + e)).copysign(x);
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * z + 2.063_909e-2;
    p = p * z - 5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328e-1;
    let small = p * z * x + x;
    if magnitude < 0.625 { small } else { large }
}

/// Gauss error function (coefficients by N. Juffa).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let mut high = -1.728_534_7e-5 * t + 3.831_974e-4;
    let low = -3.883_964_7e-3 * t + 2.425_462_3e-2;
    high = high * s + low;
    high = high * t - 1.067_778_8e-1;
    high = high * t - 6.348_467e-1;
    high = high * t - 1.287_175_2e-1;
    high = high * t - t;
    // The polynomial is fitted up to the point where erf is 1. Beyond that point it may become positive.
    let high = if t > 4.0 { -100.0 } else { high };
    let high = if t > 0.927_734_4 { high } else { -1.0 };
    let large = (1.0 - exp_nonpositive(high)).copysign(x);
    let mut p = -5.967_617e-4;
    p = p * s + 4.991_194e-3;
    p = p * s - 2.676_813_7e-2;
    p = p * s + 1.128_199_3e-1;
    p = p * s - 3.761_253_4e-1;
    p = p * s + 1.283_791_7e-1;
    let small = p * x + x;
    if t > 0.927_734_4 { large } else { small }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance from the true value, in units of the last place of f32 at that value.
    fn ulps(found: f32, truth: f64) -> f64 {
        let unit = f64::from(f32::EPSILON) * 2f64.powi(truth.abs().log2().floor() as i32);
        (f64::from(found) - truth).abs() / unit
    }

    /// erf by its Taylor series, good to 1e-9 for |x| ≤ 4.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut total, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * total.abs() {
            n += 1.0;
            term *= -x * x / n;
            total += term / (2.0 * n + 1.0);
        }
        total * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn worst(low: f32, high: f32, f: impl Fn(f32) -> f32, truth: impl Fn(f64) -> f64) -> f64 {
        let n = 400_003;
        (0..=n)
            .map(|i| low + (high - low) * (i as f32 / n as f32))
            .filter(|x| *x != 0.0)
            .map(|x| ulps(f(x), truth(f64::from(x))))
            .fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate_to_three_ulps() {
        assert!(worst(-87.3, 0.0, exp_nonpositive, f64::exp) <= 2.0);
        assert!(worst(-1.0, -1e-6, exp_nonpositive, f64::exp) <= 2.0);
        for range in [(-1e-3, 1e-3), (-1.0, 1.0), (-12.0, 12.0)] {
            assert!(worst(range.0, range.1, tanh, f64::tanh) <= 3.0, "tanh {range:?}");
            assert!(
                worst(range.0, range.1, logistic, |x| 1.0 / (1.0 + (-x).exp())) <= 3.0,
                "logistic {range:?}"
            );
        }
        assert!(worst(-80.0, 80.0, logistic, |x| 1.0 / (1.0 + (-x).exp())) <= 3.0);
        for range in [(-1e-3, 1e-3), (-1.0, 1.0), (-3.9, 3.9)] {
            assert!(worst(range.0, range.1, erf, erf_series) <= 3.0, "erf {range:?}");
        }
    }

    #[test]
    fn extreme_arguments_give_limits() {
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-1e30), 0.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        for f in [exp_nonpositive, tanh, erf, logistic] {
            assert!(f(f32::NAN).is_nan());
        }
        for f in [tanh, erf] {
            assert_eq!((f(f32::INFINITY), f(f32::NEG_INFINITY), f(0.0)), (1.0, -1.0, 0.0));
            assert_eq!((f(1e30), f(-30.0)), (1.0, -1.0));
        }
        assert_eq!((logistic(f32::INFINITY), logistic(f32::NEG_INFINITY), logistic(0.0)), (1.0, 0.0, 0.5));
    }
}
