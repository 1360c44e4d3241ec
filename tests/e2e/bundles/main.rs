//! `runtime run --bundle` and `runtime bundle`: bundles of other tools run here with the boundary of every run, or are refused with the member
//! that is not granted; our bundles have the same boundary under crun and runc.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod own;

use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, is_root, program, read_json, root, set_mode, skip};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A configuration that another tool wrote.
fn config(name: &str) -> Value {
    read_json(&root().join(format!("tests/data/bundles/{name}.json")))
}

fn fill(rootfs: &Path) {
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::create_dir_all(rootfs.join("etc")).unwrap();
    fs::copy(program("invarlock-workload"), rootfs.join("bin/workload")).unwrap();
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
        .unwrap();
}

/// Writes a bundle whose command is `workload` with `args`, in the work directory.
fn bundle(place: &Place, mut config: Value, args: &[&str]) -> PathBuf {
    let path = place.work("bundle");
    if !path.exists() {
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("rootfs")).unwrap();
        fill(&path.join("rootfs"));
        for name in ["", "rootfs", "rootfs/bin", "rootfs/etc", "rootfs/bin/workload", "rootfs/etc/passwd"] {
            place.give(&path.join(name));
        }
    }
    config["process"]["args"] = json!([&["/bin/workload"], args].concat());
    fs::write(path.join("config.json"), config.to_string()).unwrap();
    path
}

fn run(place: &Place, args: &[&str]) -> Ran {
    place.run(&[&["runtime", "run", "--bundle", "bundle"], args].concat())
}

/// `--json`, which is the last line of standard error.
fn outcome(ran: &Ran) -> Value {
    serde_json::from_str(ran.err.lines().last().unwrap()).unwrap_or_else(|e| panic!("{e}: {}", ran.err))
}

/// The members that were not granted, with their values.
fn not_granted(outcome: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = outcome["bundle"]["not_granted"].as_array().unwrap();
    list.iter().map(|one| format!("{} {}", text(&one["member"]), text(&one["value"]))).collect()
}

/// What the configurations of runc, crun and umoci ask for. `/dev/pts` is that of a terminal.
const USUAL: [&str; 7] = [
    "mounts /dev/mqueue",
    "mounts /sys",
    "mounts /sys/fs/cgroup",
    "process.capabilities CAP_AUDIT_WRITE",
    "process.capabilities CAP_KILL",
    "process.capabilities CAP_NET_BIND_SERVICE",
    "process.terminal true",
];

