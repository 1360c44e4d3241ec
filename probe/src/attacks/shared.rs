//! Attacks on the control "shared resources": resources that all programs of the machine, or of the user, share.

use super::{Attack, Expect, attack, call};
use crate::answer::Answer;
use crate::sys::{self, Arg::Memory, Arg::Number};
use libc::{EPERM, c_int, c_long};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

const CONTROL: &str = "shared resources";
/// Longest time of a crash: a core handler reads the memory while the process waits.
const CRASH: Duration = Duration::from_secs(5);
/// The wait status of a process that left a core dump has this bit.
const CORE_DUMPED: i32 = 0x80;

/// An attack that must fail with `EPERM`.
const fn denied(id: &'static str, what: &'static str, run: fn() -> Answer) -> Attack {
    attack(CONTROL, id, what, Expect::Errno(&[EPERM]), Some(run))
}

/// Control "shared resources".
pub(super) const SHARED: &[Attack] = &[
    attack(
        CONTROL,
        "core-handler",
        "crash: a core dump, a core handler",
        Expect::Text("no core dump"),
        Some(crash),
    ),
    denied("core-limit", "lower the limit of core dumps", || set_limit(0, libc::RLIMIT_CORE)),
    denied("init-limit", "lower a limit of init", || set_limit(1, libc::RLIMIT_NOFILE)),
    denied("init-priority", "lower the priority of init", || {
        call(libc::SYS_setpriority, &mut [Number(0), Number(1), Number(19)])
    }),
    denied("init-processors", "move init to one processor", || {
        let mut one = [1, 0, 0, 0, 0, 0, 0, 0];
        call(libc::SYS_sched_setaffinity, &mut [Number(1), Number(8), Memory(&mut one)])
    }),
    denied("lease", "take a lease on a file of the image", || {
        on_own_program(libc::F_SETLEASE, Number(libc::F_RDLCK.into()))
    }),
    denied("delegation", "take a delegation of a file of the image", || {
        // F_SETDELEG with a struct delegation: flags (4 bytes), type (2 bytes), padding.
        on_own_program(1040, Memory(&mut [0; 8]))
    }),
    denied("record-lock", "lock a range of a file of the image", || record_lock(libc::F_SETLK)),
    denied("open-file-lock", "the same, with a lock of the open file", || record_lock(libc::F_OFD_SETLK)),
    denied("pipe-size", "enlarge a pipe", || match rustix::pipe::pipe() {
        Ok((end, _)) => control(end.as_raw_fd(), libc::F_SETPIPE_SZ, Number(1 << 20)),
        Err(errno) => Answer::Failed(errno.raw_os_error()),
    }),
    denied("huge-pages", "map huge pages", || {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        let args = &mut [Number(0), Number(2 << 20), Number(3), Number(flags.into()), Number(-1), Number(0)];
        call(libc::SYS_mmap, args)
    }),
    denied("huge-memfd", "create a memory file of huge pages", || {
        call(libc::SYS_memfd_create, &mut [sys::Arg::Text(c"m"), Number(libc::MFD_HUGETLB.into())])
    }),
    denied("aio", "take contexts of asynchronous I/O", || {
        let mut context = [0; 8];
        call(libc::SYS_io_setup, &mut [Number(1), Memory(&mut context)])
    }),
    denied("system-v-memory", "create System V shared memory", || {
        let create = libc::IPC_CREAT | 0o600;
        call(libc::SYS_shmget, &mut [Number(0), Number(4096), Number(create.into())])
    }),
    denied("file-system-key", "add a key to the image's file system, which stays after the run", || {
        match File::open("/") {
            Ok(root) => {
                // FS_IOC_ADD_ENCRYPTION_KEY with a struct fscrypt_add_key_arg that names no key.
                let (fd, request) = (Number(root.as_raw_fd().into()), Number(0xc050_6617));
                call(libc::SYS_ioctl, &mut [fd, request, Memory(&mut [0; 80])])
            }
            Err(e) => Answer::Text(e.to_string()),
        }
    }),
    denied("futex-hash", "take kernel memory for futexes: prctl(PR_FUTEX_HASH)", || {
        // PR_FUTEX_HASH_SET_SLOTS; kernels before 6.16 do not know it.
        call(libc::SYS_prctl, &mut [Number(78), Number(1), Number(1024), Number(0), Number(0)])
    }),
    denied("core-scheduling", "keep other programs off its processor: prctl(PR_SCHED_CORE)", || {
        // PR_SCHED_CORE_CREATE for this process.
        call(libc::SYS_prctl, &mut [Number(62), Number(1), Number(0), Number(0), Number(0)])
    }),
    denied("tcp", "create a TCP socket, whose buffers no limit of the run counts", || {
        call(
            libc::SYS_socket,
            &mut [Number(libc::AF_INET.into()), Number(libc::SOCK_STREAM.into()), Number(0)],
        )
    }),
    denied("udp", "create a UDP socket", || {
        call(
            libc::SYS_socket,
            &mut [Number(libc::AF_INET6.into()), Number(libc::SOCK_DGRAM.into()), Number(0)],
        )
    }),
    denied("own-filter", "install a filter of its own: seccomp", || {
        let allow = own_filter();
        let filter = libc::c_long::from(libc::SECCOMP_SET_MODE_FILTER);
        call(libc::SYS_seccomp, &mut [Number(filter), Number(0), Memory(&mut program(&allow))])
    }),
    denied("own-filter-prctl", "install a filter of its own: prctl(PR_SET_SECCOMP)", || {
        let allow = own_filter();
        let (option, filter) = (libc::PR_SET_SECCOMP.into(), libc::SECCOMP_MODE_FILTER.into());
        call(libc::SYS_prctl, &mut [Number(option), Number(filter), Memory(&mut program(&allow))])
    }),
    denied("socket-filter", "attach a BPF filter to a socket", || {
        match std::os::unix::net::UnixDatagram::unbound() {
            Ok(socket) => {
                let mut no_program = [0; 16];
                let (level, option) =
                    (Number(libc::SOL_SOCKET.into()), Number(libc::SO_ATTACH_FILTER.into()));
                let fd = Number(socket.as_raw_fd().into());
                call(libc::SYS_setsockopt, &mut [fd, level, option, Memory(&mut no_program), Number(16)])
            }
            Err(e) => Answer::Text(e.to_string()),
        }
    }),
    attack(
        CONTROL,
        "inotify",
        "take inotify instances",
        Expect::AtMost(|_| 4),
        Some(|| {
            let taken = (0..64).take_while(|_| sys::call(libc::SYS_inotify_init1, &mut [Number(0)]).is_ok());
            Answer::Text(taken.count().to_string())
        }),
    ),
];

