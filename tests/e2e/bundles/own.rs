//! Bundles of `runtime bundle`: under other runtimes, and here.

use super::{fill, not_granted, outcome};
use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, is_root, read_json, skip};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A runtime that runs `bundle` in a mount namespace of its own: crun refuses machines with both versions of cgroups.
fn other_runtime(place: &Place, runtime: &str, user: As, id: &str) -> Command {
    let state = place.work(&format!("state-{runtime}"));
    let mut command = place.command_of(Path::new(runtime), &["--root", state.to_str().unwrap()]);
    if user == As::User && runtime == "crun" {
        command.args(["--cgroup-manager", "disabled"]);
    }
    command.args(["run", "--bundle", "ours", id]);
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null || true";
    let mut command = match is_root() {
        true => place.inside(&["--mount"], script, &command),
        false => command,
    };
    // crun gives the standard streams to the user of the container, which must not happen to the /dev/null of the host.
    command.stdin(Stdio::piped());
    command
}

fn is_installed(runtime: &str) -> bool {
    Command::new(runtime).arg("--version").output().is_ok()
}

/// What a workload observes, without what must differ.
fn comparable(mut seen: Value, is_root: bool) -> Value {
    let object = seen.as_object_mut().unwrap();
    // Other runtimes have no init, and so other process ids; they name their pipes and devices themselves.
    for name in ["pid", "processes", "stdin", "init", "dev", "mounts", "descriptors"] {
        object.remove(name);
    }
    object["writes"].as_object_mut().unwrap().remove("/proc/1/mem");
    let mut limits: Vec<Value> = object["limits"].as_array().unwrap().clone();
    // Without a limit of its own, a bundle has those of the caller.
    limits.retain(|line| {
        ![
            "Max cpu time",
            "Max file size",
            "Max resident set",
            "Max address space",
            "Max file locks",
            "Max realtime timeout",
        ]
        .iter()
        .any(|name| line.as_str().unwrap().starts_with(name))
    });
    if !is_root {
        // Four times the free memory, unless a limit is set.
        limits.retain(|line| !line.as_str().unwrap().starts_with("Max data size"));
    }
    object.insert("limits".to_owned(), json!(limits));
    // The number of filters counts those of the programs above.
    object["status"].as_object_mut().unwrap().remove("Seccomp_filters");
    seen
}

/// Targets and options of the mounts.
fn mounts(seen: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let lines = seen["mounts"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    let mount = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let options = fields[5].split(',').filter(|option| !option.contains("atime")).map(str::to_owned);
        (fields[4].to_owned(), options.collect())
    };
    lines.map(mount).collect()
}

/// The options that a mount must also have under another runtime: docs/bundles.md lists those that a configuration cannot express.
fn required(target: &str, options: &BTreeSet<String>) -> BTreeSet<String> {
    const READ_ONLY: [&str; 6] =
        ["/", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    // A device is not read-only there. A masked file is covered by the null device, a masked directory by an empty one.
    let device_or_mask = target.starts_with("/dev/") && target != "/dev/shm"
        || target.starts_with("/proc/") && !READ_ONLY.contains(&target);
    let is_required = |option: &&String| match READ_ONLY.contains(&target) {
        true => *option == "ro",
        false => !device_or_mask && *option != "rw",
    };
    options.iter().filter(is_required).cloned().collect()
}

#[test]
fn our_bundle_has_the_same_boundary_under_other_runtimes() {
    const NAME: &str = "our_bundle_has_the_same_boundary_under_other_runtimes";
    for user in both() {
        for app in ["", "app"] {
            let place = Place::new(user);
            let layout = Layout::of_tree_with_modes(&place, "image", fill, |_| {});
            let image = layout.image("test", &json!({"Entrypoint": ["workload"], "User": app, "WorkingDir": "/work/here", "Env": ["PATH=/bin"]}));
            let options = ["--memory", "256M", "--pids", "50", "--cpus", "1"];
            let by_root = user == As::Caller && is_root();
            let options: &[&str] = if by_root { &options } else { &[] };
            let ours =
                place.run(&[&["runtime", "run"], options, &[&image, "--", "see"]].concat()).expect(0).json();
            place.run(&[&["runtime", "bundle"], options, &[&image, "ours", "--", "see"]].concat()).expect(0);
            for runtime in ["crun", "runc"] {
                if !is_installed(runtime) {
                    skip(NAME, &format!("{runtime} is not installed"));
                    continue;
                }
                if runtime == "runc" && !by_root && !app.is_empty() {
                    skip(NAME, "runc started by a user needs a bundle whose user inside is 0");
                    continue;
                }
                let id = format!("invarlock-{}-{runtime}-{}{app}", std::process::id(), user == As::User);
                let ran = Ran::from(other_runtime(&place, runtime, user, &id).output().unwrap());
                let theirs = ran.expect(0).json();
                assert_eq!(
                    comparable(theirs.clone(), by_root),
                    comparable(ours.clone(), by_root),
                    "{runtime} {user:?} {app}"
                );
                let other = mounts(&theirs);
                for (target, options) in mounts(&ours) {
                    let found =
                        other.get(&target).unwrap_or_else(|| panic!("{runtime}: no mount at {target}"));
                    let missing: Vec<_> = required(&target, &options).difference(found).cloned().collect();
                    assert_eq!(missing, Vec::<String>::new(), "{runtime} {user:?} {app}: {target}");
                }
            }
        }
    }
}

#[test]
fn our_bundle_belongs_to_the_user_and_is_whole_or_not_there() {
    for user in both() {
        let place = Place::new(user);
        let layout = Layout::of_tree(&place, "image", fill);
        let image = layout.image("test", &json!({"Entrypoint": ["/bin/workload"]}));
        let output =
            place.run(&["runtime", "bundle", "--json", &image, "ours", "--", "noop"]).expect(0).json();
        let path = place.work("ours");
        let config = read_json(&path.join("config.json"));
        assert_eq!(
            config["annotations"]["org.invarlock.image.manifest-digest"],
            output["image"]["manifest_digest"]
        );
        assert_eq!(config["process"]["args"], json!(["/bin/workload", "noop"]));
        let owner = path.join("rootfs/bin/workload").metadata().unwrap();
        assert_eq!(json!([owner.uid(), owner.gid()]), output["owner"]);
        assert!(owner.uid() != 0, "a file of the bundle belongs to root");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o710);
        // It runs here too, and nothing in it is asked for in vain.
        let ran = place.run(&["runtime", "run", "--bundle", "ours", "--json"]).expect(0);
        let mut list = not_granted(&outcome(&ran));
        // The default limit depends on the free memory.
        list.retain(|one| !one.contains("memory.limit") && !one.contains("RLIMIT_DATA"));
        assert_eq!(list, BTreeSet::new());
        // A bundle that is there stays; a failure leaves nothing.
        place.run(&["runtime", "bundle", &image, "ours"]).expect(2).one_error(&["it exists"]);
        place.run(&["runtime", "bundle", "none:1", "other"]).expect(2);
        place
            .run(&["runtime", "bundle", &layout.image("empty", &json!({})), "other"])
            .expect(2)
            .one_error(&["no command"]);
        assert_eq!(place.names("work"), ["ours"]);
    }
}
