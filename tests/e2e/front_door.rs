//! The main verbs `evaluate`, `verify` and `report` on the demo checkpoints, as root and as an
//! ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::of_program;
use invarlock_tests::{As, Place, Ran, both, demo, read_json, set_mode};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

/// Evaluates a demo subject with the profile `ci`. The output directories are below `<name>/`.
fn evaluate(place: &Place, subject: &str, name: &str, more: &[&str]) -> Ran {
    let (baseline, preset) = (demo("baseline"), demo("preset.yaml"));
    let subject = demo(subject);
    let (runs, eval) = (format!("{name}/runs"), format!("{name}/eval"));
    let paths = [baseline.to_str().unwrap(), subject.to_str().unwrap(), preset.to_str().unwrap()];
    let mut args = vec!["evaluate", "--baseline", paths[0], "--subject", paths[1], "--preset", paths[2]];
    args.extend(["--out", &runs, "--report-out", &eval]);
    args.extend(more);
    place.run(&args)
}

#[test]
fn healthy_subject_passes_and_damaged_subject_fails() {
    for user in both() {
        let place = Place::new(user);
        let healthy = evaluate(&place, "healthy", "healthy", &["--json"]).expect(0);
        assert!(
            !healthy.err.contains("denied"),
            "system calls of an unmodified evaluation were denied: {}",
            healthy.err
        );
        let healthy = healthy.json();
        assert_eq!(healthy["refused"], serde_json::json!({"baseline": {}, "subject": {}}));
        assert_eq!(healthy["verdict"], "PASS", "{healthy}");
        assert_eq!(
            (&healthy["assurance"], &healthy["matched"]),
            (&"consistent".into(), &serde_json::json!(["image"]))
        );

        let report = place.run(&["verify", "--json", "healthy/eval"]).expect(0).json();
        assert_eq!(
            (&report["format_version"], &report["summary"]["ok"]),
            (&Value::from("verify-v1"), &Value::from(true))
        );

        let damaged = evaluate(&place, "damaged", "damaged", &["--json"]).expect(1).json();
        assert_eq!(damaged["verdict"], "FAIL", "{damaged}");
        place.run(&["verify", "damaged/eval"]).expect(1);
        evaluate(&place, "damaged", "ungated", &["--no-gate", "--quiet"]).expect(0);
        let printed = evaluate(&place, "damaged", "ungated", &["--no-gate"]).expect(0).out;
        assert_eq!(printed.matches("Acceptable: perplexity ratio").count(), 0, "{printed}");
        assert_eq!(printed.matches("perplexity ratio").count(), 1, "the reason stands once: {printed}");

        let manifest = read_json(&place.work("healthy/eval/runtime.manifest.json"));
        assert_eq!(manifest["execution_mode"], "container");
        assert_eq!(manifest["runtime"]["allow_network"], false);
        for side in ["baseline", "subject"] {
            let side = &manifest["context"]["sides"][side];
            assert!(side["observations"].is_object(), "{side}");
            assert_eq!(
                side["refused"],
                serde_json::json!({}),
                "denied calls are counted, and the count must be empty"
            );
            assert_eq!(side["checkpoint"]["tree_sha256"].as_str().map(str::len), Some(64));
        }

        place.run(&["report", "html", "-i", "healthy/eval", "-o", "page/report.html"]).expect(0);
        let page = std::fs::read_to_string(place.work("page/report.html")).unwrap();
        assert!(page.contains("<html") && !page.contains("<script") && page.contains("PASS"));
        let second = place.run(&["report", "html", "-i", "healthy/eval", "-o", "page/report.html"]).expect(1);
        second.one_error(&["--force"]);
    }
}

#[test]
fn copy_of_the_baseline_has_ratio_one() {
    let place = Place::new(As::Caller);
    let noop = evaluate(&place, "baseline", "noop", &["--json"]).expect(0).json();
    assert_eq!(noop["ratio_vs_baseline"], 1.0);
    assert_eq!(noop["display_ci"], serde_json::json!([1.0, 1.0]));
}

