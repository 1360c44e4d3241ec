//! Upstream's own verifiers accept reports of this program, and reject a damaged subject.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Made, skip, upstream};
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{RuntimeProvenance, VerifyOptions, runtime_verify, verify_report};
use std::path::Path;
use std::process::Command;

fn run(program: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program).args(arguments).env("NO_COLOR", "1").output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn upstreams_verifiers_agree_about_our_bundles() {
    let test = "upstreams_verifiers_agree_about_our_bundles";
    for (case, shift, good) in [("noop", 0.0, true), ("int8", 0.01, true), ("damaged", 0.3, false)] {
        let folder = tempfile::tempdir().unwrap();
        let path = Made::new(180, shift, Profile::Ci, Tier::Balanced).write(folder.path());
        let manifest = folder.path().join("runtime.manifest.json");

        let verdict = verify_report(&path, &VerifyOptions::default());
        assert_eq!(verdict.ok(), good, "{case}: {:?}", verdict.errors);
        assert_eq!(verdict.exit_code(), i32::from(!good), "{case}: {:?}", verdict.errors);
        assert!(runtime_verify(&path, &manifest, None).ok());
        let host = VerifyOptions { runtime_provenance: RuntimeProvenance::Host, ..VerifyOptions::default() };
        assert_eq!(verify_report(folder.path(), &host).ok(), good);

        for (version, modes) in [("0.8.0", &[][..]), ("0.12.1", &["off", "report"][..])] {
            let Some(program) = upstream(version) else {
                skip(test, &format!("no upstream {version} (run tests/tools/upstream-venvs.sh)"));
                continue;
            };
            let (report, manifest) = (path.to_str().unwrap(), manifest.to_str().unwrap());
            let arguments =
                ["advanced", "runtime-verify", "--report", report, "--manifest", manifest, "--json"];
            let (code, text) = run(&program, &arguments);
            assert_eq!(code, 0, "{version} runtime-verify {case}: {text}");
            let base = ["verify", "--profile", "ci", "--json"];
            let assurance: Vec<Vec<&str>> = match modes {
                [] => vec![Vec::new()],
                modes => modes.iter().map(|mode| vec!["--assurance", mode]).collect(),
            };
            for extra in assurance {
                let arguments: Vec<&str> = base.iter().copied().chain(extra).chain([report]).collect();
                let (code, text) = run(&program, &arguments);
                assert_eq!(code, i32::from(!good), "{version} {arguments:?} {case}: {text}");
            }
        }
    }
}
