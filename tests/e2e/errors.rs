//! Error output of the command line: for each verb and kind one message, its exit code, its `help:`
//! line and its JSON form.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, root};
use serde_json::Value;
use std::fs::File;
use std::process::Stdio;

/// Where a verb prints an error as JSON.
#[derive(Clone, Copy, PartialEq)]
enum Json {
    /// With `--json`, on standard output.
    Output,
    /// With `--json`, on standard error.
    Error,
    /// The verb has no `--json`, or prints its result as JSON instead of an error.
    None,
}

/// One failing command.
struct Case {
    /// Words of the verb.
    verb: &'static [&'static str],
    args: &'static [&'static str],
    kind: &'static str,
    code: i32,
    json: Json,
    /// A part of the message.
    message: &'static str,
    /// A part of the hint. With `None` a hint is optional.
    help: Option<&'static str>,
}

const fn case(
    verb: &'static [&'static str],
    args: &'static [&'static str],
    kind: &'static str,
    code: i32,
    message: &'static str,
) -> Case {
    Case { verb, args, kind, code, json: Json::Output, message, help: None }
}

impl Case {
    const fn help(mut self, help: &'static str) -> Self {
        self.help = Some(help);
        self
    }

    const fn json(mut self, json: Json) -> Self {
        self.json = json;
        self
    }
}

const EVALUATE: &[&str] = &["evaluate"];
const VERIFY: &[&str] = &["verify"];
const HTML: &[&str] = &["report", "html"];
const RUN: &[&str] = &["runtime", "run"];
const LEARN: &[&str] = &["runtime", "learn"];

/// Commands that fail in the directory of [`place_with_inputs`].
#[rustfmt::skip]
const CASES: &[Case] = &[
    case(EVALUATE, &["--baseline", "nowhere", "--subject", "base", "--dataset", "data.jsonl"], "input", 2, "--baseline nowhere: no such directory").help("contains config.json"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base"], "input", 2, "no dataset").help("--dataset FILE.jsonl"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "data.jsonl", "--report-out", "base/eval"], "input", 2, "inside the baseline checkpoint").help("outside the checkpoint"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "short.jsonl"], "input", 2, "checking the baseline"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "broken.jsonl"], "input", 2, "broken.jsonl"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "data.jsonl", "--image-digest", "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], "integrity", 3, "its image manifest has digest").help("correct the digest"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "base"], "input", 2, "dataset file base: it is a directory").help("path: base"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "nowhere.jsonl"], "input", 2, "dataset file nowhere.jsonl").help("a relative path starts at"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--preset", "nowhere.yaml"], "input", 2, "preset nowhere.yaml").help("a relative path starts at"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "data.jsonl", "--execution-mode", "host", "--output-size", "4K"], "unsupported", 3, "--output-size: host execution cannot limit").help("leave out --output-size"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "data.jsonl", "--profile", "strict"], "input", 2, "--profile").help("--profile ci"),
    case(EVALUATE, &["--baseline", "linked", "--subject", "base", "--dataset", "data.jsonl"], "safety_violation", 3, "leaves the checkpoint").help("copy the file"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "data.jsonl", "--device", "cuda"], "unsupported", 3, "--device cuda").help("--device cpu"),
    case(EVALUATE, &["--baseline", "base", "--subject", "base", "--dataset", "data.jsonl", "--output-size", "8K"], "system", 3, "checking the baseline").help("raise --output-size"),
    case(VERIFY, &["--tolerance", "5", "eval"], "input", 2, "--tolerance 5").help("from 0 to 0.001"),
    case(VERIFY, &["--profile", "lenient", "eval"], "input", 2, "--profile"),
    case(HTML, &["-i", "nowhere", "-o", "page.html"], "input", 2, "nowhere").json(Json::None),
    case(RUN, &["nosuch:1"], "input", 125, "image nosuch:1: it is not in the store, which contains: ").help("image import").json(Json::Error),
    case(RUN, &["invarlock-runtime"], "input", 125, "image invarlock-runtime:latest: it is not in the store, which contains: invarlock-runtime:local").help("name one of these").json(Json::Error),
    case(RUN, &["--entrypoint", "/nothing", "invarlock-runtime:local"], "input", 125, "/nothing").help("dynamic loader").json(Json::Error),
    case(RUN, &["/bin/true"], "input", 125, "the first argument must be an image").help("IMAGE -- ARGV").json(Json::Error),
    case(LEARN, &["nosuch:1"], "input", 125, "nosuch:1"),
    case(&["runtime", "image", "build"], &["--evaluator", "nowhere"], "input", 2, "nowhere not found").help("--evaluator FILE"),
    case(&["runtime", "image", "inspect"], &["nosuch:1"], "input", 2, "nosuch:1").json(Json::None),
    case(&["runtime", "image", "sbom"], &["nosuch:1"], "input", 2, "nosuch:1").json(Json::None),
    case(&["runtime", "image", "import"], &["oci:nowhere:1"], "input", 2, "nowhere"),
    case(&["runtime", "image", "import"], &["data.jsonl"], "input", 2, "has no format").help("oci-archive:FILE"),
    case(&["runtime", "image", "import"], &["tar:x"], "input", 2, "\"tar\" is not a format that import reads").help("oci-archive:FILE"),
    case(&["runtime", "image", "build"], &["--from", "data.jsonl", "--name", "c:e"], "integrity", 3, "data.jsonl is not a tar archive").help("pass a directory"),
    case(&["runtime", "image", "export"], &["nosuch:1", "oci-archive:x.tar"], "input", 2, "nosuch:1"),
    case(&["runtime", "image", "tag"], &["nosuch:1", "other:1"], "input", 2, "nosuch:1"),
    case(&["runtime", "image", "rm"], &["nosuch:1"], "input", 2, "nosuch:1"),
    case(&["runtime", "image", "verify"], &["nosuch:1"], "input", 2, "nosuch:1"),
    case(&["runtime", "image", "pull"], &["docker://localhost/x:1"], "input", 2, "no network").help("--allow-network"),
    case(&["runtime", "image", "pull"], &["oci:x:1"], "input", 2, "not an image of a registry").help("docker://HOST/NAME:TAG"),
    case(&["runtime", "image", "push"], &["invarlock-runtime:local", "docker://localhost/x:1"], "input", 2, "no network").help("--allow-network"),
];