#[test]
fn perplexities_match_transformers() {
    let expected = read_json(&demo("expected.json"));
    let place = Place::new(As::Caller);
    let ran = evaluate(&place, "healthy", "healthy", &["--json"]).expect(0).json();
    for (name, key) in [("baseline", "baseline_final"), ("healthy", "subject_final")] {
        let expected = expected["perplexity"][name].as_f64().unwrap();
        let perplexity = ran[key].as_f64().unwrap();
        let error = ((perplexity - expected) / expected).abs();
        assert!(error < 1e-5, "{name}: {perplexity} differs from {expected}");
    }
}

#[test]
fn baseline_report_is_reused_only_if_it_matches_and_verifies() {
    let place = Place::new(As::Caller);
    evaluate(&place, "healthy", "first", &["--quiet"]).expect(0);
    let dir = place.names("work/first/runs/source");
    let baseline_report = format!("first/runs/source/{}/report.json", dir[0]);
    let reused = evaluate(&place, "damaged", "second", &["--json", "--baseline-report", &baseline_report])
        .expect(1)
        .json();
    assert_eq!(reused["verdict"], "FAIL");
    assert!(place.names("work/second/runs").iter().all(|n| n != "source"), "the baseline was measured again");
    let manifest = read_json(&place.work("second/eval/runtime.manifest.json"));
    assert_eq!(manifest["context"]["sides"]["baseline"]["reused"], true);

    // The report is of another checkpoint than the baseline.
    let (other, subject, preset) = (demo("healthy"), demo("damaged"), demo("preset.yaml"));
    let args = [
        "evaluate",
        "--baseline",
        other.to_str().unwrap(),
        "--subject",
        subject.to_str().unwrap(),
        "--preset",
    ];
    let args = [&args[..], &[preset.to_str().unwrap(), "--baseline-report", &baseline_report]].concat();
    place.run(&args).expect(2).one_error(&["its checkpoint digest is", "leave out --baseline-report"]);

    // The manifest records a network route. Such evidence would not verify, so the evaluation fails
    // before it measures.
    let path = place.work(&baseline_report).with_file_name("runtime.manifest.json");
    let original = std::fs::read(&path).unwrap();
    let mut manifest_with_route = read_json(&path);
    manifest_with_route["context"]["sides"]["baseline"]["observations"]["routes"]["value"] = json!(["eth0"]);
    std::fs::write(&path, manifest_with_route.to_string()).unwrap();
    evaluate(&place, "damaged", "open", &["--baseline-report", &baseline_report])
        .expect(3)
        .one_error(&["context.sides.baseline.observations.routes", "measure the baseline again"]);
    assert_eq!(place.names("work/open/runs"), Vec::<String>::new());
    std::fs::write(&path, original).unwrap();

    // One byte is added to the report, so its manifest does not match.
    let path = place.work(&baseline_report);
    let text = std::fs::read_to_string(&path).unwrap().replacen("\"logloss\":[", "\"logloss\":[1", 1);
    std::fs::write(&path, text).unwrap();
    evaluate(&place, "damaged", "third", &["--baseline-report", &baseline_report])
        .expect(3)
        .one_error(&["manifest does not verify"]);
}

#[test]
fn dry_run_prints_the_plan_and_runs_nothing() {
    let place = Place::new(As::Caller);
    let plan = evaluate(&place, "healthy", "dry", &["--dry-run"]).expect(0).json();
    assert_eq!(plan["execution_mode"], "container");
    assert!(plan["image"]["manifest_digest"].as_str().unwrap().starts_with("sha256:"), "{plan}");
    assert!(plan["sides"]["baseline"].is_object() && plan["sides"]["subject"].is_object());
    assert_eq!(place.names("work"), Vec::<String>::new(), "a dry run wrote files");
}

#[test]
fn host_execution_is_recorded_and_rejected_by_default() {
    for user in both() {
        let place = Place::new(user);
        let host =
            evaluate(&place, "healthy", "host", &["--execution-mode", "host", "--json"]).expect(0).json();
        assert_eq!(host["verdict"], "PASS");
        let manifest = read_json(&place.work("host/eval/runtime.manifest.json"));
        assert_eq!(manifest["execution_mode"], "host-bypass");
        assert_eq!(manifest["runtime"]["container_execution"], false);
        let verdict = place.run(&["verify", "host/eval"]).expect(1);
        assert!(verdict.out.contains("the measurement ran on the host"), "{}", verdict.out);
        place.run(&["verify", "--runtime-provenance", "host", "host/eval"]).expect(0);
    }
}

