//! Each control of the boundary, as the workload observes it and as the supervisor records it.

mod common;

use common::{Caller, WORKLOAD, assert_leaves_nothing, callers, launch, plan, printed, stage};
use invarlock_runtime::HOST_IDS;
use serde_json::{Value, json};

const EPERM: i64 = 1;
const ENOENT: i64 = 2;
const EACCES: i64 = 13;
const EROFS: i64 = 30;
const EAFNOSUPPORT: i64 = 97;
const ENETUNREACH: i64 = 101;
const ECONNREFUSED: i64 = 111;

fn observe(caller: Caller, image: &str) -> (Value, Value) {
    let mut plan = plan(&["see"]);
    plan["rootfs"] = json!([stage().join(image)]);
    plan["bytes"] = json!([["/in/job.json", "{}"], ["/in/a/b/c.txt", "deep"]]);
    let outcome = launch(caller, &plan);
    assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
    (printed(&outcome), outcome["result"]["observations"].clone())
}

#[test]
fn every_control_is_enforced() {
    assert_leaves_nothing(|| {
        for caller in callers("every_control_is_enforced") {
            for image in ["bare", "whole"] {
                let (inside, outside) = observe(caller, image);
                network(&inside, &outside);
                identity(caller, &inside, &outside);
                privileges(&inside, &outside);
                file_systems(&inside, &outside);
                process(&inside, &outside);
            }
        }
    });
}

fn network(inside: &Value, outside: &Value) {
    assert_eq!(inside["interfaces"], json!(["lo"]));
    assert_eq!(outside["interfaces"]["value"], json!(["lo"]));
    assert_eq!(outside["routes"]["value"], json!([]));
    for address in ["192.0.2.1", "2001:db8::1"] {
        let errno = &inside["connect"][address];
        assert!(
            [json!(ENETUNREACH), json!(EPERM), json!(EAFNOSUPPORT)].contains(errno),
            "connect to {address}: {errno}"
        );
    }
    // `lo` is up, so a connection is refused and the network is not unreachable.
    assert!(
        [json!(ECONNREFUSED), json!(EPERM)].contains(&inside["connect"]["127.0.0.1"]),
        "{}",
        inside["connect"]
    );
}

fn identity(caller: Caller, inside: &Value, outside: &Value) {
    let id = |name: &str| outside["identity"]["value"][name][0].as_u64().unwrap_or_default() as u32;
    let (host, within, groups) = match caller {
        Caller::Root => (id("uid"), 65_532, json!([])),
        Caller::User => (own_uid(), 0, outside["identity"]["value"]["groups"].clone()),
    };
    if caller == Caller::Root {
        assert!(HOST_IDS.contains(&host) && id("gid") == host, "{host}");
    }
    assert_eq!(inside["status"]["Uid"], format!("{within} {within} {within} {within}"));
    assert_eq!(inside["status"]["Gid"], format!("{within} {within} {within} {within}"));
    assert_eq!(outside["identity"]["value"]["uid"], json!([host, host, host, host]));
    assert_ne!(host, 0);
    assert_eq!(outside["identity"]["value"]["groups"], groups);
    assert_eq!(outside["id_maps"]["value"]["setgroups"], "deny");
    if caller == Caller::Root {
        assert_eq!(inside["status"]["Groups"], "");
    } else {
        assert_eq!(outside["id_maps"]["value"]["uid"], json!([format!("0 {host} 1")]));
    }
}

fn own_uid() -> u32 {
    if rustix::process::geteuid().is_root() { common::USER } else { rustix::process::geteuid().as_raw() }
}

fn privileges(inside: &Value, outside: &Value) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(inside["status"][set], "0000000000000000", "{set}");
    }
    assert_eq!(inside["status"]["NoNewPrivs"], "1");
    assert_eq!(inside["status"]["Seccomp"], "2");
    assert_eq!(outside["seccomp"]["value"]["mode"], 2);
    assert!(outside["seccomp"]["value"]["digest"].as_str().is_some_and(|d| d.starts_with("sha256:")));
    let namespaces = outside["namespaces"]["value"].as_object().expect("namespaces");
    assert_eq!(namespaces.len(), 7);
    assert!(
        namespaces.values().all(|n| n["new"] == true && n["launcher"] != n["container"]),
        "{namespaces:?}"
    );
}

