//! What a run says that the kernel said of it is what the kernel says: these tests read it for themselves, from the host, while the workload
//! is there, row by row, as root and as an ordinary user.
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

/// Controls of init that cannot be read from outside a process: a separate test checks the effect of each.
const BY_EFFECT: [&str; 2] = ["secure_bits", "parent_death_signal"];
/// Rows that init sees; the supervisor sees all others.
const OF_INIT: [&str; 5] = ["secure_bits", "ids_inside", "host_name", "environment", "parent_death_signal"];

/// Starts it with its output in files of the place.
fn start(place: &Place, args: &[&str]) -> Child {
    let file = |name: &str| Stdio::from(File::create(place.path(name)).unwrap());
    place.command(args).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap()
}

/// Runs the sleeper, looks at it, and ends it by `end`. Gives what `--json` says.
fn run<T>(
    place: &Place,
    user: As,
    look: impl FnOnce(u32, Running) -> T,
    end: impl FnOnce(Running),
) -> (T, Value) {
    // An image of a stranger's, which gets the general filter.
    let image = layout::of_program(place, "sleeper", &program("invarlock-workload"));
    let mut args = vec!["runtime", "run", &image, "--json"];
    args.extend(["--pids", "40", "--tmp-size", "3M", "--output-size", "2M", "--timeout", "77"]);
    if is_root() && user == As::Caller {
        args.extend(["--memory", "128M", "--cpus", "0.5"]);
    }
    args.extend(["--", "/workload", "ignore-term"]);
    let mut launcher = start(place, &args);
    let container = running(launcher.id(), "workload");
    // From here on it only sleeps, and holds nothing open of its own.
    while !std::fs::read_to_string(place.path("stdout")).unwrap().contains("ignoring") {
        std::thread::sleep(Duration::from_millis(1));
    }
    let looked = look(launcher.id(), container);
    end(container);
    launcher.wait().unwrap();
    let said = std::fs::read_to_string(place.path("stderr")).unwrap();
    let json = said.lines().find_map(|line| serde_json::from_str(line).ok());
    (looked, json.unwrap_or(Value::Null))
}

/// Each row of the observations must say what was read here, and name who saw it. Returns how many were compared.
fn compare(what: &str, kernel: &Map<String, Value>, seen: &Value) -> usize {
    let mut wrong = Vec::new();
    let rows = seen.as_object().unwrap_or_else(|| panic!("{what}: {seen}"));
    assert_eq!(rows["mode"], "container");
    for (name, row) in rows.iter().filter(|(name, _)| *name != "mode") {
        let observer = if OF_INIT.contains(&name.as_str()) { "init" } else { "supervisor" };
        let value = &row["value"];
        let same = match (name.as_str(), kernel.get(name)) {
            ("limits", Some(found)) => same_limits(found, value),
            ("seccomp", Some(found)) => same_filter(found, value),
            // In any order.
            ("inputs", Some(found)) => same_rows(found, value),
            (name, None) => BY_EFFECT.contains(&name),
            (_, Some(found)) => found == value,
        };
        if !same || row["observer"] != observer {
            wrong.push(format!("{name} was observed as {row}, the kernel says {:?}", kernel.get(name)));
        }
    }
    for name in kernel.keys().map(String::as_str).chain(BY_EFFECT) {
        assert!(rows.contains_key(name), "{what}: {name} was not observed");
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    rows.len() - 1
}

fn same_rows(one: &Value, other: &Value) -> bool {
    let (one, other) = (one.as_array().unwrap(), other.as_array().unwrap());
    one.len() == other.len() && one.iter().all(|row| other.contains(row))
}

/// Every limit was read back as what holds it says, and is not above what was asked for.
fn same_limits(kernel: &Value, seen: &Value) -> bool {
    let names = ["memory", "pids", "cpu", "core", "files", "wall", "output", "output_files", "tmp"];
    let rows = seen.as_array().unwrap();
    let one = |name: &str| {
        let Some(row) = rows.iter().find(|row| row["name"] == name) else { return false };
        let by = row["by"].as_str().unwrap();
        let held = by == "watchdog" || (row["effective"] == kernel[name][by] && row["effective"].is_u64());
        held && (by == "affinity" || row["effective"].as_u64() <= row["asked"].as_u64())
    };
    rows.len() == names.len() && names.iter().all(|name| one(name))
}

/// As an ordinary user the filter program cannot be read back.
fn same_filter(kernel: &Value, seen: &Value) -> bool {
    let mut kernel = kernel.clone();
    if kernel["digest"].is_null() {
        kernel["digest"] = seen["digest"].clone();
    }
    kernel == *seen && seen["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:"))
}

