//! Group B: descriptors, the executable, the environment and the terminal of the process that starts the run.

use crate::stage::{Stage, config, told};
use invarlock_tests::As;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

attack!(b1_overwriting_the_launcher_cve_2019_5736, overwriting_the_launcher);
attack!(b2_working_directory_is_a_descriptor_cve_2024_21626, working_directory_is_a_descriptor);
attack!(b3_working_directory_outside, working_directory_outside);
attack!(b4_secrets_in_the_environment, secrets_in_the_environment);
attack!(b5_typing_into_the_terminal_cve_2017_5226, typing_into_the_terminal);
attack!(b6_terminal_escapes, terminal_escapes);

const REFUSED: [i32; 4] = [libc::EPERM, libc::EACCES, libc::ETXTBSY, libc::EROFS];

/// The image's program is the launcher once more, by `/proc/self/exe`; and the workload goes for the executables by every name they have.
fn overwriting_the_launcher(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("exe", |tree| {
        let script = tree.join("script");
        fs::write(&script, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/proc/self/exe", tree.join("link")).unwrap();
    });
    for program in ["/script", "/link"] {
        let ran = stage.place.run(&["runtime", "run", "--timeout=20", &image, "--", program]);
        assert_ne!(ran.code, 0, "{ran:?}");
        stage.is_unharmed();
    }
    let paths = ["/proc/1/exe", "/proc/self/exe", "/proc/1/root/workload", "/proc/1/fd/0", "/proc/1/mem"];
    let seen = told(&stage.run(&[], &image, &[&["hammer"], &paths[..]].concat()).expect(0));
    for path in paths {
        assert!(REFUSED.iter().any(|errno| seen[path] == *errno), "{path}: {seen}");
    }
    stage.is_unharmed();
}

/// The working directory is a descriptor that the caller left open, by each number and by other names for it.
fn working_directory_is_a_descriptor(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("cwd", |tree| {
        symlink("/proc/self/fd/7", tree.join("link")).unwrap();
        symlink("/proc/1/cwd", tree.join("init")).unwrap();
        symlink("link", tree.join("again")).unwrap();
    });
    let leaking = |directory: &str| {
        let image =
            layout.image(&directory.replace(['/', '.'], "_"), &config(&json!({"WorkingDir": directory})));
        let command = stage.command(&[], &image, &["where"]);
        let opened: String = (3..=9).map(|fd| format!("exec {fd}<\"$CANARY\"; ")).collect();
        let script = format!("{opened} exec \"$@\"");
        let mut shell = stage.place.command_of("sh".as_ref(), &["-c", &script, "sh"]);
        shell.env("CANARY", stage.canary.path());
        // The shell is the user already.
        shell.arg(stage.place.path("bin/invarlock"));
        let own = command.get_args().skip_while(|arg| *arg != "runtime");
        invarlock_tests::Ran::from(shell.args(own).output().unwrap())
    };
    for fd in 3..=20 {
        leaking(&format!("/proc/self/fd/{fd}")).expect(125).one_error(&["input", "working directory"]);
    }
    let other = [
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
    for directory in other {
        let ran = leaking(directory);
        assert!(ran.code == 125 && ran.err.contains("working directory"), "{directory}: {ran:?}");
    }
    // The same callers, and an ordinary working directory.
    let seen = told(&leaking("/").expect(0));
    assert_eq!(seen["descriptors"], json!([0, 1, 2]));
    assert!(!stage.canary.is_in(&seen.to_string()), "{seen}");
    stage.is_unharmed();
}

/// From wherever the workload starts, every way up ends at the image's root.
fn working_directory_outside(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("up", |tree| {
        symlink("../../../../../../../..", tree.join("up")).unwrap();
        symlink(stage.canary.path(), tree.join("canary")).unwrap();
        fs::create_dir_all(tree.join("deep/er")).unwrap();
    });
    for (directory, cwd) in [("/up", "/"), ("/deep/er", "/deep/er"), ("/", "/")] {
        let image = layout.image(&directory.replace('/', "_"), &config(&json!({"WorkingDir": directory})));
        let seen = told(&stage.run(&[], &image, &["where"]).expect(0));
        assert_eq!((&seen["cwd"]["Ok"], &seen["link"]["Ok"]), (&json!(cwd), &json!(cwd)), "{seen}");
        assert_eq!(seen["above"], seen["root"]);
        assert_eq!(seen["init"], 13, "init's working directory can be looked at");
    }
    let image = layout.image("canary", &config(&json!({"WorkingDir": "/canary"})));
    stage.run(&[], &image, &["where"]).expect(125).one_error(&["/canary"]);
    for relative in ["up", ".", "../.."] {
        let image = layout.image("relative", &config(&json!({"WorkingDir": relative})));
        stage.run(&[], &image, &["where"]).expect(125);
    }
    stage.is_unharmed();
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

/// The environment is the image's, to the last variable.
fn secrets_in_the_environment(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("environment", |_| {});
    let mut command = stage.command(&[], &image, &["see"]);
    for name in SECRETS {
        command.env(name, if name.starts_with("LISTEN") { "3" } else { "a secret" });
    }
    let ran = invarlock_tests::Ran::from(command.output().unwrap()).expect(0);
    assert_eq!(told(&ran)["environment"], json!(["PATH=/"]));
    assert_eq!(told(&ran)["descriptors"], json!([0, 1, 2]));
}

/// On a terminal: nothing can be typed into it, and it is not the workload's.
fn typing_into_the_terminal(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("typing", |_| {});
    let shown = String::from_utf8_lossy(&stage.on_a_terminal(&image, &["type", "0", "1", "2"])).into_owned();
    let line = shown.lines().find(|line| line.contains('{')).unwrap_or_else(|| panic!("{shown}"));
    let seen: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    for fd in ["0", "1", "2"] {
        assert!([libc::EPERM, libc::ENOTTY].iter().any(|errno| seen[fd] == *errno), "{seen}");
    }
}

/// What a workload prints cannot command the terminal that it is shown on, nor a terminal that a log is shown on later.
fn terminal_escapes(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("escapes", |_| {});
    let shown = stage.on_a_terminal(&image, &["escape"]);
    let text = String::from_utf8_lossy(&shown);
    assert_eq!(text.matches("\\u{1b}]0;owned").count(), 2, "{text:?}");
    let hostile = |c: char| c.is_control() && !"\r\n\t".contains(c) || c == '\u{202e}';
    // `script` itself shows the end of its input so.
    let text = text.replacen("^D\u{8}\u{8}", "", 1);
    assert!(!text.contains(hostile), "{text:?}");
    let ran = stage.evaluate_by("escape", &[]).expect(3);
    assert!(!ran.err.contains(hostile) && !ran.out.contains(hostile), "{ran:?}");
    let logs = stage.place.names("work/runs/source");
    assert_eq!(logs.len(), 1, "{}", ran.err);
    let log = fs::read_to_string(stage.place.work("runs/source").join(&logs[0]).join("stderr.log")).unwrap();
    assert!(log.contains("\\u{1b}]0;owned") && !log.contains(hostile), "{log:?}");
}