#[test]
fn host_execution_enabled_by_variable_is_recorded() {
    let place = Place::new(As::Caller);
    let mut command =
        place.command(&["evaluate", "--quiet", "--baseline", demo("baseline").to_str().unwrap()]);
    command.arg("--subject").arg(demo("healthy")).arg("--preset").arg(demo("preset.yaml"));
    command.env("INVARLOCK_ALLOW_HOST_EXECUTION", " Yes ");
    Ran::from(command.output().unwrap()).expect(0);
    let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
    assert_eq!(manifest["execution_mode"], "host-bypass");
    let by = &manifest["context"]["allowances"]["granted_by"]["allow_host_execution"];
    assert_eq!(by, "INVARLOCK_ALLOW_HOST_EXECUTION");
}

#[test]
fn container_variables_do_not_change_the_record_of_a_host_run() {
    let place = Place::new(As::Caller);
    let mut command = place.command(&["evaluate", "--execution-mode", "host", "--quiet"]);
    command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy"));
    command.arg("--preset").arg(demo("preset.yaml"));
    command
        .env("INVARLOCK_CONTAINER_EXECUTION", "1")
        .env("INVARLOCK_RUNTIME_IMAGE_DIGEST", format!("sha256:{}", "a".repeat(64)));
    Ran::from(command.output().unwrap()).expect(0);
    let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
    assert_eq!(
        (&manifest["execution_mode"], &manifest["runtime"]["image_digest"]),
        (&"host-bypass".into(), &Value::Null)
    );
}

/// A dry run of an evaluation with these environment variables.
fn plan(place: &Place, variables: &[(&str, &str)], flags: &[&str]) -> Ran {
    let mut command = place.command(&["evaluate", "--dry-run", "--json"]);
    command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy"));
    command.arg("--preset").arg(demo("preset.yaml")).args(flags);
    Ran::from(command.envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn image_is_selected_by_option_then_variable_then_default() {
    for user in both() {
        let place = Place::new(user);
        let layout = of_program(&place, "layout", &place.path("bin/invarlock-evaluator"));
        place.run(&["runtime", "image", "import", &layout, "flag:1"]).expect(0);
        place.run(&["runtime", "image", "import", &layout, "variable:1"]).expect(0);
        let chosen = |variables: &[(&str, &str)], flags: &[&str]| {
            let ran = plan(&place, variables, flags);
            // The imported images lack the label `org.invarlock.speaks`, so the dry run fails with
            // an error that names the image. With the default image it succeeds.
            if ran.code == 0 { ran.json()["image"]["reference"].to_string() } else { ran.out + &ran.err }
        };
        let variable = ("INVARLOCK_RUNTIME_IMAGE", "variable:1");
        assert!(chosen(&[variable], &["--image", "flag:1"]).contains("flag:1"), "{user:?}");
        assert!(chosen(&[variable], &[]).contains("variable:1"), "{user:?}");
        assert_eq!(chosen(&[], &[]), "\"invarlock-runtime:local\"", "{user:?}");
        assert_eq!(
            chosen(&[("INVARLOCK_RUNTIME_IMAGE", "  ")], &[]),
            "\"invarlock-runtime:local\"",
            "{user:?}"
        );
    }
}

/// The default image of the store is used only if it is that of the evaluator and verifies.
#[test]
fn altered_default_image_is_made_again() {
    for user in both() {
        let place = Place::new(user);
        let digest = |ran: Ran| ran.expect(0).json()["image"]["manifest_digest"].clone();
        let first = digest(plan(&place, &[], &[]));
        let trees = place.path("store/trees");
        let trees = std::fs::read_dir(trees).unwrap().map(|tree| tree.unwrap().path());
        let extracted =
            trees.map(|tree| tree.join("root/invarlock-evaluator")).find(|path| path.exists()).unwrap();
        let good = std::fs::read(&extracted).unwrap();
        set_mode(&extracted, 0o755);
        std::fs::write(&extracted, "altered").unwrap();
        assert_eq!(digest(plan(&place, &[], &[])), first, "{user:?}");
        assert!(std::fs::read(&extracted).unwrap() == good, "{user:?}: the altered program is still there");
        // Another evaluator is another image.
        let evaluator = place.path("bin/invarlock-evaluator");
        std::fs::write(&evaluator, [good.as_slice(), b"more"].concat()).unwrap();
        assert_ne!(digest(plan(&place, &[], &[])), first, "{user:?}");
    }
}

#[test]
fn rejects_image_digest_that_differs_from_the_image() {
    for user in both() {
        let place = Place::new(user);
        let image = place.run(&["runtime", "image", "build", "--json"]).expect(0).json();
        let digest = image["manifest_digest"].as_str().unwrap();
        let plan_with_digest =
            |digest: &str| plan(&place, &[("INVARLOCK_RUNTIME_IMAGE_DIGEST", digest)], &[]);
        assert_eq!(plan_with_digest(digest).expect(0).json()["image"]["manifest_digest"], digest, "{user:?}");
        plan_with_digest(" ").expect(0);
        let other = format!("sha256:{}", "a".repeat(64));
        let mismatch = plan_with_digest(&other).expect(3);
        assert_eq!(mismatch.json()["error"]["kind"], "integrity", "{user:?}");
        assert!(mismatch.out.contains(&other) && mismatch.out.contains(digest), "{user:?}: {}", mismatch.out);
        // The digest of the configuration, which container engines print as the id of an image.
        let config = plan_with_digest(image["config_digest"].as_str().unwrap()).expect(3);
        assert!(config.out.contains("configuration"), "{user:?}: {}", config.out);
        assert_eq!(plan_with_digest("sha256:12").expect(2).json()["error"]["kind"], "input", "{user:?}");
        plan(&place, &[("INVARLOCK_RUNTIME_IMAGE_DIGEST", &other)], &["--image-digest", digest]).expect(0);
    }
}

#[test]
fn run_with_network_access_fails_the_default_policy() {
    let place = Place::new(As::Caller);
    evaluate(&place, "healthy", "net", &["--allow-network", "--quiet"]);
    let manifest = read_json(&place.work("net/eval/runtime.manifest.json"));
    assert_eq!(manifest["runtime"]["allow_network"], true);
    let verdict = place.run(&["verify", "net/eval"]).expect(1);
    assert!(verdict.out.contains("allow_network"), "{}", verdict.out);
}

#[test]
fn image_digest_depends_only_on_the_evaluator() {
    let digest = |place: &Place| {
        place.run(&["runtime", "image", "build", "--json"]).expect(0).json()["manifest_digest"].clone()
    };
    let (one, other) = (Place::new(As::Caller), Place::new(As::User));
    assert_eq!(digest(&one), digest(&other));
    let listed = one.run(&["runtime", "image", "ls", "--json"]).expect(0).json();
    assert_eq!(listed["images"].as_array().map(Vec::len), Some(1));
    let mode = |place: &Place| std::fs::metadata(place.path("store")).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&one), mode(&other)), (0o700, 0o700), "other users can enter the store");
    let inspected = one.run(&["runtime", "image", "inspect"]).expect(0);
    assert!(inspected.out.contains("\"measure\""), "{}", inspected.out);
}

