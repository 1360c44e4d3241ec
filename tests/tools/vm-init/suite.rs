//! Runs the cases and prints their results.

use crate::cases;
use crate::machine::Who;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Test programs and who runs them. Each program lists its tests when asked.
const PROGRAMS: &str = "/tests";

/// Runs everything and prints one line a case.
pub fn run() {
    let cases = cases::all();
    // The firmware leaves the cursor in the middle of a line.
    println!("\nPLAN {}", cases.len());
    for (who, name, case) in cases {
        let start = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| case(who))).is_ok();
        tell(who, name, good, start);
    }
    let mut programs: Vec<_> =
        std::fs::read_dir(PROGRAMS).into_iter().flatten().flatten().map(|e| e.path()).collect();
    programs.sort();
    for program in &programs {
        for who in [Who::Root, Who::User] {
            test_program(who, program);
        }
    }
}

fn tell(who: Who, name: &str, good: bool, since: Instant) {
    let verdict = if good { "ok" } else { "FAILED" };
    println!("CASE {} {name} {verdict} {}", who.name(), since.elapsed().as_millis());
}

/// Runs each test of a test program in its own process.
fn test_program(who: Who, link: &Path) {
    let program = std::fs::read_link(link).unwrap();
    let listed = who.command(&program).arg("--list").output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names: Vec<&str> = listed.lines().filter_map(|l| l.strip_suffix(": test")).collect();
    let file = link.file_name().unwrap().to_string_lossy().into_owned();
    assert!(!names.is_empty(), "{file} has no test");
    println!("PLAN {}", names.len());
    for name in names {
        let start = Instant::now();
        let mut command = who.command(&program);
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
        // The machine ends with the tests, so a test may change its core pattern.
        command.env("INVARLOCK_TEST_CORE_PATTERN", "1");
        tell(who, &format!("{file}::{name}"), succeeds(command), start);
    }
}

/// Whether a program succeeds. Prints its output if it fails.
fn succeeds(mut command: Command) -> bool {
    let out = command.output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines = said.lines().filter(|l| !out.status.success() || l.starts_with("SKIPPED"));
    lines.for_each(|l| println!("LOG {l}"));
    out.status.success()
}
