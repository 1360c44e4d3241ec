//! Losses of one tiny checkpoint of each family and of each option that changes the arithmetic, computed with PyTorch and transformers by
//! `tests/reference/make_families.py`.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

#[path = "common/losses.rs"]
mod losses;

#[test]
fn losses_match_transformers() {
    losses::check(&losses::cases("families"));
}