#[test]
fn runtime_verify_prints_the_json_of_upstream() {
    let place = Place::new(As::Caller);
    evaluate(&place, "healthy", "h", &["--quiet"]).expect(0);
    let (report, manifest) = ("h/eval/evaluation.report.json", "h/eval/runtime.manifest.json");
    let args = ["advanced", "runtime-verify", "--report", report, "--manifest", manifest, "--json"];
    let valid = place.run(&args).expect(0).json();
    assert_eq!(
        (&valid["ok"], &valid["format_version"]),
        (&Value::from(true), &Value::from("runtime-verify-v1"))
    );
    assert_eq!(valid["trust_status"], "manifest_bound");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let pinned = [&args[..], &["--expected-runtime-image-digest", &wrong]].concat();
    let invalid = place.run(&pinned).expect(1).json();
    assert!(invalid["errors"][0].as_str().unwrap().contains("mismatch"), "{invalid}");
}

#[test]
fn help_version_and_completions_are_printed() {
    let place = Place::new(As::Caller);
    let version = place.run(&["--version"]).expect(0);
    assert!(version.out.contains("schema=v1"), "{}", version.out);
    for verb in [&["evaluate"][..], &["verify"], &["report", "html"], &["runtime", "run"], &["doctor"]] {
        let help = place.run(&[verb, &["--help"]].concat()).expect(0);
        assert!(help.out.contains("Usage:"), "{}", help.out);
    }
    let bash = place.run(&["completions", "bash"]).expect(0);
    assert!(bash.out.contains("_invarlock"));
    place.run(&["evaluate"]).expect(2);
    place.run(&["evaluate", "--nonsense"]).expect(2);
}

