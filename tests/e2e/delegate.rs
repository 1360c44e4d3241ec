//! `evaluate --image` with an image of another program. Here a stand-in for InvarLock's Python package answers with reports that the package wrote
//! once; `make engine-upstream` runs the package itself.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stand::{NAME, PRESET, Stand, label};
use invarlock_tests::{As, Place, Ran, both, is_root, read_json, skip, target};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn the_whole_command_of_another_program_runs_in_a_container() {
    for user in both() {
        let stand = Stand::new(user);
        let mut command = stand.command(&["--json", "--assurance", "off", "--edit-label", "pass"]);
        command.env("INVARLOCK_TINY_RELAX", "1").env("HF_TOKEN", "secret");
        let ran = Ran::from(command.output().unwrap()).expect(0);
        let output = ran.json();
        assert_eq!(
            (&output["format_version"], &output["verdict"]),
            (&json!("evaluate-delegated-v1"), &json!("PASS"))
        );
        assert_eq!(output["delegated"]["isolated"], true);
        assert_eq!(output["assurance"], "foreign");
        assert!(
            ran.err.contains("evaluating: pass\n") && ran.err.contains("a line of standard error\n"),
            "{ran:?}"
        );
        let left = stand.left(&output);
        check_seen(&read_json(&left.join("report/seen.json")), &stand.place);
        check_manifest(&stand, &left);
        check_verdicts(&stand);
    }
}

