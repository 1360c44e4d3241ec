//! A small evaluation, for tests of what is done with its evidence.

use crate::{As, Place, Ran, demo};
use serde_json::json;

/// A place for the ordinary user with the demo's checkpoints `base` and `subject`, and a preset of 4 + 4 windows.
pub fn place() -> Place {
    place_of(As::User)
}

/// The same for another user.
pub fn place_of(user: As) -> Place {
    let place = Place::new(user);
    place.copy_dir(&demo("baseline"), "base");
    place.copy_dir(&demo("healthy"), "subject");
    let data = demo("valid.jsonl");
    let preset = json!({"dataset": {"provider": {"kind": "local_jsonl", "file": data}, "seq_len": 32, "preview_n": 4, "final_n": 4}});
    place.write("preset.yaml", preset.to_string().as_bytes());
    place
}

/// Evaluates them with profile dev; the evidence is in `eval`.
pub fn evaluate(place: &Place, more: &[&str]) -> Ran {
    let args = ["evaluate", "--quiet", "--profile", "dev", "--preset", "preset.yaml", "--report-out", "eval"];
    place.run(&[&args[..], &["--baseline", "base", "--subject", "subject"], more].concat())
}
