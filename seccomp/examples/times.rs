//! What a filter costs on the way of a run, in microseconds: the first time, and the median of 200 after 20 that warm up.
#![allow(clippy::print_stdout, reason = "printing is what it does")]

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
    for ours in BuiltinProfile::ALL {
        let first_taken = once(|| ours.program());
        let first_made = once(|| ours.profile().compile_heard());
        let (meaning, program) = (ours.profile().meaning(arch)?, ours.program()?);
        let json = serde_json::to_vec(&program).unwrap_or_default();
        println!("{} ({} instructions)", ours.as_str(), program.instructions());
        for (what, time) in [
            ("compiled ahead, first time", first_taken),
            ("compiled ahead", median(|| ours.program())),
            ("read and compiled, first time", first_made),
            ("read", median(|| ours.profile())),
            ("compiled", median(|| meaning.compile_heard())),
            ("written as JSON", median(|| serde_json::to_vec(&program))),
            ("read as JSON", median(|| serde_json::from_slice::<Program>(&json))),
            ("made ready", median(|| program.ready().map(drop))),
        ] {
            println!("  {what:<30} {time:>7.1}");
        }
    }
    if let Ok(text) = std::fs::read("/usr/share/containers/seccomp.json") {
        let machine = Machine { arch, kernel: (6, 1) };
        let given = UserProfile::parse(&text, machine)?;
        println!("Podman's\n  {:<30} {:>7.1}", "read", median(|| UserProfile::parse(&text, machine)));
        println!("  {:<30} {:>7.1}", "compiled", median(|| given.meaning.compile_heard()));
    }
    Ok(())
}