/// A [`Place`] with `base/` (a checkpoint), `linked/` (a checkpoint whose weights are a link to a
/// file outside of it) and the datasets `data.jsonl`, `short.jsonl` and `broken.jsonl`.
fn place_with_inputs() -> Place {
    let place = Place::new(As::Caller);
    place.copy_dir(&demo("baseline"), "base");
    let linked = place.copy_dir(&demo("baseline"), "linked");
    std::fs::rename(linked.join("model.safetensors"), place.work("elsewhere.safetensors")).unwrap();
    std::os::unix::fs::symlink("../elsewhere.safetensors", linked.join("model.safetensors")).unwrap();
    std::fs::copy(demo("valid.jsonl"), place.work("data.jsonl")).unwrap();
    place.write("short.jsonl", b"{\"text\": \"one short line\"}\n");
    place.write("broken.jsonl", b"{\"text\": \"fine\"}\nnot json\n");
    place
}

/// The error line and the hint after it, if any.
fn error_and_hint(ran: &Ran) -> (String, Option<String>) {
    ran.one_error(&[]);
    let mut lines = ran.err.lines().skip_while(|line| !line.starts_with("error["));
    let error = lines.next().unwrap().to_owned();
    (error, lines.find_map(|line| line.strip_prefix("help: ")).map(str::to_owned))
}

