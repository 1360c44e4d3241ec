//! The normal distribution as CPython's `statistics.NormalDist` computes it.
// The coefficients are as published.
#![allow(clippy::excessive_precision)]

/// Cumulative distribution of the standard normal.
pub fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// Inverse of [`cdf`] for `0 < p < 1` (Wichura's AS241); NaN outside.
pub fn inv_cdf(p: f64) -> f64 {
    if !(p > 0.0 && p < 1.0) {
        return f64::NAN;
    }
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180625 - q * q;
        return q * horner(&CENTRAL_NUMERATOR, r) / horner(&CENTRAL_DENOMINATOR, r);
    }
    let r = (-(if q <= 0.0 { p } else { 1.0 - p }).ln()).sqrt();
    let x = if r <= 5.0 {
        let r = r - 1.6;
        horner(&MIDDLE_NUMERATOR, r) / horner(&MIDDLE_DENOMINATOR, r)
    } else {
        let r = r - 5.0;
        horner(&TAIL_NUMERATOR, r) / horner(&TAIL_DENOMINATOR, r)
    };
    if q < 0.0 { -x } else { x }
}

fn horner(coefficients: &[f64; 8], r: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * r + c)
}

// Highest power first, as published (Wichura 1988, PPND16).
const CENTRAL_NUMERATOR: [f64; 8] = [
    2.5090809287301226727e+3,
    3.3430575583588128105e+4,
    6.7265770927008700853e+4,
    4.5921953931549871457e+4,
    1.3731693765509461125e+4,
    1.9715909503065514427e+3,
    1.3314166789178437745e+2,
    3.3871328727963666080e+0,
];
const CENTRAL_DENOMINATOR: [f64; 8] = [
    5.2264952788528545610e+3,
    2.8729085735721942674e+4,
    3.9307895800092710610e+4,
    2.1213794301586595867e+4,
    5.3941960214247511077e+3,
    6.8718700749205790830e+2,
    4.2313330701600911252e+1,
    1.0,
];
const MIDDLE_NUMERATOR: [f64; 8] = [
    7.74545014278341407640e-4,
    2.27238449892691845833e-2,
    2.41780725177450611770e-1,
    1.27045825245236838258e+0,
    3.64784832476320460504e+0,
    5.76949722146069140550e+0,
    4.63033784615654529590e+0,
    1.42343711074968357734e+0,
];
const MIDDLE_DENOMINATOR: [f64; 8] = [
    1.05075007164441684324e-9,
    5.47593808499534494600e-4,
    1.51986665636164571966e-2,
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940e+0,
    2.05319162663775882187e+0,
    1.0,
];
const TAIL_NUMERATOR: [f64; 8] = [
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    1.24266094738807843860e-3,
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580e+0,
    5.46378491116411436990e+0,
    6.65790464350110377720e+0,
];
const TAIL_DENOMINATOR: [f64; 8] = [
    2.04426310338993978564e-15,
    1.42151175831644588870e-7,
    1.84631831751005468180e-5,
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_agrees_with_cpython() {
        // statistics.NormalDist().inv_cdf(p), CPython 3.12.
        for (p, z) in [
            (0.5, 0.0),
            (0.025, -1.9599639845400543),
            (0.975, 1.9599639845400536),
            (1e-6, -4.753424308822899),
            (0.3, -0.5244005127080408),
            (1e-12, -7.034483825301131),
        ] {
            assert!((inv_cdf(p) - z).abs() <= 1e-15 * z.abs().max(1.0), "{p}: {} {z}", inv_cdf(p));
        }
        assert!(inv_cdf(0.0).is_nan() && inv_cdf(1.0).is_nan() && inv_cdf(f64::NAN).is_nan());
    }

    #[test]
    fn cumulative_inverts() {
        for i in 1..1000 {
            let p = f64::from(i) / 1000.0;
            assert!((cdf(inv_cdf(p)) - p).abs() < 1e-15, "{p}");
        }
        assert!((cdf(1.96) - 0.9750021048517795).abs() < 1e-15);
    }
}
