//! `make bench-beside` measures an honest run beside two hostile runs that hold all they get of a resource, for each resource, and
//! beside two idle runs. It prints medians and their ratio. The runs of a resource are interleaved with those beside idle runs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first failure")]

use invarlock_tests::{As, Place, Ran, both, layout, program};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Pairs of neighbors for each resource, and honest runs beside each pair.
const ROUNDS: usize = 7;
const RUNS: usize = 5;
/// Time in which idle neighbors start.
const START: Duration = Duration::from_millis(300);
/// The ratio that SPECIFICATION.md promises.
const MOST: f64 = 1.2;

fn main() {
    let invarlock = std::env::args_os().nth(1).expect("usage: invarlock-beside PATH-OF-INVARLOCK");
    println!("{:<8}{:<12}{:>14}{:>16}{:>8}", "", "held", "beside idle", "beside hostile", "ratio");
    let worst = both().into_iter().map(|user| measure(Path::new(&invarlock), user)).fold(0.0, f64::max);
    println!(
        "\nmedian milliseconds of a whole run; the worst ratio is {worst:.2}, at most {MOST} is promised"
    );
}

/// Measures all resources as one user. Returns the worst ratio.
fn measure(invarlock: &Path, user: As) -> f64 {
    let place = Place::with(user, invarlock);
    let image = layout::of_program(&place, "image", &program("invarlock-workload"));
    let stand = Stand { place, image };
    let alone = stand.honest();
    let names = stand.output(&["resources"]);
    let mut worst: f64 = 0.0;
    for name in names.split_whitespace() {
        let (mut idle, mut hostile) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            stand.beside(&["sleep"], &alone, &mut idle);
            stand.beside(&["exhaust", name], &alone, &mut hostile);
        }
        let (idle, hostile) = (median(idle), median(hostile));
        let who = if user == As::User { "user" } else { "root" };
        println!("{who:<8}{name:<12}{idle:>14.2}{hostile:>16.2}{:>8.2}", hostile / idle);
        worst = worst.max(hostile / idle);
    }
    worst
}

/// A store with the image of the workload.
struct Stand {
    place: Place,
    image: String,
}

impl Stand {
    fn run(&self, argv: &[&str]) -> Command {
        let flags = ["runtime", "run", "--timeout=60", "--pids=48", &self.image, "--", "/workload"];
        self.place.command(&[&flags[..], argv].concat())
    }

    fn output(&self, argv: &[&str]) -> String {
        Ran::from(self.run(argv).output().unwrap()).expect(0).out
    }

    /// What a run gets that takes a modest part of every resource.
    fn honest(&self) -> String {
        self.output(&["use-some"])
    }

    /// Times honest runs beside two runs of `neighbor`; each must get what it gets alone.
    fn beside(&self, neighbor: &[&str], alone: &str, times: &mut Vec<f64>) {
        let neighbors: Vec<Child> = (0..2).map(|_| self.start(neighbor)).collect();
        for _ in 0..RUNS {
            let start = Instant::now();
            let got = self.honest();
            times.push(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(got, alone, "beside {neighbor:?}");
        }
        for mut child in neighbors {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts a neighbor and waits until it is idle or holds what it got.
    fn start(&self, argv: &[&str]) -> Child {
        let mut child = self.run(argv).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        if argv == ["sleep"] {
            std::thread::sleep(START);
        } else {
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert!(line.starts_with("holds "), "{line:?}");
        }
        child
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
