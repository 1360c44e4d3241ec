//! The configurations of the fuzz target's seeds, whole and damaged: accepted within the boundary, or an error of the input.

use invarlock_runtime::fuzz::bundle_config;
use std::fs;
use std::path::Path;

fn seeds() -> Vec<Vec<u8>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/bundle_config");
    let seeds: Vec<_> = fs::read_dir(seeds).expect("the seeds").flatten().map(|entry| entry.path()).collect();
    assert!(seeds.len() > 8);
    seeds.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

#[test]
fn damaged_configurations_are_errors_of_the_input() {
    for seed in seeds() {
        bundle_config(&seed);
        for at in (0..seed.len()).step_by(37) {
            bundle_config(&seed[..at]);
            let mut changed = seed.clone();
            // A digit becomes another one, a letter another one, and punctuation breaks the document.
            changed[at] ^= 1;
            bundle_config(&changed);
        }
    }
}

/// Values of every type in place of each member.
#[test]
fn members_of_other_types_are_errors_of_the_input() {
    let values =
        ["null", "-1", "18446744073709551615", "1e400", "\"/\"", "[]", "{}", "[{}]", "[null]", "true"];
    for seed in seeds() {
        let document: serde_json::Value = serde_json::from_slice(&seed).expect("JSON");
        let mut pointers = Vec::new();
        collect(&document, String::new(), &mut pointers);
        for pointer in pointers {
            for value in values {
                let Ok(value) = serde_json::from_str::<serde_json::Value>(value) else { continue };
                let mut changed = document.clone();
                *changed.pointer_mut(&pointer).expect("a member") = value;
                bundle_config(changed.to_string().as_bytes());
            }
        }
    }
}

fn collect(value: &serde_json::Value, at: String, all: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{at}/{name}"), all);
            }
        }
        // The first entries are enough: the others are of the same type.
        serde_json::Value::Array(entries) => {
            for (i, value) in entries.iter().enumerate().take(2) {
                collect(value, format!("{at}/{i}"), all);
            }
        }
        _ => {}
    }
    all.push(at);
}
