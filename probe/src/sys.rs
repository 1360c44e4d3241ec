//! The raw system calls of the attacker, which no library makes in this form. Arguments are numbers and memory of the attacker.

use crate::answer::{Answer, errno_name};
use std::ffi::{CStr, c_long};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Longest time of one attack.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// One argument of a system call.
pub(crate) enum Arg<'a> {
    /// A number.
    Number(c_long),
    /// A path or name.
    Text(&'a CStr),
    /// Memory that the kernel may read and write; the caller passes its size in another argument.
    Memory(&'a mut [u8]),
}

/// Makes a system call by its number; the error is the errno.
pub(crate) fn call(number: c_long, args: &mut [Arg<'_>]) -> Result<c_long, i32> {
    let mut raw = [0; 6];
    for (raw, arg) in raw.iter_mut().zip(args) {
        *raw = match arg {
            Arg::Number(number) => *number,
            Arg::Text(text) => text.as_ptr() as c_long,
            Arg::Memory(bytes) => bytes.as_mut_ptr() as c_long,
        };
    }
    let [a, b, c, d, e, f] = raw;
    // SAFETY: every pointer is to memory that lives through the call; no attack passes a size larger than its memory.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value == -1 { Err(last_errno()) } else { Ok(value) }
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// `getpid` through the entry of 32-bit programs, where it has number 20.
#[cfg(target_arch = "x86_64")]
pub(crate) fn getpid_by_int80() -> i32 {
    let answer: i32;
    // SAFETY: getpid takes no arguments and changes only its result register and the registers that the entry clears.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    answer
}

/// Copies this process, which has one thread: 0 in the copy.
pub(crate) fn fork() -> Result<i32, i32> {
    // SAFETY: the attacker has one thread, so the copy may call every function.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(last_errno()) } else { Ok(pid) }
}

/// Ends this process without running exit handlers of the process it was copied from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Sends SIGKILL to a child of this process and returns its wait status.
pub(crate) fn kill_and_wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: kill(2) takes no pointers; the pid is of an unreaped child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

/// Ignores the signals that request termination.
pub(crate) fn ignore_termination_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: SIG_IGN is a valid action.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Runs one attack in a child process: some attacks should end in death, and others change their process.
pub(crate) fn run_in_child(attack: impl FnOnce() -> Answer) -> Answer {
    let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
        return Answer::Text("no pipe".into());
    };
    let pid = match fork() {
        Err(errno) => return Answer::Text(format!("no process: {}", errno_name(errno))),
        Ok(0) => {
            drop(read);
            let answer = serde_json::to_vec(&attack()).unwrap_or_default();
            drop(std::fs::File::from(write).write_all(&answer));
            exit_now(0)
        }
        Ok(pid) => pid,
    };
    drop(write);
    let deadline = Instant::now() + TIMEOUT;
    let text = read_until(deadline, std::fs::File::from(read));
    let status = if text.is_empty() { wait_or_kill(pid, deadline) } else { kill_and_wait(pid) };
    match serde_json::from_slice(&text) {
        Ok(answer) => answer,
        Err(_) if libc::WIFSIGNALED(status) => Answer::Killed(libc::WTERMSIG(status)),
        Err(_) => Answer::Text("no answer".into()),
    }
}

/// Reads a pipe until its end, the deadline or [`MAX_ANSWER`].
fn read_until(deadline: Instant, mut pipe: std::fs::File) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(pipe.as_fd(), rustix::event::PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..)) {
            return text;
        }
        let mut block = [0; 4096];
        match pipe.read(&mut block) {
            Ok(count) if count > 0 && text.len() < MAX_ANSWER => text.extend_from_slice(&block[..count]),
            _ => return text,
        }
    }
}

/// The wait status of a child that should end by itself; kills it at the deadline.
pub(crate) fn wait_or_kill(pid: i32, deadline: Instant) -> i32 {
    let mut status = 0;
    while Instant::now() < deadline {
        // SAFETY: the pointer is valid for the call.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } != 0 {
            return status;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_and_wait(pid)
}
