//! Gaps of libcontainer that the runtime must not pass on, by their numbers in docs/libcontainer.md: effects on other processes and on
//! the caller, and lost errors.

mod common;

use common::{
    Caller, WORKLOAD, assert_leaves_nothing, callers, is_root_or_skip, launch, launcher, plan, printed,
};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Runs that succeed, fail early, fail late, and are ended by a limit.
fn all_kinds_of_runs() -> Vec<Value> {
    let (well, mut missing, mut ended, mut refused, mut layer) =
        (plan(&["noop"]), plan(&[]), plan(&["sleep"]), plan(&["noop"]), plan(&["noop"]));
    missing["argv"] = json!(["/nothing-here"]);
    ended["wall_ms"] = json!(300);
    refused["cwd"] = json!("/nowhere");
    layer["rootfs"] = json!(["/nowhere"]);
    vec![well, missing, ended, refused, layer]
}

/// A process that belongs to no run; killed on drop.
struct Bystander(Child);

impl Bystander {
    fn new(cgroup: Option<&Path>) -> Self {
        let child = Command::new("sleep").arg("600").spawn().expect("a bystander");
        if let Some(cgroup) = cgroup {
            std::fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("moving it");
        }
        Bystander(child)
    }

    fn assert_alive(&mut self, after: &str) {
        assert!(self.0.try_wait().expect("a look").is_none(), "a bystander died after {after}");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A cgroup with a name like those of runs, in the place where they are created; removed on drop.
struct Lookalike(PathBuf);

impl Lookalike {
    fn create() -> Vec<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("cgroups");
        let parents = own.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            let hierarchy =
                if controllers.is_empty() { "unified".to_owned() } else { controllers.to_owned() };
            Some(Path::new("/sys/fs/cgroup").join(hierarchy).join(path))
        });
        let named = parents.map(|parent| parent.join("invarlock-1-0000000000000000"));
        let made = named.filter(|dir| std::fs::create_dir(dir).is_ok());
        made.inspect(|dir| {
            // A process can enter a cpuset of version 1 only if the cpuset has processors and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let of_parent = dir.parent().map(|parent| std::fs::read_to_string(parent.join(file)));
                if let Some(Ok(value)) = of_parent {
                    drop(std::fs::write(dir.join(file), value));
                }
            }
        })
        .map(Lookalike)
        .collect()
    }
}

