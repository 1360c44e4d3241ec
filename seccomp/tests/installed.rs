//! Filters in the kernel: each test installs one in a child process and makes system calls.

mod sys;

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Output};

use invarlock_seccomp::{Arch, Default, Profile, Program, syscall_name, syscall_number};

use sys::call;

const CHILD: &str = "INVARLOCK_SECCOMP_CHILD";
/// Where a child works.
const DIRECTORY: &str = "INVARLOCK_SECCOMP_TEST_DIRECTORY";

/// Runs `body` in a fresh process: this test program again, with the argument to run only `test`.
fn in_child(test: &str, body: fn()) -> Option<Output> {
    if std::env::var(CHILD).is_ok_and(|wanted| wanted == test) {
        body();
        std::process::exit(0);
    }
    let program = std::env::current_exe().expect("own path");
    let child = Command::new(program).args(["--exact", test, "--nocapture"]).env(CHILD, test).output();
    Some(child.expect("child"))
}

fn passes(test: &str, body: fn()) {
    if let Some(output) = in_child(test, body) {
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

fn dies_of_sigsys(test: &str, body: fn()) {
    if let Some(output) = in_child(test, body) {
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn install(profile: Profile) {
    profile.compile().and_then(|program| program.install()).expect("installed");
}

fn named(name: &str, args: [u64; 6]) -> i32 {
    let number = syscall_number(Arch::native().expect("native"), name).expect(name);
    call(number, args)
}

/// Makes every call that is not listed: a known one gives EPERM, an unknown one ENOSYS.
fn every_unlisted_call_is_denied(profile: Profile) {
    let arch = Arch::native().expect("native");
    assert_eq!(profile.default, Default::Enosys);
    install(profile.clone());
    let mut refused = 0;
    for number in (0..1024).chain([0x0fff_ffff, 0x3fff_ffff]) {
        let name = syscall_name(arch, number);
        // uretprobe and uprobe (x86_64): the kernel exempts them from filters and kills a process that calls them itself.
        if arch == Arch::X86_64 && matches!(number, 335 | 336) {
            continue;
        }
        if name.is_some_and(|name| profile.allow.iter().any(|rule| rule.syscall == name)) {
            continue;
        }
        let expected = if name.is_none() || name == Some("clone3") { libc::ENOSYS } else { libc::EPERM };
        assert_eq!(call(number, [0; 6]), expected, "{number} {name:?}");
        refused += 1;
    }
    assert!(refused > 700);
}

#[test]
fn evaluator_denies_every_unlisted_call() {
    passes("evaluator_denies_every_unlisted_call", || every_unlisted_call_is_denied(Profile::evaluator()));
}

#[test]
fn general_denies_every_unlisted_call() {
    passes("general_denies_every_unlisted_call", || every_unlisted_call_is_denied(Profile::general()));
}

#[test]
fn evaluator_compares_arguments() {
    passes("evaluator_compares_arguments", || {
        install(Profile::evaluator());
        let junk = 1 << 40; // above the int that the kernel reads
        let pair = rustix::pipe::pipe().is_ok(); // not in the profile
        assert!(!pair);
        for (name, args, allowed) in [
            ("ioctl", [99, 0x5401, 0, 0, 0, 0], true),
            ("ioctl", [99, 0x5401 | junk, 0, 0, 0, 0], true),
            ("ioctl", [99, 0x5412, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_GETFD as u64, 0, 0, 0, 0], true),
            ("fcntl", [99, libc::F_SETFL as u64, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_SETOWN as u64, 0, 0, 0, 0], false),
            ("mmap", [0, 4096, 1, 0x22, u64::MAX, 0], true),
            ("mmap", [0, 4096, 5, 0x22, u64::MAX, 0], false),
            ("mmap", [0, 4096, 5 | junk, 0x22, u64::MAX, 0], false),
            // Shared memory without a file is in no RLIMIT_DATA; a shared mapping of a file (here of none) only fails.
            ("mmap", [0, 4096, 1, 0x21, u64::MAX, 0], false),
            ("mmap", [0, 4096, 1, 0x23, u64::MAX, 0], false),
            ("mmap", [0, 4096, 1, 0x4_0022, u64::MAX, 0], false),
            ("mmap", [0, 4096, 1, 0x01, u64::MAX, 0], true),
            ("mprotect", [0, 0, 1, 0, 0, 0], true),
            ("mprotect", [0, 0, 4, 0, 0, 0], false),
            ("prlimit64", [0, 7, 0, 0, 0, 0], true),
            ("prlimit64", [0, 7, 1, 0, 0, 0], false),
            ("prlimit64", [0, 7, junk, 0, 0, 0], false),
            ("prctl", [4, 1, 0, 0, 0, 0], false),
            ("clone", [0, 0, 0, 0, 0, 0], false),
            ("clone", [libc::SIGCHLD as u64, 0, 0, 0, 0, 0], false),
            ("clone", [0x4000 | 0x100 | 17, 0, 0, 0, 0, 0], false),
            ("clone", [0x3d_0f00 | 0x1000_0000, 0, 0, 0, 0, 0], false),
            ("clone", [0x3d_0f00 | 0x4000_0000 | junk, 0, 0, 0, 0, 0], false),
            ("socket", [1, 1, 0, 0, 0, 0], false),
        ] {
            let seen = call_is_allowed(name, args);
            assert_eq!(seen, allowed, "{name} {args:x?}");
        }
    });
}

fn call_is_allowed(name: &str, args: [u64; 6]) -> bool {
    named(name, args) != libc::EPERM
}

#[test]
fn general_denies_namespaces_and_kernel_interfaces() {
    passes("general_denies_namespaces_and_kernel_interfaces", || {
        install(Profile::general());
        for name in "unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick \
            mount_setattr open_tree_attr bpf io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key userfaultfd \
            ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp perf_event_open kexec_load kexec_file_load \
            init_module finit_module delete_module reboot swapon acct settimeofday clock_settime name_to_handle_at \
            open_by_handle_at fanotify_init lookup_dcookie quotactl syslog vhangup sethostname setdomainname"
            .split_whitespace()
        {
            assert_eq!(named(name, [0; 6]), libc::EPERM, "{name}");
        }
        for (family, allowed) in [
            (1, true),
            (2, false),
            (10, false),
            (16, false),
            (17, false),
            (38, false),
            (40, false),
            (0, false),
        ] {
            assert_eq!(call_is_allowed("socket", [family, 2, 0, 0, 0, 0]), allowed, "family {family}");
        }
        for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert!(!call_is_allowed("clone", [flag | 17, 0, 0, 0, 0, 0]), "{flag:x}");
        }
        assert!(!call_is_allowed("ioctl", [0, 0x5412, 0, 0, 0, 0]));
        assert!(!call_is_allowed("ioctl", [0, 0x5412 | 1 << 40, 0, 0, 0, 0]));
        assert!(!call_is_allowed("personality", [0x4_0000, 0, 0, 0, 0, 0]));
        assert!(call_is_allowed("personality", [0xffff_ffff, 0, 0, 0, 0, 0]));
        let child = Command::new("/bin/true").status().expect("a child can be started");
        assert!(child.success());
    });
}

#[test]
fn terminal_allows_no_typing_and_no_line_discipline() {
    passes("terminal_allows_no_typing_and_no_line_discipline", || {
        install(Profile::terminal());
        // By name: TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS, TIOCEXCL, TIOCPKT, TIOCSERGETLSR; VT_ACTIVATE, KDSETMODE; keys of file systems.
        let denied = [0x5412, 0x541c, 0x5423, 0x541d, 0x540c, 0x5420, 0x5459, 0x5606, 0x4b3a, 0xc050_6617];
        for request in denied.into_iter().flat_map(|request| [request, request | 1 << 40]) {
            assert!(!call_is_allowed("ioctl", [0, request, 0, 0, 0, 0]), "{request:#x}");
        }
        for request in [0x5401, 0x5402, 0x5404, 0x540b, 0x540e, 0x5410, 0x5413, 0x5414, 0x5429, 0x8004_5430] {
            assert!(call_is_allowed("ioctl", [99, request, 0, 0, 0, 0]), "{request:#x}");
        }
        // Everything else is as in the profile general.
        assert!(!call_is_allowed("socket", [2, 2, 0, 0, 0, 0]) && !call_is_allowed("unshare", [0; 6]));
    });
}

#[test]
fn terminal_denies_every_unlisted_call() {
    passes("terminal_denies_every_unlisted_call", || every_unlisted_call_is_denied(Profile::terminal()));
}

/// Resources of the kernel that all programs of the machine, or of the user, share.
#[test]
fn general_bounds_shared_kernel_resources() {
    passes("general_bounds_shared_kernel_resources", || {
        install(Profile::general());
        for name in "io_setup shmget semget msgget mq_open sync syncfs seccomp".split_whitespace() {
            assert_eq!(named(name, [0; 6]), libc::EPERM, "{name}");
        }
        let junk = 1 << 40; // above the int that the kernel reads
        let (no_pid, core) = (1 << 30, u64::from(libc::RLIMIT_CORE));
        for (name, args, allowed) in [
            ("fcntl", [99, libc::F_SETLEASE as u64, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_SETLEASE as u64 | junk, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_SETPIPE_SZ as u64, 1 << 20, 0, 0, 0], false),
            ("fcntl", [99, libc::F_NOTIFY as u64, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_SETLK as u64, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_SETLKW as u64, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_OFD_SETLK as u64, 0, 0, 0, 0], false),
            ("fcntl", [99, libc::F_OFD_SETLKW as u64 | junk, 0, 0, 0, 0], false),
            ("fcntl", [99, 1040, 0, 0, 0, 0], false), // F_SETDELEG
            ("fcntl", [99, libc::F_DUPFD as u64, 0, 0, 0, 0], true),
            ("fcntl", [99, libc::F_GETFL as u64, 0, 0, 0, 0], true),
            ("fcntl", [99, libc::F_SETFL as u64 | junk, 0, 0, 0, 0], true),
            ("fcntl", [99, libc::F_DUPFD_CLOEXEC as u64, 0, 0, 0, 0], true),
            ("fcntl", [99, libc::F_GETPIPE_SZ as u64, 0, 0, 0, 0], true),
            ("fcntl", [99, libc::F_ADD_SEALS as u64, 0, 0, 0, 0], true),
            ("fcntl", [99, libc::F_GET_SEALS as u64, 0, 0, 0, 0], true),
            ("flock", [99, 2, 0, 0, 0, 0], true),
            ("ioctl", [99, 0xc050_6617, 0, 0, 0, 0], false), // FS_IOC_ADD_ENCRYPTION_KEY
            ("ioctl", [99, 0xc050_6617 | junk, 0, 0, 0, 0], false),
            ("ioctl", [99, 0xc040_6618, 0, 0, 0, 0], false), // FS_IOC_REMOVE_ENCRYPTION_KEY
            ("ioctl", [99, 0x800c_6613, 0, 0, 0, 0], false), // FS_IOC_SET_ENCRYPTION_POLICY
            ("ioctl", [99, 0x5403, 0, 0, 0, 0], false),      // TCSETSW
            ("ioctl", [99, libc::TCGETS, 0, 0, 0, 0], true),
            ("ioctl", [99, libc::TIOCGWINSZ | junk, 0, 0, 0, 0], true),
            ("ioctl", [99, libc::FIONREAD, 0, 0, 0, 0], true),
            ("ioctl", [99, libc::FIONBIO, 0, 0, 0, 0], true),
            ("ioctl", [99, libc::FIOCLEX, 0, 0, 0, 0], true),
            ("ioctl", [99, libc::FICLONE, 0, 0, 0, 0], true),
            ("mmap", [0, 4096, 3, 0x22, u64::MAX, 0], true),
            ("mmap", [0, 4096, 3, 0x4_0022, u64::MAX, 0], false),
            ("mmap", [0, 4096, 3, 0x4_0022 | 21 << 26, u64::MAX, 0], false),
            ("memfd_create", [0, 4, 0, 0, 0, 0], false),
            ("memfd_create", [0, 1, 0, 0, 0, 0], true),
            ("prlimit64", [0, core, 0, 0, 0, 0], true),
            ("prlimit64", [0, core, 1, 0, 0, 0], false),
            ("prlimit64", [0, core | junk, 1, 0, 0, 0], false),
            ("prlimit64", [0, 7, 1, 0, 0, 0], true),
            ("prlimit64", [1, 7, 1, 0, 0, 0], false),
            ("setrlimit", [core, 1, 0, 0, 0, 0], false),
            ("setrlimit", [7, 1, 0, 0, 0, 0], true),
            ("sched_setaffinity", [1, 8, 1, 0, 0, 0], false),
            ("sched_setaffinity", [1 | junk, 8, 1, 0, 0, 0], false),
            ("sched_setaffinity", [no_pid, 8, 1, 0, 0, 0], true),
            ("sched_setscheduler", [1, 0, 1, 0, 0, 0], false),
            ("sched_setparam", [1, 1, 0, 0, 0, 0], false),
            ("sched_setattr", [1, 1, 0, 0, 0, 0], false),
            ("setpriority", [0, 1, 19, 0, 0, 0], false),
            ("setpriority", [1, 1, 19, 0, 0, 0], false),
            ("setpriority", [2, 0, 19, 0, 0, 0], false),
            ("setpriority", [0, no_pid, 19, 0, 0, 0], true),
            ("ioprio_set", [1, 1, 0, 0, 0, 0], false),
            ("ioprio_set", [3, 0, 0, 0, 0, 0], false),
            ("ioprio_set", [1, no_pid, 0, 0, 0, 0], true),
            ("setsockopt", [99, 1, 26, 0, 0, 0], false),
            ("setsockopt", [99, 1 | junk, 26, 0, 0, 0], false),
            ("setsockopt", [99, 1, 50, 0, 0, 0], false),
            ("setsockopt", [99, 1, 51, 0, 0, 0], false),
            ("setsockopt", [99, 1, 52, 0, 0, 0], false),
            ("setsockopt", [99, 1, 2, 0, 0, 0], true),
            ("setsockopt", [99, 6, 26, 0, 0, 0], false),
            ("prctl", [78, 1, 1024, 0, 0, 0], false), // PR_FUTEX_HASH
            ("prctl", [62, 0, 0, 0, 0, 0], false),    // PR_SCHED_CORE
            ("prctl", [libc::PR_SET_PDEATHSIG as u64, 0, 0, 0, 0, 0], true),
            ("prctl", [libc::PR_GET_DUMPABLE as u64, 0, 0, 0, 0, 0], true),
            ("prctl", [libc::PR_SET_NAME as u64 | junk, 0, 0, 0, 0, 0], true),
            ("prctl", [libc::PR_SET_NO_NEW_PRIVS as u64, 0, 0, 0, 0, 0], true),
            ("prctl", [libc::PR_SET_VMA as u64, 99, 0, 0, 0, 0], true),
            ("prctl", [libc::PR_SET_MM as u64, 0, 0, 0, 0, 0], false),
            ("prctl", [libc::PR_SET_SECCOMP as u64, 2, 0, 0, 0, 0], false),
            ("prctl", [libc::PR_SET_SECCOMP as u64 | junk, 2, 0, 0, 0, 0], false),
            ("socket", [1, 1, 0, 0, 0, 0], true),
            ("socket", [2, 1, 0, 0, 0, 0], false),
            ("socket", [2 | junk, 2, 0, 0, 0, 0], false),
            ("socket", [10, 1, 0, 0, 0, 0], false),
        ] {
            assert_eq!(call_is_allowed(name, args), allowed, "{name} {args:x?}");
        }
    });
}

#[test]
fn no_network_allows_unix_sockets_only() {
    passes("no_network_allows_unix_sockets_only", || {
        install(Profile::no_network());
        for family in (0..64).filter(|family| *family != 1) {
            assert_eq!(named("socket", [family, 2, 0, 0, 0, 0]), libc::EPERM, "family {family}");
            assert_eq!(
                named("socket", [family | 1 << 40, 2, 0, 0, 0, 0]),
                libc::EPERM,
                "family {family}, junk above"
            );
            assert_eq!(named("socketpair", [family, 2, 0, 0, 0, 0]), libc::EPERM, "pair of family {family}");
        }
        assert_eq!(named("socket", [1, 1, 0, 0, 0, 0]), 0);
        assert_eq!(named("socket", [1 | 1 << 40, 1, 0, 0, 0, 0]), 0);
        for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
            assert_eq!(named(name, [0; 6]), libc::EPERM, "{name}");
        }
        assert!(
            std::net::TcpStream::connect("127.0.0.1:1").is_err_and(|e| e.raw_os_error() == Some(libc::EPERM))
        );
        // A child inherits the filter.
        let status = Command::new("/bin/cat").arg("/proc/self/status").output().expect("cat");
        assert!(String::from_utf8_lossy(&status.stdout).contains("Seccomp:\t2"));
    });
}

#[test]
fn all_threads_are_covered() {
    passes("all_threads_are_covered", || {
        let (go, wait) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            wait.recv().expect("go");
            named("socket", [2, 1, 0, 0, 0, 0])
        });
        Profile::no_network().compile().and_then(|program| program.install_all_threads()).expect("installed");
        go.send(()).expect("thread");
        assert_eq!(other.join().expect("thread"), libc::EPERM);
    });
}