/// Names of members, wherever they are; of lists, those of all items together.
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
fn every_row_of_a_run_is_what_the_kernel_says() {
    for user in both() {
        let place = Place::new(user);
        let kill = |container: Running| signal(container.workload, Signal::KILL);
        let (kernel, said) = run(&place, user, |launcher, container| container.rows(launcher), kill);
        assert_eq!(said["status"], serde_json::json!({"signaled": 9}), "{said}");
        let rows = compare(&format!("a run as {user:?}"), &kernel, &said["observations"]);
        assert_eq!(rows, 23, "{said}");
        let limits = said["observations"]["limits"]["value"].as_array().unwrap();
        let asked =
            |name: &str| limits.iter().find(|l| l["name"] == name).unwrap()["asked"].as_u64().unwrap();
        assert_eq!(
            [asked("pids"), asked("tmp"), asked("output"), asked("wall")],
            [40, 3 << 20, 2 << 20, 77_000]
        );
        // What no process can read of another, the attacker of the probe reads of itself.
        let probe = place.run(&["runtime", "probe", "--json"]).expect(0).json();
        let bits =
            probe["attacks"].as_array().unwrap().iter().find(|row| row["id"] == "secure-bits").unwrap();
        assert_eq!(said["observations"]["secure_bits"]["value"], bits["seen"]);
    }
}

/// Init gets SIGKILL from the kernel when its supervisor dies, even where it can do nothing by itself, and takes the workload along.
#[test]
fn the_death_signal_of_init_is_what_was_observed() {
    for user in both() {
        let place = Place::new(user);
        let cut = |container: Running| {
            signal(container.init, Signal::STOP);
            signal(container.supervisor, Signal::KILL);
        };
        let (container, said) = run(&place, user, |_, container| container, cut);
        assert_eq!(said["error"]["kind"], "system", "{said}");
        assert!(!is_left(container), "{user:?}: the container outlived its supervisor");
        let kill = |container: Running| signal(container.workload, Signal::KILL);
        let ((), said) = run(&place, user, |_, _| (), kill);
        assert_eq!(said["observations"]["parent_death_signal"]["value"], 9);
    }
}

/// Whether init or the workload is still there after a while: a killed process is a little while in dying.
fn is_left(container: Running) -> bool {
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

/// The manifest of an evaluation says the same of its two containers, and of the very files that were mounted.
#[test]
fn every_row_of_a_manifest_is_what_the_kernel_says() {
    for user in both() {
        let place = Place::new(user);
        let (baseline, subject) =
            (place.copy_dir(&demo("baseline"), "base"), place.copy_dir(&demo("healthy"), "subj"));
        for name in ["valid.jsonl", "preset.yaml"] {
            place.write(name, &std::fs::read(demo(name)).unwrap());
        }
        let (b, s) = (baseline.to_str().unwrap(), subject.to_str().unwrap());
        let args =
            ["evaluate", "--quiet", "--baseline", b, "--subject", s, "--preset", "preset.yaml", "--no-gate"];
        let mut launcher = start(&place, &args);
        let mut looks = Vec::new();
        for _ in 0..2 {
            let container = running(launcher.id(), "invarlock-evalu");
            // It is in the middle of its work.
            signal(container.workload, Signal::STOP);
            let mut rows = container.rows(launcher.id());
            signal(container.workload, Signal::CONT);
            // What it has opened itself since.
            rows["descriptors"].as_array_mut().unwrap().retain(|row| row["fd"].as_u64() < Some(3));
            looks.push(rows);
            while std::path::Path::new(&format!("/proc/{}", container.workload)).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let status = launcher.wait().unwrap();
        let said = std::fs::read_to_string(place.path("stderr")).unwrap();
        assert!(status.success(), "{said}");
        let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
        for (side, look) in ["baseline", "subject"].iter().zip(&looks) {
            let seen = &manifest["context"]["sides"][side]["observations"];
            assert_eq!(compare(&format!("the {side} as {user:?}"), look, seen), 23);
        }
        // What the verifier's own tests tamper with is such a manifest.
        let name = if user == As::Caller && is_root() { "root" } else { "user" };
        let kept = read_json(&root().join(format!("evidence/tests/data/context.{name}.json")));
        assert_eq!(shape(&manifest["context"]), shape(&kept), "evidence/tests/data is of an older version");
        // The mounted file is the one that the user named.
        let inputs =
            manifest["context"]["sides"]["subject"]["observations"]["inputs"]["value"].as_array().unwrap();
        let weights = inputs.iter().find(|i| i["target"] == "/in/checkpoint/model.safetensors").unwrap();
        assert_eq!(weights["file"], device_and_inode(&subject.join("model.safetensors").metadata().unwrap()));
    }
}
