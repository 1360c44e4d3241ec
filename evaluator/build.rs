//! Writes the list of the evaluator's crates in the format of `cargo auditable`, which `src/sys/crates.rs` embeds.
//!
//! `cargo auditable` itself wraps the whole build and would be another tool to install.
#![allow(clippy::expect_used, reason = "a build script stops at the first failure")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use auditable_serde::VersionInfo;
use serde_json::{Value, json};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let variable = |name: &str| std::env::var(name).expect(name);
    // Linked crates only: no procedural macros, no build dependencies, no development dependencies.
    let tree = Command::new(variable("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "depth",
            "--format",
            " {p}",
        ])
        .args(["--package", "invarlock-evaluator", "--target", &variable("TARGET")])
        .output()
        .expect("cargo tree starts");
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let packages = packages(&String::from_utf8(tree.stdout).expect("text"));
    // Parsing the list checks that it has the format of `cargo auditable`.
    let list = json!({ "packages": packages }).to_string();
    let info: VersionInfo = serde_json::from_str(&list).expect("a list of packages");
    let out = Path::new(&variable("OUT_DIR")).join("crates.json.z");
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&serde_json::to_vec(&info).expect("JSON")).expect("compressing the list");
    let compressed = encoder.finish().expect("compressing the list");
    std::fs::write(out, &compressed).expect("writing the list");
    println!("cargo::rustc-env=CRATES_LENGTH={}", compressed.len());
}

/// Name and version.
type Crate = (String, String);

/// Whether a crate belongs to this workspace, and its dependencies.
type Dependencies = (bool, Vec<Crate>);

/// Parses the lines of `cargo tree`: depth, name, version, path. The first line is the evaluator. A crate has one line for
/// each crate that depends on it.
fn packages(tree: &str) -> Vec<Value> {
    let mut crates: BTreeMap<Crate, Dependencies> = BTreeMap::new();
    let mut ancestors: Vec<Crate> = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("a line of cargo tree").to_owned();
        let (depth, name, version) = (word().parse::<usize>().expect("depth"), word(), word());
        let key = (name, version.trim_start_matches('v').to_owned());
        let local = line.contains(" (/");
        ancestors.truncate(depth);
        if let Some(parent) = ancestors.last() {
            let dependencies = &mut crates.get_mut(parent).expect("the parent's line").1;
            if !dependencies.contains(&key) {
                dependencies.push(key.clone());
            }
        }
        crates.entry(key.clone()).or_insert((local, Vec::new()));
        ancestors.push(key);
    }
    let index = |key: &Crate| crates.keys().position(|known| known == key).expect("a crate of the tree");
    let package = |(key, (local, dependencies)): (&Crate, &Dependencies)| {
        let mut package = json!({
            "name": key.0, "version": key.1, "source": if *local { "local" } else { "crates.io" },
        });
        let mut dependencies: Vec<usize> = dependencies.iter().map(index).collect();
        dependencies.sort_unstable();
        if !dependencies.is_empty() {
            package["dependencies"] = json!(dependencies);
        }
        if key.0 == "invarlock-evaluator" {
            package["root"] = json!(true);
        }
        package
    };
    crates.iter().map(package).collect()
}
