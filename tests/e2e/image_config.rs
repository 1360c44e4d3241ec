//! `runtime run` follows the configuration of an image as other container engines do: command, user, working directory, environment, and
//! what an OCI runtime supplies beside the image. Root and an ordinary user get the same output.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::Layout;
use invarlock_tests::{Place, Ran, both, program, set_mode};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A root file system with the workload by two names, an account, and a home directory that only its owner can enter.
fn fill(rootfs: &Path) {
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::create_dir_all(rootfs.join("etc")).unwrap();
    fs::create_dir_all(rootfs.join("home/app")).unwrap();
    fs::create_dir_all(rootfs.join("run")).unwrap();
    fs::create_dir_all(rootfs.join("var/tmp")).unwrap();
    fs::copy(program("invarlock-workload"), rootfs.join("bin/workload")).unwrap();
    fs::hard_link(rootfs.join("bin/workload"), rootfs.join("home/app/own")).unwrap();
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
        .unwrap();
}

/// The image of `config`, and the output of its run with `args`, which must be the same for root and for a user.
fn outputs(config: &Value, args: &[&str]) -> String {
    let mut outputs = Vec::new();
    for user in both() {
        let place = Place::new(user);
        let layout = Layout::of_tree_with_modes(&place, "image", fill, |rootfs| {
            set_mode(&rootfs.join("home/app"), 0o700)
        });
        let image = layout.image("test", config);
        let ran = place.run(&[&["runtime", "run", &image, "--"], args].concat()).expect(0);
        outputs.push(ran.out);
    }
    assert!(outputs.iter().all(|output| *output == outputs[0]), "{outputs:?}");
    outputs.remove(0)
}

#[test]
fn command_is_entrypoint_and_cmd_found_by_path() {
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    for (config, args) in [
        (json!({"Entrypoint": ["/bin/workload", "cat"], "Cmd": ["/etc/passwd"]}), &[][..]),
        (json!({"Entrypoint": ["/bin/workload", "cat"], "Cmd": ["/none"]}), &["/etc/passwd"]),
        (json!({"Cmd": ["workload", "cat", "/etc/passwd"], "Env": ["PATH=/none:/bin"]}), &[]),
        (json!({"Entrypoint": null, "Cmd": ["workload", "cat", "/etc/passwd"]}), &[]),
        (json!({"Cmd": ["/none"]}), &["workload", "cat", "/etc/passwd"]),
        (json!({"Entrypoint": ["bin/workload", "cat"]}), &["etc/passwd"]),
        (json!({"Cmd": ["./own", "cat", "/etc/passwd"], "WorkingDir": "/home/app", "User": "app"}), &[]),
    ] {
        assert_eq!(outputs(&config, args), passwd, "{config} {args:?}");
    }
}

#[test]
fn program_that_is_not_in_path_is_named() {
    for user in both() {
        let place = Place::new(user);
        let image =
            Layout::of_tree(&place, "image", fill).image("test", &json!({"Env": ["PATH=/etc:/home"]}));
        for (args, needles) in [
            (&[][..], &["has no command", "help: add the command"][..]),
            (&["workload"], &["\"workload\" not found", "/etc:/home"]),
            // Neither a directory nor a file that is not executable is a program.
            (&["app"], &["\"app\" not found"]),
            (&["passwd"], &["\"passwd\" not found"]),
        ] {
            place.run(&[&["runtime", "run", &image, "--"], args].concat()).expect(125).one_error(needles);
        }
    }
}

#[test]
fn user_has_ids_home_name_and_account() {
    let see = |user: &str| {
        let config = json!({"Entrypoint": ["workload"], "User": user, "Env": ["A=1"]});
        let status: Value = serde_json::from_str(outputs(&config, &["ids"]).trim()).unwrap();
        let passwd = outputs(&config, &["cat", "/etc/passwd"]);
        (status, passwd)
    };
    for (user, ids, home, name) in [
        ("", [0, 0], "/root", Some("root")),
        ("app", [1000, 1000], "/home/app", Some("app")),
        ("1000:0", [1000, 0], "/home/app", Some("app")),
        ("70000:80000", [70_000, 80_000], "/", None),
    ] {
        let (printed, passwd) = see(user);
        assert_eq!(printed["ids"], json!(ids), "{user}");
        assert_eq!(
            (&printed["env"]["HOME"], &printed["env"]["USER"]),
            (&json!(home), &json!(name)),
            "{user}"
        );
        assert_eq!(printed["env"]["A"], "1");
        assert!(passwd.lines().any(|line| line.split(':').nth(2) == Some(&ids[0].to_string())), "{passwd}");
        assert!(passwd.starts_with("root:x:0:0::/root:/bin/sh\napp:"), "{passwd}");
    }
}

