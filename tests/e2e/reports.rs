//! `invarlock report` on real evidence: a page, an explanation, a validation and every export; and the CI files, whose
//! steps run here.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, read_json, root};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Names of all formats.
const FORMATS: [&str; 7] = ["md", "csv", "junit", "json", "mlflow", "model-card", "github-summary"];

/// The evidence of a real run, in `eval`.
fn place() -> Place {
    let place = Place::new(As::Caller);
    place.copy_dir(&root().join("evidence/tests/data/honest/user"), "eval");
    place
}

/// The same, of a subject that is worse than its limit: the report and its binding are changed, nothing else.
fn failing() -> Place {
    let place = place();
    let path = place.work("eval/evaluation.report.json");
    let mut report = read_json(&path);
    report["primary_metric"]["ratio_vs_baseline"] = json!(1.31);
    report["validation"]["primary_metric_acceptable"] = json!(false);
    std::fs::write(&path, report.to_string()).unwrap();
    place
}

const SENTENCE: &str = "Primary Metric Acceptable: perplexity ratio 1.310000, limit 1.102";

#[test]
fn html_takes_the_report_as_an_argument_and_writes_to_standard_output() {
    let place = place();
    let page = place.run(&["report", "html", "eval", "-o", "-"]).expect(0).out;
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>") && !page.contains("<script"));
    for shown in [
        "<details",
        "Contents",
        "2 passed, 1 shown only, 4 not evaluated",
        "llama",
        "222\u{202f}016",
        "valid.jsonl",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    place.run(&["report", "html", "-i", "eval", "-o", "page.html"]).expect(0);
    assert_eq!(std::fs::read_to_string(place.work("page.html")).unwrap(), page);
    place.run(&["report", "html", "eval", "-o", "page.html"]).expect(1).one_error(&["--force"]);
    place.run(&["report", "html", "eval", "-i", "eval", "-o", "-"]).expect(2);
    place.run(&["report", "html", "-o", "-"]).expect(2);
    let own = place.run(&["report", "html", "eval", "-o", "eval/runtime.manifest.json", "--force"]);
    own.expect(2).one_error(&["is part of the evidence"]);
}

#[test]
fn a_failed_gate_has_one_sentence_everywhere() {
    let place = failing();
    let page = place.run(&["report", "html", "eval", "-o", "-"]).expect(0).out;
    assert!(page.contains(SENTENCE), "page");
    let explained = place.run(&["report", "explain", "eval"]).expect(0).out;
    assert!(explained.starts_with("FAIL ") && explained.contains(SENTENCE), "{explained}");
    let json = place.run(&["report", "explain", "--evaluation-report", "eval", "--json"]).expect(0).json();
    assert_eq!(json["gate_failures"], json!([SENTENCE]));
    for format in ["md", "junit", "json", "mlflow", "model-card", "github-summary"] {
        let exported = place.run(&["report", "export", "eval", "--format", format]).expect(0).out;
        assert!(exported.contains(SENTENCE), "{format}: {exported}");
    }
}

#[test]
fn a_report_that_contradicts_itself_passes_nowhere() {
    let place = failing();
    let path = place.work("eval/evaluation.report.json");
    let mut report = read_json(&path);
    report["validation"]["primary_metric_acceptable"] = json!(true);
    std::fs::write(&path, report.to_string()).unwrap();
    let explained = place.run(&["report", "explain", "eval"]).expect(0).out;
    assert!(explained.starts_with("FAIL "), "{explained}");
    let sentence = "its ratio 1.3100 is above the limit 1.102";
    assert!(
        explained.contains(&format!(
            "The report contradicts itself: The primary metric is marked acceptable, but {sentence}"
        )),
        "{explained}"
    );
    let export = |format: &str| place.run(&["report", "export", "eval", "--format", format]).expect(0);
    for (format, verdict) in [
        ("md", "# InvarLock evaluation: FAIL"),
        ("model-card", "## Evaluation with InvarLock: FAIL"),
        ("github-summary", "## ❌ InvarLock: FAIL"),
        ("mlflow", "\"FAIL\""),
        ("json", "\"FAIL\""),
        ("junit", "value=\"FAIL\""),
    ] {
        let exported = export(format).out;
        assert!(exported.contains(verdict) && exported.contains(sentence), "{format}: {exported}");
    }
    let junit = export("junit").out;
    assert_eq!(junit.matches("<testcase").count(), 9, "{junit}");
    assert!(junit.contains("tests=\"9\" failures=\"2\""), "{junit}");
}

#[test]
fn explain_says_why_and_what_to_do() {
    let passing = place().run(&["report", "explain", "eval"]).expect(0).out;
    assert!(passing.starts_with("PASS 2 passed, 1 shown only, 4 not evaluated\n"), "{passing}");
    assert!(passing.contains("limit 1.102; margin 0.102000"), "{passing}");
    assert!(passing.contains("--profile ci"), "the report is one of the profile dev: {passing}");
    // The manifest binds the unchanged report.
    let explained = failing().run(&["report", "explain", "eval"]).expect(0).out;
    for line in [
        "beyond the limit by 0.208000",
        "No tier accepts a ratio of 1.310",
        "The runtime manifest is not that of this report",
        "Get the report and runtime.manifest.json again",
    ] {
        assert!(explained.contains(line), "{line}: {explained}");
    }
    let place = place();
    std::fs::remove_file(place.work("eval/runtime.manifest.json")).unwrap();
    let explained = place.run(&["report", "explain", "eval"]).expect(0).out;
    assert!(explained.contains("There is no runtime manifest beside the report"), "{explained}");
    place.run(&["report", "explain", "eval/none.json"]).expect(2).one_error(&["none.json"]);
}

#[test]
fn validate_checks_the_schema_and_the_consistency_of_the_file_alone() {
    let honest = place();
    std::fs::remove_file(honest.work("eval/runtime.manifest.json")).unwrap();
    let valid = honest.run(&["report", "validate", "eval"]).expect(0).out;
    assert_eq!(valid, "VALID eval/evaluation.report.json\n");
    let json = honest.run(&["report", "validate", "--json", "eval/evaluation.report.json"]).expect(0).json();
    assert_eq!((&json["format_version"], &json["ok"]), (&json!("report-validate-v1"), &json!(true)));
    failing()
        .run(&["report", "validate", "eval"])
        .expect(2)
        .one_error(&["contradicts itself", "ratio_vs_baseline"]);
    let edited = place();
    let path = edited.work("eval/evaluation.report.json");
    let mut report = read_json(&path);
    report.as_object_mut().unwrap().remove("run_id");
    std::fs::write(&path, report.to_string()).unwrap();
    edited
        .run(&["report", "validate", "eval"])
        .expect(2)
        .one_error(&["not a valid evaluation report", "run_id"]);
    let error = edited.run(&["report", "validate", "--json", "eval"]).expect(2).json();
    assert_eq!(error["error"]["kind"], "input");
}

#[test]
fn every_format_is_written_to_a_file_or_to_standard_output() {
    let place = place();
    for format in FORMATS {
        let out = place.run(&["report", "export", "eval", "--format", format]).expect(0).out;
        assert!(out.ends_with('\n') && out.len() > 100, "{format}: {out}");
        let file = format!("out/{format}");
        place.run(&["report", "export", "eval", "--format", format, "-o", &file]).expect(0);
        assert_eq!(std::fs::read_to_string(place.work(&file)).unwrap(), out);
        place.run(&["report", "export", "eval", "--format", format, "-o", &file]).expect(1);
        place.run(&["report", "export", "eval", "--format", format, "-o", &file, "--force"]).expect(0);
    }
    let csv = place.run(&["report", "export", "eval", "--format", "csv", "-o", "-"]).expect(0).out;
    assert_eq!(csv.lines().count(), 1 + 3 + 3, "one row per window: {csv}");
    let mlflow = place.run(&["report", "export", "eval", "--format", "mlflow"]).expect(0).json();
    assert_eq!(mlflow["metrics"]["invarlock.gate.primary_metric_acceptable"], 1);
    assert!(mlflow["metrics"].as_object().unwrap().values().all(Value::is_number), "{mlflow}");
    assert!(mlflow["params"].as_object().unwrap().values().all(Value::is_string), "{mlflow}");
    let junit = place.run(&["report", "export", "eval", "--format", "junit"]).expect(0).out;
    assert!(junit.contains("tests=\"7\" failures=\"0\" errors=\"0\" skipped=\"5\""), "{junit}");
    place.run(&["report", "export", "eval", "--format", "pdf"]).expect(2);
}

/// Evidence of an evaluator that wrote no texts. tests/e2e/upstream.rs exports evidence with texts.
#[test]
fn a_captured_export_needs_evidence_with_texts() {
    let place = place();
    let export = |report: &str, out: &str| {
        place.run(&["report", "export", report, "--format", "invarlock-captured", "-o", out])
    };
    export("eval", "captured").expect(2).one_error(&["has no texts", "evaluate again"]);
    export("eval", "-").expect(2).one_error(&["several files", "--output DIR"]);
    export("none", "captured").expect(2).one_error(&["none"]);
    let report = place.work("eval/baseline.report.json");
    let text = std::fs::read_to_string(&report).unwrap();
    std::fs::write(&report, text.replacen("\"logloss\":[", "\"logloss\":[1.5,", 1)).unwrap();
    export("eval", "captured").expect(3).one_error(&["baseline.report.json"]);
    assert!(!place.work("captured").exists());
}

/// The shell commands of a file of a CI system, in their order, with their environment.
struct Steps(Vec<(String, BTreeMap<String, String>)>);

fn yaml(path: &str) -> Value {
    serde_norway::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

fn texts(object: &Value) -> BTreeMap<String, String> {
    let members = object.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

fn settings(subject: &str) -> BTreeMap<String, String> {
    let demo = |name: &str| demo(name).to_str().unwrap().to_owned();
    let preset = demo("preset.yaml");
    [("baseline", demo("baseline")), ("subject", demo(subject)), ("preset", preset)]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// The steps of the action that run for these inputs.
fn github(subject: &str) -> Steps {
    let action = yaml("ci/github/action.yml");
    let mut inputs = settings(subject);
    for (name, input) in action["inputs"].as_object().unwrap() {
        let default = input["default"].as_str().unwrap_or_default();
        inputs.entry(name.clone()).or_insert_with(|| default.to_owned());
    }
    let steps = action["runs"]["steps"].as_array().unwrap();
    assert!(
        steps.iter().any(|step| step["uses"].as_str().is_some_and(|uses| uses.contains("upload-artifact")))
    );
    let resolve = |value: String| {
        let name = value.strip_prefix("${{ inputs.").and_then(|rest| rest.strip_suffix(" }}")).unwrap();
        inputs[name].clone()
    };
    let run = steps.iter().filter_map(|step| {
        // Inputs reach a script through its environment only, so that they are never parsed as commands.
        let script = step["run"].as_str()?.to_owned();
        assert!(!script.contains("${{"), "{script}");
        Some((script, texts(&step["env"]).into_iter().map(|(name, value)| (name, resolve(value))).collect()))
    });
    Steps(run.collect())
}

fn gitlab(subject: &str) -> Steps {
    let job = &yaml("ci/gitlab/invarlock.gitlab-ci.yml")[".invarlock"];
    let mut variables = texts(&job["variables"]);
    variables.extend(settings(subject).into_iter().map(|(name, value)| (name.to_uppercase(), value)));
    let lines = ["script", "after_script"].into_iter().flat_map(|part| job[part].as_array().unwrap());
    Steps(lines.map(|line| (line.as_str().unwrap().to_owned(), variables.clone())).collect())
}

impl Steps {
    /// Runs every step, as after a failed one only those that always run do; gives their exit codes.
    fn run(&self, place: &Place) -> Vec<Ran> {
        let summary: PathBuf = place.work("summary.md");
        let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
        let run = |(script, variables): &(String, BTreeMap<String, String>)| {
            let mut command = place.command_of("/bin/bash".as_ref(), &["-eo", "pipefail", "-c", script]);
            command.env("PATH", &path).env("GITHUB_STEP_SUMMARY", &summary).envs(variables);
            Ran::from(command.output().unwrap())
        };
        self.0.iter().map(run).collect()
    }
}

/// The steps run with the real programs: a wrong option would give exit code 2.
#[test]
fn the_steps_of_the_ci_files_run() {
    for (system, steps) in [("github", github as fn(&str) -> Steps), ("gitlab", gitlab)] {
        let place = Place::new(As::Caller);
        let codes = |subject: &str| -> Vec<i32> {
            let ran = steps(subject).run(&place);
            ran.iter().map(|ran| ran.code).collect()
        };
        assert_eq!(codes("healthy"), [0, 0, 0], "{system}");
        assert_eq!(codes("damaged"), [1, 1, 0], "{system}");
        let page = std::fs::read_to_string(place.work("invarlock-evidence/report.html")).unwrap();
        let gates = std::fs::read_to_string(place.work("invarlock-evidence/gates.xml")).unwrap();
        assert!(page.contains("FAIL") && gates.contains("<failure"), "{system}");
        if system == "github" {
            let summary = std::fs::read_to_string(place.work("summary.md")).unwrap();
            assert!(summary.contains("InvarLock: PASS") && summary.contains("InvarLock: FAIL"), "{summary}");
        }
    }
}

#[test]
fn generate_writes_the_files_of_the_python_package() {
    let place = place();
    let run = "eval/subject.report.json";
    let generate = |more: &[&str]| place.run(&[&["report", "generate", "--run"][..], more].concat());
    generate(&[run]).expect(0);
    let read = |path: &str| std::fs::read_to_string(place.work(path)).unwrap();
    assert_eq!(read("reports_subject.report/evaluation.json"), read(run));
    generate(&[run]).expect(1).one_error(&["evaluation.json", "--force"]);
    generate(&["eval", "--format", "all", "-o", "all"]).expect(0);
    assert_eq!(place.names("work/all"), ["evaluation.html", "evaluation.json", "evaluation.md"]);
    let page = place.run(&["report", "html", "eval", "-o", "-"]).expect(0).out;
    assert_eq!(read("all/evaluation.html"), page);
    let export = ["report", "export", "eval", "--format", "md"];
    assert_eq!(read("all/evaluation.md"), place.run(&export).expect(0).out);
    generate(&["eval", "--format", "markdown", "-o", "md"]).expect(0);

    let baseline = ["--baseline-run-report", "eval/baseline.report.json"];
    generate(&[&[run, "--format", "report", "-o", "copy"][..], &baseline].concat()).expect(0);
    assert_eq!(place.names("work/copy"), place.names("work/eval"));
    place.run(&["verify", "--profile", "dev", "copy"]).expect(0);
}

#[test]
fn generate_refuses_run_reports_of_no_evaluation() {
    let place = place();
    let generate = |more: &[&str]| place.run(&[&["report", "generate", "--run"][..], more].concat());
    let baseline = "eval/baseline.report.json";
    generate(&[baseline])
        .expect(2)
        .one_error(&["run report of the subject", "pass eval/subject.report.json"]);
    let swapped = ["eval", "--compare-run-report", "eval/subject.report.json"];
    generate(&swapped).expect(2).one_error(&["run report of the baseline"]);
    place.copy_dir(&root().join("evidence/tests/data/honest/user"), "run");
    std::fs::remove_file(place.work("run/evaluation.report.json")).unwrap();
    generate(&["run/subject.report.json"])
        .expect(2)
        .one_error(&["no evaluation.report.json", "--report-out"]);
    let failing = failing();
    let refused = failing.run(&["report", "generate", "--run", "eval", "--format", "md"]);
    refused.expect(3).one_error(&["checking the evidence in eval"]);
    assert_eq!(failing.names("work"), ["eval"], "nothing was written");
}
