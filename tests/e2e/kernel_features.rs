//! A kernel that lacks a feature (a filter answers for it, or a namespace is without it): the run works without it, or ends with one error that
//! names the row, the cause and the remedy; the workload never ran, and nothing is left. The table is docs/kernel-features.md, and says no more
//! than what is forced here.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stage::{RAN, Stage};
use invarlock_tests::{As, both, demo, is_root, layout, message_and_hint, program, root, skip};
use serde_json::Value;
use std::process::Command;

/// What is taken away, and what is seen then.
struct Absence {
    /// As the table has it.
    feature: &'static str,
    on: On,
    /// For `without`; a script, where a namespace is without it.
    hidden: &'static str,
    seen: Seen,
}

/// What is started without it.
#[derive(PartialEq)]
enum On {
    /// `runtime run`, by anybody.
    Run,
    /// The same by an ordinary user: root has another way.
    UsersRun,
    /// The same by root.
    RootsRun,
    /// `runtime run` of an image that has to be stacked.
    Stacked,
    /// `evaluate` by root.
    RootsEvaluation,
    /// `runtime run` by an ordinary user in new namespaces, which only root can prepare.
    Namespaces,
}

enum Seen {
    /// The run is as ever.
    Works,
    /// An error that names this row, this cause and this remedy.
    Error(&'static str, &'static str, &'static str),
}

impl Absence {
    const fn of(feature: &'static str, hidden: &'static str) -> Self {
        Absence { feature, on: On::Run, hidden, seen: Seen::Works }
    }

    const fn on(self, on: On) -> Self {
        Absence { on, ..self }
    }

