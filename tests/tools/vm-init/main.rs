//! The first process of the machine that `make test-vm` boots: it makes that machine what the suite needs, has the suite run as root and as an
//! ordinary user with and without a delegated part of the one cgroup hierarchy, says on the console what came of it, and switches off.
//!
//! Lines for the host: `PLAN <number of cases that are written down here>`, `CASE <who> <name> <ok|FAILED> <milliseconds>`, `LOG …` for people,
//! and `END`. It does nothing where it is not process 1.
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
            panic!("this is the first process of a virtual machine and nothing else")
        }
        _ => first_process(),
    }
}

/// Reaps whatever is orphaned until the suite is over.
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