#[test]
fn rejects_baseline_report_with_other_windows() {
    let place = Place::new(As::Caller);
    evaluate(&place, "healthy", "first", &["--quiet"]).expect(0);
    let baseline_report =
        format!("first/runs/source/{}/report.json", place.names("work/first/runs/source")[0]);
    let preset = std::fs::read_to_string(demo("preset.yaml")).unwrap();
    let file = demo("valid.jsonl");
    let preset = preset.replace("valid.jsonl", file.to_str().unwrap()).replace("seed: 43", "seed: 7");
    place.write("other.yaml", preset.as_bytes());
    let (baseline, subject) = (demo("baseline"), demo("healthy"));
    let args = ["evaluate", "--baseline", baseline.to_str().unwrap(), "--subject", subject.to_str().unwrap()];
    let args = [&args[..], &["--preset", "other.yaml", "--baseline-report", &baseline_report]].concat();
    place.run(&args).expect(2).one_error(&["its dataset is"]);
}

#[test]
fn allowances_do_not_change_the_verdict() {
    let place = Place::new(As::Caller);
    evaluate(&place, "healthy", "good", &["--allow-network", "--quiet"]).expect(0);
    evaluate(&place, "damaged", "bad", &["--allow-network", "--quiet"]).expect(1);
    // These allowances disable no control of this run, so the default policy accepts it.
    let mut command =
        place.command(&["evaluate", "--quiet", "--baseline", demo("baseline").to_str().unwrap()]);
    command.arg("--subject").arg(demo("healthy")).arg("--preset").arg(demo("preset.yaml"));
    command.env("INVARLOCK_ALLOW_REMOTE_CODE", "1").env("INVARLOCK_ALLOW_UNVERIFIED_PROVENANCE", "1");
    Ran::from(command.output().unwrap()).expect(0);
    place.run(&["verify", "reports/eval"]).expect(0);
}

#[test]
fn failed_evaluation_names_existing_evidence() {
    let place = Place::new(As::Caller);
    evaluate(&place, "healthy", "same", &["--quiet"]).expect(0);
    let failed = evaluate(&place, "nowhere", "same", &["--quiet"]).expect(2);
    failed.one_error(&["no such directory", "\nnote: ", "was written by an earlier evaluation"]);
}

#[test]
fn html_report_does_not_overwrite_evidence() {
    let place = Place::new(As::Caller);
    evaluate(&place, "healthy", "h", &["--quiet"]).expect(0);
    for name in ["evaluation.report.json", "runtime.manifest.json"] {
        let output = format!("h/eval/{name}");
        place
            .run(&["report", "html", "-i", "h/eval", "-o", &output, "--force"])
            .expect(2)
            .one_error(&["part of the evidence"]);
    }
    place.run(&["verify", "h/eval"]).expect(0);
}

#[test]
fn runtime_run_needs_no_separator_and_returns_the_exit_code_of_the_workload() {
    for user in both() {
        let place = Place::new(user);
        let ran = place.run(&["runtime", "run", "invarlock-runtime:local", "--self-test"]).expect(0);
        assert_eq!(ran.json()["self_test"], "ok");
        place.run(&["runtime", "run", "invarlock-runtime:local", "--", "--nonsense"]).expect(2);
        place
            .run(&["runtime", "run", "--entrypoint", "/nothing", "invarlock-runtime:local"])
            .expect(125)
            .one_error(&["/nothing"]);
        place.run(&["runtime", "run", "invarlock-runtime:nosuch"]).expect(125);
        place.run(&["runtime", "run", "--nosuch", "invarlock-runtime:local"]).expect(125);
        place.run(&["runtime", "run", "--help"]).expect(0);
        // Standard output belongs to the workload, so the launcher prints its JSON on standard
        // error.
        let failed = place.run(&["runtime", "run", "--json", "invarlock-runtime:nosuch"]).expect(125);
        let value: serde_json::Value = serde_json::from_str(&failed.err).unwrap();
        assert_eq!(
            (&value["error"]["kind"], &value["resolution"]["exit_code"]),
            (&"input".into(), &125.into())
        );
        assert_eq!(failed.out, "");
    }
}
