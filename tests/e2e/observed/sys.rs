//! Reads the seccomp filters of a process with ptrace(2), the only interface for it. This module
//! contains the only `unsafe` code of these tests.
#![allow(unsafe_code, reason = "raw system calls of the tests")]

use std::io;

/// `struct sock_filter`.
const INSTRUCTION: usize = 8;
/// `PTRACE_SECCOMP_GET_FILTER`.
const GET_FILTER: libc::c_uint = 0x420c;

fn ptrace(request: libc::c_uint, pid: i32, index: usize, memory: *mut u8) -> io::Result<usize> {
    // SAFETY: `memory` is null, or is as large as the length that the kernel reported.
    let result =
        unsafe { libc::syscall(libc::SYS_ptrace, u64::from(request), i64::from(pid), index, memory) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The newest `count` filters of a process in installation order, each as bytes. The process is
/// stopped during the call.
pub fn filters(pid: i32, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let none = std::ptr::null_mut();
    ptrace(libc::PTRACE_SEIZE, pid, 0, none)?;
    ptrace(libc::PTRACE_INTERRUPT, pid, 0, none)?;
    let process = rustix::process::Pid::from_raw(pid);
    rustix::process::waitpid(process, rustix::process::WaitOptions::UNTRACED)?;
    let read_filter = |index: usize| {
        let length = ptrace(GET_FILTER, pid, index, none)?;
        let mut bytes = vec![0; length * INSTRUCTION];
        ptrace(GET_FILTER, pid, index, bytes.as_mut_ptr())?;
        Ok(bytes)
    };
    // The newest filter has index 0.
    let found = (0..count).rev().map(read_filter).collect();
    ptrace(libc::PTRACE_DETACH, pid, 0, none)?;
    found
}
