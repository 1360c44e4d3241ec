//! Activation functions and the element-wise operations around them.

use super::elementary::{erf, logistic, tanh};
use super::simd::multiversion;

/// Activation function of the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), by erf.
    Gelu,
    /// x Φ(x), by tanh (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh,
    /// x · logistic(1.702 x).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// x · logistic(x).
    Silu,
    /// tanh(x).
    Tanh,
}

impl Activation {
    /// The function with this name in configurations of Hugging Face.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" | "gelu_python_tanh" => {
                Self::GeluTanh
            }
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "tanh" => Self::Tanh,
            _ => return None,
        })
    }

    /// The names of functions, for messages.
    pub const NAMES: &'static str =
        "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, relu, silu, tanh";

    /// x ← f(x + bias), row by row.
    pub fn apply(self, x: &mut [f32], bias: Option<&[f32]>, width: usize) {
        for row in x.chunks_exact_mut(width) {
            if let Some(bias) = bias {
                add(row, bias);
            }
            match self {
                Self::Gelu => gelu(row),
                Self::GeluTanh => gelu_tanh(row),
                Self::QuickGelu => quick_gelu(row),
                Self::Relu => relu(row),
                Self::Silu => silu(row),
                Self::Tanh => tanh_rows(row),
            }
        }
    }
}

multiversion! {
    /// x ← x + y.
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += *y;
        }
    }

    /// x ← x + y + z.
    pub fn add2(x: &mut [f32], y: &[f32], z: &[f32]) {
        for ((x, y), z) in x.iter_mut().zip(y).zip(z) {
            *x += *y + *z;
        }
    }

    /// x ← x + y · scale.
    pub fn add_scaled(x: &mut [f32], y: &[f32], scale: f32) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += *y * scale;
        }
    }

    /// x ← x · scale.
    pub fn scale(x: &mut [f32], scale: f32) {
        for x in x {
            *x *= scale;
        }
    }

    /// x ← min(max(x, -limit), limit); NaN stays.
    pub fn clip(x: &mut [f32], limit: f32) {
        for x in x {
            *x = x.clamp(-limit, limit);
        }
    }

    /// x ← limit · tanh(x / limit).
    pub fn softcap(x: &mut [f32], limit: f32) {
        for x in x {
            *x = tanh(*x / limit) * limit;
        }
    }

    /// x ← x · y.
    pub fn multiply(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x *= *y;
        }
    }

    /// x ← x Φ(x).
    pub fn gelu(x: &mut [f32]) {
        for x in x {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }

    /// x ← x Φ(x), Φ by tanh: ½(1 + tanh u) is logistic(2u), which does not cancel.
    pub fn gelu_tanh(x: &mut [f32]) {
        const TWO_SQRT_2_OVER_PI: f32 = 1.595_769;
        for x in x {
            let v = *x;
            *x = v * logistic(TWO_SQRT_2_OVER_PI * (v + 0.044_715 * v * v * v));
        }
    }

    /// x ← x · logistic(1.702 x).
    pub fn quick_gelu(x: &mut [f32]) {
        for x in x {
            *x *= logistic(1.702 * *x);
        }
    }

    /// x ← max(x, 0); NaN stays.
    pub fn relu(x: &mut [f32]) {
        for x in x {
            *x = if *x < 0.0 { 0.0 } else { *x };
        }
    }

    /// x ← x · logistic(x).
    pub fn silu(x: &mut [f32]) {
        for x in x {
            *x *= logistic(*x);
        }
    }

    /// x ← tanh(x).
    pub fn tanh_rows(x: &mut [f32]) {
        for x in x {
            *x = tanh(*x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_match_their_definitions() {
        let points: Vec<f32> = (-800..=800).map(|i| i as f32 / 100.0).collect();
        let gelu_tanh =
            |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh());
        let cases: [(&str, &dyn Fn(f64) -> f64); 6] = [
            ("gelu_new", &gelu_tanh),
            ("gelu_fast", &gelu_tanh),
            ("quick_gelu", &|x| x / (1.0 + (-1.702 * x).exp())),
            ("relu", &|x| x.max(0.0)),
            ("silu", &|x| x / (1.0 + (-x).exp())),
            ("tanh", &f64::tanh),
        ];
        for (name, truth) in cases {
            let mut x = points.clone();
            Activation::by_name(name).expect("known").apply(&mut x, None, points.len());
            for (found, at) in x.iter().zip(&points) {
                let truth = truth(f64::from(*at));
                assert!(
                    (f64::from(*found) - truth).abs() <= 1e-6 * truth.abs().max(0.1),
                    "{name}({at}) = {found}"
                );
            }
        }
        // Exact GELU, at a few points from tables of Φ.
        let mut x = [1.0f32, -1.0, 0.0, 2.0];
        Activation::Gelu.apply(&mut x, None, 4);
        for (found, truth) in x.iter().zip([0.841_344_8, -0.158_655_25, 0.0, 1.954_499_7]) {
            assert!((found - truth).abs() < 2e-7, "{found} {truth}");
        }
    }

    #[test]
    fn bias_is_added_before_the_function() {
        let mut x = [-3.0, 1.0, -1.0, 5.0];
        Activation::Relu.apply(&mut x, Some(&[2.0, 1.0]), 2);
        assert_eq!(x, [0.0, 2.0, 1.0, 6.0]);
        assert_eq!(Activation::by_name("swiglu"), None);
    }
}
