//! What commands print with `--json`, and what they write, is valid by the published schemas.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, layout, program, read_json, root, small};
use serde_json::Value;

/// Checks a document with a schema of `docs/schemas`.
fn check(schema: &str, document: &Value) {
    let read = read_json(&root().join("docs/schemas").join(format!("{schema}.schema.json")));
    let validator = jsonschema::validator_for(&read).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{schema}: {errors:?}\n{document:#}");
}

/// Checks an output with the schema that it names.
fn check_output(output: &Value) {
    let name = output["format_version"].as_str().unwrap_or_else(|| panic!("no format_version: {output}"));
    check(&format!("output/{name}"), output);
}

/// Runs a command with `--json`, checks its output, and gives its exit code and format.
fn output(place: &Place, args: &[&str]) -> (i32, String) {
    let ran = place.run(&[args, &["--json"]].concat());
    check_output(&ran.json());
    (ran.code, ran.json()["format_version"].as_str().unwrap().to_owned())
}

/// The statement of a signed file.
fn statement(place: &Place, file: &str) -> Value {
    let inspected = place.run(&["advanced", "attest", "inspect", file]).expect(0).json();
    check_output(&inspected);
    inspected["statement"].clone()
}

#[test]
fn outputs_about_evidence_are_valid() {
    let place = Place::new(As::User);
    place.copy_dir(&root().join("evidence/tests/data/honest/user"), "eval");
    let report = ["--report", "eval/evaluation.report.json", "--manifest", "eval/runtime.manifest.json"];
    let foreign = root().join("evidence/tests/data/golden/dev.report.json");
    let foreign = foreign.to_str().unwrap();
    let signed = ["--signing-key", "alice.key"];
    let pack = ["--report", "eval", "--profile", "dev", "--signing-key", "pack.key"];
    let refused = ["--report", "eval", "--profile", "ci"];
    let cases: [(&[&str], &[&str], i32, &str); 22] = [
        (&["advanced", "attest", "keygen", "alice.key"], &[], 0, "attest-keygen-v1"),
        (&["advanced", "attest", "keygen", "alice.key"], &[], 2, "error-v1"),
        (&["verify", "eval"], &["--profile", "dev"], 0, "verify-v1"),
        (&["verify", "eval"], &[], 1, "verify-v1"),
        (&["verify", "eval", "missing"], &["--profile", "dev"], 2, "verify-v1"),
        (&["verify", foreign], &[], 1, "verify-v1"),
        (&["verify", "--bogus"], &[], 2, "error-v1"),
        (&["advanced", "runtime-verify"], &report, 0, "runtime-verify-v1"),
        (&["report", "explain", "eval"], &[], 0, "report-explain-v1"),
        (&["report", "validate", "eval"], &[], 0, "report-validate-v1"),
        (&["report", "validate", "missing"], &[], 2, "error-v1"),
        (&["advanced", "attest", "sign", "eval"], &signed, 0, "attest-sign-v1"),
        (
            &["advanced", "attest", "verify", "--key", "alice.pub"],
            &["eval/runtime.attestation.json"],
            0,
            "attest-verify-v1",
        ),
        (&["verify", "eval"], &["--profile", "dev", "--key", "alice.pub"], 0, "verify-v1"),
        (&["advanced", "evidence-pack", "keygen", "pack.key"], &[], 0, "evidence-pack-keygen-v1"),
        (&["advanced", "evidence-pack", "build", "pack"], &pack, 0, "evidence-pack-build-v1"),
        (&["advanced", "evidence-pack", "build", "other"], &refused, 7, "evidence-pack-build-v1"),
        (&["advanced", "evidence-pack", "inspect", "pack"], &[], 0, "evidence-pack-inspect-v1"),
        (
            &["advanced", "evidence-pack", "verify", "pack"],
            &["--profile", "dev"],
            0,
            "evidence-pack-verify-v1",
        ),
        (
            &["advanced", "evidence-pack", "verify", "pack"],
            &["--key", "alice.pub"],
            5,
            "evidence-pack-verify-v1",
        ),
        (&["advanced", "evidence-pack", "verify", "missing"], &[], 3, "evidence-pack-verify-v1"),
        (&["runtime", "image", "ls"], &[], 0, "runtime-image-ls-v1"),
    ];
    for (verb, options, code, format) in cases {
        let args = [verb, options].concat();
        assert_eq!(output(&place, &args), (code, format.to_owned()), "{args:?}");
    }
    assert_eq!(output(&place, &["doctor"]).1, "doctor-v1");

    check("dsse-envelope-v1", &read_json(&place.work("eval/runtime.attestation.json")));
    check("evaluation-result-v1", &statement(&place, "eval/runtime.attestation.json"));
    check("evidence-pack-v1", &read_json(&place.work("pack/manifest.json")));
    check("evidence-pack-signature-v1", &read_json(&place.work("pack/manifest.signature.json")));
    check("final-verdict-v1", &read_json(&place.work("pack/results/final_verdict.json")));
    let receipt = ["--receipt", "receipt.json", "--verifier-key", "alice.key"];
    place.run(&[&["verify", "--profile", "dev", "eval"][..], &receipt].concat()).expect(0);
    check("receipt-v1", &statement(&place, "receipt.json"));
    let data = root().join("demo/valid.jsonl");
    let lock = ["plan", "lock", "--signing-key", "alice.key", "-o", "lock.json"];
    place.run(&[&lock[..], &["--dataset", data.to_str().unwrap()]].concat()).expect(0);
    check("plan-lock-v1", &statement(&place, "lock.json"));
}

#[test]
fn records_of_an_engine_are_valid() {
    let place = Place::new(As::User);
    let image = layout::of_program(&place, "image", &program("invarlock-workload"));
    place.run(&["runtime", "image", "import", &image, "tool:1"]).expect(0);
    std::fs::create_dir(place.work("data")).unwrap();
    place.give(&place.work("data"));
    let records = place.path("home/records");
    let record = ["runtime", "engine", "podman", "--record", records.to_str().unwrap()];
    for (code, command) in
        [(0, &["/workload", "exit", "0"][..]), (3, &["/workload", "exit", "3"]), (127, &["/gone"])]
    {
        let run = ["run", "-v", &format!("{}:/data", place.work("data").display()), "tool:1"];
        place.run(&[&record[..], &run, command].concat()).expect(code);
        let record = records.join(&place.names("home/records")[0]);
        check_output(&read_json(&record));
        std::fs::remove_file(record).unwrap();
    }
}

#[test]
fn outputs_of_runs_are_valid() {
    let place = small::place();
    let evaluated = |more: &[&str]| small::evaluate(&place, more);
    check("output/evaluate-dry-run-v2", &evaluated(&["--dry-run"]).expect(0).json());
    let done = evaluated(&["--json"]).expect(0).json();
    check_output(&done);
    assert_eq!(done["format_version"], "evaluate-v1");

    let image = "invarlock-runtime:local";
    let command = [image, "--", "--version"];
    let ran = place.run(&[&["runtime", "run", "--json"][..], &command].concat()).expect(0);
    let line = ran.err.lines().find(|line| line.starts_with('{')).unwrap();
    check_output(&serde_json::from_str(line).unwrap());
    let learned = place.run(&[&["runtime", "learn", "--json"][..], &command].concat()).expect(0);
    check_output(&learned.json());

    std::fs::create_dir(place.work("layer")).unwrap();
    for (args, format) in [
        (&["build"][..], "runtime-image-build-v1"),
        (&["build", "--name", "named:1", "--base", image, "--layer", "layer"], "runtime-image-build-v1"),
        (&["inspect", image], "runtime-image-inspect-v1"),
        (&["tag", image, "tagged:1"], "runtime-image-tag-v1"),
        (&["export", "tagged:1", "oci-archive:image.tar:x"], "runtime-image-export-v1"),
        (&["rm", "tagged:1"], "runtime-image-rm-v1"),
        (&["import", "oci-archive:image.tar", "imported:1"], "runtime-image-import-v1"),
        (&["verify"], "runtime-image-verify-v1"),
        (&["ls"], "runtime-image-ls-v1"),
        (&["gc"], "runtime-image-gc-v1"),
    ] {
        let args = [&["runtime", "image"][..], args].concat();
        assert_eq!(output(&place, &args), (0, format.to_owned()), "{args:?}");
    }
}