#[test]
fn bundles_of_other_tools_run_with_the_boundary_of_every_run() {
    let mut podman = config("podman-4.3");
    podman["root"]["path"] = json!("rootfs");
    let without_cgroup = ["mounts /sys/fs/cgroup"];
    let cases: [(&str, Value, &[&str], &[&str]); 8] = [
        ("runc", config("runc-1.1"), &["hostname runc"], &[]),
        (
            "runc rootless",
            config("runc-1.1-rootless"),
            &["hostname runc", "linux.namespaces network of the host"],
            &[],
        ),
        ("crun", config("crun-1.8"), &["hostname crun"], &[]),
        ("crun rootless", config("crun-1.8-rootless"), &["hostname crun"], &[]),
        ("umoci", config("umoci-0.4"), &["hostname umoci-default", "root.readonly false"], &[]),
        (
            "umoci rootless",
            config("umoci-0.4-rootless"),
            &[
                "hostname umoci-default",
                "root.readonly false",
                "linux.namespaces network of the host",
                "mounts /etc/resolv.conf",
            ],
            &without_cgroup,
        ),
        ("umoci mapped", config("umoci-0.4-mapped"), &["hostname umoci-default", "root.readonly false"], &[]),
        (
            "podman",
            podman,
            &[
                "hostname a53aa68155e8",
                "root.readonly false",
                "process.rlimits RLIMIT_NOFILE 1048576",
                "process.rlimits RLIMIT_NPROC 32768",
                "linux.resources.pids.limit 2048",
                "linux.sysctl net.ipv4.ping_group_range=0 0",
                "mounts /etc/hosts",
                "mounts /etc/hostname",
                "mounts /dev/shm",
                "mounts /run/.containerenv",
            ],
            &[],
        ),
    ];
    for user in both() {
        let place = Place::new(user);
        for (name, config, more, fewer) in &cases {
            let ids = [config["process"]["user"]["uid"].clone(), config["process"]["user"]["gid"].clone()];
            bundle(&place, config.clone(), &["see"]);
            let ran = run(&place, &["--json"]).expect(0);
            let (seen, outcome) = (ran.json(), outcome(&ran));
            let status = &seen["status"];
            for (member, expected) in [
                ("CapEff", "0000000000000000"),
                ("CapBnd", "0000000000000000"),
                ("NoNewPrivs", "1"),
                ("Seccomp", "2"),
            ] {
                assert_eq!(status[member], expected, "{name}: {member}");
            }
            let id = |at: usize| [ids[at].to_string().as_str()].repeat(4).join(" ");
            assert_eq!((&status["Uid"], &status["Gid"]), (&json!(id(0)), &json!(id(1))), "{name}");
            assert_eq!(
                (&seen["interfaces"], &seen["hostname"]),
                (&json!(["lo"]), &json!("invarlock")),
                "{name}"
            );
            assert!(
                seen["writes"]["/x"].is_number() && seen["writes"]["/tmp/x"] == "ok",
                "{name}: {}",
                seen["writes"]
            );
            assert_eq!(
                (&outcome["image"], &outcome["bundle"]["verification"]),
                (&Value::Null, &json!("none")),
                "{name}"
            );
            let mut expected: BTreeSet<String> = more.iter().map(|text| (*text).to_owned()).collect();
            expected.extend(USUAL.iter().filter(|text| !fewer.contains(text)).map(|text| (*text).to_owned()));
            if *name == "podman" {
                let own = ["AUDIT_WRITE", "NET_BIND_SERVICE"]
                    .map(|name| format!("process.capabilities CAP_{name}"));
                expected.remove(&own[0]);
                expected.remove("process.terminal true");
                expected.insert("mounts /dev/pts".to_owned());
                let granted = [
                    "CHOWN",
                    "DAC_OVERRIDE",
                    "FOWNER",
                    "FSETID",
                    "SETFCAP",
                    "SETGID",
                    "SETPCAP",
                    "SETUID",
                    "SYS_CHROOT",
                ];
                expected.extend(granted.map(|name| format!("process.capabilities CAP_{name}")));
                // Podman's profile allows more than ours, which stays.
                assert_eq!(outcome["seccomp"]["profile"], "general-and-docker-format");
            }
            assert_eq!(not_granted(&outcome), expected, "{name}");
            assert!(ran.err.contains("invarlock: not granted from config.json: "), "{name}: {}", ran.err);
        }
    }
}

/// The configuration of runc with one member changed.
fn changed(pointer: &str, value: Value) -> Value {
    let mut config = config("runc-1.1");
    match pointer.rsplit_once('/') {
        Some((parent, "-")) => config.pointer_mut(parent).unwrap().as_array_mut().unwrap().push(value),
        Some((parent, name)) => {
            _ = config.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value)
        }
        None => panic!("{pointer} is not a pointer"),
    }
    config
}

