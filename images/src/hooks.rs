//! The steps at which the store on disk changes, and, in debug builds, dying at one of them. In a release build no variable is read.

/// Everything that changes the store, in the order in which pulling or importing an image and tidying up do it.
pub const STEPS: [&str; 15] = [
    "pull: part opened",
    "pull: bytes kept",
    "store: blob written",
    "store: blob named",
    "store: partial made",
    "store: layer unpacked",
    "store: record sealed",
    "store: trees synced",
    "store: seal beside",
    "store: tree named",
    "store: index written",
    "store: index named",
    "gc: tree put aside",
    "gc: tree removed",
    "gc: blob removed",
];

/// Kills this process where a test wants it dead here. The variable is the one that dies at steps of a run, too.
#[cfg(debug_assertions)]
pub(crate) fn step(name: &'static str) {
    debug_assert!(STEPS.contains(&name), "step {name:?} is not listed, so no test dies at it");
    if std::env::var_os("INVARLOCK_TEST_KILL_AT").is_some_and(|it| it == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn step(_: &'static str) {}
