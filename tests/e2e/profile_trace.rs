//! `invarlock runtime learn` compares the system calls of a run with a profile, as root and as an
//! ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, read_json, root};
use serde_json::{Value, json};

fn runtime(place: &Place, verb: &str, flags: &[&str], command: &[&str]) -> Ran {
    let image = ["invarlock-runtime:local", "--"];
    place.run(&[&["runtime", verb][..], flags, &image, command].concat())
}

/// The entries for a system call in `used`, `unused` or `refused`.
fn entries<'a>(list: &'a Value, syscall: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().filter(|entry| entry["syscall"] == syscall).collect()
}

#[test]
fn text_output_lists_used_and_unused_rules() {
    for user in both() {
        let place = Place::new(user);
        place.run(&["runtime", "image", "build"]).expect(0);
        let traced = runtime(&place, "learn", &[], &["--self-test"]).expect(0);
        let rules =
            read_json(&root().join("seccomp/profiles/evaluator.json"))["allow"].as_array().unwrap().len();
        assert!(traced.out.starts_with("exit code 0; profile evaluator: "), "{}", traced.out);
        assert!(traced.out.contains(&format!(" of {rules} rules used")), "{}", traced.out);
        assert!(traced.out.contains("\nno call was denied\n"), "{}", traced.out);
        // The output of the command goes to standard error.
        assert!(
            traced.err.contains("\"self_test\":\"ok\"") && !traced.out.contains("self_test"),
            "{traced:?}"
        );
        assert!(traced.out.contains("  mmap (argument 3 & 0x4 = 0x0"), "{}", traced.out);
        let (used, unused) = traced.out.split_once("\nunused").unwrap();
        assert!(used.contains("  execve ") && !unused.contains("  execve "), "{}", traced.out);
        assert!(unused.contains("  tgkill ") && !used.contains("  tgkill "), "{}", traced.out);
    }
}

/// Proposed rules let the command run once each has a reason.
#[test]
fn proposed_rules_are_valid_once_they_have_a_reason() {
    for user in both() {
        let place = Place::holding(user, "invarlock-workload");
        let command = ["sockets", "2", "10", "2"];
        let traced = runtime(&place, "learn", &["--json"], &command).expect(0).json();
        assert_eq!(traced["format_version"], "runtime-learn-v1");
        assert_eq!(entries(&traced["used"], "execve")[0]["count"], 1);
        assert_eq!(
            (entries(&traced["used"], "clone").len(), entries(&traced["unused"], "clone").len()),
            (0, 1)
        );
        let denied = entries(&traced["refused"], "socket");
        assert_eq!(denied.iter().map(|entry| &entry["count"]).collect::<Vec<_>>(), [&json!(2), &json!(1)]);
        let rule = json!({"syscall": "socket", "args": [{"index": 0, "op": "eq", "value": "AF_INET"}], "reason": ""});
        assert_eq!(denied[0]["proposed"], rule);
        let mut profile = read_json(&root().join("seccomp/profiles/evaluator.json"));
        let proposed = traced["refused"].as_array().unwrap().iter().map(|entry| entry["proposed"].clone());
        profile["allow"].as_array_mut().unwrap().extend(proposed);
        place.write("mine.json", profile.to_string().as_bytes());
        let flags = ["--seccomp", "mine.json", "--json"];
        runtime(&place, "run", &flags, &command).expect(125);
        for rule in profile["allow"].as_array_mut().unwrap() {
            if rule["reason"] == "" {
                rule["reason"] = json!("the test needs it");
            }
        }
        place.write("mine.json", profile.to_string().as_bytes());
        assert_eq!(runtime(&place, "run", &flags, &command).expect(0).out, "0 0 0\n");
        let traced = runtime(&place, "learn", &flags, &command).expect(0).json();
        assert_eq!(
            (&traced["refused"], &traced["profile"]["custom"]["format"]),
            (&json!([]), &json!("invarlock"))
        );
        assert_eq!(
            entries(&traced["used"], "socket").iter().map(|entry| &entry["count"]).collect::<Vec<_>>(),
            [&json!(2), &json!(1)]
        );
    }
}

#[test]
fn docker_format_profile_is_traced_by_entry() {
    let place = Place::holding(As::User, "invarlock-workload");
    let sample = root().join("seccomp/tests/data/docker-format.json");
    let flags = ["--json", "--seccomp", sample.to_str().unwrap()];
    let traced = runtime(&place, "learn", &flags, &["sockets", "1", "2", "16"]).expect(0).json();
    let socket = entries(&traced["used"], "socket");
    assert_eq!((socket.len(), &socket[0]["count"]), (1, &json!(2)));
    assert!(socket[0]["reason"].as_str().unwrap().starts_with("syscalls["), "{socket:?}");
    // The filter returns errnos other than EPERM directly, without a notification.
    assert_eq!(entries(&traced["refused"], "socket").len(), 0);
}

#[test]
fn exit_codes_equal_those_of_runtime_run() {
    let place = Place::holding(As::User, "invarlock-workload");
    runtime(&place, "learn", &[], &["exit", "7"]).expect(7);
    let missing_profile =
        runtime(&place, "learn", &["--timeout", "1", "--seccomp", "general.json"], &["sleep"]);
    missing_profile.expect(125).one_error(&["--seccomp general.json", "No such file"]);
    let general = root().join("seccomp/profiles/general.json");
    let flags = ["--timeout", "1", "--seccomp", general.to_str().unwrap()];
    runtime(&place, "learn", &flags, &["sleep"]).expect(125).one_error(&["wall-time limit"]);
    let error = place.run(&["runtime", "learn", "--json", "no-such-image", "--", "/x"]).expect(125).json();
    assert_eq!(error["error"]["kind"], "input");
    place.run(&["runtime", "learn", "--no-such-flag"]).expect(125);
}
