//! Host execution is visible in every output, usage errors are JSON where JSON was asked for, and verdicts say what to do.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, read_json};
use serde_json::{Value, json};
use std::process::Command;

const BY_FLAG: &str =
    "HOST EXECUTION: this run was not isolated in a container (allowed by --execution-mode)";
const BY_VARIABLE: &str =
    "HOST EXECUTION: this run was not isolated in a container (allowed by INVARLOCK_ALLOW_HOST_EXECUTION)";
const RED: &str = "\u{1b}[31m";

/// `evaluate` of the healthy demo subject with the dev profile into `<name>/`.
fn evaluate(place: &Place, name: &str, more: &[&str]) -> Command {
    let mut command = place.command(&["evaluate", "--profile", "dev"]);
    command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy"));
    command.arg("--preset").arg(demo("preset.yaml"));
    command.args(["--out", &format!("{name}/runs"), "--report-out", &format!("{name}/eval")]).args(more);
    command
}

fn ran(command: &mut Command) -> Ran {
    Ran::from(command.output().unwrap())
}

#[test]
fn host_execution_is_one_line_of_every_output() {
    let place = Place::new(As::Caller);
    let host = ["--execution-mode", "host"];
    for level in ["--quiet", "--verbose"] {
        let out = ran(&mut evaluate(&place, "host", &[&host[..], &[level]].concat())).expect(0);
        assert_eq!(out.out.lines().next(), Some(BY_FLAG), "{level}");
        assert_eq!((out.out.matches(BY_FLAG).count(), out.err.matches(BY_FLAG).count()), (1, 0), "{level}");
    }
    let mut variable = evaluate(&place, "host", &["--json"]);
    let out = ran(variable.env("INVARLOCK_ALLOW_HOST_EXECUTION", "1")).expect(0);
    assert_eq!(out.json()["host_execution"], BY_VARIABLE);
    assert_eq!(out.err.lines().filter(|line| *line == BY_VARIABLE).count(), 1, "{}", out.err);

    for (more, code) in [(&[][..], 1), (&["--runtime-provenance", "host"][..], 0)] {
        let args = [&["verify", "--profile", "dev", "host/eval"][..], more].concat();
        let text = place.run(&args).expect(code);
        assert_eq!(text.out.matches(BY_VARIABLE).count(), 1, "{}", text.out);
        let json = place.run(&[&args[..], &["--json"]].concat()).expect(code).json();
        assert_eq!(json["results"][0]["host_execution"], BY_VARIABLE);
    }
    let page = place.run(&["report", "html", "-i", "host/eval", "-o", "page.html"]).expect(0);
    assert_eq!((page.err.trim_end(), page.out.trim_end()), (BY_VARIABLE, "page.html"));
    assert!(std::fs::read_to_string(place.work("page.html")).unwrap().contains(BY_VARIABLE));
    let args =
        ["--report", "host/eval/evaluation.report.json", "--manifest", "host/eval/runtime.manifest.json"];
    let args = [&["advanced", "runtime-verify"][..], &args].concat();
    assert_eq!(place.run(&args).expect(1).out.matches(BY_VARIABLE).count(), 1);
    let json = place.run(&[&args[..], &["--json"]].concat()).expect(1).json();
    assert_eq!(json["host_execution"], BY_VARIABLE);
}

