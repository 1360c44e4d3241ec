//! `/sys` of `runtime run`: programs find the processors that they may use, and nothing else of the host's sysfs. Root and an ordinary user
//! see the same.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::Layout;
use invarlock_tests::{Place, Ran, both, program, read_json, skip, wrapped_by};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const PROCESSORS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

fn image(place: &Place, fill: impl FnOnce(&Path)) -> String {
    let fill = |rootfs: &Path| {
        fs::copy(program("invarlock-workload"), rootfs.join("workload")).unwrap();
        fill(rootfs);
    };
    Layout::of_tree(place, "image", fill).image("test", &json!({"Env": ["PATH=/bin:/"]}))
}

/// The numbers of a list of the kernel, such as `0-3,8`.
fn numbers(list: &str) -> BTreeSet<usize> {
    let number = |text: &str| text.trim().parse::<usize>().unwrap();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        number(first)..=number(last)
    };
    list.split(',').flat_map(range).collect()
}

/// The processors that this test, and so a run, may use.
fn own_affinity() -> BTreeSet<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    numbers(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap())
}

fn list(place: &Place, image: &str, paths: &[&str]) -> Value {
    let ran = place.run(&[&["runtime", "run", image, "--", "/workload", "list"], paths].concat());
    serde_json::from_str(&ran.expect(0).out).unwrap()
}

fn file(place: &Place, image: &str, path: &str) -> String {
    place.run(&["runtime", "run", image, "--", "/workload", "cat", path]).expect(0).out
}

#[test]
fn sys_has_the_topology_of_the_processors_and_nothing_else() {
    let affinity = own_affinity();
    if affinity.len() > 512 {
        return skip("sys_has_the_topology_of_the_processors_and_nothing_else", "more than 512 processors");
    }
    for user in both() {
        let place = Place::new(user);
        // What an image has at /sys is hidden.
        let image = image(&place, |rootfs| {
            fs::create_dir_all(rootfs.join("sys/class")).unwrap();
            fs::write(rootfs.join("sys/file"), "of the image").unwrap();
        });
        let topology: Vec<String> =
            affinity.iter().map(|cpu| format!("{PROCESSORS}/cpu{cpu}/topology")).collect();
        let mut paths = vec!["/sys", "/sys/devices", "/sys/devices/system", PROCESSORS, NODES];
        paths.extend(topology.iter().map(String::as_str));
        let found = list(&place, &image, &paths);
        assert_eq!(found["/sys"], json!(["devices"]));
        assert_eq!(found["/sys/devices"], json!(["system"]));
        let has_nodes = Path::new(NODES).join("online").exists();
        let directories = if has_nodes { json!(["cpu", "node"]) } else { json!(["cpu"]) };
        assert_eq!(found["/sys/devices/system"], directories);
        let mut expected: BTreeSet<String> = affinity.iter().map(|cpu| format!("cpu{cpu}")).collect();
        let files = ["kernel_max", "online", "possible", "present"];
        let here = |name: &&str| Path::new(PROCESSORS).join(name).exists();
        expected.extend(files.into_iter().filter(here).map(str::to_owned));
        expected.extend(["online", "present"].map(str::to_owned));
        assert_eq!(found[PROCESSORS], json!(expected));
        if has_nodes {
            let known = |name: &Value| {
                let name = name.as_str().unwrap();
                ["has_cpu", "online", "possible"].contains(&name) || name.starts_with("node")
            };
            assert!(found[NODES].as_array().unwrap().iter().all(known), "{found}");
        }
        // The values are those of the host.
        for directory in &topology {
            for name in found[directory].as_array().unwrap() {
                let path = format!("{directory}/{}", name.as_str().unwrap());
                let (seen, host) = (file(&place, &image, &path), fs::read_to_string(&path).unwrap());
                match path.ends_with("_list") {
                    true => {
                        let shown: BTreeSet<usize> =
                            numbers(&host).intersection(&affinity).copied().collect();
                        assert_eq!(numbers(&seen), shown, "{path}");
                    }
                    false if path.ends_with("_id") => assert_eq!(seen, host, "{path}"),
                    false => {}
                }
            }
        }
        assert_eq!(numbers(&file(&place, &image, &format!("{PROCESSORS}/online"))), affinity);
        // Nothing of it can be changed.
        let created = ["/sys/new", "/sys/devices/system/cpu/new", "/sys/devices/system/cpu/online"];
        let ran =
            place.run(&[&["runtime", "run", &image, "--", "/workload", "create"], &created[..]].concat());
        let answers: Value = serde_json::from_str(&ran.expect(0).out).unwrap();
        for path in created {
            assert!([13, 30].iter().any(|errno| answers[path] == *errno), "{user:?}: {answers}");
        }
    }
}