/// The program had the rewritten arguments, settings and paths, and could write none of its inputs.
fn check_seen(seen: &Value, place: &Place) {
    let arguments: Vec<&str> =
        seen["arguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let expected = "evaluate --baseline /in/baseline --subject /in/subject --device auto --profile ci --tier balanced --preset /in/preset.yaml \
                    --edit-label pass --assurance off --out /out/runs --report-out /out/report";
    assert_eq!(arguments.join(" "), expected);
    let text = PRESET.replace("'valid.jsonl'", "'/in/dataset/0/valid.jsonl'");
    assert_eq!(seen["files"]["/in/preset.yaml"], json!(text));
    assert!(seen["files"].get("/in/dataset/0/valid.jsonl").is_some());
    for (side, name) in [("baseline", "base"), ("subject", "subject")] {
        for file in place.names(&format!("work/{name}")) {
            assert!(seen["files"].get(format!("/in/{side}/{file}")).is_some(), "{side} {file}");
        }
    }
    assert_eq!((&seen["writable"], &seen["created"], &seen["cwd"]), (&json!([]), &json!([]), &json!("/tmp")));
    let environment = seen["environment"].as_object().unwrap();
    for (name, value) in [
        ("PATH", "/"),
        ("HOME", "/tmp"),
        ("TMPDIR", "/tmp"),
        ("INVARLOCK_CONTAINER_EXECUTION", "1"),
        ("INVARLOCK_ALLOW_NETWORK", "0"),
        ("INVARLOCK_TINY_RELAX", "1"),
        ("INVARLOCK_RUNTIME_IMAGE", NAME),
        ("HF_HUB_OFFLINE", "1"),
    ] {
        assert_eq!(environment[name], value, "{name}");
    }
    assert!(!environment.contains_key("HF_TOKEN"));
}

/// The report is the program's, byte for byte; the manifest is ours.
fn check_manifest(stand: &Stand, left: &Path) {
    let report = fs::read(stand.evidence("evaluation.report.json")).unwrap();
    assert_eq!(report, fs::read(left.join("report/evaluation.report.json")).unwrap());
    assert_eq!(fs::read_to_string(left.join("report/runtime.manifest.json")).unwrap(), "{}");
    assert_eq!(stand.place.names("work/eval"), ["evaluation.report.json", "runtime.manifest.json"]);
    let manifest = read_json(&stand.evidence("runtime.manifest.json"));
    let (plan, run) =
        (&manifest["context"]["delegated"]["plan"]["content"], &manifest["context"]["delegated"]["run"]);
    assert_eq!(plan["version"], "0.12.1");
    assert_eq!(
        plan["settings"]["preset.yaml"]["replaced"],
        json!({"valid.jsonl": "/in/dataset/0/valid.jsonl"})
    );
    assert_eq!(plan["inputs"]["dataset"]["files"][0]["name"], "0/valid.jsonl");
    assert_eq!(run["status"], json!({"exited": 0}));
    assert_eq!(run["outputs"].as_array().unwrap().len(), 4);
    assert_eq!(manifest["execution_mode"], "container");
}

/// Our verifier accepts the evidence only as foreign, and judges the boundary; upstream's accepts it, too.
fn check_verdicts(stand: &Stand) {
    let place = &stand.place;
    let refused = place.run(&["verify", "eval"]).expect(1);
    assert!(refused.out.contains("accept it with --accept-foreign"), "{refused:?}");
    let accepted = place.run(&["verify", "--accept-foreign", "--json", "eval"]).expect(0).json();
    let result = &accepted["results"][0];
    assert_eq!((&result["assurance"], &result["delegated"]["isolated"]), (&json!("foreign"), &json!(true)));
    let files = ["--report", "eval/evaluation.report.json", "--manifest", "eval/runtime.manifest.json"];
    place.run(&[&["advanced", "runtime-verify"][..], &files].concat()).expect(0);
    let upstream = target().join("upstream/0.12.1/bin/invarlock");
    if !upstream.is_file() {
        return skip("delegate", "InvarLock 0.12.1 is not installed");
    }
    let report = stand.evidence("evaluation.report.json");
    let verify = ["verify", "--profile", "ci", "--json"];
    let verified = Command::new(upstream).args(verify).arg(report).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn edited_evidence_is_refused() {
    let stand = Stand::new(As::User);
    stand.evaluate(&["--quiet"]).expect(0);
    let path = stand.evidence("runtime.manifest.json");
    let honest = read_json(&path);
    let content = "/context/delegated/plan/content";
    for (pointer, value) in [
        ("/context/delegated/run/observations/no_new_privs/value", json!(false)),
        ("/context/delegated/run/observations/interfaces/value", json!(["lo", "eth0"])),
        ("/context/delegated/run/status", json!({"exited": 1})),
        ("/context/image/speaks", json!("measure")),
        ("/runtime/image_digest", json!(format!("sha256:{}", "0".repeat(64)))),
        (&format!("{content}/container/argv/1"), json!("run")),
        (&format!("{content}/container/environment/0"), json!("LD_PRELOAD=/x")),
        (&format!("{content}/inputs/subject/files/0/sha256"), json!("0".repeat(64))),
        (&format!("{content}/request/subject"), json!("another")),
    ] {
        let mut edited = honest.clone();
        *edited.pointer_mut(pointer).unwrap() = value;
        // A plan whose digest was derived again is still not the one that ran.
        stand.place.write("eval/runtime.manifest.json", edited.to_string().as_bytes());
        let refused = stand.place.run(&["verify", "--accept-foreign", "eval"]).expect(3);
        assert!(refused.out.contains("VERIFY FAIL"), "{pointer}: {refused:?}");
    }
    stand.place.write("eval/runtime.manifest.json", honest.to_string().as_bytes());
    stand.place.run(&["verify", "--accept-foreign", "eval"]).expect(0);
    let report = fs::read_to_string(stand.evidence("evaluation.report.json")).unwrap();
    stand.place.write("eval/evaluation.report.json", format!("{report} ").as_bytes());
    let refused = stand.place.run(&["verify", "--accept-foreign", "eval"]).expect(3);
    assert!(refused.out.contains("was changed afterwards"), "{refused:?}");
}

#[test]
fn failed_gates_and_failed_programs_have_their_exit_codes() {
    let stand = Stand::new(As::User);
    let failed = stand.evaluate(&["--edit-label", "fail", "--quiet"]).expect(1);
    assert!(failed.out.contains("is above 1.102") && failed.out.contains("\nFAIL"), "{failed:?}");
    assert!(!failed.err.contains("evaluating"), "{failed:?}");
    stand.place.run(&["verify", "--accept-foreign", "eval"]).expect(1);
    stand.evaluate(&["--edit-label", "fail", "--no-gate"]).expect(0);
    fs::remove_dir_all(stand.place.work("eval")).unwrap();
    for code in ["1", "2", "3", "77"] {
        let label = format!("exit-{code}");
        let ran = stand.evaluate(&["--edit-label", &label, "--quiet"]).expect(code.parse().unwrap());
        // What it printed is shown after all.
        assert!(ran.err.contains(&format!("evaluating: {label}")), "{ran:?}");
        assert!(ran.err.contains(&format!("it ended with exit code {code}")), "{ran:?}");
        let error = stand.evaluate(&["--edit-label", &label, "--json"]).expect(code.parse().unwrap()).json();
        assert_eq!(error["resolution"]["exit_code"], json!(code.parse::<u8>().unwrap()));
        stand.no_evidence();
    }
}

#[test]
fn a_program_without_a_report_leaves_no_evidence() {
    let stand = Stand::new(As::User);
    stand.evaluate(&["--quiet"]).expect(0);
    let earlier = fs::read(stand.evidence("runtime.manifest.json")).unwrap();
    for (label, words) in [
        ("no-report", &["left no evaluation.report.json"][..]),
        ("not-json", &["cannot be read"]),
        ("no-validation", &["no `validation`"]),
        ("elsewhere", &["\"elsewhere\" outside runs/ and report/"]),
    ] {
        let ran = stand.evaluate(&["--edit-label", label, "--quiet"]).expect(3);
        ran.one_error(
            &[
                &[
                    "error[integrity]",
                    "what it left is in runs/delegate/",
                    "written by an earlier evaluation",
                ],
                words,
            ]
            .concat(),
        );
        assert_eq!(fs::read(stand.evidence("runtime.manifest.json")).unwrap(), earlier, "{label}");
    }
}

#[test]
fn options_of_the_evaluator_are_refused_by_name() {
    let stand = Stand::new(As::User);
    for (options, name) in [
        (&["--packing", "documents"][..], "--packing"),
        (&["--tiers", "t.yaml"], "--tiers"),
        (&["--guards", "compare"], "--guards"),
        (&["--dtype", "float32"], "--dtype"),
        (&["--metric", "ppl_causal"], "--metric"),
        (&["--signing-key", "key"], "--signing-key"),
        (&["--lock", "lock"], "--lock"),
        (&["--no-resume"], "--no-resume"),
        (&["--evaluator", "e"], "--evaluator"),
    ] {
        stand.evaluate(options).expect(2).one_error(&["error[input]", name, "speaks `delegate`", "help:"]);
    }
    stand.evaluate(&["--assurance", "weak"]).expect(2).one_error(&["--assurance weak", "strict"]);
    stand.evaluate(&["--edit-label=-x"]).expect(2).one_error(&["--edit-label", "help:"]);
    stand.evaluate(&["--execution-mode", "host"]).expect(2).one_error(&["only in a container"]);
    let models = ["evaluate", "--baseline", "base", "--subject", "subject"];
    stand
        .place
        .run(&[&models[..], &["--image", NAME]].concat())
        .expect(2)
        .one_error(&["no preset", "--preset"]);
    let own = [&models[..], &["--preset", "preset.yaml", "--edit-config", "e.yaml"]].concat();
    stand.place.run(&own).expect(2).one_error(&["--edit-config", "images with InvarLock's Python package"]);
    stand.no_evidence();
}

#[test]
fn settings_that_cannot_work_in_a_container_are_refused() {
    let stand = Stand::new(As::User);
    let host = stand.place.path("store");
    let host = host.to_str().unwrap();
    for (text, words) in [
        ("dataset: {provider: wikitext2}", &["`wikitext2`", "no network"][..]),
        ("dataset: {provider: {kind: hf_text, dataset_name: x/y}}", &["`hf_text`"]),
        ("model: {id: x}", &["section `dataset` is missing"]),
        ("dataset: !include other.yaml", &["`!include`"]),
        (
            "dataset: {provider: local_jsonl, file: absent.jsonl}",
            &["absent.jsonl", "put the file where it was looked up"],
        ),
        ("dataset: {provider: local_jsonl, data_files: 'a/*.jsonl'}", &["a pattern is not supported"]),
        ("dataset: {provider: local_jsonl, path: base}", &["no file `*.jsonl`"]),
        (
            "dataset: {provider: local_jsonl, file: valid.jsonl, split: valid.jsonl}",
            &["valid.jsonl", "cannot be replaced"],
        ),
        (&format!("dataset: {{provider: synthetic, cache_dir: {host}}}"), &["`dataset.cache_dir`", host]),
        ("dataset: [", &["not valid YAML"]),
    ] {
        stand.place.write("bad.yaml", text.as_bytes());
        let ran = stand.evaluate(&["--preset", "bad.yaml", "--quiet"]);
        assert!(ran.code == 2 || ran.code == 3, "{text}: {ran:?}");
        ran.one_error(&[&["preset bad.yaml"], words].concat());
    }
    stand.place.write("edit.yaml", b"model: {id: other}\nedit: {name: quant_rtn}\n");
    stand
        .evaluate(&["--edit-config", "edit.yaml"])
        .expect(2)
        .one_error(&["--edit-config edit.yaml", "`model.id`"]);
    stand.place.write("edit.yaml", b"model: {id: <set>}\nedit: {name: quant_rtn}\n");
    let output = stand.evaluate(&["--edit-config", "edit.yaml", "--json"]).expect(0).json();
    let seen = read_json(&stand.left(&output).join("report/seen.json"));
    assert_eq!(seen["files"]["/in/edit.yaml"], "model: {id: <set>}\nedit: {name: quant_rtn}\n");
}

#[test]
fn several_files_of_a_dataset_are_inputs() {
    let stand = Stand::new(As::User);
    fs::create_dir(stand.place.work("texts")).unwrap();
    stand.place.write("texts/b.jsonl", b"{}\n");
    stand.place.write("texts/a.jsonl", b"{}\n");
    stand.place.write("texts/readme", b"");
    let absolute = stand.place.work("valid.jsonl");
    let preset = format!(
        "dataset:\n  provider:\n    kind: local_jsonl\n    path: texts\n  data_files:\n    - {}\n    - texts/a.jsonl\n",
        absolute.display()
    );
    stand.place.write("many.yaml", preset.as_bytes());
    let output = stand.evaluate(&["--preset", "many.yaml", "--json"]).expect(0).json();
    let seen = read_json(&stand.left(&output).join("report/seen.json"));
    let files = seen["files"].as_object().unwrap();
    let dataset: Vec<&String> = files.keys().filter(|path| path.starts_with("/in/dataset/")).collect();
    assert_eq!(dataset.len(), 4, "{dataset:?}");
    let text = files["/in/preset.yaml"].as_str().unwrap();
    for (host, inside) in [("path: texts\n", "path: /in/dataset/"), ("valid.jsonl", "- /in/dataset/")] {
        assert!(text.contains(inside), "{host}: {text}");
    }
    assert!(!text.contains(absolute.to_str().unwrap()), "{text}");
}

#[test]
fn images_without_a_usable_program_are_refused() {
    let stand = Stand::new(As::User);
    stand.import("none:1", &json!({"Entrypoint": ["python"], "Env": ["PATH=/"]}));
    stand.evaluate(&["--image", "none:1", "--quiet"]).expect(0);
    fs::remove_dir_all(stand.place.work("eval")).unwrap();
    stand.import("bare:1", &json!({"Cmd": ["python"], "Labels": label("delegate")}));
    stand.evaluate(&["--image", "bare:1"]).expect(3).one_error(&["image bare:1 has no entrypoint", "help:"]);
    stand.import("gone:1", &json!({"Entrypoint": ["/missing"], "Env": ["PATH=/"]}));
    stand.evaluate(&["--image", "gone:1"]).one_error(&["image gone:1", "/missing", "without the label"]);
    stand.import("odd:1", &json!({"Entrypoint": ["python"], "Env": ["PATH=/"], "Labels": label("other")}));
    stand.evaluate(&["--image", "odd:1"]).expect(3).one_error(&["`other`, not `measure`"]);
    stand.no_evidence();
    for (version, words) in [
        ("InvarLock 0.17.1\n", &["has InvarLock 0.17.1", "docs/engine.md"][..]),
        ("Python 3.13\n", &["does not answer `--version`", "Python 3.13"]),
    ] {
        let stand = Stand::with(As::User, version);
        stand.evaluate(&[]).expect(3).one_error(words);
    }
    let older = Stand::with(As::User, "InvarLock 0.8.0 · schema=v1\n");
    older.evaluate(&["--assurance", "off"]).expect(2).one_error(&["InvarLock 0.8.0 has no such option"]);
    let adapters = ["--baseline-adapter", "hf_causal", "--subject-adapter", "hf_mlm"];
    older.evaluate(&adapters).expect(2).one_error(&["one adapter for both sides"]);
    let output = older.evaluate(&["--adapter", "hf_causal", "--json"]).expect(0).json();
    let seen = read_json(&older.left(&output).join("report/seen.json"));
    assert!(seen["arguments"].to_string().contains(r#""--adapter","hf_causal""#), "{seen}");
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let stand = Stand::new(if is_root() { As::Caller } else { As::User });
    let plan = stand.evaluate(&["--dry-run"]).expect(0).json();
    assert_eq!(plan["format_version"], "delegated-plan-v1");
    assert_eq!(plan["container"]["argv"][1], "evaluate");
    assert_eq!(plan["container"]["seccomp"]["profile"], "general");
    stand.no_evidence();
    assert_eq!(stand.place.names("work/runs"), Vec::<String>::new());
}
