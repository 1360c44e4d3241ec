//! The system calls of seccomp user notification. All `unsafe` code of this crate is here.
#![allow(unsafe_code, reason = "no dependency wraps these calls")]

use seccompiler::sock_filter;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Sets `no_new_privs`, installs `filter` on this thread, and returns its listener, which execve(2) closes.
pub(crate) fn install_notify(filter: &[sock_filter]) -> io::Result<OwnedFd> {
    // SAFETY: with these arguments prctl(2) takes no pointers.
    result(i64::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }))?;
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    let set = |flags: libc::c_ulong| {
        let (operation, pointer) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
        // SAFETY: the program and its instructions live as long as the call, which copies them; seccompiler's `sock_filter` has the
        // kernel's layout.
        result(unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, pointer) })
    };
    let listening = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Since Linux 5.19: a received call waits for its answer, and no signal repeats the notification.
    let raw = match set(listening | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set(listening),
        other => other,
    }?;
    // SAFETY: the kernel just created this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// The next waiting call.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: seccomp_notif is plain data for which zeroes are valid; the kernel requires them.
    let mut received: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the ioctl fills a seccomp_notif, which is valid for the call.
    result(i64::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut received)
    }))?;
    Ok(received)
}

/// Answers call `id`.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, error: i32, flags: u32) -> io::Result<()> {
    let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the ioctl reads a seccomp_notif_resp, which is valid for the call.
    result(i64::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
    }))?;
    Ok(())
}

fn result(value: i64) -> io::Result<i64> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