#[test]
fn host_execution_is_red_only_on_a_terminal() {
    let place = Place::new(As::Caller);
    let on_terminal = |no_color: bool| {
        let plain = evaluate(&place, "tty", &["--execution-mode", "host", "--quiet"]);
        let words = plain.get_args().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let line = format!("{} {words}", plain.get_program().to_str().unwrap());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env_clear().current_dir(place.work(""));
        script.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.env("TERM", "xterm").stdin(std::process::Stdio::null());
        if no_color {
            script.env("NO_COLOR", "1");
        }
        ran(&mut script).expect(0).out
    };
    let (red, plain) = (on_terminal(false), on_terminal(true));
    assert!(red.contains(BY_FLAG) && red.starts_with(RED), "{red:?}");
    assert!(plain.starts_with(BY_FLAG) && !plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn explicit_container_mode_overrides_the_variable() {
    let place = Place::new(As::Caller);
    let mut command = evaluate(&place, "c", &["--execution-mode", "container", "--json"]);
    let out = ran(command.env("INVARLOCK_ALLOW_HOST_EXECUTION", "1")).expect(0);
    assert_eq!(out.json()["host_execution"], Value::Null);
    assert!(!out.err.contains("HOST EXECUTION"), "{}", out.err);
    let manifest = read_json(&place.work("c/eval/runtime.manifest.json"));
    assert_eq!(manifest["execution_mode"], "container");
    assert_eq!(manifest["context"]["allowances"]["granted_by"], json!({}));
    place.run(&["verify", "--profile", "dev", "c/eval"]).expect(0);

    // A report made with dev is judged again with the verifier's profile: it was measured on as many windows as ci needs.
    place.run(&["verify", "c/eval"]).expect(0);
    place.run(&["verify", "--profile", "release", "c/eval"]).expect(0);
}

#[test]
fn usage_errors_are_json_where_json_was_asked_for() {
    let place = Place::new(As::Caller);
    let error = |ran: &Ran, text: &str| -> Value {
        let value: Value =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {} {}", ran.out, ran.err));
        assert_eq!((&value["ok"], &value["error"]["kind"]), (&json!(false), &json!("input")));
        assert_eq!(value["resolution"]["exit_code"], ran.code);
        value["error"]["message"].clone()
    };
    for args in [
        &["verify", "--json", "--bogus", "x"][..],
        &["verify", "--bogus", "x", "--json"],
        &["evaluate", "--json"],
        &["doctor", "--json", "--bogus"],
        &["advanced", "runtime-verify", "--json"],
        &["runtime", "image", "ls", "--json", "--bogus"],
        &["runtime", "image", "inspect", "--json", "--bogus"],
    ] {
        let ran = place.run(args).expect(2);
        assert!(error(&ran, &ran.out).is_string() && ran.err.is_empty(), "{args:?}: {}", ran.err);
    }
    let learn = place.run(&["runtime", "learn", "--json", "--bogus", "x"]).expect(125);
    assert_eq!(error(&learn, &learn.out), "unexpected argument '--bogus' found");
    let run = place.run(&["runtime", "run", "--json", "--bogus", "x"]).expect(125);
    assert_eq!(error(&run, &run.err), "unexpected argument '--bogus' found");
    let text = place.run(&["verify", "--bogus", "x"]).expect(2);
    assert!(text.out.is_empty() && text.err.starts_with("error: unexpected argument"), "{}", text.err);
    // Help is not an error.
    assert!(place.run(&["verify", "--json", "--help"]).expect(0).out.contains("Usage:"));
}

#[test]
fn malformed_digest_options_exit_2() {
    let place = Place::new(As::Caller);
    let pin = "--expected-runtime-image-digest";
    for digest in ["", "sha256:12", "12", "sha512:12"] {
        let report = ["--report", "r", "--manifest", "m"];
        place.run(&["verify", pin, digest, "eval"]).expect(2);
        let json =
            place.run(&["verify", "--json", "--upstream-parity", pin, digest, "eval"]).expect(2).json();
        assert_eq!(json["error"]["kind"], "input", "{digest}");
        place.run(&[&["advanced", "runtime-verify", pin, digest][..], &report].concat()).expect(2);
        // A blank image digest means none.
        for mode in ["container", "host"].into_iter().filter(|_| !digest.is_empty()) {
            let more = ["--dry-run", "--execution-mode", mode, "--image-digest", digest];
            ran(&mut evaluate(&place, "d", &more)).expect(2);
        }
    }
    for args in
        [["inspect", "sha256:12"], ["verify", "sha256:12"], ["rm", "sha256:12"], ["sbom", "sha256:12"]]
    {
        place.run(&[&["runtime", "image"][..], &args].concat()).expect(2);
    }
}

#[test]
fn inspect_takes_json() {
    let place = Place::new(As::Caller);
    place.run(&["runtime", "image", "build"]).expect(0);
    let inspected = place.run(&["runtime", "image", "inspect", "--json"]).expect(0);
    assert_eq!(inspected.out.lines().count(), 1, "{}", inspected.out);
    assert_eq!(inspected.json(), place.run(&["runtime", "image", "inspect"]).expect(0).json());
    let missing = place.run(&["runtime", "image", "inspect", "--json", "other:1"]).expect(2).json();
    assert_eq!(missing["error"]["kind"], "input");
}
