//! Losses of one tiny checkpoint of each format of stored weights, computed with PyTorch by `tests/reference/make_weights.py` on the numbers
//! that the stored weights mean.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

#[path = "common/losses.rs"]
mod losses;

#[test]
fn losses_match_the_stored_numbers() {
    losses::check(&losses::cases("weights"));
}