#[test]
fn what_is_not_granted_is_refused_by_name() {
    let place = Place::new(As::User);
    let bind = |source: &str, options: &[&str]| json!({"destination": "/data", "type": "bind", "source": source, "options": options});
    let hook = json!({"prestart": [{"path": "/bin/hook"}]});
    for (pointer, value, member) in [
        ("/hooks", hook, "hooks.prestart"),
        (
            "/process/capabilities/bounding",
            json!(["CAP_SYS_ADMIN"]),
            "process.capabilities \"CAP_SYS_ADMIN\"",
        ),
        ("/process/apparmorProfile", json!("docker-default"), "process.apparmorProfile \"docker-default\""),
        ("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"), "process.selinuxLabel"),
        ("/process/user/umask", json!(0o077), "process.user.umask 63"),
        ("/process/user/uid", json!(u32::MAX), "process.user"),
        (
            "/process/rlimits/-",
            json!({"type": "RLIMIT_STACK", "soft": 2, "hard": 1}),
            "process.rlimits RLIMIT_STACK",
        ),
        ("/process/rlimits/-", json!({"type": "RLIMIT_NOFILE", "soft": 9, "hard": 9}), "set twice"),
        ("/process/env/-", json!("=x"), "process.env[2]"),
        ("/process/cwd", json!("work"), "process.cwd"),
        (
            "/linux/namespaces/-",
            json!({"type": "user", "path": "/proc/1/ns/user"}),
            "linux.namespaces \"/proc/1/ns/user\"",
        ),
        ("/linux/namespaces/-", json!({"type": "time"}), "linux.namespaces \"time\""),
        (
            "/linux/devices",
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]),
            "linux.devices \"/dev/fuse\"",
        ),
        ("/linux/resources/devices/-", json!({"allow": true, "access": "rwm"}), "linux.resources.devices"),
        ("/linux/resources/unified", json!({"memory.high": "1"}), "linux.resources.unified"),
        ("/linux/resources/cpu", json!({"cpus": "0"}), "linux.resources.cpu.cpus \"0\""),
        ("/linux/sysctl", json!({"kernel.shm_rmid_forced": "1"}), "linux.sysctl \"kernel.shm_rmid_forced\""),
        ("/linux/rootfsPropagation", json!("shared"), "linux.rootfsPropagation \"shared\""),
        ("/linux/maskedPaths/-", json!("/etc/passwd"), "linux.maskedPaths \"/etc/passwd\""),
        ("/linux/maskedPaths/-", json!("/proc/self/environ"), "linux.maskedPaths"),
        ("/linux/readonlyPaths/-", json!("/tmp"), "linux.readonlyPaths \"/tmp\""),
        ("/linux/personality", json!({"domain": "LINUX32"}), "linux.personality"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_TRACE"}), "linux.seccomp"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}),
            "listenerPath",
        ),
        ("/root/path", json!("/"), "root.path \"/\""),
        ("/root/path", json!("../work"), "root.path \"../work\""),
        ("/root/path", json!("rootfs/../.."), "root.path"),
        ("/root/path", json!("."), "root.path"),
        ("/root/path", json!("none"), "bundle/none"),
        ("/mounts/-", bind("/var/run/docker.sock", &["bind"]), "mounts[7] \"/var/run/docker.sock\""),
        ("/mounts/-", bind("../home", &["bind", "ro"]), "mounts[7] \"../home\""),
        ("/mounts/-", bind("rootfs", &["bind"]), "mounts[7] \"rootfs\""),
        ("/mounts/-", bind("rootfs/etc", &["bind", "shared"]), "mounts[7] \"shared\""),
        ("/mounts/-", bind("rootfs/etc", &["bind", "ro", "noexec"]), "mounts[7] \"noexec\""),
        (
            "/mounts/-",
            json!({"destination": "/data", "type": "overlay", "source": "overlay"}),
            "mounts[7] \"overlay\"",
        ),
        (
            "/mounts/-",
            json!({"destination": "/data", "type": "tmpfs", "options": ["exec"]}),
            "mounts[7] \"exec\"",
        ),
        (
            "/mounts/-",
            json!({"destination": "/tmp", "type": "tmpfs", "options": ["ro"]}),
            "mounts[7] \"/tmp\"",
        ),
        ("/mounts/-", json!({"destination": "/proc/sys", "type": "tmpfs"}), "/proc/sys"),
        ("/mounts/-", json!({"destination": "/dev/dri", "type": "tmpfs"}), "/dev/dri"),
        ("/ociVersion", json!("2.0.0"), "ociVersion \"2.0.0\""),
        ("/windows", json!({}), "windows"),
        ("/root", Value::Null, "root"),
        ("/process", Value::Null, "process"),
    ] {
        let mut config = changed(pointer, value);
        let path = place.work("bundle/config.json");
        match config["process"].is_null() {
            false => drop(bundle(&place, config, &["noop"])),
            true => {
                config.as_object_mut().unwrap().remove("process");
                fs::write(&path, config.to_string()).unwrap();
            }
        }
        let ran = run(&place, &[]).expect(125);
        ran.one_error(&[member]);
        assert!(!ran.err.contains("error[system]"), "{pointer}: {}", ran.err);
    }
}

