//! Kill points for tests: the steps at which the store on disk changes. Only builds with the feature `fault-injection` read the variable
//! that selects one.

/// Every step that changes the store, in the order in which a pull or import followed by `gc` reaches them.
#[cfg(feature = "fault-injection")]
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

/// Kills this process if a test selected this step with `INVARLOCK_TEST_KILL_AT`. The variable also selects steps of a run.
#[cfg(feature = "fault-injection")]
pub(crate) fn step(name: &'static str) {
    assert!(STEPS.contains(&name), "step {name:?} is not listed, so no test covers it");
    if std::env::var_os("INVARLOCK_TEST_KILL_AT").is_some_and(|selected| selected == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(not(feature = "fault-injection"))]
pub(crate) fn step(_: &'static str) {}
