//! Commands that exceed limits, ignore signals or make denied calls. They run only where `lo` is the only interface.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// Tries to create a socket; returns the errno, or 0.
fn socket(family: u16) -> i32 {
    let family = rustix::net::AddressFamily::from_raw(family);
    match rustix::net::socket(family, rustix::net::SocketType::DGRAM, None) {
        Ok(_) => 0,
        Err(e) => e.raw_os_error(),
    }
}

/// Tries to create a pipe.
fn pipe() {
    drop(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC));
}

/// Waits to be killed. Parking uses only calls that every profile allows; the evaluator's profile denies sleeping.
fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Runs a command. Panics outside a network namespace of its own, so that it never damages a host.
pub fn run(what: &str, args: &[&str]) {
    require_isolation();
    let number = |i: usize| args.get(i).and_then(|n| n.parse::<usize>().ok()).expect("a number");
    match what {
        "raise" => {
            let signal = rustix::process::Signal::from_named_raw(number(0) as i32).expect("a signal");
            rustix::process::kill_process(rustix::process::getpid(), signal).expect("raising it");
            forever();
        }
        "sleep" => forever(),
        "abort" => std::process::abort(),
        "fault" => crate::sys::fault(),
        "free-twice" => crate::sys::free_twice(),
        "ignore-term" => {
            crate::sys::ignore_term();
            println!("ignoring");
            forever();
        }
        "exit-on-term" => {
            crate::sys::exit_on_term();
            println!("waiting");
            forever();
        }
        "fork-bomb" => {
            let mut children = 0;
            let exe = std::env::current_exe().unwrap_or_else(|_| "/workload".into());
            while children < 5000 {
                match Command::new(&exe).arg("sleep").spawn() {
                    Ok(_) => children += 1,
                    Err(e) => {
                        println!("{children} {}", e.raw_os_error().unwrap_or(0));
                        return;
                    }
                }
            }
            println!("{children} none");
        }
        "eat" => {
            let mut eaten = Vec::new();
            for _ in 0..number(0) >> 20 {
                eaten.push(vec![1u8; 1 << 20]);
            }
            println!("ate {}", eaten.len());
        }
        "eat-and-stay" => {
            let eaten = vec![1u8; number(0)];
            std::thread::sleep(Duration::from_secs(number(1) as u64));
            drop(eaten);
        }
        // Private memory that is never used, in steps of 16 MiB.
        "reserve" => {
            let mapped = (0..number(0) >> 24).take_while(|_| crate::sys::map_private(16 << 20)).count();
            println!("{}", mapped << 24);
        }
        // Page tables of memory that the process only reads.
        "page-tables" => {
            crate::sys::fill_page_tables(number(0));
            println!("filled");
            forever();
        }
        // Several processes that exceed the limit only together.
        "eat-together" => {
            let exe = std::env::current_exe().unwrap_or_else(|_| "/workload".into());
            let start =
                |_| Command::new(&exe).args(["eat-and-stay", args[1], "20"]).spawn().expect("a child");
            let children: Vec<_> = (0..number(0)).map(start).collect();
            children.into_iter().for_each(|mut child| drop(child.wait()));
        }
        // Processes that share their memory.
        "share" => {
            let shared = vec![1u8; number(1)];
            (0..number(0)).for_each(|_| crate::sys::fork_a_sleeper());
            std::thread::sleep(Duration::from_millis(1500));
            println!("{}", shared.iter().map(|b| u64::from(*b)).sum::<u64>());
        }
        "fill" => {
            let mut file =
                std::fs::File::create(format!("{}/big", args.first().expect("a directory"))).expect("a file");
            let block = vec![7u8; 1 << 16];
            let mut written = 0usize;
            let error = loop {
                match file.write_all(&block) {
                    Ok(()) => written += block.len(),
                    Err(e) => break e,
                }
            };
            println!("{written} {}", error.raw_os_error().unwrap_or(0));
        }
        "files" => {
            for i in 0..number(0) {
                if let Err(e) = std::fs::File::create(format!("/out/{i}")) {
                    println!("{i} {}", e.raw_os_error().unwrap_or(0));
                    return;
                }
            }
        }
        "symlink" => {
            std::os::unix::fs::symlink(args.first().expect("a target"), "/out/link").expect("a link")
        }
        "hardlink" => {
            std::fs::write("/out/a", "a").expect("a file");
            std::fs::hard_link("/out/a", "/out/b").expect("a second name");
        }
        "socket" => drop(std::os::unix::net::UnixListener::bind("/out/socket").expect("a socket")),
        "fifo" => {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, "/out/fifo", rustix::fs::FileType::Fifo, mode, 0)
                .expect("a fifo");
        }
        "flood" => {
            let block = vec![b'x'; 1 << 16];
            let mut out = std::io::stdout().lock();
            for _ in 0..number(0) >> 16 {
                out.write_all(&block).expect("writing");
            }
        }
        "sockets" => {
            let families = (0..args.len()).map(|i| number(i) as u16);
            let answers: Vec<String> = families.map(|family| socket(family).to_string()).collect();
            println!("{}", answers.join(" "));
        }
        "pipes" => (0..number(0)).for_each(|_| pipe()),
        // The arguments of an evaluator; the image selects the behaviour.
        "--job" => match std::fs::read_to_string("/attack") {
            Ok(what) => crate::attack::as_evaluator(what.trim()),
            // Tries to create sockets and then measures.
            Err(_) if std::path::Path::new("/real-evaluator").exists() => {
                (0..3).for_each(|_| _ = socket(2));
                panic!("{}", Command::new("/real-evaluator").arg("--job").args(args).exec());
            }
            Err(_) => {
                pipe();
                panic!("this is no evaluator");
            }
        },
        // Processes that do not end on request; each prints when it has begun.
        "stop-itself" => {
            println!("begun");
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)
                .expect("stopping");
            forever();
        }
        "deaf" => {
            crate::sys::ignore_all();
            println!("begun");
            forever();
        }
        // Processes in sessions of their own whose parent is init, and which ignore all signals.
        "daemons" => {
            crate::sys::ignore_all();
            crate::sys::become_a_grandchild();
            println!("begun");
            forever();
        }
        "multiply" => {
            crate::sys::ignore_all();
            println!("begun");
            crate::sys::multiply();
        }
        // A daemon that keeps writing to an open file.
        "write-on" => {
            crate::sys::ignore_all();
            let mut file = std::fs::File::create("/out/held").expect("a file");
            crate::sys::become_a_grandchild();
            println!("begun");
            loop {
                std::thread::sleep(Duration::from_millis(1));
                drop(file.write_all(b"more"));
            }
        }
        // Init is the only process that it cannot kill.
        "kill-everything" => {
            crate::sys::fork_a_sleeper();
            let answer = crate::sys::kill_everything();
            crate::sys::ignore_all();
            println!("begun {answer}");
            forever();
        }
        "stop-everything" => {
            crate::sys::ignore_term();
            crate::sys::become_a_grandchild();
            crate::sys::stop_everything();
            forever();
        }
        "spam" => {
            println!("spamming");
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| while socket(16) == 1 {});
                }
            });
        }
        "double-fork" => {
            let exe = std::env::current_exe().unwrap_or_else(|_| "/workload".into());
            if args.first() == Some(&"again") {
                // Left behind on purpose.
                std::mem::forget(Command::new(&exe).arg("ignore-term").spawn().expect("a grandchild"));
            } else {
                Command::new(&exe).args(["double-fork", "again"]).status().expect("a child");
            }
        }
        other => assert!(crate::attack::attack(other, args), "unknown command {other}"),
    }
}

/// Ends this process unless it is in a network namespace of its own.
pub fn require_isolation() {
    let dev = std::fs::read_to_string("/proc/net/dev").expect("interfaces");
    let names: Vec<&str> = dev.lines().skip(2).filter_map(|l| l.split(':').next()).map(str::trim).collect();
    assert_eq!(names, ["lo"], "refusing to misbehave outside a network namespace of its own");
}
