//! Runs on kernels without a feature, which a filter or a namespace removes. The run works without
//! the feature, or it ends with one error that names the control, the cause and the hint, without
//! starting the workload. Nothing is left behind. A test compares docs/kernel-features.md with the
//! cases.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stage::{RAN, Stage};
use invarlock_tests::{As, both, demo, is_root, layout, message_and_hint, program, root, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A removed feature and the expected result.
struct TestCase {
    /// The name of the feature in docs/kernel-features.md.
    feature: &'static str,
    scenario: Scenario,
    /// The argument of `without`, or the script that removes the feature from a namespace.
    hidden: &'static str,
    /// The program is started from a file that was removed, so a user can have no mount of it.
    removed: bool,
    expected: Expected,
}

/// What is started without the feature.
#[derive(PartialEq)]
enum Scenario {
    /// `runtime run` by root and by an ordinary user.
    Run,
    /// `runtime run` by an ordinary user, because root does not need the feature.
    RunAsUser,
    /// `runtime run` of an image of several layers.
    RunOfLayers,
    /// `evaluate` by root.
    EvaluationAsRoot,
    /// `runtime run` by an ordinary user in namespaces that root has prepared.
    RunInNamespaces,
}

enum Expected {
    /// The run succeeds.
    Works,
    /// The error names this control, this cause and this hint.
    Error(&'static str, &'static str, &'static str),
}

impl TestCase {
    const fn of(feature: &'static str, hidden: &'static str) -> Self {
        TestCase { feature, scenario: Scenario::Run, hidden, removed: false, expected: Expected::Works }
    }

    const fn scenario(self, scenario: Scenario) -> Self {
        TestCase { scenario, ..self }
    }

    const fn removed(self) -> Self {
        TestCase { removed: true, ..self }
    }

    const fn error(self, control: &'static str, cause: &'static str, hint: &'static str) -> Self {
        TestCase { expected: Expected::Error(control, cause, hint), ..self }
    }
}

/// A system call that fails with ENOSYS.
const fn missing_call(name: &'static str) -> TestCase {
    TestCase::of(name, name)
}

const ENOSYS: &str = "Function not implemented";
const EINVAL: &str = "Invalid argument";
const EPERM: &str = "Operation not permitted";
const EACCES: &str = "Permission denied";
const ENOSPC: &str = "No space left on device";
const ROOT: &str = "root file system";
const NS: &str = "namespaces";
const CALLS: &str = "system calls";
const NEWER: &str = "install Linux 5.15 or newer";
const ALLOW: &str =
    "in a container, let its filter allow clone, unshare, mount, sethostname and setdomainname";
const LISTENER: &str = "SECCOMP_FILTER_FLAG_NEW_LISTENER";

const TEST_CASES: [TestCase; 42] = [
    missing_call("openat2").error(ROOT, ENOSYS, NEWER),
    missing_call("open_tree").error(ROOT, ENOSYS, NEWER),
    missing_call("move_mount").error(ROOT, ENOSYS, NEWER),
    missing_call("fsopen").error(ROOT, ENOSYS, NEWER),
    missing_call("fsconfig").error(ROOT, ENOSYS, NEWER),
    missing_call("fsmount").error(ROOT, ENOSYS, NEWER),
    missing_call("mount_setattr").error(ROOT, ENOSYS, NEWER),
    missing_call("pidfd_open").error("life", ENOSYS, NEWER),
    missing_call("pidfd_send_signal").error("life", ENOSYS, NEWER),
    missing_call("close_range").error("descriptors", ENOSYS, NEWER),
    TestCase::of("CLOSE_RANGE_CLOEXEC", "close-range-cloexec").error("descriptors", EINVAL, NEWER),
    missing_call("clone3"),
    missing_call("statx"),
    // The errors of a kernel without user namespaces, a limit of 0, the sysctl of Debian, and the
    // filter of a container. They come from clone3, or from clone if clone3 is missing.
    TestCase::of("user namespaces", "clone3,user-namespaces:22").error(NS, EINVAL, "let ordinary users make"),
    TestCase::of("user namespaces", "clone3,user-namespaces:28").error(
        NS,
        ENOSPC,
        "user.max_user_namespaces",
    ),
    TestCase::of("user namespaces", "clone3,user-namespaces:1").error(NS, EPERM, "unprivileged_userns_clone"),
    TestCase::of("user namespaces", "clone3:28").error(NS, ENOSPC, "user.max_user_namespaces"),
    TestCase::of("user namespaces", "clone3:1").error(NS, EPERM, ALLOW),
    // AppArmor allows every user to create a user namespace but denies all rights in it.
    TestCase::of("rights in user namespaces", "sethostname:1").error(
        NS,
        EPERM,
        "AppArmor profile with `userns,`",
    ),
    TestCase::of("rights in user namespaces", "sethostname:13").error(
        NS,
        EACCES,
        "AppArmor profile with `userns,`",
    ),
    TestCase::of("rights in user namespaces", "mount:13").error(
        ROOT,
        EACCES,
        "AppArmor profile with `userns,`",
    ),
    TestCase::of("rights in user namespaces", "mount:1").error(ROOT, EPERM, ALLOW),
    missing_call("unshare").error(NS, ENOSYS, ALLOW),
    TestCase::of("unshare", "unshare:1").error(NS, EPERM, ALLOW),
    TestCase::of("a whole /proc", "mount --bind /dev/null /proc/timer_list")
        .scenario(Scenario::RunInNamespaces)
        .error("/proc", EPERM, "unmasked /proc"),
    missing_call("seccomp").error(CALLS, ENOSYS, "CONFIG_SECCOMP_FILTER"),
    TestCase::of("seccomp", "seccomp:22").error(CALLS, EINVAL, "CONFIG_SECCOMP_FILTER"),
    TestCase::of(LISTENER, "filter-listener").error(CALLS, EINVAL, "CONFIG_SECCOMP_FILTER"),
    // A process can have only one listener. podman or systemd may have installed one already.
    TestCase::of(LISTENER, "filter-listener:16").error(CALLS, "resource busy", "outside of the container"),
    TestCase::of("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "filter-wait-killable"),
    missing_call("pidfd_getfd").error(CALLS, ENOSYS, "Linux 5.6 or newer"),
    TestCase::of("pidfd_getfd", "pidfd_getfd:1").error(CALLS, EPERM, "kernel.yama.ptrace_scope"),
    TestCase::of("MFD_EXEC", "memfd-exec").removed(),
    missing_call("memfd_create").scenario(Scenario::RunAsUser).removed().error(
        "executable",
        ENOSYS,
        "allow memfd_create",
    ),
    missing_call("memfd_create"),
    missing_call("memfd_create").scenario(Scenario::EvaluationAsRoot).error("inputs", ENOSYS, NEWER),
    TestCase::of("executable memory files", "echo 2 > /proc/sys/vm/memfd_noexec")
        .scenario(Scenario::RunInNamespaces)
        .removed()
        .error("executable", EACCES, "set vm.memfd_noexec to 0 or 1"),
    // With 1 the kernel only makes MFD_NOEXEC_SEAL the default. The launcher requests MFD_EXEC.
    TestCase::of("executable memory files", "echo 1 > /proc/sys/vm/memfd_noexec")
        .scenario(Scenario::RunInNamespaces)
        .removed(),
    TestCase::of("executable memory files", "echo 2 > /proc/sys/vm/memfd_noexec")
        .scenario(Scenario::RunInNamespaces),
    TestCase::of("overlay", "overlay").scenario(Scenario::RunOfLayers).error(
        ROOT,
        EPERM,
        "Linux 5.11 or newer",
    ),
    TestCase::of("overlay", "overlay:19").scenario(Scenario::RunOfLayers).error(
        ROOT,
        "No such device",
        "an image of one layer",
    ),
    TestCase::of("userxattr", "overlay:22").scenario(Scenario::RunOfLayers).error(
        ROOT,
        EINVAL,
        "Linux 5.11 or newer",
    ),
];

/// A stage with the program `without` and an image of several layers.
struct FeatureStage {
    stage: Stage,
    image_of_layers: String,
}

impl FeatureStage {
    fn new(user: As) -> Self {
        let stage = Stage::new(user);
        std::fs::copy(program("without"), stage.place.path("bin/without")).unwrap();
        let evaluator = stage.place.path("bin/invarlock-evaluator");
        let image_of_layers = layout::of_program(&stage.place, "stacked", &evaluator);
        FeatureStage { stage, image_of_layers }
    }

    /// The command on a kernel without the feature, or none if the case does not apply to this
    /// user.
    fn without(&self, case: &TestCase, mut command: Command) -> Option<Command> {
        if case.removed {
            command = self.removed(&command);
        }
        let root = self.stage.is_roots();
        match case.scenario {
            Scenario::Run | Scenario::RunOfLayers => Some(self.filtered(case.hidden, &command)),
            Scenario::RunAsUser => (!root).then(|| self.filtered(case.hidden, &command)),
            Scenario::EvaluationAsRoot => root.then(|| self.filtered(case.hidden, &command)),
            Scenario::RunInNamespaces => (is_root() && !root).then(|| {
                self.stage.place.inside(
                    &["--mount", "--pid", "--fork", "--mount-proc"],
                    case.hidden,
                    &command,
                )
            }),
        }
    }

    /// The command, started by `without`, which `setpriv` starts instead of the launcher.
    fn filtered(&self, hidden: &str, command: &Command) -> Command {
        self.behind(&self.stage.place.path("bin/without"), &[hidden, "--"], command)
    }

    /// The command, with a launcher whose file is removed before it starts.
    fn removed(&self, command: &Command) -> Command {
        const SCRIPT: &str =
            "cp \"$0\" ../tmp/removed; exec 3<../tmp/removed; rm ../tmp/removed; exec /proc/self/fd/3 \"$@\"";
        self.behind(Path::new("/bin/sh"), &["-ec", SCRIPT], command)
    }

    /// The command, whose launcher another program starts.
    fn behind(&self, program: &Path, args: &[&str], command: &Command) -> Command {
        let line: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let place = &self.stage.place;
        let first = [place.path("bin/invarlock"), PathBuf::from("/bin/sh")];
        let start = line.iter().position(|word| first.iter().any(|path| path.as_os_str() == *word)).unwrap();
        let line: Vec<&str> = line[start..].iter().map(|word| word.to_str().unwrap()).collect();
        let mut behind = place.command_of(program, &[args, line.as_slice()].concat());
        behind.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        behind
    }

    /// Runs the case and checks its result.
    fn check(&self, case: &TestCase) {
        let (command, code) = match case.scenario {
            Scenario::EvaluationAsRoot => (self.stage.evaluation(&["--json"]), 3),
            Scenario::RunOfLayers => {
                let run =
                    ["runtime", "run", "--json", &self.image_of_layers, "--", "/workload", "--self-test"];
                (self.stage.command(&run), 125)
            }
            _ => (self.stage.run(&["--json"]), 125),
        };
        let Some(command) = self.without(case, command) else { return };
        let what = format!("{:?} without {}", self.stage.user, case.hidden);
        let ran = self.stage.end_of(command, &what);
        let json = if case.scenario == Scenario::EvaluationAsRoot { &ran.out } else { &ran.err };
        let output: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{what}: {e}: {ran:?}"));
        match case.expected {
            Expected::Works => {
                assert_eq!((ran.code, &output["status"]["exited"]), (0, &0.into()), "{what}: {ran:?}");
                assert!(ran.out.contains(RAN) && output["observations"].is_object(), "{what}: {ran:?}");
            }
            Expected::Error(control, cause, hint) => {
                let (kind, message) = (&output["error"]["kind"], message_and_hint(&output));
                let codes = (ran.code, &output["resolution"]["exit_code"]);
                assert_eq!((kind, codes), (&"unsupported".into(), (code, &code.into())), "{what}: {ran:?}");
                let control = format!("control \"{control}\": ");
                assert_eq!(message.matches("control \"").count(), 1, "{what}: {message}");
                for needle in [control.as_str(), cause, hint] {
                    assert!(message.contains(needle), "{what}: {needle:?} is not in {message}");
                }
                assert!(!ran.out.contains(RAN), "{what}: the workload ran: {ran:?}");
                self.stage.no_evidence(&what);
            }
        }
    }
}

#[test]
fn missing_kernel_feature_is_a_clear_error_or_has_a_fallback() {
    for user in both() {
        let setup = FeatureStage::new(user);
        TEST_CASES.iter().for_each(|case| setup.check(case));
    }
    if !is_root() {
        skip("kernel_features of namespaces and of runs by root", "they need root");
    }
}

/// Without `--json` the run prints the same error in one line, and `doctor` reports the missing
/// feature.
#[test]
fn doctor_and_text_output_report_missing_features() {
    for user in both() {
        let setup = FeatureStage::new(user);
        let stage = &setup.stage;
        for case in &TEST_CASES {
            let Expected::Error(control, ..) = case.expected else { continue };
            let what = format!("{user:?} without {}", case.hidden);
            let Some(doctor) = setup.without(case, stage.command(&["doctor", "--json"])) else { continue };
            let doctor = stage.end_of(doctor, &what);
            let output = doctor.json();
            let required = case.scenario != Scenario::RunOfLayers;
            match doctor.code {
                // `doctor` itself needs the feature.
                3 => assert_eq!(output["error"]["kind"], "unsupported", "{what}: {output}"),
                code => {
                    let findings = output["findings"].as_array().unwrap().iter();
                    let missing = findings
                        .filter(|f| (f["severity"] == "error") == required && f["code"] != "evaluator");
                    assert!(missing.count() > 0, "{what}: doctor reports nothing: {output:#}");
                    assert_eq!(code, i32::from(required), "{what}: {output:#}");
                }
            }
            if case.scenario == Scenario::Run {
                let run = stage.command(&["runtime", "run", "invarlock-runtime:local"]);
                let ran = stage.end_of(setup.filtered(case.hidden, &run), &what).expect(125);
                ran.one_error(&["error[unsupported]", &format!("control \"{control}\": ")]);
            }
        }
    }
}

/// The file system has no id-mapped mounts, like ramfs or the tmpfs of an old kernel. A file that
/// only its owner can read is then an error.
#[test]
fn rejects_private_file_that_cannot_be_id_mapped() {
    if !is_root() {
        return skip("rejects_private_file_that_cannot_be_id_mapped", "mounting a ramfs needs root");
    }
    let stage = Stage::new(As::Caller);
    std::fs::create_dir(stage.place.work("ramfs")).unwrap();
    let script = |mode: &str| {
        let from = demo("baseline");
        format!("mount -t ramfs none ramfs; cp {}/* ramfs; chmod {mode} ramfs/*", from.display())
    };
    let preset = demo("preset.yaml");
    let args = [
        "evaluate",
        "--json",
        "--baseline",
        "ramfs",
        "--subject",
        "ramfs",
        "--preset",
        preset.to_str().unwrap(),
    ];
    let run = |mode| {
        let command = stage.place.inside(&["--mount"], &script(mode), &stage.command(&args));
        stage.end_of(command, mode)
    };
    let output = run("600").expect(3).json();
    assert_eq!(output["error"]["kind"], "unsupported");
    let message = message_and_hint(&output);
    for needle in ["control \"inputs\": ", "ramfs/", EINVAL, "make the file readable by everybody"] {
        assert!(message.contains(needle), "{needle:?} is not in {message}");
    }
    assert!(!stage.place.work("reports").exists(), "evidence of a run that did not start");
    run("644").expect(0);
}

/// The cells of each row of the table in docs/kernel-features.md.
fn documented_features() -> Vec<[String; 6]> {
    let text = std::fs::read_to_string(root().join("docs/kernel-features.md")).unwrap();
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let lines = text.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| cells(line).try_into().unwrap_or_else(|_| panic!("six cells: {line}"))).collect()
}

/// The features of a cell, which are separated by commas.
fn names_in(cell: &str) -> Vec<String> {
    cell.split(", ").map(|f| f.replace('`', "")).collect()
}

#[test]
fn documented_features_match_the_test_cases() {
    let rows = documented_features();
    assert!(rows.len() > 15, "{rows:?}");
    for [names, _, _, without, code, tested] in &rows {
        for file in code.split(", ") {
            assert!(root().join(file.trim_matches('`')).exists(), "{names}: {file} does not exist");
        }
        for name in names_in(names) {
            let cases: Vec<_> = TEST_CASES.iter().filter(|case| case.feature == name).collect();
            match tested.split_once(": ") {
                None => {
                    assert_eq!(tested, "yes", "{name}");
                    assert!(!cases.is_empty(), "{name}: the table says yes, but there is no case");
                }
                Some(("elsewhere", place)) => {
                    let (file, test) = place.split_once(", ").unwrap();
                    let text = std::fs::read_to_string(root().join(file.trim_matches('`'))).unwrap();
                    assert!(
                        text.contains(&format!("fn {}()", test.trim_matches('`'))),
                        "{name}: no {test} in {file}"
                    );
                }
                Some((no, reason)) => {
                    assert!(
                        no == "no" && reason.len() > 20,
                        "{name}: {tested:?} is neither yes nor no with a reason"
                    );
                    assert!(cases.is_empty(), "{name} has a case, but the table says {tested:?}");
                }
            }
            for case in cases {
                if let Expected::Error(control, ..) = case.expected {
                    assert!(
                        without.contains(&format!("\"{control}\"")),
                        "{name}: no control \"{control}\" in {without:?}"
                    );
                }
            }
        }
    }
    for case in &TEST_CASES {
        let documented = rows.iter().any(|[names, ..]| names_in(names).iter().any(|f| f == case.feature));
        assert!(documented, "{} is not in the table", case.feature);
    }
}
