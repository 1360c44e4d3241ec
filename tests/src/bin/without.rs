//! Runs a program on a kernel that seems to lack some system calls: `without NAME[:errno][,NAME…] -- PROGRAM ARGS…`.
//!
//! A filter answers for the kernel, for the program and all that comes of it. Besides names of calls it knows some *features*, which are one
//! flag of a call: a kernel that does not know the flag refuses the call.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test program")]

use invarlock_seccomp::Arch;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSYS: u32 = 38;

/// Name, call, number of the argument, the flag, what an old kernel says.
const FEATURES: [(&str, &str, u8, u64, u32); 4] = [
    ("memfd-exec", "memfd_create", 1, 0x10, EINVAL),
    ("close-range-cloexec", "close_range", 2, 4, EINVAL),
    ("user-namespaces", "unshare", 0, 0x1000_0000, EPERM),
    ("filter-listener", "seccomp", 1, 8, EINVAL),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [missing, dashes, program, rest @ ..] = args.as_slice() else {
        panic!("without NAME[,NAME…] -- PROGRAM ARGS…")
    };
    assert_eq!(dashes, "--");
    missing.split(',').for_each(hide);
    let error = Command::new(program).args(rest).exec();
    panic!("{program}: {error}");
}

fn hide(missing: &str) {
    let (name, errno) =
        missing.split_once(':').map_or((missing, None), |(name, errno)| (name, Some(errno.parse().unwrap())));
    let (call, rules, usual) = match FEATURES.iter().find(|f| f.0 == name) {
        Some((_, call, argument, flag, errno)) => {
            let masked = SeccompCondition::new(
                *argument,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::MaskedEq(*flag),
                *flag,
            );
            (*call, vec![SeccompRule::new(vec![masked.unwrap()]).unwrap()], *errno)
        }
        None => (name, Vec::new(), ENOSYS),
    };
    let arch = Arch::native().unwrap();
    let number = invarlock_seccomp::syscall_number(arch, call)
        .unwrap_or_else(|| panic!("no system call is called {call}"));
    let target = match arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    let rules = [(i64::from(number), rules)].into_iter().collect();
    let refused = SeccompAction::Errno(errno.unwrap_or(usual));
    let filter: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refused, target).unwrap().try_into().unwrap();
    seccompiler::apply_filter(&filter).unwrap();
}