#[test]
fn missing_working_directory_and_files_of_etc_are_supplied() {
    for (path, content) in [
        ("/etc/hosts", "127.0.0.1\tlocalhost invarlock\n::1\tlocalhost\n"),
        ("/etc/hostname", "invarlock\n"),
        ("/etc/resolv.conf", ""),
    ] {
        let config = json!({"Entrypoint": ["workload"], "WorkingDir": "/work/of/nobody"});
        assert_eq!(outputs(&config, &["cat", path]), content, "{path}");
    }
    let config = json!({"Entrypoint": ["workload"], "WorkingDir": "/work/here"});
    let printed: Value = serde_json::from_str(outputs(&config, &["ids"]).trim()).unwrap();
    assert_eq!(printed["cwd"], "/work/here");
    for user in both() {
        let place = Place::new(user);
        let layout = Layout::of_tree(&place, "image", fill);
        for (directory, needle) in
            [("work", "absolute path"), ("/a/../b", "absolute path"), ("/etc/passwd", "working directory")]
        {
            let image =
                layout.image("test", &json!({"Cmd": ["/bin/workload", "noop"], "WorkingDir": directory}));
            place.run(&["runtime", "run", &image]).expect(125).one_error(&["error[input]", needle]);
            fs::write(place.path("image/index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        }
    }
}

#[test]
fn working_directory_below_a_link_is_created_behind_it() {
    let config = |directory: &str| json!({"Entrypoint": ["workload"], "WorkingDir": directory});
    let linked = |rootfs: &Path| {
        fill(rootfs);
        fs::create_dir_all(rootfs.join("data/deep")).unwrap();
        std::os::unix::fs::symlink("/data/deep", rootfs.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../data", rootfs.join("home/relative")).unwrap();
        std::os::unix::fs::symlink("/absolute/../deep/not-there", rootfs.join("twice")).unwrap();
        std::os::unix::fs::symlink("round", rootfs.join("round")).unwrap();
        std::os::unix::fs::symlink("/proc/self/cwd", rootfs.join("magic")).unwrap();
    };
    for user in both() {
        let place = Place::new(user);
        let layout = Layout::of_tree(&place, "image", linked);
        for (i, (directory, expected)) in [
            ("/absolute", "/data/deep"),
            ("/absolute/new/below", "/data/deep/new/below"),
            ("/home/relative/new", "/data/new"),
            ("/twice", "/data/deep/not-there"),
            ("/home/app/../../data/new", ""),
        ]
        .into_iter()
        .enumerate()
        {
            let image = layout.image(&format!("t{i}"), &config(directory));
            let ran = place.run(&["runtime", "run", &image, "--", "ids"]);
            if expected.is_empty() {
                ran.expect(125).one_error(&["absolute path"]);
                continue;
            }
            let printed: Value = serde_json::from_str(ran.expect(0).out.trim()).unwrap();
            assert_eq!(printed["cwd"], expected, "{directory}");
        }
        // The last one is behind a magic link: a handle of whatever the process had open.
        for directory in ["/round", "/round/new", "/magic"] {
            let image = layout.image(&directory.replace('/', "-")[1..], &config(directory));
            let ran = place.run(&["runtime", "run", &image, "--", "ids"]);
            ran.expect(125).one_error(&["error[input]", "working directory"]);
        }
    }
}

#[test]
fn long_accounts_and_repeated_variables_of_an_image() {
    let long = |rootfs: &Path| {
        fill(rootfs);
        fs::write(rootfs.join("etc/passwd"), "a:x:5:5::/:/bin/sh\n".repeat(1 << 16)).unwrap();
    };
    for user in both() {
        let place = Place::new(user);
        let layout = Layout::of_tree(&place, "image", long);
        let config = json!({"Cmd": ["workload", "ids"], "Env": ["PATH=/none", "A=1", "PATH=/bin", "A=2"]});
        let image = layout.image("test", &config);
        for (flags, ids) in [(&[][..], [0, 0]), (&["-u", "7:8"], [7, 8])] {
            let ran = place.run(&[&["runtime", "run"][..], flags, &[&image]].concat()).expect(0);
            let printed: Value = serde_json::from_str(ran.out.trim()).unwrap();
            assert_eq!(printed["ids"], json!(ids));
            assert_eq!((&printed["env"]["PATH"], &printed["env"]["A"]), (&json!("/bin"), &json!("2")));
        }
        let refused = place.run(&["runtime", "run", "-u", "a", &image]).expect(125);
        refused.one_error(&["/etc/passwd is longer than the 1 MiB", "UID:GID"]);
    }
}

#[test]
fn scratch_directories_are_writable_and_share_one_limit() {
    let config = json!({"Entrypoint": ["workload"], "User": "app"});
    let result = |verb: &str, paths: &[&str]| -> Value {
        serde_json::from_str(outputs(&config, &[&[verb][..], paths].concat()).trim()).unwrap()
    };
    let written = ["/tmp/x", "/run/x", "/var/tmp/x", "/dev/shm/x"];
    let found = result("create", &written);
    assert!(written.iter().all(|path| found[path] == "made"), "{found}");
    let opened = ["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/fd/2"];
    let found = result("open-write", &opened);
    assert!(opened.iter().all(|path| found[path] == "opened"), "{found}");
    let read_only = ["/x", "/etc/x", "/etc/hosts", "/home/app/x", "/dev/x"];
    let found = result("create", &read_only);
    assert!(read_only.iter().all(|path| found[path] == 30), "{found}");
    for user in both() {
        let place = Place::new(user);
        let image = Layout::of_tree(&place, "image", fill).image("test", &config);
        let paths = ["/tmp/a", "/run/b", "/var/tmp/c", "/dev/shm/d"];
        let args =
            [&["runtime", "run", "--tmp-size", "4M", "--json", &image, "--", "fill-files"][..], &paths]
                .concat();
        let ran = place.run(&args).expect(0);
        let written: Vec<u64> = serde_json::from_str(ran.out.trim()).unwrap();
        let all: u64 = written.iter().sum();
        assert!(all <= 4 << 20 && all > 3 << 20, "{written:?}");
        let json: Value =
            serde_json::from_str(ran.err.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
        let mounts = json["observations"]["mounts"]["value"].as_array().unwrap();
        for target in ["/tmp", "/run", "/var/tmp", "/dev/shm"] {
            let mount = mounts.iter().find(|mount| mount["target"] == target).unwrap();
            for option in ["rw", "nosuid", "nodev", "noexec"] {
                assert!(
                    mount["options"].as_str().unwrap().split(',').any(|found| found == option),
                    "{mount}"
                );
            }
        }
    }
}

#[test]
fn options_replace_parts_of_the_configuration() {
    let config = json!({
        "Entrypoint": ["/bin/workload", "cat"], "Cmd": ["/none"], "User": "app", "WorkingDir": "/home/app",
        "Env": ["PATH=/bin", "A=image", "B=image", "C=image"],
    });
    for user in both() {
        let place = Place::new(user);
        let image = Layout::of_tree(&place, "image", fill).image("test", &config);
        place.write("variables", b"# a comment\n\nB=file\nC=file\n  D=file\nOWN\nGONE\n");
        let run = |flags: &[&str], command: &[&str]| {
            let args = [&["runtime", "run"][..], flags, &[&image, "--"], command].concat();
            place.command(&args).env("OWN", "of the caller").output().map(Ran::from).unwrap()
        };
        let flags = ["-e", "A=option", "--env-file", "variables", "--env=C=option", "-w", "/var/tmp"];
        let more = ["--user", "0:7", "--entrypoint", "workload"];
        let ran = run(&[&flags[..], &more].concat(), &["ids"]).expect(0);
        let printed: Value = serde_json::from_str(ran.out.trim()).unwrap();
        assert_eq!((&printed["ids"], &printed["cwd"]), (&json!([0, 7]), &json!("/var/tmp")));
        let env = json!({
            "A": "option", "B": "file", "C": "option", "D": "file", "OWN": "of the caller",
            "PATH": "/bin", "HOME": "/root", "USER": "root",
        });
        assert_eq!(printed["env"], env);
        // Neither the entrypoint nor the arguments of the image remain.
        run(&["--entrypoint", r#"["workload", "exit", "7"]"#], &[]).expect(7);
        run(&["--entrypoint", ""], &["workload", "exit", "8"]).expect(8);
        run(&["--entrypoint", ""], &[]).expect(125).one_error(&["has no command"]);
        for (flags, needle) in [
            (["-e", "=x"], "--env =x"),
            (["-e", "A B=1"], "NAME=VALUE"),
            (["--env-file", "nothing"], "relative path starts at the current directory"),
            (["--entrypoint", "[1]"], "--entrypoint"),
            (["--user", "none"], "user \"none\""),
            (["-w", "relative"], "write it like /work"),
        ] {
            run(&flags, &["/etc/hosts"]).expect(125).one_error(&["error[input]", needle]);
        }
    }
}