fn file_systems(inside: &Value, outside: &Value) {
    let writes = inside["writes"].as_object().expect("writes");
    for (path, result) in writes {
        let writable = ["/out/x", "/tmp/x"].contains(&path.as_str());
        let denied = || [EROFS, EACCES, EPERM, ENOENT].iter().any(|errno| *result == json!(errno));
        let good = if writable { *result == "ok" } else { denied() };
        assert!(good, "writing {path}: {result}");
    }
    assert_eq!(inside["dev"], json!(["full", "null", "random", "urandom", "zero"]));
    let numbers = json!({"full": "1:7", "null": "1:3", "random": "1:8", "urandom": "1:9", "zero": "1:5"});
    assert_eq!(outside["devices"], json!({"observer": "supervisor", "value": numbers}));
    let root = inside["root"].as_array().expect("names");
    let expected = ["dev", "in", "out", "proc", "tmp", "workload"];
    assert!(root.iter().all(|n| expected.contains(&n.as_str().unwrap_or_default())), "{root:?}");
    assert!(!inside["mounts"].to_string().contains("cgroup"), "a cgroup file system is visible");
    for row in outside["mounts"]["value"].as_array().expect("mounts") {
        let nosuid = row["options"].as_str().expect("options").split(',').any(|o| o == "nosuid");
        assert!(nosuid || row["target"].as_str().is_some_and(|t| t.starts_with("/proc/")), "{row}");
        assert_eq!(row["propagation"], "private", "{row}");
    }
}

fn process(inside: &Value, outside: &Value) {
    assert_eq!(inside["pid"], 2);
    assert_eq!(inside["processes"], json!(["1", "2"]));
    assert_eq!(inside["descriptors"], json!([0, 1, 2]));
    assert_eq!(inside["stdin"], "/dev/null");
    assert_eq!(inside["environment"], json!(["LANG=C", "PATH=/"]));
    assert_eq!(outside["environment"]["value"], json!(["LANG", "PATH"]));
    assert_eq!(inside["hostname"], "invarlock");
    assert_eq!(inside["cwd"], "/");
    let fds: Vec<u64> = outside["descriptors"]["value"]
        .as_array()
        .expect("fds")
        .iter()
        .filter_map(|d| d["fd"].as_u64())
        .collect();
    assert_eq!(fds, [0, 1, 2]);
    // The executable, descriptors and environment of init cannot be opened; killing init from inside has no effect.
    for file in ["exe", "fd", "environ"] {
        assert!(
            [json!(EACCES), json!(EPERM)].contains(&inside["init"][file]),
            "init's {file}: {}",
            inside["init"]
        );
    }
    // With Landlock of Linux 6.12 or newer, no signal reaches init.
    if outside["landlock"]["value"] == "full" {
        assert_eq!(inside["init"]["signal"], EPERM, "{}", inside["init"]);
    }
    let core = inside["limits"]
        .as_array()
        .expect("limits")
        .iter()
        .find(|l| l.to_string().contains("Max core file size"));
    assert!(
        core.is_some_and(|l| l.to_string().split_whitespace().filter(|w| *w == "1").count() == 2),
        "{core:?}"
    );
}

#[test]
fn exit_code_and_signal_are_reported() {
    assert_leaves_nothing(|| {
        for caller in callers("exit_code_and_signal_are_reported") {
            assert_eq!(launch(caller, &plan(&["exit", "7"]))["result"]["status"], json!({"exited": 7}));
            let killed = launch(caller, &plan(&["raise", "9"]));
            assert_eq!(killed["result"]["status"], json!({"signaled": 9}), "{killed:#}");
        }
    });
}

#[test]
fn missing_program_or_directory_is_reported() {
    assert_leaves_nothing(|| {
        for caller in callers("missing_program_or_directory_is_reported") {
            let mut plan = plan(&[]);
            plan["argv"] = json!(["/nothing-here"]);
            common::assert_error(&launch(caller, &plan), "input", &["/nothing-here", "No such file"]);
            // The executable that this link names is the launcher's.
            for argv in ["/proc/self/exe", "/proc/1/exe", "/proc/self/root/workload"] {
                plan["argv"] = json!([argv, "noop"]);
                common::assert_error(&launch(caller, &plan), "input", &[argv]);
            }
            plan["argv"] = json!(["/workload", "noop"]);
            plan["cwd"] = json!("/nowhere");
            common::assert_error(&launch(caller, &plan), "input", &["/nowhere"]);
        }
    });
}

