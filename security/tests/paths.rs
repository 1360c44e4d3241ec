//! Safety of paths and of temporary directories, on a real file system. Some need another owner and run as root only; they say so.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use invarlock_security::{Error, SecureTempDir, is_secure_path, secure_executable, secure_tempdir};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
}

/// A fresh private directory whose own path is safe.
fn scratch() -> SecureTempDir {
    SecureTempDir::new_with("invarlock-test-", &|_| None).expect("scratch")
}

#[allow(clippy::print_stderr, reason = "a skipped test is said")]
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it needs root, to make files of another owner");
    }
    root
}

#[track_caller]
fn refused(path: &Path, word: &str) {
    match is_secure_path(path) {
        Err(Error::Safety(message)) => assert!(message.contains(word), "{message}"),
        other => panic!("{}: {other:?}", path.display()),
    }
}

#[test]
fn a_private_directory_is_safe_and_what_others_can_write_is_not() {
    let dir = scratch();
    let (sub, file) = (dir.path().join("sub"), dir.path().join("sub/file"));
    fs::create_dir(&sub).expect("dir");
    fs::write(&file, "x").expect("file");
    mode(&sub, 0o755);
    mode(&file, 0o644);
    is_secure_path(&sub).expect("directory");
    is_secure_path(&file).expect("file");

    for bad in [0o664, 0o646, 0o666] {
        mode(&file, bad);
        refused(&file, "writable by group or others");
    }
    mode(&file, 0o644);
    for bad in [0o775, 0o757] {
        mode(&sub, bad);
        refused(&sub, "writable by group or others");
        refused(&file, "writable by group or others");
    }
    // Sticky: nobody can replace what is in it, but it is no place of ours itself.
    mode(&sub, 0o1777);
    is_secure_path(&file).expect("file in a sticky directory");
    refused(&sub, "writable by group or others");
    refused(Path::new("/tmp"), "writable by group or others");
    // A sticky file is nothing special.
    mode(&sub, 0o755);
    mode(&file, 0o1666);
    refused(&file, "writable by group or others");
}

#[test]
fn links_and_dots_are_refused_and_missing_files_are_named() {
    let dir = scratch();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).expect("dir");
    fs::write(real.join("file"), "x").expect("file");
    mode(&real, 0o755);
    symlink(&real, &link).expect("link");
    refused(&link, "symbolic link");
    refused(&link.join("file"), "symbolic link");
    refused(&dir.path().join("real/../real"), "'..'");
    refused(&real.join("file/below"), "not a directory");
    let missing = dir.path().join("missing");
    assert!(matches!(is_secure_path(&missing), Err(Error::Input(message)) if message.contains("missing")));
    assert!(is_secure_path(Path::new("")).is_err());
}

#[test]
fn another_owner_is_refused() {
    if !is_root("another_owner_is_refused") {
        return;
    }
    let dir = scratch();
    let (sub, file) = (dir.path().join("sub"), dir.path().join("sub/file"));
    fs::create_dir(&sub).expect("dir");
    fs::write(&file, "x").expect("file");
    mode(&sub, 0o755);
    mode(&file, 0o755);
    chown(&file, Some(1001), None).expect("owner");
    refused(&file, "belongs to uid 1001");
    assert!(matches!(secure_executable(&file), Err(Error::Safety(_))));
    chown(&file, Some(0), None).expect("owner");
    secure_executable(&file).expect("root's again");
    chown(&sub, Some(1001), None).expect("owner");
    refused(&file, "belongs to uid 1001");
    assert!(matches!(SecureTempDir::new_in(&sub, "x"), Err(Error::Safety(_))));
}

#[test]
fn programs_must_be_files_that_run_and_that_others_cannot_write() {
    let dir = scratch();
    let file = dir.path().join("program");
    fs::write(&file, "#!/bin/true").expect("file");
    mode(&file, 0o755);
    secure_executable(&file).expect("program");
    mode(&file, 0o4755);
    secure_executable(&file).expect("set-uid is somebody else's concern");
    for (bits, word) in [(0o644, "not executable"), (0o775, "writable"), (0o757, "writable")] {
        mode(&file, bits);
        let error = secure_executable(&file).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(secure_executable(dir.path()).expect_err("directory").to_string().contains("not a regular file"));
    let link = dir.path().join("link");
    mode(&file, 0o755);
    symlink(&file, &link).expect("link");
    assert!(secure_executable(&link).expect_err("link").to_string().contains("symbolic link"));
}

#[test]
fn temporary_directories_are_private_and_go_away() {
    let dir = secure_tempdir("invarlock-test-").expect("made");
    let path = dir.path().to_owned();
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o700);
    is_secure_path(&path).expect("safe");
    fs::create_dir_all(path.join("a/b")).expect("content");
    fs::write(path.join("a/b/c"), "x").expect("content");
    drop(dir);
    assert!(!path.exists());

    let dir = secure_tempdir("invarlock-test-").expect("made");
    let path = dir.path().to_owned();
    dir.close().expect("closed");
    assert!(!path.exists());

    let dir = secure_tempdir("invarlock-test-").expect("made");
    fs::remove_dir(dir.path()).expect("removed by somebody");
    assert!(dir.close().is_err(), "a removal that fails is said");
}

#[test]
fn the_place_is_chosen_safely() {
    let outer = scratch();
    let (run, tmp) = (outer.path().join("run"), outer.path().join("tmp"));
    fs::create_dir(&run).expect("dir");
    fs::create_dir(&tmp).expect("dir");
    mode(&run, 0o700);
    mode(&tmp, 0o1777);
    let place = |run: Option<&Path>, tmp: Option<&Path>| {
        let (run, tmp) = (run.map(PathBuf::from), tmp.map(PathBuf::from));
        SecureTempDir::new_with("x-", &move |name| match name {
            "XDG_RUNTIME_DIR" => run.clone(),
            "TMPDIR" => tmp.clone(),
            _ => None,
        })
        .map(|dir| dir.path().parent().expect("parent").to_owned())
    };
    assert_eq!(place(Some(&run), Some(&tmp)).expect("run"), run);
    mode(&run, 0o755);
    assert_eq!(place(Some(&run), Some(&tmp)).expect("tmp"), tmp);
    assert_eq!(place(None, None).expect("/tmp"), Path::new("/tmp"));
    assert_eq!(place(Some(Path::new("relative")), None).expect("/tmp"), Path::new("/tmp"));
    mode(&tmp, 0o777);
    assert!(
        matches!(place(None, Some(&tmp)), Err(Error::Safety(_))),
        "a TMPDIR others can write, not sticky"
    );
    assert!(place(None, Some(&outer.path().join("none"))).is_err(), "a TMPDIR that is not there");
}
