//! Resources of the kernel that programs share: a hostile run takes all that it gets and keeps it, an honest one uses a few.

use rustix::event::epoll;
use rustix::fs::inotify;
use std::os::fd::OwnedFd;

/// The resources, by name.
pub const NAMES: [&str; 6] = ["inotify", "timers", "pipes", "epoll", "processes", "leases"];

/// Takes `count` of a resource. Returns how many it got, and keeps them until the process ends.
fn take(name: &str, count: usize) -> usize {
    match name {
        "inotify" => keep(count, || inotify::init(inotify::CreateFlags::empty()).ok()),
        "timers" => (0..count).take_while(|_| crate::sys::create_timer()).count(),
        "pipes" => keep(count / 2, || rustix::pipe::pipe().ok().filter(|(_, end)| fill(end))),
        "epoll" => watches(count),
        "processes" => keep(count, || std::process::Command::new("/workload").arg("sleep").spawn().ok()),
        "leases" => keep(count, || {
            let file = std::fs::File::open("/workload").ok()?;
            crate::sys::take_lease(&file).then_some(file)
        }),
        other => panic!("no resource is called {other}"),
    }
}

fn keep<T>(count: usize, mut one: impl FnMut() -> Option<T>) -> usize {
    let kept: Vec<T> = (0..count).map_while(|_| one()).collect();
    let number = kept.len();
    std::mem::forget(kept);
    number
}

/// Writes 4 KiB, which every pipe holds.
fn fill(end: &OwnedFd) -> bool {
    rustix::io::write(end, &[0; 4096]).is_ok()
}

/// Watches of pipes by epoll instances.
fn watches(count: usize) -> usize {
    let pipes: Vec<_> = (0..16).filter_map(|_| rustix::pipe::pipe().ok()).collect();
    let add = |poll: &OwnedFd, end: &OwnedFd| {
        epoll::add(poll, end, epoll::EventData::new_u64(0), epoll::EventFlags::IN).is_ok()
    };
    let instance = || {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
        pipes.iter().all(|(end, _)| add(&poll, end)).then_some(poll)
    };
    keep(count / 16, instance) * 16
}

/// Takes everything, prints how much, and stays.
pub fn exhaust(name: &str) -> ! {
    crate::misbehavior::require_isolation();
    println!("holds {}", take(name, 100_000));
    loop {
        std::thread::park();
    }
}

/// Uses a few of each resource that an honest program may use, and prints how many it got.
pub fn use_some() {
    for (name, count) in [("inotify", 4), ("timers", 64), ("pipes", 128), ("epoll", 64), ("processes", 8)] {
        println!("{name} {}", take(name, count));
    }
    std::process::exit(0)
}

/// Writes to all files in turn until there is no space. Returns the bytes of each.
pub fn fill_files(paths: &[&str]) -> Vec<u64> {
    use std::io::Write as _;
    let mut files: Vec<_> =
        paths.iter().map(|path| (std::fs::File::create(path).expect("a file"), 0)).collect();
    loop {
        for (file, written) in &mut files {
            match file.write_all(&[7; 4096]) {
                Ok(()) => *written += 4096,
                Err(_) => return files.iter().map(|(_, written)| *written).collect(),
            }
        }
    }
}
