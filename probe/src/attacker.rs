//! The attacker's part, inside. It tries, and prints one line for each attack; it judges nothing.

use super::{Answer, Line, attacks, sys};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

/// `argv[0]` of the attacker: its path in the image.
pub(crate) const NAME: &str = "/invarlock-attacker";

/// The attacker's whole life.
pub(crate) fn main() -> ! {
    let part = std::env::args().nth(1).unwrap_or_default();
    // What a script in a directory without programs would start.
    if part == "started" {
        sys::exit_now(0);
    }
    if let Err(why) = in_a_cage() {
        drop(writeln!(std::io::stderr(), "the attacker attacks nothing but a container of its own: {why}"));
        sys::exit_now(2);
    }
    attacks::remember_descriptors();
    match part.as_str() {
        "all" => attacks::all().for_each(|attack| {
            if let Some(run) = attack.run {
                tell(attack.id, sys::in_child(run));
            }
        }),
        "memory" => tell("memory", eat()),
        "processors" => tell("processors", spin()),
        "time" => outlive(),
        "link" => tell("link", Answer::of(std::os::unix::fs::symlink("/etc/shadow", "/out/link"))),
        "fifo" => tell("fifo", Answer::of(attacks::make_node("/out/fifo", rustix::fs::FileType::Fifo))),
        _ => sys::exit_now(2),
    }
    sys::exit_now(0)
}

fn tell(attack: &str, answer: Answer) {
    let line = Line { attack: attack.to_owned(), answer };
    if let Ok(text) = serde_json::to_string(&line) {
        drop(writeln!(std::io::stdout(), "{text}"));
    }
}

/// Alone in namespaces of pids and of the network.
fn in_a_cage() -> Result<(), String> {
    let interfaces = attacks::interfaces();
    if interfaces != "lo" {
        return Err(format!("this network namespace has {interfaces:?}"));
    }
    // Init is 1, and it has no child but this.
    match (std::process::id(), rustix::process::getppid().map(|p| p.as_raw_nonzero().get())) {
        (2, Some(1)) => Ok(()),
        (pid, parent) => Err(format!("this is process {pid}, its parent is {parent:?}")),
    }
}

/// A quarter more memory than there is.
fn eat() -> Answer {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for i in 0..(super::stage::MEMORY / 4 * 5) >> 20 {
        let mut block: Vec<u8> = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            return Answer::Refused(libc::ENOMEM);
        }
        // Every page is written, with something else each time.
        block.resize(1 << 20, i as u8 | 1);
        eaten.push(block);
    }
    let first = std::hint::black_box(&eaten).iter().filter_map(|block| block.first()).count();
    Answer::Said(format!("{first} MiB"))
}

/// How much of a processor, in hundredths, one busy process gets; or how many it may choose from.
fn spin() -> Answer {
    let processors = rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count());
    let (start, before) = (Instant::now(), sys::processor_time());
    while start.elapsed() < Duration::from_millis(400) {
        std::hint::black_box(0);
    }
    let used = sys::processor_time().saturating_sub(before).as_micros() * 100 / start.elapsed().as_micros();
    Answer::Said(format!("{used} {processors}"))
}

/// Leaves a grandchild in a session of its own behind, deaf to requests like this process itself, and goes on for longer than it may.
fn outlive() {
    if let Ok(0) = sys::fork() {
        _ = rustix::process::setsid();
        if let Ok(0) = sys::fork() {
            let name = std::env::args().nth(2).unwrap_or_default();
            if let Ok(name) = std::ffi::CString::new(name) {
                _ = rustix::thread::set_name(&name);
            }
            sys::ignore_requests();
            std::thread::sleep(Duration::from_secs(20));
        }
        sys::exit_now(0);
    }
    sys::ignore_requests();
    std::thread::sleep(super::stage::WALL * 4);
    tell("time", Answer::Said("went on".into()));
}

/// A script that would start the attacker once more, in a directory that is not for programs.
pub(super) fn run_script(path: &str) -> Answer {
    let written = std::fs::write(path, format!("#!{NAME} started\n"))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)));
    match written {
        Ok(()) => Answer::of(std::process::Command::new(path).status()),
        Err(e) => Answer::Said(format!("writing it: {e}")),
    }
}
