//! Group G: runs that will not end, and results that come too late. Limits that are met are the runtime's own tests.

use crate::stage::Stage;
use invarlock_tests::As;
use invarlock_tests::leaks::{self, Places};
use serde_json::json;
use std::time::{Duration, Instant};

attack!(g2_everything_stopped, everything_stopped);
attack!(g3_result_after_the_time, result_after_the_time);
attack!(g3_result_of_an_orphan, result_of_an_orphan);

/// Nothing that this test started is alive, soon.
#[track_caller]
fn nothing_lives(before: &leaks::Snapshot) {
    let left = Places::default().left_without_processes(before);
    assert!(left.processes.is_empty(), "left behind: {left:?}");
}

/// The workload, a child and a grandchild in sessions of their own are deaf to SIGTERM, and stop whatever they may signal.
fn everything_stopped(user: As) {
    leaks::adopt_orphans();
    let stage = Stage::new(user);
    let before = Places::default().snapshot();
    let image = stage.image("image", |_| {});
    let start = Instant::now();
    stage.run(&["--timeout=1"], &image, &["stop-everything"]).expect(125).one_error(&["the wall-time limit"]);
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    nothing_lives(&before);
}

/// A report that is written again and again, past the end of the time, is no report.
fn result_after_the_time(user: As) {
    leaks::adopt_orphans();
    let stage = Stage::new(user);
    let before = Places::default().snapshot();
    let ran = stage.evaluate_by("late", &["--timeout=1"]).expect(3);
    ran.one_error(&["baseline", "time limit"]);
    no_evidence(&stage);
    nothing_lives(&before);
}

/// The evaluator ends well, and what it left behind goes on writing its report.
fn result_of_an_orphan(user: As) {
    leaks::adopt_orphans();
    let stage = Stage::new(user);
    let before = Places::default().snapshot();
    let start = Instant::now();
    stage.evaluate_by("orphan", &[]).expect(3).one_error(&["baseline"]);
    assert!(start.elapsed() < Duration::from_secs(15), "it waited for the orphans");
    no_evidence(&stage);
    // The same under a filter that lets it make processes: it is one run's output, and no process is left to change it any more.
    let tree = stage.tree("tree");
    std::fs::write(tree.join("attack"), "orphan").unwrap();
    let ends = stage.launch(&json!({"rootfs": [tree], "argv": ["/workload", "--job"], "env": []}));
    assert_eq!(ends[0]["result"]["status"], json!({"exited": 0}), "{ends:?}");
    assert!(start.elapsed() < Duration::from_secs(15), "it waited for the orphans");
    nothing_lives(&before);
}

fn no_evidence(stage: &Stage) {
    assert_eq!(stage.place.names("work/reports/eval"), Vec::<String>::new());
    for run in stage.place.names("work/runs/source") {
        assert_eq!(
            stage.place.names(&format!("work/runs/source/{run}")),
            ["stderr.log"],
            "more than its log"
        );
    }
}
