//! Core dumps with a handler of the host. The pattern belongs to the whole machine, so this test runs only where it may be changed: in the
//! virtual machine of `make test-vm` (`VM_TESTS=tests:core_dumps`), and with `INVARLOCK_TEST_CORE_PATTERN=1`.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, is_root, set_mode, skip};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
const TEST: &str = "crash_reaches_no_core_handler";

/// Restores the machine's pattern.
struct Pattern(String);

impl Pattern {
    fn set(&self, pattern: &str) {
        fs::write(PATTERN, pattern).expect("the pattern can be set");
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        drop(fs::write(PATTERN, &self.0));
    }
}

fn crash(place: &Place) -> invarlock_tests::Ran {
    place.run(&["runtime", "probe", "--json"])
}

/// Whether the handler has run, within a second.
fn handler_has_run(log: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end && !log.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    log.exists()
}

#[test]
fn crash_reaches_no_core_handler() {
    if !is_root() || std::env::var_os("INVARLOCK_TEST_CORE_PATTERN").is_none() {
        return skip(
            TEST,
            "it changes kernel.core_pattern of the machine (INVARLOCK_TEST_CORE_PATTERN=1 allows it)",
        );
    }
    let pattern = Pattern(fs::read_to_string(PATTERN).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let (handler, log) = (directory.path().join("handler"), directory.path().join("log"));
    set_mode(directory.path(), 0o755);
    fs::write(&handler, format!("#!/bin/sh\necho \"$@\" > {}\n", log.display())).unwrap();
    set_mode(&handler, 0o755);
    pattern.set(&format!("|{} %P", handler.display()));

    // The handler works: a process without a limit of core dumps reaches it.
    Command::new("sh").args(["-c", "kill -ABRT $$"]).status().unwrap();
    assert!(handler_has_run(&log));
    fs::remove_file(&log).unwrap();

    for user in [As::Caller, As::User] {
        let place = Place::new(user);
        assert_eq!(crash(&place).code, 0, "{user:?}");
        assert!(!handler_has_run(&log), "{user:?}: {}", fs::read_to_string(&log).unwrap_or_default());
    }
    // No limit keeps the kernel from connecting to a socket.
    pattern.set("@/run/no-such-socket");
    if fs::read_to_string(PATTERN).unwrap().starts_with('@') {
        for user in [As::Caller, As::User] {
            let refused = crash(&Place::new(user));
            assert!(refused.code != 0 && refused.out.contains("core dumps"), "{user:?}: {refused:?}");
        }
    }
}
