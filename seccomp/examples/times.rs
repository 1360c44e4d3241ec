//! Measures the time of each step of a filter in microseconds: the first time, and the median of 200 after 20 warm-up rounds.
#![allow(clippy::print_stdout, reason = "the program prints its results")]

use invarlock_seccomp::{Arch, BuiltinProfile, Machine, Program, Result, UserProfile};
use std::time::Instant;

fn once<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed().as_secs_f64() * 1e6
}

fn median<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut times: Vec<f64> = (0..220).map(|_| once(&mut work)).skip(20).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    let arch = Arch::native()?;
    for builtin in BuiltinProfile::ALL {
        let first_taken = once(|| builtin.program());
        let first_made = once(|| builtin.profile().compile_notify());
        let (resolved, program) = (builtin.profile().resolve(arch)?, builtin.program()?);
        let json = serde_json::to_vec(&program).unwrap_or_default();
        println!("{} ({} instructions)", builtin.as_str(), program.instructions());
        for (what, time) in [
            ("compiled ahead, first time", first_taken),
            ("compiled ahead", median(|| builtin.program())),
            ("read and compiled, first time", first_made),
            ("read", median(|| builtin.profile())),
            ("compiled", median(|| resolved.compile_notify())),
            ("written as JSON", median(|| serde_json::to_vec(&program))),
            ("read as JSON", median(|| serde_json::from_slice::<Program>(&json))),
            ("made ready", median(|| program.ready().map(drop))),
        ] {
            println!("  {what:<30} {time:>7.1}");
        }
    }
    if let Ok(text) = std::fs::read("/usr/share/containers/seccomp.json") {
        let machine = Machine { arch, kernel: (6, 1) };
        let user = UserProfile::parse(&text, machine)?;
        println!("Podman's\n  {:<30} {:>7.1}", "read", median(|| UserProfile::parse(&text, machine)));
        println!("  {:<30} {:>7.1}", "compiled", median(|| user.resolved.compile_notify()));
    }
    Ok(())
}
