//! System calls that only the filter, or nothing but the lack of a capability, refuses.

use super::super::sys::{
    self,
    Arg::{Memory, N, Text},
};
use super::{Answer, Attack, Expect, attack, call};
use libc::{EACCES, EINVAL, ENOSYS, ENOTTY, EPERM, c_long};
use std::os::fd::AsRawFd as _;

const PERM: Expect = Expect::Refused(&[EPERM]);
const CALLS_ROW: &str = "system calls";

const fn refused(id: &'static str, what: &'static str, run: fn() -> Answer) -> Attack {
    attack(CALLS_ROW, id, what, PERM, Some(run))
}

/// Row "system calls".
pub(super) const CALLS: &[Attack] = &[
    attack(
        CALLS_ROW,
        "filter-mode",
        "run without a filter",
        Expect::Outside("mode 2 with our filter", |facts, _| {
            let seen = &facts.observations.seccomp.value;
            let added = seen.filters.zip(seen.inherited).map(|(all, before)| all.saturating_sub(before));
            Some((
                format!("mode {}, {} of ours", seen.mode, added.unwrap_or(1)),
                seen.mode == 2 && added != Some(0),
            ))
        }),
        None,
    ),
    attack(
        CALLS_ROW,
        "no-new-privs",
        "gain rights by execve: no_new_privs",
        Expect::Says("1"),
        Some(|| Answer::Said(super::status("NoNewPrivs"))),
    ),
    refused("unshare-user", "unshare(CLONE_NEWUSER)", || {
        call(libc::SYS_unshare, &mut [N(libc::CLONE_NEWUSER.into())])
    }),
    refused("unshare-mount", "unshare(CLONE_NEWNS)", || {
        call(libc::SYS_unshare, &mut [N(libc::CLONE_NEWNS.into())])
    }),
    refused("clone-user", "clone(CLONE_NEWUSER)", || {
        match sys::call(
            libc::SYS_clone,
            &mut [N(c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD)), N(0), N(0), N(0), N(0)],
        ) {
            Ok(0) => sys::exit_now(0),
            Ok(_) => Answer::Done,
            Err(errno) => Answer::Refused(errno),
        }
    }),
    attack(
        CALLS_ROW,
        "clone3",
        "clone3, whose flags no filter can see",
        Expect::Refused(&[ENOSYS]),
        Some(|| call(libc::SYS_clone3, &mut [N(0), N(0)])),
    ),
    attack(
        CALLS_ROW,
        "unknown-call",
        "a call that this program does not know",
        Expect::Refused(&[ENOSYS]),
        Some(|| call(4095, &mut [])),
    ),
    refused("setns", "setns to its own user namespace", || match std::fs::File::open("/proc/self/ns/user") {
        Ok(file) => call(libc::SYS_setns, &mut [N(file.as_raw_fd().into()), N(0)]),
        Err(e) => Answer::Said(e.to_string()),
    }),
    refused("mount", "mount a tmpfs on /tmp", || {
        call(libc::SYS_mount, &mut [Text(c"t"), Text(c"/tmp"), Text(c"tmpfs"), N(0), N(0)])
    }),
    refused("remount", "make / writable: mount(MS_REMOUNT)", || {
        let flags = (libc::MS_REMOUNT | libc::MS_BIND) as c_long;
        call(libc::SYS_mount, &mut [Text(c"none"), Text(c"/"), N(0), N(flags), N(0)])
    }),
    refused("umount", "unmount /in", || {
        call(libc::SYS_umount2, &mut [Text(c"/in"), N(libc::MNT_DETACH.into())])
    }),
    refused("mount-setattr", "make / writable: mount_setattr", || {
        // Clears "read-only", the lowest bit of the second of four words.
        let mut attributes = [0; 32];
        attributes[8] = 1;
        call(
            libc::SYS_mount_setattr,
            &mut [N(libc::AT_FDCWD.into()), Text(c"/"), N(0), Memory(&mut attributes), N(32)],
        )
    }),
    refused("open-tree", "open_tree(OPEN_TREE_CLONE)", || {
        call(libc::SYS_open_tree, &mut [N(libc::AT_FDCWD.into()), Text(c"/"), N(1)])
    }),
    refused("fsopen", "fsopen(\"tmpfs\")", || call(libc::SYS_fsopen, &mut [Text(c"tmpfs"), N(0)])),
    refused("pivot-root", "pivot_root", || call(libc::SYS_pivot_root, &mut [Text(c"/tmp"), Text(c"/tmp")])),
    refused("chroot", "chroot to /tmp", || call(libc::SYS_chroot, &mut [Text(c"/tmp")])),
    refused("bpf", "bpf(BPF_MAP_CREATE)", || call(libc::SYS_bpf, &mut [N(0), Memory(&mut [0; 128]), N(128)])),
    refused("io-uring", "io_uring_setup", || {
        call(libc::SYS_io_uring_setup, &mut [N(1), Memory(&mut [0; 120])])
    }),
    refused("keyctl", "keyctl(KEYCTL_GET_KEYRING_ID)", || call(libc::SYS_keyctl, &mut [N(0), N(-3), N(1)])),
    refused("add-key", "add_key", || {
        call(libc::SYS_add_key, &mut [Text(c"user"), Text(c"k"), Text(c"v"), N(1), N(-3)])
    }),
    refused("userfaultfd", "userfaultfd(UFFD_USER_MODE_ONLY)", || call(libc::SYS_userfaultfd, &mut [N(1)])),
    refused("perf-event-open", "perf_event_open of itself", || {
        // A software event that only counts user mode: what an ordinary user may often have.
        let mut attributes = [0; 128];
        attributes[0] = 1;
        attributes[4] = 128;
        attributes[40] = 0b110_0000;
        call(libc::SYS_perf_event_open, &mut [Memory(&mut attributes), N(0), N(-1), N(-1), N(0)])
    }),
    refused("kexec-load", "kexec_load", || call(libc::SYS_kexec_load, &mut [N(0), N(0), N(0), N(0)])),
    refused("init-module", "init_module", || {
        call(libc::SYS_init_module, &mut [Memory(&mut [0; 8]), N(8), Text(c"")])
    }),
    refused("finit-module", "finit_module", || call(libc::SYS_finit_module, &mut [N(0), Text(c""), N(0)])),
    refused("ptrace-init", "ptrace of init", || {
        call(libc::SYS_ptrace, &mut [N(libc::PTRACE_SEIZE.into()), N(1), N(0), N(0)])
    }),
    refused("ptrace-me", "ptrace(PTRACE_TRACEME)", || call(libc::SYS_ptrace, &mut [N(0), N(0), N(0), N(0)])),
    refused("read-init", "process_vm_readv of init", || {
        call(libc::SYS_process_vm_readv, &mut [N(1), N(0), N(0), N(0), N(0), N(0)])
    }),
    refused("personality", "personality(ADDR_NO_RANDOMIZE)", || {
        call(libc::SYS_personality, &mut [N(0x004_0000)])
    }),
    refused("syslog", "read the kernel's log", || {
        call(libc::SYS_syslog, &mut [N(3), Memory(&mut [0; 64]), N(64)])
    }),
    refused("handle", "open_by_handle_at, a file by its number", || {
        call(libc::SYS_open_by_handle_at, &mut [N(libc::AT_FDCWD.into()), Memory(&mut [0; 64]), N(0)])
    }),
    refused("quotactl", "quotactl", || call(libc::SYS_quotactl, &mut [N(0x80_0002), N(0), N(0), N(0)])),
    refused("acct", "acct", || call(libc::SYS_acct, &mut [N(0)])),
    refused("sethostname", "sethostname", || call(libc::SYS_sethostname, &mut [Text(c"x"), N(1)])),
    refused("clock-settime", "set the clock", || {
        call(libc::SYS_clock_settime, &mut [N(0), Memory(&mut [0; 16])])
    }),
    attack(
        CALLS_ROW,
        "tiocsti",
        "type into the launcher's terminal: TIOCSTI",
        Expect::Refused(&[EPERM]),
        Some(|| call(libc::SYS_ioctl, &mut [N(0), N(libc::TIOCSTI as c_long), Memory(&mut [b'x'])])),
    ),
    attack(
        CALLS_ROW,
        "terminal",
        "be on a terminal",
        Expect::Refused(&[ENOTTY, EINVAL, EACCES]),
        Some(|| call(libc::SYS_ioctl, &mut [N(1), N(libc::TCGETS as c_long), Memory(&mut [0; 64])])),
    ),
    #[cfg(target_arch = "x86_64")]
    attack(
        CALLS_ROW,
        "x32",
        "a call by its x32 number",
        Expect::Killed,
        Some(|| call(0x4000_0000 | libc::SYS_getppid, &mut [])),
    ),
    #[cfg(target_arch = "x86_64")]
    attack(
        CALLS_ROW,
        "int80",
        "a call through the 32-bit gate",
        Expect::Killed,
        Some(|| Answer::Said(format!("getpid: {}", sys::call_32_bit()))),
    ),
];
