//! `invarlock runtime learn`: the difference between what ran and a profile, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, read_json, root};
use serde_json::{Value, json};

fn runtime(place: &Place, verb: &str, flags: &[&str], command: &[&str]) -> Ran {
    let image = ["invarlock-runtime:local", "--", "/invarlock-evaluator"];
    place.run(&[&["runtime", verb][..], flags, &image, command].concat())
}

/// The rules for a call in `used` or `unused`.
fn of<'a>(list: &'a Value, syscall: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().filter(|it| it["syscall"] == syscall).collect()
}

#[test]
fn people_see_what_was_used_and_what_was_not() {
    for user in both() {
        let place = Place::new(user);
        place.run(&["runtime", "image", "build"]).expect(0);
        let learned = runtime(&place, "learn", &[], &["--self-test"]).expect(0);
        let rules =
            read_json(&root().join("seccomp/profiles/evaluator.json"))["allow"].as_array().unwrap().len();
        assert!(learned.out.starts_with("exit code 0; profile evaluator: "), "{}", learned.out);
        assert!(learned.out.contains(&format!(" of {rules} rules used")), "{}", learned.out);
        assert!(learned.out.contains("\nno call was denied\n"), "{}", learned.out);
        // What the command prints is out of the way.
        assert!(
            learned.err.contains("\"self_test\":\"ok\"") && !learned.out.contains("self_test"),
            "{learned:?}"
        );
        let (used, unused) = learned.out.split_once("\nunused").unwrap();
        assert!(used.contains("  execve ") && !unused.contains("  execve "), "{}", learned.out);
        assert!(unused.contains("  tgkill ") && !used.contains("  tgkill "), "{}", learned.out);
    }
}

/// The proposed rules let the command run, once each has a reason.
#[test]
fn a_proposed_rule_is_a_rule_as_soon_as_it_has_a_reason() {
    for user in both() {
        let place = Place::holding(user, "invarlock-workload");
        let command = ["sockets", "2", "10", "2"];
        let learned = runtime(&place, "learn", &["--json"], &command).expect(0).json();
        assert_eq!(learned["format_version"], "runtime-learn-v1");
        assert_eq!(of(&learned["used"], "execve")[0]["count"], 1);
        assert_eq!((of(&learned["used"], "clone").len(), of(&learned["unused"], "clone").len()), (0, 1));
        let refused = of(&learned["refused"], "socket");
        assert_eq!(refused.iter().map(|it| &it["count"]).collect::<Vec<_>>(), [&json!(2), &json!(1)]);
        let rule = json!({"syscall": "socket", "args": [{"index": 0, "op": "eq", "value": "AF_INET"}], "reason": ""});
        assert_eq!(refused[0]["proposed"], rule);
        let mut profile = read_json(&root().join("seccomp/profiles/evaluator.json"));
        let all = learned["refused"].as_array().unwrap().iter().map(|it| it["proposed"].clone());
        profile["allow"].as_array_mut().unwrap().extend(all);
        place.write("mine.json", profile.to_string().as_bytes());
        let with = ["--seccomp", "mine.json", "--json"];
        runtime(&place, "run", &with, &command).expect(125);
        for rule in profile["allow"].as_array_mut().unwrap() {
            if rule["reason"] == "" {
                rule["reason"] = json!("the test wants it");
            }
        }
        place.write("mine.json", profile.to_string().as_bytes());
        assert_eq!(runtime(&place, "run", &with, &command).expect(0).out, "0 0 0\n");
        let learned = runtime(&place, "learn", &with, &command).expect(0).json();
        assert_eq!(
            (&learned["refused"], &learned["profile"]["custom"]["format"]),
            (&json!([]), &json!("invarlock"))
        );
        assert_eq!(
            of(&learned["used"], "socket").iter().map(|it| &it["count"]).collect::<Vec<_>>(),
            [&json!(2), &json!(1)]
        );
    }
}

#[test]
fn a_profile_in_dockers_format_is_learned_by_its_entries() {
    let place = Place::holding(As::User, "invarlock-workload");
    let sample = root().join("seccomp/tests/data/docker-format.json");
    let flags = ["--json", "--seccomp", sample.to_str().unwrap()];
    let learned = runtime(&place, "learn", &flags, &["sockets", "1", "2", "16"]).expect(0).json();
    let socket = of(&learned["used"], "socket");
    assert_eq!((socket.len(), &socket[0]["count"]), (1, &json!(2)));
    assert!(socket[0]["reason"].as_str().unwrap().starts_with("syscalls["), "{socket:?}");
    // The kernel answers errnos other than EPERM itself, without a notification.
    assert_eq!(of(&learned["refused"], "socket").len(), 0);
}

#[test]
fn codes_are_those_of_runtime_run() {
    let place = Place::holding(As::User, "invarlock-workload");
    runtime(&place, "learn", &[], &["exit", "7"]).expect(7);
    let out_of_time = runtime(&place, "learn", &["--timeout", "1", "--seccomp", "general.json"], &["sleep"]);
    out_of_time.expect(125).one_error(&["--seccomp general.json", "No such file"]);
    let general = root().join("seccomp/profiles/general.json");
    let flags = ["--timeout", "1", "--seccomp", general.to_str().unwrap()];
    runtime(&place, "learn", &flags, &["sleep"]).expect(125).one_error(&["wall-time limit"]);
    let error = place.run(&["runtime", "learn", "--json", "no-such-image", "--", "/x"]).expect(125).json();
    assert_eq!(error["error"]["kind"], "input");
    place.run(&["runtime", "learn", "--no-such-flag"]).expect(125);
}
