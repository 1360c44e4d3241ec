//! Sentences that the terminal, the evidence and the HTML page share.

use crate::policy::Profile;

/// Outcome of a gate or guard that was not evaluated; a colon and the reason may follow.
pub const NOT_EVALUATED: &str = "not evaluated";

/// Why a guard was not evaluated whose statistics an older evaluator did not measure. The reports of that time say it in these words.
pub const GUARD_NOT_MEASURED: &str = "this version does not evaluate this guard";

/// Why the guard overhead was not evaluated.
pub const NO_GUARD_OVERHEAD: &str = "this version does not measure guard overhead";

/// Why the guard overhead of an accuracy was not evaluated.
pub const NO_OVERHEAD_OF_ACCURACY: &str = "guard overhead is measured for a perplexity only";

/// Why evidence of the profile `made` does not satisfy the stricter profile `required`.
pub fn weaker_profile(made: Profile, required: Profile) -> String {
    format!("made with profile {made}; use --profile {made}, or measure with {required}")
}

/// How many windows of a side were resumed.
pub fn resumed(windows: u64, of: u64) -> String {
    format!("{windows} of {of} windows were measured by an earlier, interrupted run")
}

/// [`NOT_EVALUATED`] with its reason, if there is one.
pub fn not_evaluated(reason: Option<&str>) -> String {
    reason.map_or_else(|| NOT_EVALUATED.to_owned(), |reason| format!("{NOT_EVALUATED}: {reason}"))
}