#[test]
fn requests_within_the_boundary_are_applied() {
    for user in both() {
        let place = Place::new(user);
        let mut config = config("runc-1.1");
        config["process"]["cwd"] = json!("/work/here");
        config["process"]["env"] = json!(["A=1", "A=2"]);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [1001, 5]});
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 200},
            {"type": "RLIMIT_STACK", "soft": 4 << 20, "hard": u64::MAX}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "rw"]}),
        );
        mounts.push(json!({"destination": "/fixed", "source": "data", "options": ["bind", "ro"]}));
        mounts.push(
            json!({"destination": "/memory", "type": "tmpfs", "options": ["nosuid", "size=2m", "mode=0700"]}),
        );
        // A value of an unknown member is ignored, as the specification requires.
        config["linux"]["newMember"] = json!({"x": 1});
        config["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/proc/interrupts"));
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getppid", "socketpair"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
        let path = bundle(&place, config, &["see"]);
        fs::create_dir(path.join("data")).unwrap();
        fs::write(path.join("data/file"), "1").unwrap();
        place.give(&path.join("data"));
        place.give(&path.join("data/file"));
        let ran = run(&place, &["--json"]).expect(0);
        let (seen, outcome) = (ran.json(), outcome(&ran));
        assert_eq!((&seen["cwd"], &seen["environment"]), (&json!("/work/here"), &json!(["A=2"])));
        assert_eq!(seen["status"]["Uid"], "1000 1000 1000 1000");
        assert_eq!(seen["status"]["Gid"], "1001 1001 1001 1001");
        let limits: Vec<&str> =
            seen["limits"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        for (name, value) in [("Max open files", "99"), ("Max stack size", "4194304")] {
            let line = limits.iter().find(|line| line.starts_with(name)).unwrap();
            assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), [value; 2], "{line}");
        }
        let mounts: Vec<&str> =
            seen["mounts"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        for (target, options) in [
            (" /data ", "rw,nosuid,nodev,noexec"),
            (" /fixed ", "ro,nosuid,nodev"),
            (" /memory ", "rw,nosuid,nodev,noexec"),
            (" /proc/interrupts ", ""),
        ] {
            assert!(
                mounts.iter().any(|line| line.contains(target) && line.contains(options)),
                "{target}: {mounts:?}"
            );
        }
        assert_eq!(outcome["seccomp"]["profile"], "general-and-docker-format-no-set-id");
        assert_eq!(outcome["loosened"], json!(["writable_bind"]));
        let list = not_granted(&outcome);
        assert!(list.contains("process.user.additionalGids 5"), "{list:?}");
        assert!(!list.iter().any(|one| one.contains("1001")), "{list:?}");
    }
}

#[test]
fn limits_of_a_bundle_can_only_lower_those_of_the_run() {
    let place = Place::new(As::Caller);
    if !is_root() {
        return skip(
            "limits_of_a_bundle_can_only_lower_those_of_the_run",
            "cgroups of a user need delegation",
        );
    }
    let limits = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100000}});
    bundle(&place, changed("/linux/resources", limits), &["noop"]);
    let effective = |ran: &Ran, name: &str| {
        let outcome = outcome(ran);
        let limits = outcome["observations"]["limits"]["value"].as_array().unwrap().clone();
        limits.iter().find(|limit| limit["name"] == name).unwrap()["effective"].clone()
    };
    let ran = run(&place, &["--json"]).expect(0);
    assert_eq!(
        ["memory", "pids", "cpu"].map(|name| effective(&ran, name)),
        [json!(64 << 20), json!(20), json!(500)]
    );
    let ran = run(&place, &["--json", "--memory", "32M", "--pids", "10", "--cpus", "0.2"]).expect(0);
    assert_eq!(
        ["memory", "pids", "cpu"].map(|name| effective(&ran, name)),
        [json!(32 << 20), json!(10), json!(200)]
    );
    assert!(not_granted(&outcome(&ran)).contains("linux.resources.pids.limit 20"));
}