#[test]
fn program_starts_under_the_evaluator_profile() {
    assert_leaves_nothing(|| {
        for caller in callers("program_starts_under_the_evaluator_profile") {
            let mut plan = plan(&["exit", "3"]);
            plan["filter"] = json!("evaluator");
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 3}), "{outcome:#}");
        }
    });
}

#[test]
fn launcher_under_a_filter_can_run_containers() {
    assert_leaves_nothing(|| {
        for caller in callers("launcher_under_a_filter_can_run_containers") {
            let mut plan = plan(&["exit", "3"]);
            plan["filtered"] = json!(true);
            let outcome = launch(caller, &plan);
            assert_eq!(outcome["result"]["status"], json!({"exited": 3}), "{outcome:#}");
            let seccomp = &outcome["result"]["observations"]["seccomp"]["value"];
            assert!(
                seccomp["filters"].as_u64() > seccomp["inherited"].as_u64() && seccomp["inherited"] != 0,
                "{seccomp}"
            );
        }
    });
}

#[test]
fn supplementary_groups_are_dropped() {
    if !common::is_root_or_skip("supplementary_groups_are_dropped") {
        return;
    }
    assert_leaves_nothing(|| {
        let command = common::launcher(Caller::Root, &plan(&["see"]));
        let mut with_groups = std::process::Command::new("setpriv");
        with_groups.args(["--groups", "4,27", "--"]).arg(command.get_program()).args(command.get_args());
        let out = with_groups.output().expect("setpriv");
        let outcome: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!(printed(&outcome)["status"]["Groups"], "");
        assert_eq!(outcome["result"]["observations"]["identity"]["value"]["groups"], json!([]));
    });
}

#[test]
fn layers_are_stacked() {
    assert_leaves_nothing(|| {
        for caller in callers("layers_are_stacked") {
            let (low, high) = (common::scratch_dir(caller), common::scratch_dir(caller));
            for (layer, text) in [(&low, "low"), (&high, "high")] {
                std::fs::create_dir(layer.join("etc")).expect("a directory");
                std::fs::write(layer.join("etc/name"), text).expect("a file");
                std::fs::write(layer.join(text), text).expect("a file");
            }
            std::fs::copy(WORKLOAD, low.join("workload")).expect("the program");
            for (file, text) in [("/etc/name", "high"), ("/low", "low"), ("/high", "high")] {
                let mut plan = plan(&["cat", file]);
                plan["rootfs"] = json!([low, high]);
                let outcome = launch(caller, &plan);
                assert_eq!(outcome["stdout"], text, "{outcome:#}");
            }
        }
    });
}

#[test]
fn links_in_the_image_do_not_redirect_mounts() {
    assert_leaves_nothing(|| {
        for caller in callers("links_in_the_image_do_not_redirect_mounts") {
            let canary = common::scratch_dir(caller);
            std::fs::write(canary.join("file"), "untouched").expect("a canary");
            for name in ["dev", "in", "out", "proc", "tmp"] {
                let image = common::scratch_dir(caller);
                std::fs::copy(WORKLOAD, image.join("workload")).expect("the program");
                std::os::unix::fs::symlink(&canary, image.join(name)).expect("a link");
                let mut plan = plan(&["noop"]);
                plan["rootfs"] = json!([image]);
                common::assert_error(&launch(caller, &plan), "safety", &[name]);
            }
            assert_eq!(std::fs::read_dir(&canary).expect("the canary").count(), 1);
            assert_eq!(std::fs::read_to_string(canary.join("file")).expect("the canary"), "untouched");
        }
    });
}

/// Two runs by root in pid namespaces of their own, where all processes have the same ids, have different ids on the host.
#[test]
fn runs_in_other_pid_namespaces_have_other_host_ids() {
    if !common::is_root_or_skip("runs_in_other_pid_namespaces_have_other_host_ids") {
        return;
    }
    assert_leaves_nothing(|| {
        let host_id = || {
            let launcher = common::launcher(Caller::Root, &plan(&["noop"]));
            let mut command = std::process::Command::new("unshare");
            command.args(["--pid", "--fork", "--mount-proc", "--", "sh", "-c", "\"$@\"; exit $?", "sh"]);
            command.arg(launcher.get_program()).args(launcher.get_args());
            let out = command.output().expect("the launcher");
            let outcome: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            let id = outcome["result"]["observations"]["identity"]["value"]["uid"][0].as_u64();
            id.unwrap_or_else(|| panic!("{outcome:#}"))
        };
        assert_ne!(host_id(), host_id());
    });
}
