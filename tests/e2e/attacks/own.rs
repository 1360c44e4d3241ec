//! Group B: descriptors, the executable, the environment and the terminal of the process that
//! starts the run.

use crate::stage::{Stage, config, printed_json};
use invarlock_tests::As;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

attack!(b1_overwriting_the_launcher_cve_2019_5736, overwriting_the_launcher);
attack!(b2_working_directory_is_a_descriptor_cve_2024_21626, working_directory_is_a_descriptor);
attack!(b3_working_directory_outside_the_root, working_directory_outside_the_root);
attack!(b4_secrets_in_the_environment, secrets_in_the_environment);
attack!(b5_typing_into_the_terminal_cve_2017_5226, typing_into_the_terminal);
attack!(b6_terminal_escapes, terminal_escapes);

const DENIED: [i32; 4] = [libc::EPERM, libc::EACCES, libc::ETXTBSY, libc::EROFS];

/// The image's program leads to `/proc/self/exe`, so that the launcher would run again. The
/// workload also tries to open the executables for writing under several names.
fn overwriting_the_launcher(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("exe", |rootfs| {
        let script = rootfs.join("script");
        fs::write(&script, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/proc/self/exe", rootfs.join("link")).unwrap();
    });
    for program in ["/script", "/link"] {
        let ran = stage.place.run(&["runtime", "run", "--timeout=20", &image, "--", program]);
        assert_ne!(ran.code, 0, "{ran:?}");
        stage.assert_unchanged();
    }
    let paths = ["/proc/1/exe", "/proc/self/exe", "/proc/1/root/workload", "/proc/1/fd/0", "/proc/1/mem"];
    let printed = printed_json(&stage.run(&[], &image, &[&["hammer"], &paths[..]].concat()).expect(0));
    for path in paths {
        assert!(DENIED.iter().any(|errno| printed[path] == *errno), "{path}: {printed}");
    }
    stage.assert_unchanged();
}

/// The working directory is a descriptor that the caller left open, by number and by other names.
fn working_directory_is_a_descriptor(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("cwd", |rootfs| {
        symlink("/proc/self/fd/7", rootfs.join("link")).unwrap();
        symlink("/proc/1/cwd", rootfs.join("init")).unwrap();
        symlink("link", rootfs.join("again")).unwrap();
    });
    let run_with_open_descriptors = |directory: &str| {
        let image =
            layout.image(&directory.replace(['/', '.'], "_"), &config(&json!({"WorkingDir": directory})));
        let command = stage.command(&[], &image, &["where"]);
        let opened: String = (3..=9).map(|fd| format!("exec {fd}<\"$CANARY\"; ")).collect();
        let script = format!("{opened} exec \"$@\"");
        let mut shell = stage.place.command_of("sh".as_ref(), &["-c", &script, "sh"]);
        shell.env("CANARY", stage.canary.path());
        // The shell already runs as the user.
        shell.arg(stage.place.path("bin/invarlock"));
        let run_args = command.get_args().skip_while(|arg| *arg != "runtime");
        invarlock_tests::Ran::from(shell.args(run_args).output().unwrap())
    };
    for fd in 3..=20 {
        run_with_open_descriptors(&format!("/proc/self/fd/{fd}"))
            .expect(125)
            .one_error(&["input", "working directory"]);
    }
    let other_names = [
        "//proc/self/fd/7",
        "/./proc/self/fd/7",
        "/dev/fd/7",
        "/proc/thread-self/fd/7",
        "/link",
        "/again",
        "/init",
        "//proc/1/cwd",
        "//proc/1/root",
        "/in/../proc/self/fd/7",
    ];
    for directory in other_names {
        let ran = run_with_open_descriptors(directory);
        assert!(ran.code == 125 && ran.err.contains("working directory"), "{directory}: {ran:?}");
    }
    // The same caller with an ordinary working directory.
    let printed = printed_json(&run_with_open_descriptors("/").expect(0));
    assert_eq!(printed["descriptors"], json!([0, 1, 2]));
    assert!(!stage.canary.is_visible_in(&printed.to_string()), "{printed}");
    stage.assert_unchanged();
}

/// From every working directory, `..` ends at the image's root.
fn working_directory_outside_the_root(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("up", |rootfs| {
        symlink("../../../../../../../..", rootfs.join("up")).unwrap();
        symlink(stage.canary.path(), rootfs.join("canary")).unwrap();
        fs::create_dir_all(rootfs.join("deep/er")).unwrap();
    });
    for (directory, cwd) in [("/up", "/"), ("/deep/er", "/deep/er"), ("/", "/")] {
        let image = layout.image(&directory.replace('/', "_"), &config(&json!({"WorkingDir": directory})));
        let printed = printed_json(&stage.run(&[], &image, &["where"]).expect(0));
        assert_eq!((&printed["cwd"]["Ok"], &printed["link"]["Ok"]), (&json!(cwd), &json!(cwd)), "{printed}");
        assert_eq!(printed["above"], printed["root"]);
        assert_eq!(printed["init"], 13, "init's working directory can be read");
    }
    let image = layout.image("canary", &config(&json!({"WorkingDir": "/canary"})));
    stage.run(&[], &image, &["where"]).expect(125).one_error(&["/canary"]);
    for relative in ["up", ".", "../.."] {
        let image = layout.image("relative", &config(&json!({"WorkingDir": relative})));
        stage.run(&[], &image, &["where"]).expect(125);
    }
    stage.assert_unchanged();
}

const SECRETS: [&str; 20] = [
    "SSH_AUTH_SOCK",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "LD_PRELOAD_X",
    "LD_LIBRARY_PATH",
    "LD_AUDIT_X",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "KUBECONFIG",
    "XAUTHORITY",
    "GPG_AGENT_INFO",
    "HTTPS_PROXY",
    "PYTHONSTARTUP",
    "RUST_LOG",
];

/// The workload gets the environment variables of the image and of its account, and no other.
fn secrets_in_the_environment(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("environment", |_| {});
    let mut command = stage.command(&[], &image, &["see"]);
    for name in SECRETS {
        command.env(name, if name.starts_with("LISTEN") { "3" } else { "a secret" });
    }
    let ran = invarlock_tests::Ran::from(command.output().unwrap()).expect(0);
    assert_eq!(printed_json(&ran)["environment"], json!(["HOME=/root", "PATH=/", "USER=root"]));
    assert_eq!(printed_json(&ran)["descriptors"], json!([0, 1, 2]));
}

/// The workload cannot insert input into the caller's terminal and does not control it.
fn typing_into_the_terminal(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("typing", |_| {});
    let shown = String::from_utf8_lossy(&stage.on_a_terminal(&image, &["type", "0", "1", "2"])).into_owned();
    let line = shown.lines().find(|line| line.contains('{')).unwrap_or_else(|| panic!("{shown}"));
    let printed: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    for fd in ["0", "1", "2"] {
        assert!([libc::EPERM, libc::ENOTTY].iter().any(|errno| printed[fd] == *errno), "{printed}");
    }
}

/// Control characters that a workload prints reach neither the terminal nor the log.
fn terminal_escapes(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("escapes", |_| {});
    let shown = stage.on_a_terminal(&image, &["escape"]);
    let text = String::from_utf8_lossy(&shown);
    assert_eq!(text.matches("\\u{1b}]0;owned").count(), 2, "{text:?}");
    let hostile = |c: char| c.is_control() && !"\r\n\t".contains(c) || c == '\u{202e}';
    // `script` itself prints this at the end of its input.
    let text = text.replacen("^D\u{8}\u{8}", "", 1);
    assert!(!text.contains(hostile), "{text:?}");
    let ran = stage.evaluate_by("escape", &[]).expect(3);
    assert!(!ran.err.contains(hostile) && !ran.out.contains(hostile), "{ran:?}");
    let logs = stage.place.names("work/runs/source");
    assert_eq!(logs.len(), 1, "{}", ran.err);
    let log = fs::read_to_string(stage.place.work("runs/source").join(&logs[0]).join("stderr.log")).unwrap();
    assert!(log.contains("\\u{1b}]0;owned") && !log.contains(hostile), "{log:?}");
}
