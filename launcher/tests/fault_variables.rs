//! The variables of fault injection work only in builds with the feature `fault-injection`, which no release has.
//!
//! `make test` runs this test twice: with the feature and without it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

const PROGRAM: &str = env!("CARGO_BIN_EXE_invarlock");
const VARIABLES: [&str; 3] = ["INVARLOCK_TEST_KILL_AT", "INVARLOCK_TEST_WITHOUT", "INVARLOCK_TEST_UNSEEN"];
const SIGKILL: i32 = 9;

/// Builds a small image with a kill point set.
fn build_image_with_kill_point(directory: &tempfile::TempDir) -> ExitStatus {
    let files = directory.path().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("file"), "content").unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["runtime", "image", "build", "--name", "small:1", "--from"]).arg(&files);
    command.env("INVARLOCK_STORE", directory.path().join("store"));
    command.env("INVARLOCK_TEST_KILL_AT", "store: blob written");
    command.output().unwrap().status
}

#[test]
fn kill_point_works_only_with_the_feature() {
    let directory = tempfile::tempdir().unwrap();
    let status = build_image_with_kill_point(&directory);
    if cfg!(feature = "fault-injection") {
        assert_eq!(status.signal(), Some(SIGKILL), "{status}");
    } else {
        assert!(status.success(), "{status}");
    }
}

#[test]
fn only_a_program_with_the_feature_contains_the_variables() {
    let program = std::fs::read(PROGRAM).unwrap();
    for variable in VARIABLES {
        let found = program.windows(variable.len()).any(|bytes| bytes == variable.as_bytes());
        assert_eq!(found, cfg!(feature = "fault-injection"), "{variable}");
    }
}
