//! `runtime ps`, `stop` and `kill`, and the options of `runtime run` that they use.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, both};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "invarlock-runtime:local";

fn place(user: As) -> Place {
    Place::holding(user, "invarlock-workload")
}

/// Starts a command, and waits until it is in the list.
fn start(place: &Place, options: &[&str], command: &[&str]) -> (Child, Value) {
    let known: Vec<Value> = list(place);
    let args = [&["runtime", "run"][..], options, &[IMAGE, "--"], command].concat();
    let mut run = place.command(&args);
    let child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    (child, new_in_list(place, &known))
}

/// The run that is new in the list.
fn new_in_list(place: &Place, known: &[Value]) -> Value {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(new) = list(place).into_iter().find(|running| !known.contains(running)) {
            return new;
        }
        assert!(Instant::now() < end, "the run is not in the list");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The runs of this place: others of the same user can be there.
fn list(place: &Place) -> Vec<Value> {
    let output = place.run(&["runtime", "ps", "--json"]).expect(0).json();
    let mine =
        |running: &Value| running["name"].as_str().is_some_and(|name| name.starts_with(&prefix(place)));
    output["running"].as_array().unwrap().iter().filter(|running| mine(running)).cloned().collect()
}

fn prefix(place: &Place) -> String {
    place.dir.path().file_name().unwrap().to_str().unwrap().replace("invarlock-test-", "t")
}

#[test]
fn running_commands_are_listed_stopped_and_killed() {
    for user in both() {
        let place = place(user);
        let name = |n: u32| format!("{}-{n}", prefix(&place));
        let (one, two, cidfile) = (name(1), name(2), place.work("cid"));
        let (mut first, listed) = start(&place, &["--name", &one, "--cidfile", "cid"], &["sleep"]);
        let id = listed["id"].as_str().unwrap();
        assert_eq!(fs::read_to_string(&cidfile).unwrap(), id);
        assert_eq!(listed["name"], one);
        assert_eq!(listed["image"], IMAGE);
        assert_eq!(listed["pid"], first.id());
        assert!(listed["command"].as_array().unwrap().iter().any(|word| word == "sleep"), "{listed}");
        let table = place.run(&["runtime", "ps"]).expect(0).out;
        assert!(table.contains(&one) && table.contains(&id[..12]), "{table}");
        // Neither the name nor the file can be those of another run.
        let run =
            |options: &[&str]| place.run(&[&["runtime", "run"], options, &[IMAGE, "--", "noop"]].concat());
        run(&["--name", &one]).expect(125).one_error(&["error[input]", &one, id, "help:"]);
        run(&["--cidfile", "cid"]).expect(125).one_error(&["error[input]", "cid", "exists", "help:"]);
        assert_eq!(fs::read_to_string(&cidfile).unwrap(), id);
        let (mut second, _) = start(&place, &["--name", &two], &["sleep"]);
        assert_eq!(place.run(&["runtime", "stop", &one]).expect(0).out.trim(), id);
        assert!(!first.wait().unwrap().success());
        assert_eq!(place.run(&["runtime", "kill", &two]).expect(0).out.lines().count(), 1);
        assert!(!second.wait().unwrap().success());
        for verb in ["stop", "kill"] {
            place.run(&["runtime", verb, &one]).expect(2).one_error(&["error[input]", &one, "help:"]);
        }
        // An id is enough, also a part of one, and a name is free again.
        let (mut third, listed) = start(&place, &["--name", &one], &["sleep"]);
        place.run(&["runtime", "kill", &listed["id"].as_str().unwrap()[..10]]).expect(0);
        third.wait().unwrap();
        assert!(list(&place).is_empty());
    }
}

#[test]
fn launcher_that_was_killed_is_not_listed() {
    let place = place(As::User);
    let name = prefix(&place);
    let (mut child, _) = start(&place, &["--name", &name], &["sleep"]);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(list(&place).is_empty());
    // Its name is free.
    place.run(&["runtime", "run", "--name", &name, IMAGE, "--", "noop"]).expect(0);
}

#[test]
fn command_has_the_time_of_stop_timeout_to_end() {
    let place = place(As::User);
    let name = prefix(&place);
    for (time, least, most) in [("1s", 1, 3), ("0", 0, 2), ("5s", 5, 8)] {
        let (mut child, _) = start(&place, &["--name", &name, "--stop-timeout", time], &["ignore-term"]);
        // The command must have started to ignore the signal.
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        place.run(&["runtime", "stop", &name]).expect(0);
        let seconds = start.elapsed().as_secs();
        assert!((least..=most).contains(&seconds), "{time}: {seconds} s");
        assert!(!child.wait().unwrap().success());
    }
}

#[test]
fn bad_names_and_times_are_usage_errors() {
    let place = Place::new(As::User);
    for (option, value) in [
        ("--name", ""),
        ("--name", "-x"),
        ("--name", "a/b"),
        ("--name", "a\u{1b}b"),
        ("--stop-timeout", "soon"),
        ("--stop-timeout", "2d"),
    ] {
        let option = format!("{option}={value}");
        place.run(&["runtime", "run", &option, IMAGE, "--", "/none"]).expect(125);
    }
}