    const fn error(self, row: &'static str, cause: &'static str, remedy: &'static str) -> Self {
        Absence { seen: Seen::Error(row, cause, remedy), ..self }
    }
}

/// A call that is not there at all.
const fn call(name: &'static str) -> Absence {
    Absence::of(name, name)
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
const ALLOW: &str = "in a container, allow clone, unshare and mount";
const LISTENER: &str = "SECCOMP_FILTER_FLAG_NEW_LISTENER";

const ABSENCES: [Absence; 42] = [
    call("openat2").error(ROOT, ENOSYS, NEWER),
    call("open_tree").error(ROOT, ENOSYS, NEWER),
    call("move_mount").error(ROOT, ENOSYS, NEWER),
    call("fsopen").error(ROOT, ENOSYS, NEWER),
    call("fsconfig").error(ROOT, ENOSYS, NEWER),
    call("fsmount").error(ROOT, ENOSYS, NEWER),
    call("mount_setattr").error(ROOT, ENOSYS, NEWER),
    call("pidfd_open").error("life", ENOSYS, NEWER),
    call("pidfd_send_signal").error("life", ENOSYS, NEWER),
    call("close_range").error("descriptors", ENOSYS, NEWER),
    Absence::of("CLOSE_RANGE_CLOEXEC", "close-range-cloexec").error("descriptors", EINVAL, NEWER),
    call("clone3"),
    call("statx"),
    // A kernel without them, a limit of none, Debian's switch or a container's filter. Where clone3 is there, it is what makes them.
    Absence::of("user namespaces", "clone3,user-namespaces:22").error(NS, EINVAL, "let ordinary users make"),
    Absence::of("user namespaces", "clone3,user-namespaces:28").error(NS, ENOSPC, "user.max_user_namespaces"),
    Absence::of("user namespaces", "clone3,user-namespaces:1").error(NS, EPERM, "unprivileged_userns_clone"),
    Absence::of("user namespaces", "clone3:28").error(NS, ENOSPC, "user.max_user_namespaces"),
    Absence::of("user namespaces", "clone3:1").error(NS, EPERM, ALLOW),
    // AppArmor lets anybody make one and gives no rights in it.
    Absence::of("rights in user namespaces", "sethostname:1").error(
        NS,
        EPERM,
        "AppArmor profile with `userns,`",
    ),
    Absence::of("rights in user namespaces", "sethostname:13").error(
        NS,
        EACCES,
        "AppArmor profile with `userns,`",
    ),
    Absence::of("rights in user namespaces", "mount:13").error(
        ROOT,
        EACCES,
        "AppArmor profile with `userns,`",
    ),
    Absence::of("rights in user namespaces", "mount:1").error(ROOT, EPERM, ALLOW),
    call("unshare").error(NS, ENOSYS, ALLOW),
    Absence::of("unshare", "unshare:1").error(NS, EPERM, ALLOW),
    Absence::of("a whole /proc", "mount --bind /dev/null /proc/timer_list").on(On::Namespaces).error(
        "/proc",
        EPERM,
        "unmasked /proc",
    ),
    call("seccomp").error(CALLS, ENOSYS, "CONFIG_SECCOMP_FILTER"),
    Absence::of("seccomp", "seccomp:22").error(CALLS, EINVAL, "CONFIG_SECCOMP_FILTER"),
    Absence::of(LISTENER, "filter-listener").error(CALLS, EINVAL, "CONFIG_SECCOMP_FILTER"),
    // One listener is all that a process may have; podman's and systemd's are others.
    Absence::of(LISTENER, "filter-listener:16").error(CALLS, "resource busy", "outside of the container"),
    Absence::of("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "filter-wait-killable"),
    call("pidfd_getfd").error(CALLS, ENOSYS, "Linux 5.6 or newer"),
    Absence::of("pidfd_getfd", "pidfd_getfd:1").error(CALLS, EPERM, "kernel.yama.ptrace_scope"),
    Absence::of("MFD_EXEC", "memfd-exec"),
    call("memfd_create").on(On::UsersRun).error("executable", ENOSYS, "allow memfd_create"),
    call("memfd_create").on(On::RootsRun),
    call("memfd_create").on(On::RootsEvaluation).error("inputs", ENOSYS, NEWER),
    Absence::of("executable memory files", "echo 2 > /proc/sys/vm/memfd_noexec").on(On::Namespaces).error(
        "executable",
        EACCES,
        "set vm.memfd_noexec to 0 or 1",
    ),
    // A flag of 1 is set by default, and asked for all the same.
    Absence::of("executable memory files", "echo 1 > /proc/sys/vm/memfd_noexec").on(On::Namespaces),
    Absence::of("overlay", "overlay").on(On::Stacked).error(ROOT, EPERM, "Linux 5.11 or newer"),
    Absence::of("overlay", "overlay:19").on(On::Stacked).error(
        ROOT,
        "No such device",
        "an image of one layer",
    ),
    Absence::of("userxattr", "overlay:22").on(On::Stacked).error(ROOT, EINVAL, "Linux 5.11 or newer"),
    Absence::of("overlay", "overlay"),
];

/// A stage with what the absences need besides.
struct Poor {
    stage: Stage,
    stacked: String,
}

impl Poor {
    fn new(user: As) -> Self {
        let stage = Stage::new(user);
        std::fs::copy(program("without"), stage.place.path("bin/without")).unwrap();
        let evaluator = stage.place.path("bin/invarlock-evaluator");
        let stacked = layout::of_program(&stage.place, "stacked", &evaluator);
        Poor { stage, stacked }
    }

    /// The command on a kernel without it; none where this user has nothing to lose by it.
    fn without(&self, absence: &Absence, command: Command) -> Option<Command> {
        let root = self.stage.is_roots();
        match absence.on {
            On::Run | On::Stacked => Some(self.filtered(absence.hidden, &command)),
            On::UsersRun => (!root).then(|| self.filtered(absence.hidden, &command)),
            On::RootsRun | On::RootsEvaluation => root.then(|| self.filtered(absence.hidden, &command)),
            On::Namespaces => (is_root() && !root).then(|| {
                self.stage.place.inside(
                    &["--mount", "--pid", "--fork", "--mount-proc"],
                    absence.hidden,
                    &command,
                )
            }),
        }
    }

    /// The same command, started by `without`, which is put between `setpriv` and the program.
    fn filtered(&self, hidden: &str, command: &Command) -> Command {
        let without = self.stage.place.path("bin/without");
        let line: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let program =
            line.iter().position(|word| *word == self.stage.place.path("bin/invarlock").as_os_str()).unwrap();
        let args: Vec<&str> = line[program..].iter().map(|word| word.to_str().unwrap()).collect();
        let mut filtered =
            self.stage.place.command_of(&without, &[&[hidden, "--"], args.as_slice()].concat());
        filtered.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        filtered
    }

    fn see(&self, absence: &Absence) {
        let (command, code) = match absence.on {
            On::RootsEvaluation => (self.stage.evaluation(&["--json"]), 3),
            On::Stacked => {
                let run = ["runtime", "run", "--json", &self.stacked, "--", "/workload", "--self-test"];
                (self.stage.command(&run), 125)
            }
            _ => (self.stage.run(&["--json"]), 125),
        };
        let Some(command) = self.without(absence, command) else { return };
        let what = format!("{:?} without {}", self.stage.user, absence.hidden);
        let ran = self.stage.end_of(command, &what);
        let told = if absence.on == On::RootsEvaluation { &ran.out } else { &ran.err };
        let told: Value = serde_json::from_str(told).unwrap_or_else(|e| panic!("{what}: {e}: {ran:?}"));
        match absence.seen {
            Seen::Works => {
                assert_eq!((ran.code, &told["status"]["exited"]), (0, &0.into()), "{what}: {ran:?}");
                assert!(ran.out.contains(RAN) && told["observations"].is_object(), "{what}: {ran:?}");
            }
            Seen::Error(row, cause, remedy) => {
                let (kind, message) = (&told["error"]["kind"], message_and_hint(&told));
                let codes = (ran.code, &told["resolution"]["exit_code"]);
                assert_eq!((kind, codes), (&"unsupported".into(), (code, &code.into())), "{what}: {ran:?}");
                let row = format!("control \"{row}\": ");
                assert_eq!(message.matches("control \"").count(), 1, "{what}: {message}");
                for needle in [row.as_str(), cause, remedy] {
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
        let poor = Poor::new(user);
        ABSENCES.iter().for_each(|absence| poor.see(absence));
    }
    if !is_root() {
        skip("kernel_features of namespaces and of root's runs", "they need root");
    }
}

/// For people it is the same error in a line, and `doctor` has said so before.
#[test]
fn doctor_and_text_output_report_missing_features() {
    for user in both() {
        let poor = Poor::new(user);
        let stage = &poor.stage;
        for absence in &ABSENCES {
            let Seen::Error(row, ..) = absence.seen else { continue };
            let what = format!("{user:?} without {}", absence.hidden);
            let Some(doctor) = poor.without(absence, stage.command(&["doctor", "--json"])) else { continue };
            let doctor = stage.end_of(doctor, &what);
            let told = doctor.json();
            let required = absence.on != On::Stacked;
            match doctor.code {
                // What the launcher needs for itself it cannot do without, not even to look.
                3 => assert_eq!(told["error"]["kind"], "unsupported", "{what}: {told}"),
                code => {
                    let missing = told["findings"].as_array().unwrap().iter();
                    let missing = missing
                        .filter(|f| (f["severity"] == "error") == required && f["code"] != "evaluator");
                    assert!(missing.count() > 0, "{what}: doctor finds nothing: {told:#}");
                    assert_eq!(code, i32::from(required), "{what}: {told:#}");
                }
            }
            if absence.on == On::Run {
                let run = stage.command(&["runtime", "run", "invarlock-runtime:local"]);
                let ran = stage.end_of(poor.filtered(absence.hidden, &run), &what).expect(125);
                ran.one_error(&["error[unsupported]", &format!("control \"{row}\": ")]);
            }
        }
    }
}

/// A file that only its owner may read, where the file system has no id-mapped mounts (ramfs; an old kernel's tmpfs).
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
    let told = run("600").expect(3).json();
    assert_eq!(told["error"]["kind"], "unsupported");
    let message = message_and_hint(&told);
    for needle in ["control \"inputs\": ", "ramfs/", EINVAL, "make the file readable by everybody"] {
        assert!(message.contains(needle), "{needle:?} is not in {message}");
    }
    assert!(!stage.place.work("reports").exists(), "evidence of a run that did not start");
    run("644").expect(0);
}

/// The cells of the table's rows.
fn table() -> Vec<[String; 6]> {
    let text = std::fs::read_to_string(root().join("docs/kernel-features.md")).unwrap();
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let lines = text.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| cells(line).try_into().unwrap_or_else(|_| panic!("six cells: {line}"))).collect()
}

/// Cells of several features have commas.
fn features(cell: &str) -> Vec<String> {
    cell.split(", ").map(|f| f.replace('`', "")).collect()
}

#[test]
fn documented_features_match_the_test_cases() {
    let rows = table();
    assert!(rows.len() > 15, "{rows:?}");
    for [names, _, _, without, place, forced] in &rows {
        for file in place.split(", ") {
            assert!(root().join(file.trim_matches('`')).exists(), "{names}: {file} is not there");
        }
        for name in features(names) {
            let cases: Vec<_> = ABSENCES.iter().filter(|a| a.feature == name).collect();
            match forced.split_once(": ") {
                None => {
                    assert_eq!(forced, "yes", "{name}");
                    assert!(!cases.is_empty(), "{name}: the table says that it is forced");
                }
                Some(("elsewhere", test)) => {
                    let (file, test) = test.split_once(", ").unwrap();
                    let text = std::fs::read_to_string(root().join(file.trim_matches('`'))).unwrap();
                    assert!(
                        text.contains(&format!("fn {}()", test.trim_matches('`'))),
                        "{name}: no {test} in {file}"
                    );
                }
                Some((no, why)) => {
                    assert!(no == "no" && why.len() > 20, "{name}: {forced:?} says neither yes nor why not");
                    assert!(cases.is_empty(), "{name} is forced, but the table says {forced:?}");
                }
            }
            for case in cases {
                if let Seen::Error(row, ..) = case.seen {
                    assert!(
                        without.contains(&format!("\"{row}\"")),
                        "{name}: no row \"{row}\" in {without:?}"
                    );
                }
            }
        }
    }
    for absence in &ABSENCES {
        let named = rows.iter().any(|[names, ..]| features(names).iter().any(|f| f == absence.feature));
        assert!(named, "{} is not in the table", absence.feature);
    }
}
