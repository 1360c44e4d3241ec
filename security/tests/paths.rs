//! Safety of paths and temporary directories on a real file system. Tests that need files of another owner run as root only and
//! report a skip otherwise.

use invarlock_error::Kind;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use invarlock_security::{SecureTempDir, is_secure_path, secure_executable, secure_tempdir};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
}

/// A fresh private directory whose own path is safe.
fn scratch() -> SecureTempDir {
    SecureTempDir::new_with("invarlock-test-", &|_| None).expect("scratch")
}

#[allow(clippy::print_stderr, reason = "a skipped test is reported")]
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it needs root to create files of another owner");
    }
    root
}

#[track_caller]
fn assert_unsafe(path: &Path, word: &str) {
    match is_secure_path(path) {
        Err(error) if error.kind() == Kind::Safety => {
            let text = format!("{error}; {}", error.hint().unwrap_or_default());
            assert!(text.contains(word), "{text}");
        }
        other => panic!("{}: {other:?}", path.display()),
    }
}

#[test]
fn private_directory_is_safe_and_writable_by_others_is_not() {
    let dir = scratch();
    let (sub, file) = (dir.path().join("sub"), dir.path().join("sub/file"));
    fs::create_dir(&sub).expect("dir");
    fs::write(&file, "x").expect("file");
    mode(&sub, 0o755);
    mode(&file, 0o644);
    is_secure_path(&sub).expect("directory");
    is_secure_path(&file).expect("file");

    for bad in [0o646, 0o666] {
        mode(&file, bad);
        assert_unsafe(&file, "writable by others");
        assert_unsafe(&file, &format!("(mode {bad:o}); run `chmod go-w {}`", file.display()));
    }
    mode(&file, 0o644);
    for bad in [0o757, 0o777] {
        mode(&sub, bad);
        assert_unsafe(&sub, "writable by others");
        assert_unsafe(&file, "writable by others");
    }
    // Sticky: files in it are safe from replacement, but the directory itself is not a safe place.
    mode(&sub, 0o1777);
    is_secure_path(&file).expect("file in a sticky directory");
    assert_unsafe(&sub, "writable by others");
    assert_unsafe(Path::new("/tmp"), "writable by others");
    // The sticky bit of a file has no effect.
    mode(&sub, 0o755);
    mode(&file, 0o1666);
    assert_unsafe(&file, "writable by others");
}

/// Whether the caller's primary group has no other member, according to `getent`.
fn has_private_group() -> bool {
    let getent = |what: &str, key: &str| {
        let out = std::process::Command::new("getent").args([what, key]).output().ok()?;
        String::from_utf8(out.stdout).ok().filter(|text| !text.is_empty())
    };
    let uid = rustix::process::geteuid().as_raw().to_string();
    let Some(account) = getent("passwd", &uid) else { return false };
    let fields: Vec<&str> = account.trim().split(':').collect();
    let [name, _, _, gid, ..] = fields.as_slice() else { return false };
    let accounts = fs::read_to_string("/etc/passwd").expect("accounts");
    let primary = accounts.lines().filter(|line| line.split(':').nth(3) == Some(gid)).count();
    let Some(group) = getent("group", gid) else { return false };
    let members = group.trim().rsplit(':').next().unwrap_or_default().to_owned();
    primary == 1
        && (members.is_empty() || members == *name)
        && rustix::process::getegid().as_raw().to_string() == *gid
}

/// As with `umask 0002`: every directory and file is writable by the caller's private group.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test is reported")]
fn private_group_may_write() {
    if !has_private_group() {
        eprintln!("SKIPPED private_group_may_write: the caller's primary group is not private");
        return;
    }
    let dir = scratch();
    let (sub, file) = (dir.path().join("target"), dir.path().join("target/program"));
    fs::create_dir(&sub).expect("dir");
    fs::write(&file, "#!/bin/true").expect("file");
    mode(&sub, 0o775);
    mode(&file, 0o775);
    is_secure_path(&file).expect("file");
    secure_executable(&file).expect("program");
    assert!(SecureTempDir::new_in(&sub, "x").is_ok());
    mode(&file, 0o664);
    is_secure_path(&file).expect("file");
    mode(&file, 0o2775);
    secure_executable(&file).expect("set-gid is not checked here");
    mode(&sub, 0o777);
    assert_unsafe(&file, "writable by others");
}

/// The same layout with a shared group and with an unknown group.
#[test]
fn shared_group_must_not_write() {
    if !is_root("shared_group_must_not_write") {
        return;
    }
    let groups = fs::read_to_string("/etc/group").expect("groups");
    let gid_of = |line: &str| line.split(':').nth(2).and_then(|gid| gid.parse::<u32>().ok());
    let unknown =
        (70_000..).find(|gid| !groups.lines().any(|line| gid_of(line) == Some(*gid))).expect("an id");
    let known = groups.lines().filter_map(gid_of).find(|gid| *gid != 0).expect("a second group");
    let dir = scratch();
    let (sub, file) = (dir.path().join("sub"), dir.path().join("sub/file"));
    fs::create_dir(&sub).expect("dir");
    fs::write(&file, "x").expect("file");
    for gid in [unknown, known] {
        mode(&sub, 0o755);
        mode(&file, 0o664);
        chown(&file, None, Some(gid)).expect("group");
        assert_unsafe(&file, &format!("run `chmod g-w {}`", file.display()));
        mode(&file, 0o644);
        is_secure_path(&file).expect("the remedy");
        chown(&sub, None, Some(gid)).expect("group");
        mode(&sub, 0o775);
        assert_unsafe(&file, &format!("run `chmod g-w {}`", sub.display()));
        chown(&sub, None, Some(0)).expect("group");
    }
}

