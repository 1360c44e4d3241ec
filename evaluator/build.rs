//! Writes down which crates the evaluator is made of, in the format of `cargo auditable`, for the section of the program that says so.
//!
//! That tool wraps the whole build; one program of ours is not worth another tool on every machine that builds it.
#![allow(clippy::expect_used, reason = "a build that cannot say what it builds stops")]

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
    // What is linked and nothing else: no macros, no tools of the build or of tests.
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
    // Read as those read it who look into programs.
    let list = json!({ "packages": packages }).to_string();
    let info: VersionInfo = serde_json::from_str(&list).expect("a list of packages");
    let out = Path::new(&variable("OUT_DIR")).join("crates.json.z");
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&serde_json::to_vec(&info).expect("JSON")).expect("packing");
    let packed = packer.finish().expect("packing");
    std::fs::write(out, &packed).expect("writing what the evaluator is made of");
    println!("cargo::rustc-env=CRATES_LENGTH={}", packed.len());
}

/// Name and version.
type Crate = (String, String);

/// The lines of `cargo tree`: depth, name, version, place. The first is the program; a crate's own line comes under each that needs it.
fn packages(tree: &str) -> Vec<Value> {
    let mut found: BTreeMap<Crate, (bool, Vec<Crate>)> = BTreeMap::new();
    let mut way: Vec<Crate> = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("a line of cargo tree").to_owned();
        let (depth, name, version) = (word().parse::<usize>().expect("depth"), word(), word());
        let key = (name, version.trim_start_matches('v').to_owned());
        let local = line.contains(" (/");
        way.truncate(depth);
        if let Some(above) = way.last() {
            let needs = &mut found.get_mut(above).expect("the line above").1;
            if !needs.contains(&key) {
                needs.push(key.clone());
            }
        }
        found.entry(key.clone()).or_insert((local, Vec::new()));
        way.push(key);
    }
    let place = |key: &Crate| found.keys().position(|it| it == key).expect("a crate of the tree");
    let package = |(key, (local, needs)): (&Crate, &(bool, Vec<Crate>))| {
        let mut package = json!({
            "name": key.0, "version": key.1, "source": if *local { "local" } else { "crates.io" },
        });
        let mut needs: Vec<usize> = needs.iter().map(place).collect();
        needs.sort_unstable();
        if !needs.is_empty() {
            package["dependencies"] = json!(needs);
        }
        if key.0 == "invarlock-evaluator" {
            package["root"] = json!(true);
        }
        package
    };
    found.iter().map(package).collect()
}
