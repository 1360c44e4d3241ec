//! `make bench` compares the time of a no-op run with crun, runc, podman and bubblewrap, interleaved in one run. It also prints the time
//! of each step of our run and of an evaluation. Figures are medians and ratios. A peer that is not installed
//! is reported as skipped.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark stops at the first thing that goes wrong"
)]

mod contenders;
mod evaluate;
mod steps;

use contenders::Contender;
use invarlock_tests::set_mode;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 60;
const PAUSE: Duration = Duration::from_millis(200);
/// Set when this program runs in a mount namespace in which crun works.
const PREPARED: &str = "INVARLOCK_BENCH_PREPARED";

fn main() {
    let invarlock =
        PathBuf::from(std::env::args_os().nth(1).expect("usage: invarlock-bench PATH-OF-INVARLOCK"));
    if std::env::var_os(PREPARED).is_none() && hybrid_root() {
        enter_plain_v1();
    }
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let contenders = contenders::all(&invarlock, dir.path());
    compare(&contenders);
    steps::print(&contenders[0], ROUNDS, PAUSE);
    evaluate::print(&invarlock, dir.path());
    contenders::finish(dir);
}

/// crun refuses a hybrid cgroup layout. It works without the unified mount; all contenders run without it.
fn hybrid_root() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists()
}

fn enter_plain_v1() -> ! {
    let script = "mount --make-rprivate / && umount /sys/fs/cgroup/unified && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args(std::env::args_os())
        .env(PREPARED, "1")
        .status()
        .unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

fn compare(contenders: &[Contender]) {
    println!("boundary: whole command for a static no-op, {ROUNDS} rounds interleaved, milliseconds\n");
    println!(
        "{:<22} {:>10} {:>10} {:>8} {:>14} {:>10} {:>8}",
        "", "median", "min", "ratio", "0.2 s: median", "min", "ratio"
    );
    let hot = rounds(contenders, Duration::ZERO);
    let cold = rounds(contenders, PAUSE);
    for (i, c) in contenders.iter().enumerate() {
        let ratio = |all: &[Vec<f64>]| median(&all[0]) / median(&all[i]);
        println!(
            "{:<22} {:>10.2} {:>10.2} {:>8.3} {:>14.2} {:>10.2} {:>8.3}",
            c.name,
            median(&hot[i]),
            hot[i][0],
            ratio(&hot),
            median(&cold[i]),
            cold[i][0],
            ratio(&cold)
        );
    }
    println!("\nratio: ours divided by the peer's median\n");
}

/// Sorted milliseconds of each contender. The order changes every round, because the clean-up after one contender (a container engine
/// still works after its command ends) slows down the next.
fn rounds(contenders: &[Contender], pause: Duration) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 0..ROUNDS {
        shuffle(&mut order, round);
        for &i in &order {
            let mut command = (contenders[i].command)(round);
            contenders::detach(&mut command);
            std::thread::sleep(pause);
            let start = Instant::now();
            let status = command.status().unwrap();
            times[i].push(start.elapsed().as_secs_f64() * 1e3);
            assert!(status.success(), "{} failed in round {round}", contenders[i].name);
        }
    }
    times.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
    times
}

/// The order of a round, the same in every benchmark run: a Fisher-Yates shuffle seeded by the round's number.
fn shuffle(order: &mut [usize], round: usize) {
    for last in (1..order.len()).rev() {
        let mut hasher = DefaultHasher::new();
        (round, last).hash(&mut hasher);
        order.swap(last, usize::try_from(hasher.finish() % (last as u64 + 1)).unwrap());
    }
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
