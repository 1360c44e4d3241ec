//! System calls by number.
#![allow(unsafe_code, reason = "raw system calls of the tests")]

/// The errno of a call, 0 when it succeeds.
pub fn call(number: u32, args: [u64; 6]) -> i32 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: callers pass numbers that the filter under test must deny, or calls that access no memory of this process.
    let result = unsafe { libc::syscall(i64::from(number), a, b, c, d, e, f) };
    if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

/// getpid through the 32-bit entry.
#[cfg(target_arch = "x86_64")]
#[allow(dead_code, reason = "not every test file that includes this one needs it")]
pub fn foreign() {
    // SAFETY: the call takes no argument and changes only eax.
    unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _, options(nostack)) };
}
