//! Raw system calls of the attacker, as no library would make them. Never more than numbers and memory of its own goes in.

use super::Answer;
use std::ffi::{CStr, c_long};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// How long one attack may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer.
const MAX_ANSWER: u64 = 64 << 10;

/// One argument of a system call.
pub(super) enum Arg<'a> {
    /// A number.
    N(c_long),
    /// A path or name.
    Text(&'a CStr),
    /// Memory that the kernel may read and write; the caller says the right size in another argument.
    Memory(&'a mut [u8]),
}

/// Makes a system call by its number; the errno where it is refused.
pub(super) fn call(number: c_long, args: &mut [Arg<'_>]) -> Result<c_long, i32> {
    let mut raw = [0; 6];
    for (raw, arg) in raw.iter_mut().zip(args) {
        *raw = match arg {
            Arg::N(number) => *number,
            Arg::Text(text) => text.as_ptr() as c_long,
            Arg::Memory(bytes) => bytes.as_mut_ptr() as c_long,
        };
    }
    let [a, b, c, d, e, f] = raw;
    // SAFETY: every pointer is to memory that lives through the call; no call the attacker makes takes a size larger than what it gives.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value == -1 { Err(last_error()) } else { Ok(value) }
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The same through the gate of 32-bit programs: `getpid`, which has number 20 there.
#[cfg(target_arch = "x86_64")]
pub(super) fn call_32_bit() -> i32 {
    let answer: i32;
    // SAFETY: getpid takes no arguments and changes nothing but the register it answers in and those the entry clears.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    answer
}

/// Copies this process, which has one thread: 0 in the copy.
pub(super) fn fork() -> Result<i32, i32> {
    // SAFETY: the attacker has one thread, so the copy may do everything.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(last_error()) } else { Ok(pid) }
}

/// Ends this process without running exit handlers of the process it was copied from.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// SIGKILL for a child of this process, and its end.
pub(super) fn end(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: kill(2) takes no pointers; the pid is of an unreaped child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

/// Signals that ask politely do nothing from here on.
pub(super) fn ignore_requests() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: SIG_IGN is a valid action.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Processor time of this process.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Runs one attack in a process of its own, since some should end in death, and others change the process.
pub(super) fn in_child(attack: impl FnOnce() -> Answer) -> Answer {
    let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
        return Answer::Said("no pipe".into());
    };
    let pid = match fork() {
        Err(errno) => return Answer::Said(format!("no process: {}", super::errno_name(errno))),
        Ok(0) => {
            drop(read);
            let answer = serde_json::to_vec(&attack()).unwrap_or_default();
            drop(std::fs::File::from(write).write_all(&answer));
            exit_now(0)
        }
        Ok(pid) => pid,
    };
    drop(write);
    let end_at = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    let mut pipe = std::fs::File::from(read);
    loop {
        let left = end_at.saturating_duration_since(Instant::now());
        let timeout =
            rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(pipe.as_fd(), rustix::event::PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..)) {
            break;
        }
        let mut block = [0; 4096];
        match pipe.read(&mut block) {
            Ok(count) if count > 0 && (text.len() as u64) < MAX_ANSWER => {
                text.extend_from_slice(&block[..count])
            }
            _ => break,
        }
    }
    let status = if text.is_empty() { wait_or_end(pid, end_at) } else { end(pid) };
    match serde_json::from_slice(&text) {
        Ok(answer) => answer,
        Err(_) if libc::WIFSIGNALED(status) => Answer::Killed(libc::WTERMSIG(status)),
        Err(_) => Answer::Said("no answer".into()),
    }
}

/// The status of a child that should be dying.
fn wait_or_end(pid: i32, end_at: Instant) -> i32 {
    let mut status = 0;
    while Instant::now() < end_at {
        // SAFETY: the pointer is valid for the call.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } != 0 {
            return status;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    end(pid)
}
