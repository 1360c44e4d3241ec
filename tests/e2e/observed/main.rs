//! The recorded observations of a run match the kernel. These tests read the state of the processes
//! on the host while the workload runs and compare every control, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

mod kernel;
mod sys;

use invarlock_tests::{As, Place, both, demo, is_root, layout, program, read_json, root};
use kernel::{Running, device_and_inode, running, signal};
use rustix::process::Signal;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Controls of init that cannot be read from outside the process. A separate test checks the effect
/// of each.
const BY_EFFECT: [&str; 3] = ["secure_bits", "parent_death_signal", "landlock"];
/// Controls that init observes. The supervisor observes all others.
const OBSERVED_BY_INIT: [&str; 7] = [
    "secure_bits",
    "landlock",
    "ids_inside",
    "host_name",
    "environment",
    "parent_death_signal",
    "user_limits",
];

/// Starts `invarlock` with its output in files of the place.
fn start(place: &Place, args: &[&str]) -> Child {
    let file = |name: &str| Stdio::from(File::create(place.path(name)).unwrap());
    place.command(args).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap()
}

/// Starts a workload that sleeps, calls `inspect`, then ends the run with `end`. Returns the result
/// of `inspect` and the JSON outcome.
fn run<T>(
    place: &Place,
    user: As,
    inspect: impl FnOnce(u32, Running) -> T,
    end: impl FnOnce(Running),
) -> (T, Value) {
    // A third-party image, which runs under the general profile.
    let image = layout::of_program(place, "sleeper", &program("invarlock-workload"));
    let mut args = vec!["runtime", "run", &image, "--json"];
    args.extend(["--pids", "40", "--tmp-size", "3M", "--output-size", "2M", "--timeout", "77"]);
    if is_root() && user == As::Caller {
        args.extend(["--memory", "128M", "--cpus", "0.5"]);
    }
    args.extend(["--", "/workload", "ignore-term"]);
    let mut launcher = start(place, &args);
    let container = running(launcher.id(), "workload");
    // After this line the workload only sleeps and has no open files of its own.
    while !std::fs::read_to_string(place.path("stdout")).unwrap().contains("ignoring") {
        std::thread::sleep(Duration::from_millis(1));
    }
    let inspected = inspect(launcher.id(), container);
    end(container);
    launcher.wait().unwrap();
    let stderr = std::fs::read_to_string(place.path("stderr")).unwrap();
    let outcome = stderr.lines().find_map(|line| serde_json::from_str(line).ok());
    (inspected, outcome.unwrap_or(Value::Null))
}

/// Compares every observed control with the kernel's state and checks its observer. Returns the
/// number of controls.
fn compare(label: &str, kernel: &Map<String, Value>, observations: &Value) -> usize {
    let mut differences = Vec::new();
    let controls = observations.as_object().unwrap_or_else(|| panic!("{label}: {observations}"));
    assert_eq!(controls["mode"], "container");
    for (name, control) in controls.iter().filter(|(name, _)| *name != "mode") {
        let observer = if OBSERVED_BY_INIT.contains(&name.as_str()) { "init" } else { "supervisor" };
        let value = &control["value"];
        let same = match (name.as_str(), kernel.get(name)) {
            ("limits", Some(found)) => same_limits(found, value),
            ("seccomp", Some(found)) => same_filter(found, value),
            ("inputs", Some(found)) => same_in_any_order(found, value),
            (name, None) => BY_EFFECT.contains(&name),
            (_, Some(found)) => found == value,
        };
        if !same || control["observer"] != observer {
            differences
                .push(format!("{name} was observed as {control}, the kernel reports {:?}", kernel.get(name)));
        }
    }
    for name in kernel.keys().map(String::as_str).chain(BY_EFFECT) {
        assert!(controls.contains_key(name), "{label}: {name} was not observed");
    }
    assert!(differences.is_empty(), "{label}:\n{}", differences.join("\n"));
    controls.len() - 1
}

fn same_in_any_order(one: &Value, other: &Value) -> bool {
    let (one, other) = (one.as_array().unwrap(), other.as_array().unwrap());
    one.len() == other.len() && one.iter().all(|item| other.contains(item))
}

/// Every observed limit equals the kernel's value for its mechanism and is not above the requested
/// value.
fn same_limits(kernel: &Value, observed: &Value) -> bool {
    let names = ["memory", "pids", "cpu", "core", "files", "wall", "output", "output_files", "tmp"];
    let limits = observed.as_array().unwrap();
    let is_same = |name: &str| {
        let Some(limit) = limits.iter().find(|limit| limit["name"] == name) else { return false };
        let by = limit["by"].as_str().unwrap();
        let enforced =
            by == "watchdog" || (limit["effective"] == kernel[name][by] && limit["effective"].is_u64());
        enforced && (by == "affinity" || limit["effective"].as_u64() <= limit["asked"].as_u64())
    };
    limits.len() == names.len() && names.iter().all(|name| is_same(name))
}

/// Compares the seccomp state. An ordinary user cannot read the filter program back, so the digest
/// is not compared.
fn same_filter(kernel: &Value, observed: &Value) -> bool {
    let mut kernel = kernel.clone();
    if kernel["digest"].is_null() {
        kernel["digest"] = observed["digest"].clone();
    }
    kernel == *observed && observed["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:"))
}

