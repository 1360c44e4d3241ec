//! Exporting to what carries a file to a machine without a network: file systems that have no hard links.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "what is skipped, and what was seen")]

mod common;

use invarlock_error::Kind;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::*;
use invarlock_images::{Policy, Reference, Store};

/// Told to the copy that has such a file system on `/mnt`.
const INSIDE: &str = "INVARLOCK_TEST_STICK";

/// A file system's name, and what makes one in `$D/disk`.
const KINDS: [(&str, &str); 2] = [
    ("vfat", "truncate -s 64M $D/disk && mkfs.vfat $D/disk"),
    ("exfat", "truncate -s 64M $D/disk && mkfs.exfat $D/disk"),
];

#[test]
fn an_archive_is_written_where_there_are_no_hard_links() {
    let test = "an_archive_is_written_where_there_are_no_hard_links";
    if std::env::var_os(INSIDE).is_some() {
        let linked = fs::write("/mnt/a", "").and_then(|()| fs::hard_link("/mnt/a", "/mnt/b"));
        linked.expect_err("it has no hard links");
        fs::remove_file("/mnt/a").expect("rm");
        return works(Path::new("/mnt"));
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED {test}: only root can mount them");
    }
    let itself =
        format!("'{}' --exact {test} --nocapture", std::env::current_exe().expect("own program").display());
    for (kind, make) in KINDS {
        let dir = scratch();
        let mount = format!("mount -t {kind} -o loop $D/disk /mnt");
        if let Err(why) = inside((INSIDE, kind), &format!("{make}; {mount}"), dir.path()) {
            eprintln!("SKIPPED {test}: {kind}: {}", why.trim());
            continue;
        }
        inside((INSIDE, kind), &format!("{mount}; exec {itself}"), dir.path())
            .unwrap_or_else(|why| panic!("{kind}: {why}"));
        println!("{kind}: exported, not replaced, imported");
    }
}

/// As on a file system that refuses what others do, by a tool that answers for the kernel.
#[test]
fn an_archive_is_written_where_renames_and_links_are_refused() {
    let test = "an_archive_is_written_where_renames_and_links_are_refused";
    if std::env::var_os(INSIDE).is_some() {
        return works(scratch().path());
    }
    for (kind, refused) in [
        ("no renames of that kind", &["renameat2:error=EINVAL"][..]),
        ("no hard links either", &["renameat2:error=EINVAL", "linkat:error=EPERM"]),
    ] {
        let strace = |program: &Path, args: &[&str]| {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null"]);
            command.args(refused.iter().flat_map(|it| ["-e".to_owned(), format!("inject={it}")]));
            command.arg(program).args(args).env(INSIDE, kind).output()
        };
        if !strace("true".as_ref(), &[]).is_ok_and(|it| it.status.success()) {
            return eprintln!("SKIPPED {test}: strace is not installed, or may not");
        }
        let program = std::env::current_exe().expect("own program");
        let output = strace(&program, &["--exact", test, "--nocapture"]).expect("strace");
        let text =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        assert!(output.status.success(), "{kind}: {text}");
        println!("{kind}: exported, not replaced, imported");
    }
}

/// Export, not over what is there, and import.
fn works(place: &Path) {
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let layer = Tar::default().file("a", "content").end();
    layout.index(&[layout.image(&[(TAR, layer.clone(), layer)])]);
    let store = Store::open(&dir.path().join("store")).expect("store");
    let imported =
        store.import(&layout.reference(), Some("it:1"), Policy::default(), &|_| {}).expect("import");
    let reference = |text: &str| Reference::parse(text).expect("reference");
    for kind in ["oci-archive", "docker-archive"] {
        let to = reference(&format!("{kind}:{}/{kind}.tar", place.display()));
        store.export(&reference("it:1"), &to, &|_| {}).expect("export");
        let refused = store.export(&reference("it:1"), &to, &|_| {});
        assert!(matches!(&refused, Err(error) if error.kind() == Kind::Input), "{refused:?}");
        let again = store.import(&to, Some("it:2"), Policy::default(), &|_| {}).expect("import");
        assert!(kind != "oci-archive" || again.manifest_digest == imported.manifest_digest);
    }
    assert_eq!(fs::read_dir(place).expect("list").count(), 2, "nothing is left beside them");
}
