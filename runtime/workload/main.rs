//! The program of the tests. `launch PLAN` is a launcher: it runs containers and prints their outcomes as JSON. Every other command is
//! a workload: it prints what it observes, or misbehaves, which it does only where `lo` is the only interface.
#![allow(clippy::print_stdout, reason = "printing is what a test program does")]

mod attack;
mod inspect;
mod launch;
mod misbehavior;
mod resources;
mod streams;
mod sys;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    invarlock_runtime::reexec::run_if_child();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["launch", plan] => {
            invarlock_runtime::reexec::guard().expect("an ordinary start");
            launch::launch(plan)
        }
        ["doctor"] => {
            println!("{}", serde_json::to_string_pretty(&invarlock_runtime::doctor::check()).expect("JSON"))
        }
        ["noop"] => {}
        ["ids"] => println!("{}", inspect::user()),
        ["fill-files", paths @ ..] => println!("{:?}", resources::fill_files(paths)),
        ["see"] => println!("{}", inspect::boundary()),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().expect("a number")),
        ["terminal"] => println!("{}", streams::terminal()),
        ["wait-for-resize"] => streams::wait_for_resize(),
        ["cat"] => streams::copy(),
        ["count"] => println!("{}", streams::count()),
        ["take", count] => streams::take(count.parse().expect("a number")),
        ["cat", path] => print!("{}", std::fs::read_to_string(path).expect("a readable file")),
        ["write", name, text] => std::fs::write(format!("/out/{name}"), text).expect("writing to /out"),
        ["exhaust", name] => resources::exhaust(name),
        ["use-some"] => resources::use_some(),
        ["resources"] => println!("{}", resources::NAMES.join(" ")),
        ["-I", "-S", "-c", _, directory] => worker::remove(directory),
        ["-m", module, rest @ ..] => worker::run(module, rest),
        [what, rest @ ..] => misbehavior::run(what, rest),
        [] => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
