//! The attacker's process inside the container. It makes the attacks and prints one line for each; it does not judge the results.

use crate::answer::{Answer, AnswerLine};
use crate::attacks::Attack;
use crate::contract::{ALL, BINDS, EXIT, MEMORY_LIMIT, WALL_LIMIT};
use crate::{attacks, sys};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Makes the attacks that the first argument names. Refuses to run outside a container.
pub(crate) fn main() -> ! {
    let part = std::env::args().nth(1).unwrap_or_default();
    if part == EXIT {
        sys::exit_now(0);
    }
    if let Err(why) = check_isolation() {
        drop(writeln!(std::io::stderr(), "the attacker runs only in a container of the probe: {why}"));
        sys::exit_now(2);
    }
    attacks::record_descriptors();
    match part.as_str() {
        ALL => attacks::in_every_run().for_each(make),
        BINDS => attacks::in_binds().for_each(make),
        "memory" => print_answer("memory", allocate_over_limit()),
        "processors" => print_answer("processors", measure_cpu_share()),
        "time" => outlive_limit(),
        "link" => print_answer("link", Answer::of(std::os::unix::fs::symlink("/etc/shadow", "/out/link"))),
        "fifo" => {
            print_answer("fifo", Answer::of(attacks::make_node("/out/fifo", rustix::fs::FileType::Fifo)))
        }
        _ => sys::exit_now(2),
    }
    sys::exit_now(0)
}

fn make(attack: &Attack) {
    if let Some(run) = attack.run {
        print_answer(attack.id, sys::run_in_child(run));
    }
}

fn print_answer(attack: &str, answer: Answer) {
    let line = AnswerLine { attack: attack.to_owned(), answer };
    if let Ok(text) = serde_json::to_string(&line) {
        drop(writeln!(std::io::stdout(), "{text}"));
    }
}

/// Requires a pid namespace and a network namespace without other processes and interfaces.
fn check_isolation() -> Result<(), String> {
    let interfaces = attacks::interfaces();
    if interfaces != "lo" {
        return Err(format!("this network namespace has the interfaces {interfaces:?}"));
    }
    // Process 1 is init, and the attacker is its only child.
    match (std::process::id(), rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get())) {
        (2, Some(1)) => Ok(()),
        (pid, parent) => Err(format!("this is process {pid}, its parent is {parent:?}")),
    }
}

/// Uses a quarter more memory than the limit allows.
fn allocate_over_limit() -> Answer {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for i in 0..(MEMORY_LIMIT / 4 * 5) >> 20 {
        let mut block: Vec<u8> = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            return Answer::Failed(libc::ENOMEM);
        }
        // Memory counts when it is written. Each block has another value.
        block.resize(1 << 20, i as u8 | 1);
        blocks.push(block);
    }
    let count = std::hint::black_box(&blocks).iter().filter_map(|block| block.first()).count();
    Answer::Text(format!("{count} MiB"))
}

/// The share of one processor that a busy process gets, in percent, and the number of processors it may use.
fn measure_cpu_share() -> Answer {
    let processors = rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count());
    let (start, before) = (Instant::now(), cpu_time());
    while start.elapsed() < Duration::from_millis(400) {
        std::hint::black_box(0);
    }
    let used = cpu_time().saturating_sub(before).as_micros() * 100 / start.elapsed().as_micros();
    Answer::Text(format!("{used} {processors}"))
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Leaves a grandchild in a session of its own behind, ignores termination signals like that grandchild, and runs for longer than the
/// wall-time limit.
fn outlive_limit() {
    if let Ok(0) = sys::fork() {
        _ = rustix::process::setsid();
        if let Ok(0) = sys::fork() {
            let name = std::env::args().nth(2).unwrap_or_default();
            if let Ok(name) = std::ffi::CString::new(name) {
                _ = rustix::thread::set_name(&name);
            }
            sys::ignore_termination_signals();
            std::thread::sleep(Duration::from_secs(20));
        }
        sys::exit_now(0);
    }
    sys::ignore_termination_signals();
    std::thread::sleep(WALL_LIMIT * 4);
    print_answer("time", Answer::Text("went on".into()));
}