/// The paths of all members of a JSON value. The items of a list share the path `*`.
fn shape(value: &Value) -> BTreeSet<String> {
    let below = |name: &str, value: &Value| -> Vec<String> {
        shape(value).into_iter().map(|path| format!("{name}/{path}")).chain([name.to_owned()]).collect()
    };
    match value {
        Value::Object(members) => members.iter().flat_map(|(name, value)| below(name, value)).collect(),
        Value::Array(items) => items.iter().flat_map(|item| below("*", item)).collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn run_observations_match_the_kernel() {
    for user in both() {
        let place = Place::new(user);
        let kill = |container: Running| signal(container.workload, Signal::KILL);
        let (kernel, outcome) = run(&place, user, |launcher, container| container.controls(launcher), kill);
        assert_eq!(outcome["status"], serde_json::json!({"signaled": 9}), "{outcome}");
        let count = compare(&format!("a run as {user:?}"), &kernel, &outcome["observations"]);
        assert_eq!(count, 27, "{outcome}");
        let limits = outcome["observations"]["limits"]["value"].as_array().unwrap();
        let asked = |name: &str| {
            limits.iter().find(|limit| limit["name"] == name).unwrap()["asked"].as_u64().unwrap()
        };
        assert_eq!(
            [asked("pids"), asked("tmp"), asked("output"), asked("wall")],
            [40, 3 << 20, 2 << 20, 77_000]
        );
        // Only the process itself can read its secure bits. The probe's attacker reports its own.
        let probe = place.run(&["runtime", "probe", "--json"]).expect(0).json();
        let bits =
            probe["attacks"].as_array().unwrap().iter().find(|attack| attack["id"] == "secure-bits").unwrap();
        assert_eq!(outcome["observations"]["secure_bits"]["value"], bits["seen"]);
    }
}

/// The kernel sends SIGKILL to init when the supervisor dies, even if init is stopped. The workload
/// ends with init.
#[test]
fn init_gets_the_observed_parent_death_signal() {
    for user in both() {
        let place = Place::new(user);
        let stop_init_and_kill_supervisor = |container: Running| {
            signal(container.init, Signal::STOP);
            signal(container.supervisor, Signal::KILL);
        };
        let (container, outcome) = run(&place, user, |_, container| container, stop_init_and_kill_supervisor);
        assert_eq!(outcome["error"]["kind"], "system", "{outcome}");
        assert!(!stays_alive(container), "{user:?}: the container outlived its supervisor");
        let kill = |container: Running| signal(container.workload, Signal::KILL);
        let ((), outcome) = run(&place, user, |_, _| (), kill);
        assert_eq!(outcome["observations"]["parent_death_signal"]["value"], 9);
    }
}

/// Whether init or the workload is still alive after 2 s. A killed process does not end at once.
fn stays_alive(container: Running) -> bool {
    let alive = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    };
    for _ in 0..200 {
        if !alive(container.init) && !alive(container.workload) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// The manifest of an evaluation records the kernel's state of its two containers, and the identity
/// of the mounted files.
#[test]
fn manifest_observations_match_the_kernel() {
    for user in both() {
        let place = Place::new(user);
        let (baseline, subject) =
            (place.copy_dir(&demo("baseline"), "base"), place.copy_dir(&demo("healthy"), "subj"));
        for name in ["valid.jsonl", "preset.yaml"] {
            place.write(name, &std::fs::read(demo(name)).unwrap());
        }
        let (baseline_dir, subject_dir) = (baseline.to_str().unwrap(), subject.to_str().unwrap());
        let args = [
            "evaluate",
            "--quiet",
            "--baseline",
            baseline_dir,
            "--subject",
            subject_dir,
            "--preset",
            "preset.yaml",
            "--no-gate",
        ];
        let mut launcher = start(&place, &args);
        let mut inspected = Vec::new();
        // The check of each side comes first and is short; the manifest records the measurements.
        for is_measurement in [false, false, true, true] {
            let container = running(launcher.id(), "invarlock-evalu");
            if is_measurement {
                // Stop the evaluator while it works.
                signal(container.workload, Signal::STOP);
                let mut controls = container.controls(launcher.id());
                signal(container.workload, Signal::CONT);
                // Ignore the descriptors that the evaluator opened itself.
                controls["descriptors"]
                    .as_array_mut()
                    .unwrap()
                    .retain(|descriptor| descriptor["fd"].as_u64() < Some(3));
                inspected.push(controls);
            }
            while std::path::Path::new(&format!("/proc/{}", container.workload)).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let status = launcher.wait().unwrap();
        let stderr = std::fs::read_to_string(place.path("stderr")).unwrap();
        assert!(status.success(), "{stderr}");
        let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
        for (side, kernel) in ["baseline", "subject"].iter().zip(&inspected) {
            let observations = &manifest["context"]["sides"][side]["observations"];
            assert_eq!(compare(&format!("the {side} as {user:?}"), kernel, observations), 27);
        }
        // The tests of the verifier modify a committed manifest of the same shape.
        let name = if user == As::Caller && is_root() { "root" } else { "user" };
        let committed = format!("evidence/tests/data/honest/{name}/runtime.manifest.json");
        assert_eq!(
            shape(&manifest["context"]),
            shape(&read_json(&root().join(committed))["context"]),
            "evidence/tests/data/honest is from an older version"
        );
        // The mounted file is the one that the user named.
        let inputs =
            manifest["context"]["sides"]["subject"]["observations"]["inputs"]["value"].as_array().unwrap();
        let weights =
            inputs.iter().find(|input| input["target"] == "/in/checkpoint/model.safetensors").unwrap();
        assert_eq!(weights["file"], device_and_inode(&subject.join("model.safetensors").metadata().unwrap()));
    }
}