/// A BPF program that allows every call: one `struct sock_filter`, which returns `SECCOMP_RET_ALLOW`.
fn own_filter() -> [u8; 8] {
    [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]
}

/// The `struct sock_fprog` of a program of one instruction: its length, padding, and the address of the program.
fn program(filter: &[u8; 8]) -> [u8; 16] {
    let mut program = [0; 16];
    program[0] = 1;
    program[8..].copy_from_slice(&filter.as_ptr().addr().to_ne_bytes());
    program
}

/// A child process that crashes.
fn crash() -> Answer {
    match sys::fork() {
        Ok(0) => {
            // Rust handles SIGSEGV; the kernel dumps the memory for SIGABRT as well.
            _ = sys::call(
                libc::SYS_kill,
                &mut [Number(std::process::id().into()), Number(c_long::from(libc::SIGABRT))],
            );
            sys::exit_now(0)
        }
        Ok(child) => match sys::wait_or_kill(child, Instant::now() + CRASH) {
            status if status & CORE_DUMPED != 0 => Answer::Text("a core dump".into()),
            status if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT => {
                Answer::Text("no core dump".into())
            }
            status => Answer::Text(format!("ended with status {status:#x}")),
        },
        Err(errno) => Answer::Failed(errno),
    }
}

fn set_limit(pid: c_long, resource: libc::__rlimit_resource_t) -> Answer {
    // Soft and hard limit 0.
    let mut limit = [0; 16];
    call(libc::SYS_prlimit64, &mut [Number(pid), Number(resource.into()), Memory(&mut limit), Number(0)])
}

/// A lock of the first byte for reading: a `struct flock` of zeroes has the type `F_RDLCK`, and the length at offset 16.
fn record_lock(command: c_int) -> Answer {
    let mut lock = [0; 32];
    lock[16] = 1;
    on_own_program(command, Memory(&mut lock))
}

fn on_own_program(command: c_int, argument: sys::Arg<'_>) -> Answer {
    match File::open("/proc/self/exe") {
        Ok(file) => control(file.as_raw_fd(), command, argument),
        Err(e) => Answer::Text(e.to_string()),
    }
}

fn control(fd: c_int, command: c_int, argument: sys::Arg<'_>) -> Answer {
    call(libc::SYS_fcntl, &mut [Number(fd.into()), Number(command.into()), argument])
}
