//! Other architectures have no such unit.

use super::HINT;
use crate::math::gemm::{View, ViewMut};
use invarlock_error::{Error, Result};

/// The unit, which no value stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amx {}

impl Amx {
    /// An error: there is no such unit.
    pub fn enable() -> Result<Self> {
        Err(Error::unsupported("bf16x3: only x86-64 processors have the matrix unit AMX").with_hint(HINT))
    }

    /// Never called.
    pub fn multiply(self, _: &mut ViewMut<'_>, _: View<'_>, _: View<'_>, _: f32) {
        match self {}
    }
}
