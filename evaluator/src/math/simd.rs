//! Functions that are compiled once for each vector width. The widest that the processor supports is called.
#![allow(unsafe_code, reason = "processor intrinsics")]

/// Vector width of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// 512 bits.
    Avx512,
    /// 256 bits.
    Avx2,
    /// The baseline of the architecture.
    Base,
}

impl Level {
    /// The widest vectors that this processor supports.
    #[inline]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx2") {
                return Self::Avx512;
            }
            if has!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Base
    }
}

/// The class of the matrix kernel that [`crate::math::gemm`] uses on this processor: two processors of one class give the same bits. The kernel
/// takes its block sizes, and so the order of its sums, from size and associativity of the caches.
pub fn kernel() -> String {
    let caches = gemm_common::cache::CACHE_INFO
        .iter()
        .map(|cache| format!("{}/{}", cache.cache_bytes, cache.associativity));
    format!("{} caches {}", instructions(), caches.collect::<Vec<_>>().join(" "))
}

fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "gemm-f32/avx512f";
        }
        if std::arch::is_x86_feature_detected!("fma") {
            return "gemm-f32/fma";
        }
        "gemm-f32/scalar"
    }
    #[cfg(not(target_arch = "x86_64"))]
    "gemm-f32"
}

/// Defines functions whose bodies are compiled for each [`Level`].
///
/// A body should call only `#[inline(always)]` functions where speed matters: other functions keep the baseline width.
macro_rules! multiversion {
    ($($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(unsafe_code, reason = "calls functions for processor features that were detected")]
        pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                match $crate::math::simd::Level::detect() {
                    // SAFETY: the processor has the features that this function is compiled for.
                    $crate::math::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::math::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::math::simd::Level::Base => {}
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(crate) use multiversion;

/// Lanes of a reduction. The number is fixed, so that sums do not depend on the vector width.
pub const LANES: usize = 16;

/// `Σ f(x)`, added in the same order on every processor.
#[inline(always)]
pub fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f(v);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest element; -∞ for an empty row. A NaN is ignored: the sum of exponentials that follows becomes NaN.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, v);
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}