#[test]
fn sys_is_observed_and_recorded() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place, |_| ());
        let ran = place.run(&["runtime", "run", "--json", &image, "--", "/workload", "noop"]).expect(0);
        let record: Value =
            serde_json::from_str(ran.err.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
        let mounts = record["observations"]["mounts"]["value"].as_array().unwrap();
        let of_sys: Vec<_> =
            mounts.iter().filter(|mount| mount["target"].as_str().unwrap().starts_with("/sys")).collect();
        let [mount] = of_sys.as_slice() else { panic!("{of_sys:?}") };
        assert_eq!((&mount["kind"], &mount["propagation"]), (&json!("tmpfs"), &json!("private")), "{mount}");
        let options: Vec<_> = mount["options"].as_str().unwrap().split(',').collect();
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(options.contains(&option), "{mount}");
        }
        // A bundle has the same content.
        place.run(&["runtime", "bundle", &image, "bundle", "--", "/workload", "noop"]).expect(0);
        let config = read_json(&place.work("bundle/config.json"));
        let mounts = config["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["destination"] == "/sys").unwrap();
        assert_eq!(
            mount,
            &json!({"destination": "/sys", "type": "bind", "source": "sys", "options": ["bind", "ro", "nosuid", "nodev", "noexec"]})
        );
        let online = "devices/system/cpu/online";
        let of_bundle = fs::read_to_string(place.work("bundle/sys").join(online)).unwrap();
        assert_eq!(of_bundle, file(&place, &image, &format!("/sys/{online}")));
    }
}

/// Copies a program of this machine, and the libraries that it needs, into an image.
fn copy(rootfs: &Path, program: &Path) {
    let ldd = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&ldd.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::copy(program, rootfs.join("bin").join(program.file_name().unwrap())).unwrap();
    for library in libraries {
        let to = rootfs.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
}

/// nproc and getconf of glibc, and lscpu, count the processors of the affinity, which a job scheduler sets.
#[test]
fn programs_count_the_processors_that_they_may_use() {
    const NAME: &str = "programs_count_the_processors_that_they_may_use";
    let programs =
        ["/usr/bin/nproc", "/usr/bin/getconf", "/usr/bin/lscpu", "/usr/bin/taskset"].map(Path::new);
    if let Some(missing) = programs.iter().find(|path| !path.exists()) {
        return skip(NAME, &format!("{} is not installed", missing.display()));
    }
    let affinity = own_affinity();
    let last = *affinity.last().unwrap();
    let mut outputs = Vec::new();
    for user in both() {
        let place = Place::new(user);
        let image = image(&place, |rootfs| programs.iter().for_each(|program| copy(rootfs, program)));
        for (allowed, set) in [(None, affinity.clone()), (Some(last.to_string()), BTreeSet::from([last]))] {
            let ran = |argv: &[&str]| {
                let mut command = place.command(&[&["runtime", "run", &image, "--"], argv].concat());
                if let Some(list) = &allowed {
                    command = wrapped_by("taskset", &["-c", list], &command);
                }
                Ran::from(command.output().unwrap()).expect(0).out
            };
            let count = format!("{}\n", set.len());
            for argv in [&["nproc"][..], &["getconf", "_NPROCESSORS_ONLN"]] {
                assert_eq!(ran(argv), count, "{user:?} {argv:?} {allowed:?}");
            }
            let configured: usize = ran(&["getconf", "_NPROCESSORS_CONF"]).trim().parse().unwrap();
            assert!(configured > last, "{configured} processors do not include {last}");
            let listed = ran(&["lscpu", "-p=CPU,CORE,SOCKET"]);
            let lines = listed.lines().filter(|line| !line.starts_with('#'));
            let seen: BTreeSet<usize> =
                lines.map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
            assert_eq!(seen, set, "{user:?} {allowed:?}: {listed}");
            outputs.push((allowed, listed));
        }
    }
    for (allowed, listed) in &outputs {
        assert!(outputs.iter().all(|(other, text)| other != allowed || text == listed), "{outputs:?}");
    }
}
