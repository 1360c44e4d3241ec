//! Group G: runs that resist termination, and reports that are written too late. The tests of the
//! runtime crate cover resource limits.

use crate::stage::Stage;
use invarlock_tests::As;
use invarlock_tests::leaks::{self, Places};
use serde_json::json;
use std::time::{Duration, Instant};

attack!(g2_workload_ignores_sigterm_and_stops_processes, workload_stops_processes);
attack!(g3_report_is_written_after_the_time_limit, report_after_the_time_limit);
attack!(g3_report_is_written_by_an_orphan, report_by_an_orphan);

/// Fails the test if a process that the test started stays alive.
#[track_caller]
fn assert_no_processes(before: &leaks::Snapshot) {
    let left = Places::default().left_without_processes(before);
    assert!(left.processes.is_empty(), "left behind: {left:?}");
}

/// The workload, a child and a grandchild in their own sessions ignore SIGTERM and send SIGSTOP to
/// every process that they may signal.
fn workload_stops_processes(user: As) {
    leaks::adopt_orphans();
    let stage = Stage::new(user);
    let before = Places::default().snapshot();
    let image = stage.image("image", |_| {});
    let start = Instant::now();
    stage.run(&["--timeout=1"], &image, &["stop-everything"]).expect(125).one_error(&["the wall-time limit"]);
    assert!(start.elapsed() < Duration::from_secs(15), "the run took {:?}", start.elapsed());
    assert_no_processes(&before);
}

/// The evaluator keeps writing its report beyond the time limit. The report is not used.
fn report_after_the_time_limit(user: As) {
    leaks::adopt_orphans();
    let stage = Stage::new(user);
    let before = Places::default().snapshot();
    let ran = stage.evaluate_by("late", &["--timeout=1"]).expect(3);
    ran.one_error(&["baseline", "time limit"]);
    assert_no_evidence(&stage);
    assert_no_processes(&before);
}

/// The evaluator exits with code 0, and a process that it started keeps writing the report.
fn report_by_an_orphan(user: As) {
    leaks::adopt_orphans();
    let stage = Stage::new(user);
    let before = Places::default().snapshot();
    let start = Instant::now();
    stage.evaluate_by("orphan", &[]).expect(3).one_error(&["baseline"]);
    assert!(start.elapsed() < Duration::from_secs(15), "the launcher waited for the orphans");
    assert_no_evidence(&stage);
    // The same under the general profile, which allows starting processes. The output is collected
    // once, and no process is left that could change it.
    let rootfs = stage.rootfs("tree");
    std::fs::write(rootfs.join("attack"), "orphan").unwrap();
    let outcomes = stage.launch(&json!({"rootfs": [rootfs], "argv": ["/workload", "--job"], "env": []}));
    assert_eq!(outcomes[0]["result"]["status"], json!({"exited": 0}), "{outcomes:?}");
    assert!(start.elapsed() < Duration::from_secs(15), "the launcher waited for the orphans");
    assert_no_processes(&before);
}

fn assert_no_evidence(stage: &Stage) {
    assert_eq!(stage.place.names("work/reports/eval"), Vec::<String>::new());
    for run in stage.place.names("work/runs/source") {
        assert_eq!(
            stage.place.names(&format!("work/runs/source/{run}")),
            ["stderr.log"],
            "the run directory contains more than the log"
        );
    }
}