#[test]
fn a_mount_from_outside_needs_the_option() {
    for user in both() {
        let place = Place::new(user);
        let data = place.write("data", b"content\n");
        let mount =
            json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rw"]});
        bundle(&place, changed("/mounts/-", mount), &["cat", "/data"]);
        run(&place, &[]).expect(125).one_error(&["mounts[7]", "-v SOURCE:/data", "not in the bundle"]);
        let ran = run(&place, &["-v", &format!("{}:/data:ro", data.display()), "--json"]).expect(0);
        assert_eq!(ran.out, "content\n");
        assert_eq!(outcome(&ran)["mounts"][0]["writable"], false);
    }
}

#[test]
fn a_configuration_cannot_lead_out_of_the_bundle() {
    for user in both() {
        let place = Place::new(user);
        let secret = place.write("secret", b"secret");
        let path = bundle(&place, config("runc-1.1"), &["noop"]);
        let (own, file) = (path.join("rootfs"), path.join("config.json"));
        // The root file system is a link, or is below one.
        fs::rename(&own, place.work("elsewhere")).unwrap();
        symlink("../elsewhere", &own).unwrap();
        run(&place, &[]).expect(125).one_error(&[
            "error[safety_violation]",
            "bundle/rootfs",
            "without links",
        ]);
        fs::remove_file(&own).unwrap();
        symlink("..", path.join("up")).unwrap();
        bundle(&place, changed("/root/path", json!("up/elsewhere")), &["noop"]);
        run(&place, &[]).expect(125).one_error(&["error[safety_violation]"]);
        fs::rename(place.work("elsewhere"), &own).unwrap();
        // So is a file of a mount.
        symlink(&secret, path.join("link")).unwrap();
        let mount =
            json!({"destination": "/data", "type": "bind", "source": "link", "options": ["bind", "ro"]});
        bundle(&place, changed("/mounts/-", mount), &["cat", "/data"]);
        run(&place, &[]).expect(125).one_error(&["error[safety_violation]", "bundle/link"]);
        // The configuration is a link, a fifo, too long, or no configuration.
        let text = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(place.work("other.json"), &text).unwrap();
        symlink("../other.json", &file).unwrap();
        run(&place, &[]).expect(125).one_error(&["config.json"]);
        fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &file,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        run(&place, &[]).expect(125).one_error(&["config.json is not a regular file"]);
        fs::remove_file(&file).unwrap();
        for (content, needle) in [
            (vec![b' '; (1 << 20) + 1], "longer than the 1048576 bytes"),
            (b"{".to_vec(), "config.json: EOF"),
            (b"1".to_vec(), "config.json: invalid type"),
            ([b"{\"x\":".repeat(100_000), b"1".to_vec()].concat(), "config.json"),
        ] {
            fs::write(&file, content).unwrap();
            run(&place, &[]).expect(125).one_error(&["error[input]", needle]);
        }
        fs::remove_file(&file).unwrap();
        run(&place, &[]).expect(125).one_error(&["config.json"]);
        place.run(&["runtime", "run", "--bundle", "none"]).expect(125).one_error(&["bundle none"]);
    }
}