#[test]
fn install_affects_one_thread() {
    passes("install_affects_one_thread", || {
        std::thread::spawn(|| install(Profile::no_network())).join().expect("thread");
        assert_eq!(named("socket", [2, 1, 0, 0, 0, 0]), 0);
    });
}

#[test]
fn kernel_reports_the_filter() {
    passes("kernel_reports_the_filter", || {
        install(Profile::evaluator());
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "Seccomp_filters:\t1"] {
            assert!(status.contains(line), "{line} in {status}");
        }
    });
}

/// A static program (this one) started under the evaluator's filter: libtest itself, threads, files, clocks.
#[test]
fn static_program_runs_under_the_evaluator_profile() {
    passes("static_program_runs_under_the_evaluator_profile", || {
        let program = std::env::current_exe().expect("own path");
        let dir = std::env::temp_dir().join(format!("invarlock-seccomp-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("directory");
        install(Profile::evaluator());
        let error = Command::new(program)
            .args(["--exact", "work_of_an_evaluator", "--test-threads=2"])
            .env(CHILD, "work")
            .env(DIRECTORY, dir)
            .exec();
        panic!("exec: {error}");
    });
}

#[test]
fn work_of_an_evaluator() {
    // The evaluator profile cannot create a directory, so the parent does.
    let dir = std::env::var_os(DIRECTORY).map_or_else(
        || {
            let dir = std::env::temp_dir().join(format!("invarlock-seccomp-{}", std::process::id()));
            std::fs::create_dir(&dir).expect("directory");
            dir
        },
        std::path::PathBuf::from,
    );
    let sums: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn(move || {
                    (0..200_000u64).map(|x| std::hint::black_box(vec![x; 16]).iter().sum::<u64>() ^ i).sum()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).collect()
    });
    let (partial, whole) = (dir.join("partial"), dir.join("whole"));
    std::fs::write(&partial, format!("{sums:?}")).expect("write");
    std::fs::rename(&partial, &whole).expect("rename");
    assert!(std::fs::read(&whole).expect("read").len() > 10);
    assert_eq!(std::fs::read_dir(&dir).expect("list").count(), 1);
    std::fs::remove_file(&whole).expect("remove");
    let big = vec![1u8; 64 << 20];
    assert_eq!(big.iter().map(|x| u64::from(*x)).sum::<u64>(), 64 << 20);
    assert!(std::thread::available_parallelism().is_ok());
    let _ = std::collections::HashMap::<u8, u8>::new();
    let refused = std::net::TcpStream::connect("127.0.0.1:1").expect_err("no listener on the port");
    if std::env::var(CHILD).is_ok_and(|it| it == "work") {
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(Command::new("/bin/true").status().is_err(), "no other process");
        let error = std::thread::Builder::new().name("named".to_owned()).spawn(|| ()).expect("thread").join();
        assert!(error.is_ok());
    }
    // Removing a directory is not in the profile; the empty directory is left to the parent's temporary directory.
    let _ = std::fs::remove_dir(&dir);
}

#[cfg(target_arch = "x86_64")]
mod killed {
    use super::*;

    fn x32() {
        call(0x4000_0000 | 39, [0; 6]);
    }

    #[test]
    fn foreign_architecture_evaluator() {
        dies_of_sigsys("killed::foreign_architecture_evaluator", || {
            install(Profile::evaluator());
            sys::foreign();
        });
    }

    #[test]
    fn foreign_architecture_general() {
        dies_of_sigsys("killed::foreign_architecture_general", || {
            install(Profile::general());
            sys::foreign();
        });
    }

    #[test]
    fn foreign_architecture_no_network() {
        dies_of_sigsys("killed::foreign_architecture_no_network", || {
            install(Profile::no_network());
            sys::foreign();
        });
    }

    #[test]
    fn x32_evaluator() {
        dies_of_sigsys("killed::x32_evaluator", || {
            install(Profile::evaluator());
            x32();
        });
    }

    #[test]
    fn x32_no_network() {
        dies_of_sigsys("killed::x32_no_network", || {
            install(Profile::no_network());
            x32();
        });
    }
}

#[test]
fn program_from_json_is_installed() {
    passes("program_from_json_is_installed", || {
        let sent = serde_json::to_vec(&Profile::evaluator().compile().expect("program")).expect("json");
        let received: Program = serde_json::from_slice(&sent).expect("json");
        received.install().expect("installed");
        assert_eq!(named("socket", [2, 1, 0, 0, 0, 0]), libc::EPERM);
    });
}
