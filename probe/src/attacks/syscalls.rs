//! Attacks on the control "system calls": calls that only the filter or a missing capability blocks.

use super::{Attack, Expect, attack, call};
use crate::answer::Answer;
use crate::sys::{
    self,
    Arg::{Memory, Number, Text},
};
use libc::{EACCES, EINVAL, ENOSYS, ENOTTY, EPERM, c_long};
use std::os::fd::AsRawFd as _;

const CONTROL: &str = "system calls";
const DENIED: Expect = Expect::Errno(&[EPERM]);

/// An attack that must fail with `EPERM`.
const fn denied(id: &'static str, what: &'static str, run: fn() -> Answer) -> Attack {
    attack(CONTROL, id, what, DENIED, Some(run))
}

/// Control "system calls".
pub(super) const SYSTEM_CALLS: &[Attack] = &[
    attack(
        CONTROL,
        "filter-mode",
        "run without a filter",
        Expect::Outside("mode 2 with the run's filter", |findings, _| {
            let seccomp = &findings.observations.seccomp.value;
            let added =
                seccomp.filters.zip(seccomp.inherited).map(|(all, before)| all.saturating_sub(before));
            Some((
                format!("mode {}, {} filters of the run", seccomp.mode, added.unwrap_or(1)),
                seccomp.mode == 2 && added != Some(0),
            ))
        }),
        None,
    ),
    attack(
        CONTROL,
        "no-new-privs",
        "gain privileges by execve: no_new_privs",
        Expect::Text("1"),
        Some(|| Answer::Text(super::status("NoNewPrivs"))),
    ),
    denied("unshare-user", "unshare(CLONE_NEWUSER)", || {
        call(libc::SYS_unshare, &mut [Number(libc::CLONE_NEWUSER.into())])
    }),
    denied("unshare-mount", "unshare(CLONE_NEWNS)", || {
        call(libc::SYS_unshare, &mut [Number(libc::CLONE_NEWNS.into())])
    }),
    denied("clone-user", "clone(CLONE_NEWUSER)", || {
        let flags = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        let args = &mut [Number(flags), Number(0), Number(0), Number(0), Number(0)];
        match sys::call(libc::SYS_clone, args) {
            Ok(0) => sys::exit_now(0),
            Ok(_) => Answer::Succeeded,
            Err(errno) => Answer::Failed(errno),
        }
    }),
    attack(
        CONTROL,
        "clone3",
        "clone3, whose flags no filter can read",
        Expect::Errno(&[ENOSYS]),
        Some(|| call(libc::SYS_clone3, &mut [Number(0), Number(0)])),
    ),
    attack(
        CONTROL,
        "unknown-call",
        "a call that no profile knows",
        Expect::Errno(&[ENOSYS]),
        Some(|| call(4095, &mut [])),
    ),
    denied("setns", "setns to its own user namespace", || match std::fs::File::open("/proc/self/ns/user") {
        Ok(file) => call(libc::SYS_setns, &mut [Number(file.as_raw_fd().into()), Number(0)]),
        Err(e) => Answer::Text(e.to_string()),
    }),
    denied("mount", "mount a tmpfs on /tmp", || {
        call(libc::SYS_mount, &mut [Text(c"t"), Text(c"/tmp"), Text(c"tmpfs"), Number(0), Number(0)])
    }),
    denied("remount", "make / writable: mount(MS_REMOUNT)", || {
        let flags = (libc::MS_REMOUNT | libc::MS_BIND) as c_long;
        call(libc::SYS_mount, &mut [Text(c"none"), Text(c"/"), Number(0), Number(flags), Number(0)])
    }),
    denied("umount", "unmount /in", || {
        call(libc::SYS_umount2, &mut [Text(c"/in"), Number(libc::MNT_DETACH.into())])
    }),
    denied("mount-setattr", "make / writable: mount_setattr", || {
        // struct mount_attr has four u64; MOUNT_ATTR_RDONLY is bit 0 of the second, attr_clr.
        let mut attributes = [0; 32];
        attributes[8] = 1;
        call(
            libc::SYS_mount_setattr,
            &mut [Number(libc::AT_FDCWD.into()), Text(c"/"), Number(0), Memory(&mut attributes), Number(32)],
        )
    }),
    denied("open-tree", "open_tree(OPEN_TREE_CLONE)", || {
        call(libc::SYS_open_tree, &mut [Number(libc::AT_FDCWD.into()), Text(c"/"), Number(1)])
    }),
    denied("fsopen", "fsopen(\"tmpfs\")", || call(libc::SYS_fsopen, &mut [Text(c"tmpfs"), Number(0)])),
    denied("pivot-root", "pivot_root", || call(libc::SYS_pivot_root, &mut [Text(c"/tmp"), Text(c"/tmp")])),
    denied("chroot", "chroot to /tmp", || call(libc::SYS_chroot, &mut [Text(c"/tmp")])),
    denied("bpf", "bpf(BPF_MAP_CREATE)", || {
        call(libc::SYS_bpf, &mut [Number(0), Memory(&mut [0; 128]), Number(128)])
    }),
    denied("io-uring", "io_uring_setup", || {
        call(libc::SYS_io_uring_setup, &mut [Number(1), Memory(&mut [0; 120])])
    }),
    denied("keyctl", "keyctl(KEYCTL_GET_KEYRING_ID)", || {
        call(libc::SYS_keyctl, &mut [Number(0), Number(-3), Number(1)])
    }),
    denied("add-key", "add_key", || {
        call(libc::SYS_add_key, &mut [Text(c"user"), Text(c"k"), Text(c"v"), Number(1), Number(-3)])
    }),
    denied("userfaultfd", "userfaultfd(UFFD_USER_MODE_ONLY)", || {
        call(libc::SYS_userfaultfd, &mut [Number(1)])
    }),
    denied("perf-event-open", "perf_event_open of itself", || {
        // A software event that counts only user mode, which ordinary users are often allowed to open: struct perf_event_attr has
        // type at 0, size at 4, and exclude_kernel and exclude_hv in the flags at 40.
        let mut attributes = [0; 128];
        attributes[0] = 1;
        attributes[4] = 128;
        attributes[40] = 0b110_0000;
        call(
            libc::SYS_perf_event_open,
            &mut [Memory(&mut attributes), Number(0), Number(-1), Number(-1), Number(0)],
        )
    }),
    denied("kexec-load", "kexec_load", || {
        call(libc::SYS_kexec_load, &mut [Number(0), Number(0), Number(0), Number(0)])
    }),
    denied("init-module", "init_module", || {
        call(libc::SYS_init_module, &mut [Memory(&mut [0; 8]), Number(8), Text(c"")])
    }),
    denied("finit-module", "finit_module", || {
        call(libc::SYS_finit_module, &mut [Number(0), Text(c""), Number(0)])
    }),
    denied("ptrace-init", "ptrace of init", || {
        call(libc::SYS_ptrace, &mut [Number(libc::PTRACE_SEIZE.into()), Number(1), Number(0), Number(0)])
    }),
    denied("ptrace-me", "ptrace(PTRACE_TRACEME)", || {
        call(libc::SYS_ptrace, &mut [Number(libc::PTRACE_TRACEME.into()), Number(0), Number(0), Number(0)])
    }),
    denied("read-init", "process_vm_readv of init", || {
        call(
            libc::SYS_process_vm_readv,
            &mut [Number(1), Number(0), Number(0), Number(0), Number(0), Number(0)],
        )
    }),
    denied("personality", "personality(ADDR_NO_RANDOMIZE)", || {
        call(libc::SYS_personality, &mut [Number(libc::ADDR_NO_RANDOMIZE.into())])
    }),
    denied("syslog", "read the kernel's log", || {
        call(libc::SYS_syslog, &mut [Number(3), Memory(&mut [0; 64]), Number(64)])
    }),
    denied("handle", "open_by_handle_at, a file by its inode number", || {
        call(
            libc::SYS_open_by_handle_at,
            &mut [Number(libc::AT_FDCWD.into()), Memory(&mut [0; 64]), Number(0)],
        )
    }),
    denied("quotactl", "quotactl", || {
        call(libc::SYS_quotactl, &mut [Number(0x80_0002), Number(0), Number(0), Number(0)])
    }),
    denied("acct", "acct", || call(libc::SYS_acct, &mut [Number(0)])),
    denied("sethostname", "sethostname", || call(libc::SYS_sethostname, &mut [Text(c"x"), Number(1)])),
    denied("clock-settime", "set the clock", || {
        call(libc::SYS_clock_settime, &mut [Number(0), Memory(&mut [0; 16])])
    }),
    denied("tiocsti", "write input into the launcher's terminal: TIOCSTI", || {
        call(libc::SYS_ioctl, &mut [Number(0), Number(libc::TIOCSTI as c_long), Memory(&mut [b'x'])])
    }),
    attack(
        CONTROL,
        "terminal",
        "be on a terminal",
        Expect::Errno(&[ENOTTY, EINVAL, EACCES]),
        Some(|| {
            call(libc::SYS_ioctl, &mut [Number(1), Number(libc::TCGETS as c_long), Memory(&mut [0; 64])])
        }),
    ),
    #[cfg(target_arch = "x86_64")]
    attack(
        CONTROL,
        "x32",
        "a call by its x32 number",
        Expect::KilledBySigsys,
        Some(|| call(0x4000_0000 | libc::SYS_getppid, &mut [])),
    ),
    #[cfg(target_arch = "x86_64")]
    attack(
        CONTROL,
        "int80",
        "a call through the 32-bit entry",
        Expect::KilledBySigsys,
        Some(|| Answer::Text(format!("getpid: {}", sys::getpid_by_int80()))),
    ),
];