#[test]
fn every_verb_reports_kind_message_and_hint() {
    let place = place_with_inputs();
    for case in CASES {
        let args = [case.verb, case.args].concat();
        let ran = place.run(&args).expect(case.code);
        let (error, hint) = error_and_hint(&ran);
        assert!(error.starts_with(&format!("error[{}]: ", case.kind)), "{args:?}: {error}");
        assert!(error.contains(case.message), "{args:?}: {error}");
        assert!(!error.contains("/in/"), "{args:?}: the message contains a path of the container: {error}");
        if let Some(part) = case.help {
            assert!(hint.as_deref().is_some_and(|hint| hint.contains(part)), "{args:?}: {}", ran.err);
        }
        if let Some(hint) = &hint {
            assert!(!error.contains(hint.as_str()), "{args:?}: the message repeats the hint: {error}");
        }
        if case.json != Json::None {
            check_json(&place, case, hint);
        }
    }
    assert_eq!(place.names("work/reports"), Vec::<String>::new(), "a report was written");
}

/// Runs the case with `--json` and checks the error.
fn check_json(place: &Place, case: &Case, hint: Option<String>) {
    let args = [case.verb, &["--json"], case.args].concat();
    let ran = place.run(&args).expect(case.code);
    let text = if case.json == Json::Error { &ran.err } else { &ran.out };
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{args:?}: {e}: {ran:?}"));
    assert_eq!((&value["ok"], &value["error"]["kind"]), (&false.into(), &case.kind.into()), "{args:?}");
    let message = value["error"]["message"].as_str().unwrap();
    assert!(message.contains(case.message), "{args:?}: {message}");
    assert_eq!(value["error"]["hint"].as_str().map(str::to_owned), hint, "{args:?}");
    assert_eq!(value["resolution"]["exit_code"], case.code, "{args:?}");
}

#[test]
fn usage_errors_exit_with_2_or_125() {
    let place = Place::new(As::Caller);
    let verbs: &[(&[&str], i32)] = &[
        (EVALUATE, 2),
        (VERIFY, 2),
        (HTML, 2),
        (RUN, 125),
        (LEARN, 125),
        (&["runtime", "probe"], 2),
        (&["runtime", "image", "ls"], 2),
        (&["runtime", "image", "gc"], 2),
        (&["doctor"], 2),
        (&["advanced", "runtime-verify"], 2),
        (&["completions"], 2),
        (&["version"], 2),
    ];
    for (verb, code) in verbs {
        let ran = place.run(&[verb, &["--no-such-option"][..]].concat()).expect(*code);
        assert!(
            ran.err.starts_with("error: ") && ran.err.contains("--no-such-option"),
            "{verb:?}: {}",
            ran.err
        );
        assert_eq!(ran.out, "", "{verb:?}");
    }
}

#[test]
fn reached_time_limit_is_a_system_error() {
    let place = Place::holding(As::Caller, "invarlock-workload");
    let args = [RUN, &["--timeout=1", "invarlock-runtime:local", "sleep"]].concat();
    let (error, hint) = error_and_hint(&place.run(&args).expect(125));
    assert!(error.starts_with("error[system]: running invarlock-runtime:local: "), "{error}");
    assert!(error.ends_with("the wall-time limit (1 s) was reached"), "{error}");
    assert_eq!(hint.as_deref(), Some("raise --timeout"));
}

/// A result that is lost is a failure; a reader that has read enough is none.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let place = place_with_inputs();
    place.copy_dir(&root().join("evidence/tests/data/honest/user"), "eval");
    let run = |args: &[&str], output: Stdio| {
        Ran::from(place.command(args).stdout(output).stderr(Stdio::piped()).output().unwrap())
    };
    for args in [
        &["verify", "--profile", "dev", "eval"][..],
        &["verify", "--profile", "dev", "--json", "eval"],
        &["report", "html", "eval", "-o", "-"],
        &["report", "export", "eval", "--format", "csv"],
        &["report", "explain", "eval", "--json"],
        &["doctor", "--json"],
        &["completions", "bash"],
        &["version"],
        &["--help"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ran = run(args, full.into());
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.err);
        assert!(
            ran.err.contains("writing standard output") && ran.err.contains("No space left"),
            "{args:?}: {}",
            ran.err
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = run(args, writer.into());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
    }
}
