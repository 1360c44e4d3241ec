//! The block of a guard that was not evaluated: an older evaluator, which did not measure for it, measured a side.

use super::object;
use crate::format::evaluation_report::GuardBlock;
use crate::sentences::GUARD_NOT_MEASURED;
use serde::{Deserialize, Serialize};

/// Block of a guard that was not evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub(crate) struct Block {
    /// Always false.
    pub(crate) evaluated: bool,
    /// Always false.
    pub(crate) supported: bool,
    /// `not_evaluated`.
    pub(crate) status: String,
    /// Why.
    pub(crate) reason: String,
}

/// The block, with the flags of `more` behind it.
pub(super) fn block(more: &[(&'static str, bool)]) -> GuardBlock {
    let mut block = object(&Block {
        evaluated: false,
        supported: false,
        status: "not_evaluated".to_owned(),
        reason: GUARD_NOT_MEASURED.to_owned(),
    });
    block.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
    block
}
