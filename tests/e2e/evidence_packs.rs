//! Evidence packs: built, inspected and verified here, and exchanged with the Python package 0.12.1.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, skip, small, target};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Signed evidence of a few windows in `eval`, and the keys `alice` and `bob`.
fn place() -> Place {
    let place = small::place();
    for key in ["alice", "bob"] {
        pack(&place, "keygen", &[&format!("{key}.pem")]).expect(0);
    }
    small::evaluate(&place, &["--signing-key", "alice.pem"]).expect(0);
    place
}

fn pack(place: &Place, command: &str, more: &[&str]) -> Ran {
    place.run(&[&["advanced", "evidence-pack", command], more].concat())
}

fn build(place: &Place, out: &str, more: &[&str]) -> Ran {
    pack(place, "build", &[&[out, "--report", "eval", "--signing-key", "alice.pem"], more].concat())
}

/// The files below a directory: paths relative to it.
fn files(root: &Path) -> Vec<PathBuf> {
    let (mut pending, mut files) = (vec![root.to_path_buf()], Vec::new());
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => pending.push(entry.path()),
                false => files.push(entry.path().strip_prefix(root).unwrap().to_path_buf()),
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_pack_holds_all_evidence_and_verifies_as_directory_and_archive() {
    let place = place();
    place.write("notes.json", b"{\"n\": 1}");
    let more = ["--archive", "pack.tar", "--material", "notes=notes.json", "--source-repo", "notes.json"];
    let built =
        build(&place, "pack", &[&more[..], &["--environment", "notes.json", "--json"]].concat()).expect(0);
    let built = built.json();
    assert_eq!(
        (&built["format_version"], &built["evidence_level"]),
        (&json!("evidence-pack-build-v1"), &json!("high"))
    );
    let names = files(&place.work("pack"));
    for name in [
        "evaluation.report.json",
        "runtime.manifest.json",
        "baseline.report.json",
        "subject.report.json",
        "runtime.attestation.json",
    ] {
        assert!(names.contains(&Path::new("reports/report-001").join(name)), "{name}: {names:?}");
    }
    assert_eq!(names.len(), 13, "{names:?}");
    // Without the evidence and without a network: the pack is enough.
    std::fs::remove_dir_all(place.work("eval")).unwrap();
    for path in ["pack", "pack.tar"] {
        let ran =
            pack(&place, "verify", &["--strict", "--key", "alice.pub.pem", "--json", path]).expect(0).json();
        assert_eq!((&ran["authenticity"], &ran["ok"]), (&json!("pinned"), &json!(true)));
        assert_eq!(ran["verify"]["results"][0]["assurance"], "consistent");
        let ran = pack(&place, "inspect", &["--json", path]).expect(0).json();
        assert_eq!((&ran["strict_ready"], &ran["reports"]["total"]), (&json!(true), &json!(1)));
        let text = pack(&place, "verify", &[path]).expect(0).out;
        assert!(text.starts_with("PACK OK") && text.contains("pass --key"), "{text}");
        pack(&place, "verify", &["--key", "bob.pub.pem", path]).expect(5);
        pack(&place, "verify", &["--profile", "ci", path]).expect(7);
    }
}

#[test]
fn a_pack_is_deterministic() {
    let place = place();
    build(&place, "one", &["--archive", "one.tar"]).expect(0);
    build(&place, "two", &["--archive", "two.tar"]).expect(0);
    assert_eq!(std::fs::read(place.work("one.tar")).unwrap(), std::fs::read(place.work("two.tar")).unwrap());
    let names = files(&place.work("one"));
    assert_eq!(names, files(&place.work("two")));
    for name in names {
        let read = |pack: &str| std::fs::read(place.work(pack).join(&name)).unwrap();
        assert_eq!(read("one"), read("two"), "{}", name.display());
    }
    // tar and sha256sum of other makers read it.
    std::fs::create_dir(place.work("extracted")).unwrap();
    let run = |program: &str, args: &[&str], dir: &str| {
        assert!(Command::new(program).args(args).current_dir(place.work(dir)).status().unwrap().success());
    };
    run("tar", &["-xf", "../one.tar"], "extracted");
    run("sha256sum", &["--quiet", "--strict", "-c", "checksums.sha256"], "extracted");
    pack(&place, "verify", &["extracted"]).expect(0);
}

#[test]
fn every_flipped_bit_of_a_pack_is_refused() {
    let place = place();
    build(&place, "pack", &["--archive", "pack.tar"]).expect(0);
    let refuses = |path: &Path, pack_path: &str| {
        let good = std::fs::read(path).unwrap();
        for (at, bit) in [(0, 0), (good.len() / 3, 5), (good.len() / 2, 1), (good.len() - 1, 3)] {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            std::fs::write(path, changed).unwrap();
            let ran = pack(&place, "verify", &["--key", "alice.pub.pem", pack_path]);
            assert!((3..=7).contains(&ran.code), "{}, byte {at}: {}", path.display(), ran.code);
        }
        std::fs::write(path, good).unwrap();
    };
    for name in files(&place.work("pack")) {
        refuses(&place.work("pack").join(name), "pack");
    }
    refuses(&place.work("pack.tar"), "pack.tar");
    for path in ["pack", "pack.tar"] {
        pack(&place, "verify", &["--key", "alice.pub.pem", path]).expect(0);
    }
}

#[test]
fn each_kind_of_fault_has_its_exit_code() {
    let place = place();
    build(&place, "pack", &[]).expect(0);
    build(&place, "pack", &[]).expect(2).one_error(&["pack exists", "never replaced"]);
    pack(&place, "keygen", &["alice.pem"]).expect(2).one_error(&["never replaced"]);
    pack(&place, "build", &["new", "--report", "missing"]).expect(4);
    pack(&place, "build", &["new", "--report", "eval", "--profile", "ci"]).expect(7);
    pack(&place, "build", &["new", "--report", "eval", "--material", "../x=preset.yaml"]).expect(2);
    assert!(!place.work("new").exists());
    pack(&place, "verify", &["missing"]).expect(3);
    pack(&place, "verify", &["preset.yaml"]).expect(4);
    pack(&place, "verify", &["--json-out", "pack/x.json", "pack"]).expect(2).one_error(&["inside the pack"]);
    pack(&place, "verify", &["--json-out", "x.json", "pack"]).expect(0);
    assert!(place.work("x.json").exists());

    let unsigned = pack(&place, "build", &["unsigned", "--report", "eval"]).expect(0);
    assert!(unsigned.out.contains("warning: the pack is not signed"), "{}", unsigned.out);
    pack(&place, "inspect", &["unsigned"]).expect(0);
    pack(&place, "verify", &["unsigned"]).expect(5);

    place.write("pack/extra", b"");
    assert!(pack(&place, "verify", &["pack"]).expect(6).out.contains("has no checksum"));
    std::fs::remove_file(place.work("pack/extra")).unwrap();
    std::os::unix::fs::symlink("README.md", place.work("pack/link")).unwrap();
    assert!(pack(&place, "verify", &["pack"]).expect(4).out.contains("link"));
    std::fs::remove_file(place.work("pack/link")).unwrap();
    std::fs::remove_file(place.work("pack/checksums.sha256")).unwrap();
    pack(&place, "verify", &["pack"]).expect(3);
}

/// The formats are those of 0.17.1, read from a pack that it published.
#[test]
fn evidence_of_0_13_or_newer_is_named() {
    let place = Place::new(As::User);
    std::fs::create_dir_all(place.work("new/reports")).unwrap();
    place.write("new/manifest.json", b"{\"format\":\"invarlock/evidence-pack-v1\"}\n");
    place.write("new/checksums.sha256", b"");
    let report = "new/reports/evaluation.report.json";
    place.write(report, b"{\"format\":\"invarlock/comparison-report-v3\"}\n");
    let named = |ran: Ran| {
        let ran = ran.expect(2);
        let text = ran.out + &ran.err;
        assert!(text.contains("evidence of InvarLock 0.13 or newer (format"), "{text}");
        assert!(text.contains("verify it with the Python package"), "{text}");
    };
    for path in ["new", "new/reports", report] {
        named(place.run(&["verify", path]));
    }
    named(pack(&place, "verify", &["new"]));
    named(pack(&place, "inspect", &["new"]));
    named(place.run(&["report", "explain", report]));
    named(place.run(&["report", "html", report, "-o", "x.html"]));
}

/// Runs the Python package.
fn upstream(place: &Place, args: &[&str]) -> Option<Ran> {
    let program = target().join("upstream/0.12.1/bin/invarlock");
    program.is_file().then(|| {
        let mut command = Command::new(&program);
        command.args(["advanced", "evidence-pack"]).args(args).current_dir(place.work(""));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.path("home"));
        Ran::from(command.output().unwrap())
    })
}

