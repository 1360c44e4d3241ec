//! A process that cannot start threads gets an error or continues with fewer threads. It neither panics nor hangs.

mod common;

use common::*;
use invarlock_images::{Policy, RegistryName, Store};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

/// Forbids further threads and processes of this user. The limit does not apply to root.
fn forbid_threads() {
    setrlimit(Resource::Nproc, Rlimit { current: Some(0), ..getrlimit(Resource::Nproc) }).expect("limit");
}

#[test]
fn pull_reports_the_thread_limit_and_push_needs_no_thread() {
    if geteuid().is_root() {
        return run_again_as_user("pull_reports_the_thread_limit_and_push_needs_no_thread");
    }
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let layers: Vec<_> = ["one", "two", "three"]
        .map(|text| Tar::default().file("a", text).end())
        .map(|archive| (GZIP, gzip(&archive), archive))
        .into();
    layout.index(&[layout.image(&layers)]);
    let store = Store::open(&dir.path().join("store")).expect("store");
    let image = store.import(&layout.reference(), Some("it:1"), Policy::default(), &|_| {}).expect("import");
    let empty = TestLayout::new(&dir.path().join("to"));
    empty.index(&[]);
    let name = RegistryName::parse("localhost:1/it:1").expect("name");
    forbid_threads();
    let other = Store::open(&dir.path().join("other")).expect("store");
    let registry = DirectoryRegistry(dir.path().join("layout"));
    let error = other.pull(&name, &registry, None, Some(Policy::default()), &|_, _| {}).expect_err("threads");
    assert!(message_and_hint(&error).contains("ulimit -u"), "{error}");
    assert!(other.list().expect("list").is_empty());
    let to = DirectoryRegistry(dir.path().join("to"));
    let name_in_store = reference("it:1");
    assert_eq!(store.push(&name_in_store, &name, &to, &|_, _| {}).expect("push"), image.manifest_digest);
}
