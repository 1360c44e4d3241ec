//! Process 1 of the machine that `make test-vm` boots. It prepares the machine, runs the suite as root and as an ordinary user with and
//! without a delegated cgroup, prints the results on the console, and switches the machine off.
//!
//! Lines for the host: `PLAN <number of cases>`, `CASE <who> <name> <ok|FAILED> <milliseconds>`, `LOG …` (free text),
//! and `END`. It refuses to run unless it is process 1.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod cases;
mod machine;
mod suite;

use std::process::Command;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["as", who, program @ ..] => machine::become_program(machine::Who::named(who), program),
        ["suite"] => suite::run(),
        _ if std::process::id() != 1 => {
            panic!("this program runs only as process 1 of a virtual machine")
        }
        _ => first_process(),
    }
}

/// Reaps orphans until the suite ends.
fn first_process() {
    machine::prepare();
    let suite = Command::new("/init").arg("suite").env_clear().env("PATH", "/usr/bin:/bin").spawn();
    let suite = rustix::process::Pid::from_child(&suite.unwrap());
    while let Ok(Some((dead, _))) = rustix::process::wait(rustix::process::WaitOptions::empty()) {
        if dead == suite {
            break;
        }
    }
    println!("END");
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).unwrap();
}
