//! Two hostile runs take all that they get of a resource that programs share; an honest run beside them gets what it gets alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stage::Stage;
use invarlock_tests::{Ran, both, layout, program};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// Starts a run and waits until it has taken what it gets. Returns how much that was.
fn start_hostile(mut command: Command) -> (Child, u64) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let taken = line.trim().strip_prefix("holds ").and_then(|number| number.parse().ok());
    (child, taken.unwrap_or_else(|| panic!("{line:?}")))
}

#[test]
fn hostile_runs_do_not_change_an_honest_one() {
    for user in both() {
        let stage = Stage::new(user);
        let image = layout::of_program(&stage.place, "image", &program("invarlock-workload"));
        let run = |argv: &[&str]| {
            let flags = ["runtime", "run", "--timeout=60", "--pids=48", &image, "--", "/workload"];
            stage.command(&[&flags[..], argv].concat())
        };
        let output = |argv: &[&str]| Ran::from(run(argv).output().unwrap()).expect(0).out;
        let honest = || output(&["use-some"]);
        let alone = honest();
        assert!(alone.contains("inotify 4\ntimers 64\n"), "{alone}");
        let names = output(&["resources"]);
        for name in names.split_whitespace() {
            let mut hostile = [0; 2].map(|_| start_hostile(run(&["exhaust", name])));
            assert_eq!(honest(), alone, "{user:?}, beside {name}: {hostile:?}");
            for (child, taken) in &mut hostile {
                // No run takes more than its share.
                let most = match name {
                    "inotify" => 4,
                    "timers" => 1024,
                    "leases" => 0,
                    _ => u64::MAX,
                };
                assert!(*taken <= most, "{user:?}: {taken} of {name}");
                rustix::process::kill_process(
                    rustix::process::Pid::from_child(child),
                    rustix::process::Signal::TERM,
                )
                .unwrap();
                child.wait().unwrap();
            }
        }
        stage.nothing_left("hostile runs");
    }
}