#[test]
fn upstream_0_12_1_accepts_our_packs_and_we_accept_its() {
    let place = place();
    build(&place, "pack", &[]).expect(0);
    let Some(ran) = upstream(&place, &["verify", "pack", "--strict", "--json"]) else {
        return skip(
            "evidence_packs::upstream",
            "upstream's package is not installed (Python 3.12 or newer needed)",
        );
    };
    let ran = ran.expect(0).json();
    let fingerprint = ran["signer_fingerprint"].as_str().unwrap().to_owned();
    assert_eq!(ran["errors"], json!([]));
    place.write("verdict.json", b"{\"verdict\": \"PASS\"}");
    let report =
        ["build", "theirs", "--final-verdict", "verdict.json", "--report", "eval/evaluation.report.json"];
    upstream(&place, &[&report[..], &["--signing-key", "alice.pem"]].concat()).unwrap().expect(0);
    // It packs no run reports, so that only its own checks can be repeated.
    let theirs = ["--expected-fingerprint", &fingerprint, "theirs"];
    pack(&place, "verify", &[&["--upstream-parity"], &theirs[..]].concat()).expect(0);
    let incomplete = pack(&place, "verify", &theirs).expect(7);
    assert!(incomplete.out.contains("baseline.report.json is missing"), "{}", incomplete.out);
    pack(&place, "verify", &[&["--skip-verify"], &theirs[..]].concat()).expect(0);
    pack(&place, "inspect", &["theirs"]).expect(0);
    // A key that it made signs here.
    upstream(&place, &["keygen", "carol.pem"]).unwrap().expect(0);
    place.give(&place.work("carol.pem"));
    pack(&place, "build", &["third", "--report", "eval", "--signing-key", "carol.pem"]).expect(0);
    upstream(&place, &["verify", "third", "--strict"]).unwrap().expect(0);
    pack(&place, "verify", &["--key", "carol.pub.pem", "third"]).expect(0);
}
