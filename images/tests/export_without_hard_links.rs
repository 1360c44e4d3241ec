//! Export to file systems without hard links, such as those of USB sticks.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "skipped tests and results")]

mod common;

use invarlock_error::Kind;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::*;
use invarlock_images::{Policy, Reference, Store};

/// Set for the subprocess that uses the file system on `/mnt`.
const IN_NAMESPACE: &str = "INVARLOCK_TEST_STICK";

/// Name, and command to create the file system in `$D/disk`.
const KINDS: [(&str, &str); 2] = [
    ("vfat", "truncate -s 64M $D/disk && mkfs.vfat $D/disk"),
    ("exfat", "truncate -s 64M $D/disk && mkfs.exfat $D/disk"),
];

#[test]
fn archive_is_exported_to_vfat_and_exfat() {
    let test = "archive_is_exported_to_vfat_and_exfat";
    if std::env::var_os(IN_NAMESPACE).is_some() {
        let linked = fs::write("/mnt/a", "").and_then(|()| fs::hard_link("/mnt/a", "/mnt/b"));
        linked.expect_err("hard links are not supported");
        fs::remove_file("/mnt/a").expect("rm");
        return exercise_export(Path::new("/mnt"));
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED {test}: only root can mount them");
    }
    let itself =
        format!("'{}' --exact {test} --nocapture", std::env::current_exe().expect("own program").display());
    for (kind, make) in KINDS {
        let dir = scratch();
        let mount = format!("mount -t {kind} -o loop $D/disk /mnt");
        if let Err(why) =
            run_in_mount_namespace((IN_NAMESPACE, kind), &format!("{make}; {mount}"), dir.path())
        {
            eprintln!("SKIPPED {test}: {kind}: {}", why.trim());
            continue;
        }
        run_in_mount_namespace((IN_NAMESPACE, kind), &format!("{mount}; exec {itself}"), dir.path())
            .unwrap_or_else(|why| panic!("{kind}: {why}"));
        println!("{kind}: exported, not replaced, imported again");
    }
}

/// Simulates file systems without these system calls: strace injects the errors.
#[test]
fn archive_is_exported_without_rename_and_link_calls() {
    let test = "archive_is_exported_without_rename_and_link_calls";
    if std::env::var_os(IN_NAMESPACE).is_some() {
        return exercise_export(scratch().path());
    }
    for (kind, refused) in [
        ("no rename without replacing", &["renameat2:error=EINVAL"][..]),
        ("no hard links", &["renameat2:error=EINVAL", "linkat:error=EPERM"]),
    ] {
        let strace = |program: &Path, args: &[&str]| {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null"]);
            command
                .args(refused.iter().flat_map(|injection| ["-e".to_owned(), format!("inject={injection}")]));
            command.arg(program).args(args).env(IN_NAMESPACE, kind).output()
        };
        if !strace("true".as_ref(), &[]).is_ok_and(|output| output.status.success()) {
            return eprintln!("SKIPPED {test}: strace is not installed or not permitted");
        }
        let program = std::env::current_exe().expect("own program");
        let output = strace(&program, &["--exact", test, "--nocapture"]).expect("strace");
        let text = output_text(&output);
        assert!(output.status.success(), "{kind}: {text}");
        println!("{kind}: exported, not replaced, imported again");
    }
}

/// Exports to new files only, and imports them again.
fn exercise_export(dir_to: &Path) {
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let layer = Tar::default().file("a", "content").end();
    layout.index(&[layout.image(&[(TAR, layer.clone(), layer)])]);
    let store = Store::open(&dir.path().join("store")).expect("store");
    let imported =
        store.import(&layout.reference(), Some("it:1"), Policy::default(), &|_| {}).expect("import");
    let reference = |text: &str| Reference::parse(text).expect("reference");
    for kind in ["oci-archive", "docker-archive"] {
        let to = reference(&format!("{kind}:{}/{kind}.tar", dir_to.display()));
        store.export(&reference("it:1"), &to, &|_| {}).expect("export");
        let refused = store.export(&reference("it:1"), &to, &|_| {});
        assert!(matches!(&refused, Err(error) if error.kind() == Kind::Input), "{refused:?}");
        let again = store.import(&to, Some("it:2"), Policy::default(), &|_| {}).expect("import");
        assert!(kind != "oci-archive" || again.manifest_digest == imported.manifest_digest);
    }
    assert_eq!(fs::read_dir(dir_to).expect("list").count(), 2, "no other file is left");
}
