//! Upstream's verifier, 0.12.1 and 0.8.0, accepts the evidence of this program. The tests need the
//! installation by `tests/tools/upstream-venvs.sh`, which needs Python 3.12 or newer.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, skip, target};
use std::path::PathBuf;
use std::process::Command;

fn upstream_program(version: &str) -> Option<PathBuf> {
    let path = target().join("upstream").join(version).join("bin/invarlock");
    path.is_file().then_some(path)
}

fn check(version: &str, verify_flags: &[&[&str]]) {
    let Some(program) = upstream_program(version) else {
        return skip(
            &format!("upstream::{version}"),
            "upstream's package is not installed (Python 3.12 or newer needed)",
        );
    };
    let place = Place::new(As::Caller);
    for (subject, code) in [("healthy", 0), ("damaged", 1)] {
        let (baseline, subject_dir, preset) = (demo("baseline"), demo(subject), demo("preset.yaml"));
        let args = ["evaluate", "--quiet", "--baseline", baseline.to_str().unwrap(), "--subject"];
        let args = [
            &args[..],
            &[subject_dir.to_str().unwrap(), "--preset", preset.to_str().unwrap(), "--report-out", subject],
        ]
        .concat();
        place.run(&args).expect(code);
        let report = place.work(subject).join("evaluation.report.json");
        let manifest = report.with_file_name("runtime.manifest.json");
        let run = |args: &[&str]| {
            let mut command = Command::new(&program);
            command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.path("home"));
            Ran::from(command.output().unwrap())
        };
        run(&[
            "advanced",
            "runtime-verify",
            "--report",
            report.to_str().unwrap(),
            "--manifest",
            manifest.to_str().unwrap(),
        ])
        .expect(0);
        for flags in verify_flags {
            run(&[&["verify", "--profile", "ci"], *flags, &[report.to_str().unwrap()]].concat()).expect(code);
        }
    }
}

#[test]
fn upstream_0_12_1_accepts_the_evidence() {
    check("0.12.1", &[&["--assurance", "off"], &["--assurance", "report"]]);
}

#[test]
fn upstream_0_8_0_accepts_the_evidence() {
    check("0.8.0", &[&[]]);
}