#[test]
fn a_hostile_root_file_system_gives_nothing() {
    let place = Place::new(As::Caller);
    if !is_root() {
        return skip("a_hostile_root_file_system_gives_nothing", "devices and files of others need root");
    }
    let path = bundle(&place, config("runc-1.1"), &["see"]);
    let own = path.join("rootfs");
    // A set-user-id program, a device, and a file that only root can read in a root file system of another user.
    set_mode(&own.join("bin/workload"), 0o4755);
    let character = rustix::fs::FileType::CharacterDevice;
    let (mode, device) = (rustix::fs::Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3));
    rustix::fs::mknodat(rustix::fs::CWD, own.join("etc/null"), character, mode, device).unwrap();
    fs::write(own.join("etc/secret"), "secret").unwrap();
    set_mode(&own.join("etc/secret"), 0o600);
    let seen = run(&place, &[]).expect(0).json();
    assert_eq!(seen["status"]["CapEff"], "0000000000000000");
    assert_eq!(seen["status"]["Uid"], "0 0 0 0");
    let ran = |argument: &str| {
        bundle(&place, config("runc-1.1"), &["cat", argument]);
        run(&place, &[])
    };
    assert_ne!(ran("/etc/null").code, 0, "the device was opened");
    ran("/etc/secret").expect(0);
    for name in ["", "bin", "etc", "bin/workload", "etc/passwd"] {
        std::os::unix::fs::lchown(own.join(name), Some(1234), Some(1234)).unwrap();
    }
    assert_ne!(ran("/etc/secret").code, 0, "a file of root was read through a directory of another user");
    // A socket or fifo could be used to talk to a program of the host.
    rustix::fs::mknodat(rustix::fs::CWD, own.join("etc/fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    run(&place, &[]).expect(125).one_error(&["contains a fifo"]);
}

#[test]
fn options_of_images_are_refused_with_a_bundle() {
    let place = Place::new(As::User);
    bundle(&place, config("runc-1.1"), &["noop"]);
    for more in
        [&["image"][..], &["--env", "A=1"], &["--user", "0"], &["--entrypoint", "x"], &["--workdir", "/"]]
    {
        let ran = run(&place, more).expect(125);
        assert!(ran.err.contains("cannot be used with"), "{more:?}: {}", ran.err);
    }
    let ran = place.run(&["runtime", "run"]).expect(125);
    assert!(ran.err.contains("required") && ran.err.contains("<IMAGE>"), "{}", ran.err);
}

#[test]
fn logs_say_how_output_is_kept() {
    let place = Place::new(As::User);
    place.run(&["runtime", "logs", "name"]).expect(3).one_error(&["is not kept", "help: ", ">FILE"]);
}

/// `runc spec` and `umoci unpack` on this machine.
#[test]
fn bundles_that_are_made_now_run() {
    const NAME: &str = "bundles_that_are_made_now_run";
    for user in both() {
        let place = Place::new(user);
        let made = |program: &str, args: &[&str]| match place.command_of(Path::new(program), args).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                skip(NAME, &format!("{program} is not installed"));
                false
            }
            other => {
                let output = other.unwrap();
                // setpriv itself is found.
                if String::from_utf8_lossy(&output.stderr).contains("failed to execute") {
                    skip(NAME, &format!("{program} is not installed"));
                    return false;
                }
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                true
            }
        };
        for options in [&[][..], &["--rootless"]] {
            let path = bundle(&place, config("runc-1.1"), &["noop"]);
            fs::remove_file(path.join("config.json")).unwrap();
            if made("runc", &[&["spec", "--bundle", path.to_str().unwrap()], options].concat()) {
                let written = read_json(&path.join("config.json"));
                bundle(&place, written, &["see"]);
                assert_eq!(run(&place, &[]).expect(0).json()["hostname"], "invarlock");
            }
        }
        let layout = Layout::of_tree(&place, "image", fill);
        layout.image(
            "test",
            &json!({"Entrypoint": ["/bin/workload"], "Cmd": ["ids"], "User": "app", "WorkingDir": "/work"}),
        );
        let (image, to) = (format!("{}:test", layout.dir.display()), place.work("unpacked"));
        let rootless: &[&str] = if user == As::Caller && is_root() { &[] } else { &["--rootless"] };
        if made("umoci", &[&["unpack", "--image", &image], rootless, &[to.to_str().unwrap()]].concat()) {
            let ran = place.run(&["runtime", "run", "--bundle", "unpacked"]).expect(0).json();
            assert_eq!((&ran["ids"], &ran["cwd"]), (&json!([1000, 1000]), &json!("/work")));
        }
    }
}
