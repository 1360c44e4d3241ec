//! A user who may have no more threads is told so, or served by fewer; nothing panics and nothing waits for ever.

mod common;

use common::*;
use invarlock_images::{Policy, Reference, RegistryName, Store};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

/// No further thread or process of this user, from now on. Root may have more than that.
fn no_more_threads() {
    setrlimit(Resource::Nproc, Rlimit { current: Some(0), ..getrlimit(Resource::Nproc) }).expect("limit");
}

#[test]
fn too_few_threads_are_said_and_a_push_needs_none() {
    if geteuid().is_root() {
        return again_as_a_user("too_few_threads_are_said_and_a_push_needs_none");
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
    no_more_threads();
    let other = Store::open(&dir.path().join("other")).expect("store");
    let registry = Directory(dir.path().join("layout"));
    let error = other.pull(&name, &registry, None, Some(Policy::default()), &|_, _| {}).expect_err("threads");
    assert!(
        error.to_string().contains("starting a thread")
            && error.hint().is_some_and(|hint| hint.contains("ulimit -u")),
        "{error}"
    );
    assert!(other.list().expect("list").is_empty());
    let to = Directory(dir.path().join("to"));
    let it = Reference::parse("it:1").expect("reference");
    assert_eq!(store.push(&it, &name, &to, &|_, _| {}).expect("push"), image.manifest_digest);
}
