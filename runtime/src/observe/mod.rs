//! Observes the waiting workload and compares the observations with the request. The kernel is trusted, the workload is not.

mod check;
mod files;
mod view;

pub(crate) use check::differs;
pub(crate) use files::{Root, expected_inputs};
pub(crate) use view::View;