/// The group bits of a file with an access control list are the mask of the list.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test is reported")]
fn access_control_list_is_rejected() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("file");
    // Version 2; owner rw, user 1234 rw, group r, mask rw, others none.
    let mut list = vec![2, 0, 0, 0];
    let none = u32::MAX;
    for (tag, bits, id) in [(1_u16, 6_u16, none), (2, 6, 1234), (4, 4, none), (16, 6, none), (32, 0, none)] {
        list.extend(tag.to_le_bytes());
        list.extend(bits.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&file, "system.posix_acl_access", &list, flags) {
        eprintln!(
            "SKIPPED access_control_list_is_rejected: {} does not support access control lists ({error})",
            file.display()
        );
        return;
    }
    assert_unsafe(&file, "it has an access control list");
}

#[test]
fn links_and_dots_are_rejected_and_missing_files_are_named() {
    let dir = scratch();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).expect("dir");
    fs::write(real.join("file"), "x").expect("file");
    mode(&real, 0o755);
    symlink(&real, &link).expect("link");
    assert_unsafe(&link, "symbolic link");
    assert_unsafe(&link.join("file"), "symbolic link");
    assert_unsafe(&dir.path().join("real/../real"), "'..'");
    assert_unsafe(&real.join("file/below"), "not a directory");
    let missing = dir.path().join("missing");
    assert!(
        matches!(is_secure_path(&missing), Err(message) if message.kind() == Kind::Input && message.message().contains("missing"))
    );
    assert!(is_secure_path(Path::new("")).is_err());
}

#[test]
fn another_owner_is_rejected() {
    if !is_root("another_owner_is_rejected") {
        return;
    }
    let dir = scratch();
    let (sub, file) = (dir.path().join("sub"), dir.path().join("sub/file"));
    fs::create_dir(&sub).expect("dir");
    fs::write(&file, "x").expect("file");
    mode(&sub, 0o755);
    mode(&file, 0o755);
    chown(&file, Some(1001), None).expect("owner");
    assert_unsafe(&file, "belongs to uid 1001");
    assert!(matches!(secure_executable(&file), Err(error) if error.kind() == Kind::Safety));
    chown(&file, Some(0), None).expect("owner");
    secure_executable(&file).expect("root's again");
    chown(&sub, Some(1001), None).expect("owner");
    assert_unsafe(&file, "belongs to uid 1001");
    assert!(matches!(SecureTempDir::new_in(&sub, "x"), Err(error) if error.kind() == Kind::Safety));
}

#[test]
fn program_must_be_an_executable_file_that_others_cannot_write() {
    let dir = scratch();
    let file = dir.path().join("program");
    fs::write(&file, "#!/bin/true").expect("file");
    mode(&file, 0o755);
    secure_executable(&file).expect("program");
    mode(&file, 0o4755);
    secure_executable(&file).expect("set-uid is not checked here");
    for (bits, word) in [(0o644, "not executable"), (0o757, "writable"), (0o777, "writable")] {
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
fn temporary_directory_is_private_and_removed() {
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
    fs::remove_dir(dir.path()).expect("removed by another process");
    assert!(dir.close().is_err(), "a failed removal is reported");
}

#[test]
fn parent_directory_is_chosen_safely() {
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
        matches!(place(None, Some(&tmp)), Err(error) if error.kind() == Kind::Safety),
        "a TMPDIR that others can write and that is not sticky"
    );
    assert!(place(None, Some(&outer.path().join("none"))).is_err(), "a TMPDIR that does not exist");
}

#[test]
fn directory_of_a_killed_process_is_removed_and_of_a_live_one_is_kept() {
    let base = scratch();
    let make = || SecureTempDir::new_in(base.path(), "swept-").expect("made");
    // What a killed process leaves: a directory without a lock.
    let left = base.path().join("swept-abcdefABCDEF");
    let others = ["swept-short", "other-abcdefABCDEF", "swept-abcdef.BCDEF"].map(|n| base.path().join(n));
    for dir in others.iter().chain([&left]) {
        fs::create_dir(dir).expect("dir");
        fs::write(dir.join("file"), "x").expect("file");
    }
    symlink(&others[0], base.path().join("swept-linklinklink")).expect("link");
    let live = make();
    fs::write(live.path().join("file"), "x").expect("file");
    assert!(!left.exists());
    drop(make());
    assert!(live.path().join("file").exists() && others.iter().all(|dir| dir.join("file").exists()));
}

#[test]
fn concurrent_processes_keep_their_directories() {
    let base = scratch();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..200 {
                    let dir = SecureTempDir::new_in(base.path(), "busy-").expect("made");
                    fs::write(dir.path().join("file"), "x").expect("its own directory");
                    dir.close().expect("removed");
                }
            });
        }
    });
    assert_eq!(fs::read_dir(base.path()).expect("names").count(), 0);
}