impl Drop for Lookalike {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

/// Gaps 1 and 2: processes in the caller's cgroup, or in a cgroup with a name like a run's, are not killed.
#[test]
fn other_processes_in_cgroups_are_not_killed() {
    assert_leaves_nothing(|| {
        let lookalikes = Lookalike::create();
        if lookalikes.is_empty() {
            common::report_skip(
                "other_processes_in_cgroups_are_not_killed in a cgroup named like a run's: cannot create one",
            );
        }
        // In version 1 a process is in one cgroup of each hierarchy, so there is one bystander for each hierarchy.
        let mut bystanders: Vec<Bystander> = lookalikes.iter().map(|l| Bystander::new(Some(&l.0))).collect();
        bystanders.push(Bystander::new(None));
        for caller in callers("other_processes_in_cgroups_are_not_killed") {
            for plan in all_kinds_of_runs() {
                launch(caller, &plan);
                bystanders.iter_mut().for_each(|b| b.assert_alive(&format!("{plan} as {caller:?}")));
            }
        }
        drop(bystanders);
        // A cgroup can be removed only after its last process has been reaped.
        drop(lookalikes);
    });
}

/// Gaps 3, 12 and 13: the caller's process state does not change, however its runs end.
#[test]
fn runs_do_not_change_the_caller() {
    assert_leaves_nothing(|| {
        for caller in callers("runs_do_not_change_the_caller") {
            for mut plan in all_kinds_of_runs() {
                plan["runs"] = json!(4);
                let out = launcher(caller, &plan).output().expect("the launcher");
                let outcomes: Vec<Value> = String::from_utf8_lossy(&out.stdout)
                    .lines()
                    .map(|line| serde_json::from_str(line).expect("JSON"))
                    .collect();
                assert_eq!(outcomes.len(), 4, "{out:?}");
                // The thread of the runs can read the first state while the main thread still starts it, with all signals blocked.
                for run in &outcomes[1..] {
                    assert_eq!(run["launcher"]["after"], run["launcher"]["before"], "{plan}");
                }
            }
        }
    });
}

/// Gap 15: the caller gets the errno and the path.
#[test]
fn errno_and_cause_are_reported() {
    assert_leaves_nothing(|| {
        for caller in callers("errno_and_cause_are_reported") {
            let image = common::scratch_dir(caller);
            let file = |name: &str, bytes: &[u8], mode: u32| {
                std::fs::write(image.join(name), bytes).expect("a file");
                std::fs::set_permissions(image.join(name), std::fs::Permissions::from_mode(mode))
                    .expect("a mode");
            };
            file("closed", b"\x7fELF", 0o644);
            file("text", b"echo a shell ran this\n", 0o755);
            file("damaged", b"\x7fELF damaged", 0o755);
            file("orphan", b"#!/no/such/interpreter\n", 0o755);
            std::fs::create_dir(image.join("directory")).expect("a directory");
            std::os::unix::fs::symlink("loop", image.join("loop")).expect("a link");
            let answers = [
                ("/closed", "Permission denied"),
                ("/text", "Exec format error"),
                ("/damaged", "Exec format error"),
                ("/orphan", "No such file or directory"),
                ("/directory", "Permission denied"),
                ("/loop", "Too many levels of symbolic links"),
            ];
            for (program, why) in answers {
                let mut plan = plan(&[]);
                (plan["rootfs"], plan["argv"]) = (json!([image]), json!([program]));
                common::assert_error(&launch(caller, &plan), "input", &[program, why]);
            }
            let mut nowhere = plan(&["noop"]);
            nowhere["rootfs"] = json!([image.join("no-layer")]);
            common::assert_error(
                &launch(caller, &nowhere),
                "input",
                &["no-layer", "No such file or directory"],
            );
        }
    });
}

/// Gap 16: a program starts without PATH, and a text file is never passed to the image's shell.
#[test]
fn program_starts_without_shell_and_path_search() {
    assert_leaves_nothing(|| {
        for caller in callers("program_starts_without_shell_and_path_search") {
            let image = common::scratch_dir(caller);
            std::fs::create_dir(image.join("bin")).expect("a directory");
            for name in ["bin/sh", "workload"] {
                std::fs::copy(WORKLOAD, image.join(name)).expect("the program");
            }
            std::fs::write(image.join("text"), "echo\n").expect("a file");
            std::fs::set_permissions(image.join("text"), std::fs::Permissions::from_mode(0o755))
                .expect("a mode");
            let mut plan = plan(&["exit", "5"]);
            (plan["rootfs"], plan["env"]) = (json!([image]), json!([]));
            assert_eq!(launch(caller, &plan)["result"]["status"], json!({"exited": 5}));
            plan["argv"] = json!(["/text"]);
            common::assert_error(&launch(caller, &plan), "input", &["/text", "Exec format error"]);
        }
    });
}

/// Every `cgroup.subtree_control` below a directory, with its content.
fn subtree_control(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            subtree_control(&entry.path(), found);
        } else if entry.file_name() == "cgroup.subtree_control" {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            found.push((entry.path(), text));
        }
    }
}

/// Gap 17: no controller is enabled in cgroups that do not belong to the run.
#[test]
fn controllers_of_other_cgroups_are_unchanged() {
    assert_leaves_nothing(|| {
        let look = || {
            let mut found = Vec::new();
            subtree_control(Path::new("/sys/fs/cgroup"), &mut found);
            found.sort();
            found
        };
        if look().is_empty() {
            return common::report_skip(
                "controllers_of_other_cgroups_are_unchanged: no cgroup of version 2 is mounted",
            );
        }
        for caller in callers("controllers_of_other_cgroups_are_unchanged") {
            let before = look();
            launch(caller, &plan(&["noop"]));
            assert_eq!(look(), before);
        }
    });
}

