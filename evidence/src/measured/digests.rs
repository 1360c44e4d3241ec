//! Digests of the windows of a run. Both sides of an evaluation have the same windows, so they are computed once.

use super::Measured;
use crate::format::run_report::EvaluationWindows;
use crate::numerics::digest::{labelled_positions_digest, windows_hash};

/// `preview_hash` and `final_hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowHashes {
    /// Of the preview arm.
    pub preview: String,
    /// Of the final arm.
    pub final_: String,
}

impl WindowHashes {
    /// The hashes of the windows of a run report.
    pub fn of(windows: &EvaluationWindows) -> Self {
        Self {
            preview: windows_hash(&windows.preview.input_ids),
            final_: windows_hash(&windows.final_.input_ids),
        }
    }
}

/// What a run report states of its windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowDigests {
    /// Of the token ids.
    pub hashes: WindowHashes,
    /// Of the positions with labels; none if there is none.
    pub labelled: Option<String>,
}

impl WindowDigests {
    /// The digests of the windows of a measurement.
    pub fn of(measured: &Measured) -> Self {
        let Measured { preview, final_, .. } = measured;
        Self {
            hashes: WindowHashes {
                preview: windows_hash(&preview.input_ids),
                final_: windows_hash(&final_.input_ids),
            },
            labelled: labelled_positions_digest(preview.labelled(), final_.labelled()),
        }
    }
}
