//! Runs a program as if the kernel lacked some system calls: `without NAME[:errno][,NAME…] -- PROGRAM ARGS…`.
//!
//! A seccomp filter answers instead of the kernel, for the program and its descendants. Besides names of calls it knows *features*: flags
//! of a call. A kernel that does not know such a flag fails the call.
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

/// Flags of an argument of a system call.
struct Feature {
    name: &'static str,
    call: &'static str,
    argument: u8,
    /// The bits of the argument that matter, and their value when the feature is requested.
    mask: u64,
    value: u64,
    /// The error of a kernel without the feature.
    errno: u32,
}

/// A feature that is one flag.
const fn flag(name: &'static str, call: &'static str, argument: u8, flag: u64, errno: u32) -> Feature {
    Feature { name, call, argument, mask: flag, value: flag, errno }
}

/// `clone3` has its flags in memory, which a filter cannot read: name it together with "user-namespaces".
const FEATURES: [Feature; 6] = [
    flag("memfd-exec", "memfd_create", 1, 0x10, EINVAL),
    flag("close-range-cloexec", "close_range", 2, 4, EINVAL),
    flag("user-namespaces", "clone", 0, 0x1000_0000, EPERM),
    flag("filter-listener", "seccomp", 1, 8, EINVAL),
    flag("filter-wait-killable", "seccomp", 1, 0x20, EINVAL),
    // A filter cannot read the file system type. No other mount of a run has exactly these flags: read-only, nosuid, nodev.
    Feature { name: "overlay", call: "mount", argument: 3, mask: 0xffff_ffff, value: 7, errno: EPERM },
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
    let (call, rules, usual) = match FEATURES.iter().find(|f| f.name == name) {
        Some(f) => {
            let op = SeccompCmpOp::MaskedEq(f.mask);
            let masked = SeccompCondition::new(f.argument, SeccompCmpArgLen::Dword, op, f.value);
            (f.call, vec![SeccompRule::new(vec![masked.unwrap()]).unwrap()], f.errno)
        }
        None => (name, Vec::new(), ENOSYS),
    };
    let arch = Arch::native().unwrap();
    let number =
        invarlock_seccomp::syscall_number(arch, call).unwrap_or_else(|| panic!("unknown system call {call}"));
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