/// Gap 8: `/dev` contains exactly five devices, as root and as an ordinary user.
#[test]
fn dev_has_exactly_five_devices() {
    assert_leaves_nothing(|| {
        for caller in callers("dev_has_exactly_five_devices") {
            let inside = printed(&launch(caller, &plan(&["see"])));
            assert_eq!(inside["dev"], json!(["full", "null", "random", "urandom", "zero"]), "{inside:#}");
        }
    });
}

/// Panics: a caller whose working directory was removed, and a caller with a terminal as standard input.
#[test]
fn caller_without_directory_or_on_a_terminal_can_run() {
    assert_leaves_nothing(|| {
        for caller in callers("caller_without_directory_or_on_a_terminal_can_run") {
            let (gone, plan) = (common::scratch_dir(caller), plan(&["exit", "4"]));
            let command = launcher(caller, &plan);
            let mut shell = Command::new("sh");
            shell
                .arg("-c")
                .arg("mkdir \"$0\" && cd \"$0\" && rmdir \"$0\" && exec \"$@\"")
                .arg(gone.join("x"));
            shell.arg(command.get_program()).args(command.get_args());
            if caller == Caller::User && rustix::process::geteuid().is_root() {
                shell.uid(common::USER).gid(common::USER);
            }
            let out = shell.output().expect("the launcher");
            let outcome: Value =
                serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
            assert_eq!(outcome["result"]["status"], json!({"exited": 4}), "{outcome:#}");

            // script(1) makes a terminal the standard input of what it runs.
            let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
            let program = command.get_program().to_string_lossy().into_owned();
            let words: Vec<String> = std::iter::once(program)
                .chain(command.get_args().map(|a| a.to_string_lossy().into_owned()))
                .map(|word| quoted(&word))
                .collect();
            let mut terminal = Command::new("script");
            terminal.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
            if caller == Caller::User && rustix::process::geteuid().is_root() {
                terminal.uid(common::USER).gid(common::USER);
            }
            let out = terminal.output().expect("script");
            let outcome: Value =
                serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
            assert_eq!(outcome["result"]["status"], json!({"exited": 4}), "{outcome:#}");
        }
    });
}

/// Gap 10: no process of a run keeps waiting for a caller that died.
#[test]
fn caller_killed_early_leaves_nothing() {
    if !is_root_or_skip("caller_killed_early_leaves_nothing") {
        return;
    }
    assert_leaves_nothing(|| {
        for pause in [0, 2, 4, 6, 8, 10, 20] {
            let mut child = launcher(Caller::Root, &plan(&["sleep"])).spawn().expect("a launcher");
            std::thread::sleep(std::time::Duration::from_millis(pause));
            child.kill().expect("killing");
            child.wait().expect("its end");
        }
    });
}

/// Every test that docs/libcontainer.md names exists.
#[test]
fn every_gap_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let table = std::fs::read_to_string(root.join("docs/libcontainer.md")).expect("the table");
    let rows: Vec<&str> =
        table.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| | gap")).collect();
    let numbers = rows.iter().filter_map(|row| row.split('|').nth(1)?.trim().parse::<u32>().ok());
    assert!(numbers.eq(1..=17), "a gap is missing");
    for row in rows {
        let cell = row.split('|').nth(4).expect("a test");
        let mut named = cell.split('`').skip(1).step_by(2);
        let (file, test) = (named.next().expect("a file"), named.next().expect("a test"));
        let found = ["runtime/tests", "tests/e2e"].iter().any(|dir| {
            let text = std::fs::read_to_string(root.join(dir).join(file)).unwrap_or_default();
            text.contains(&format!("#[test]\nfn {test}()"))
        });
        assert!(found, "{file} has no test {test}");
    }
}
