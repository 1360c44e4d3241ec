//! The names of constants in profiles.

/// socket(2), socketpair(2): address families.
const FAMILIES: &[(&str, u64)] = &[
    ("AF_UNSPEC", 0),
    ("AF_UNIX", 1),
    ("AF_INET", 2),
    ("AF_AX25", 3),
    ("AF_IPX", 4),
    ("AF_APPLETALK", 5),
    ("AF_NETROM", 6),
    ("AF_BRIDGE", 7),
    ("AF_ATMPVC", 8),
    ("AF_X25", 9),
    ("AF_INET6", 10),
    ("AF_ROSE", 11),
    ("AF_DECnet", 12),
    ("AF_NETBEUI", 13),
    ("AF_SECURITY", 14),
    ("AF_KEY", 15),
    ("AF_NETLINK", 16),
    ("AF_PACKET", 17),
    ("AF_ASH", 18),
    ("AF_ECONET", 19),
    ("AF_ATMSVC", 20),
    ("AF_RDS", 21),
    ("AF_SNA", 22),
    ("AF_IRDA", 23),
    ("AF_PPPOX", 24),
    ("AF_WANPIPE", 25),
    ("AF_LLC", 26),
    ("AF_IB", 27),
    ("AF_MPLS", 28),
    ("AF_CAN", 29),
    ("AF_TIPC", 30),
    ("AF_BLUETOOTH", 31),
    ("AF_IUCV", 32),
    ("AF_RXRPC", 33),
    ("AF_ISDN", 34),
    ("AF_PHONET", 35),
    ("AF_IEEE802154", 36),
    ("AF_CAIF", 37),
    ("AF_ALG", 38),
    ("AF_NFC", 39),
    ("AF_VSOCK", 40),
    ("AF_KCM", 41),
    ("AF_QIPCRTR", 42),
    ("AF_SMC", 43),
    ("AF_XDP", 44),
    ("AF_MCTP", 45),
];

/// The constants that built-in profiles use.
const VALUES: &[(&str, u64)] = &[
    // clone(2)
    ("CLONE_VM", 0x100),
    ("CLONE_FS", 0x200),
    ("CLONE_FILES", 0x400),
    ("CLONE_SIGHAND", 0x800),
    ("CLONE_PIDFD", 0x1000),
    ("CLONE_PTRACE", 0x2000),
    ("CLONE_VFORK", 0x4000),
    ("CLONE_PARENT", 0x8000),
    ("CLONE_THREAD", 0x1_0000),
    ("CLONE_NEWNS", 0x2_0000),
    ("CLONE_UNTRACED", 0x80_0000),
    ("CLONE_NEWCGROUP", 0x200_0000),
    ("CLONE_NEWUTS", 0x400_0000),
    ("CLONE_NEWIPC", 0x800_0000),
    ("CLONE_NEWUSER", 0x1000_0000),
    ("CLONE_NEWPID", 0x2000_0000),
    ("CLONE_NEWNET", 0x4000_0000),
    ("CLONE_IO", 0x8000_0000),
    // mmap(2), mprotect(2)
    ("PROT_EXEC", 4),
    ("MAP_SHARED", 1),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_HUGETLB", 0x4_0000),
    // memfd_create(2)
    ("MFD_HUGETLB", 4),
    // fcntl(2)
    ("F_DUPFD", 0),
    ("F_GETFD", 1),
    ("F_SETFD", 2),
    ("F_GETFL", 3),
    ("F_SETFL", 4),
    ("F_SETLEASE", 1024),
    ("F_NOTIFY", 1026),
    ("F_DUPFD_CLOEXEC", 1030),
    ("F_SETPIPE_SZ", 1031),
    ("F_GETPIPE_SZ", 1032),
    ("F_GET_SEALS", 1034),
    // setrlimit(2), prlimit(2)
    ("RLIMIT_CORE", 4),
    // setpriority(2), ioprio_set(2)
    ("PRIO_PGRP", 1),
    ("IOPRIO_WHO_PROCESS", 1),
    ("IOPRIO_WHO_PGRP", 2),
    // setsockopt(2)
    ("SOL_SOCKET", 1),
    ("SO_ATTACH_FILTER", 26),
    ("SO_ATTACH_BPF", 50),
    ("SO_ATTACH_REUSEPORT_CBPF", 51),
    ("SO_ATTACH_REUSEPORT_EBPF", 52),
    // ioctl(2)
    ("TCGETS", 0x5401),
    ("TCSETS", 0x5402),
    ("TCSETSF", 0x5404),
    ("TCSBRK", 0x5409),
    ("TCFLSH", 0x540b),
    ("TIOCSCTTY", 0x540e),
    ("TIOCGPGRP", 0x540f),
    ("TIOCOUTQ", 0x5411),
    ("TIOCSTI", 0x5412),
    ("TIOCGWINSZ", 0x5413),
    ("TIOCSWINSZ", 0x5414),
    ("TIOCLINUX", 0x541c),
    ("TIOCNOTTY", 0x5422),
    ("TIOCSETD", 0x5423),
    ("TIOCGSID", 0x5429),
    ("TIOCGPTPEER", 0x5441),
    ("FIONREAD", 0x541b),
    ("FIONBIO", 0x5421),
    ("FIONCLEX", 0x5450),
    ("FIOASYNC", 0x5452),
    ("TCGETS2", 0x802c_542a),
    ("TCSETS2", 0x402c_542b),
    ("TCSETSF2", 0x402c_542d),
    ("TIOCGPTN", 0x8004_5430),
    ("TIOCSPTLCK", 0x4004_5431),
    ("FICLONE", 0x4004_9409),
    // prctl(2)
    ("PR_SET_PDEATHSIG", 1),
    ("PR_SET_DUMPABLE", 4),
    ("PR_SET_NAME", 15),
    ("PR_GET_NAME", 16),
    ("PR_CAPBSET_READ", 23),
    ("PR_GET_SECUREBITS", 27),
    ("PR_SET_CHILD_SUBREAPER", 36),
    ("PR_GET_NO_NEW_PRIVS", 39),
    ("PR_SET_THP_DISABLE", 41),
    ("PR_GET_THP_DISABLE", 42),
    ("PR_SVE_GET_VL", 51),
    ("PR_GET_AUXV", 0x4155_5856),
    ("PR_SET_VMA", 0x5356_4d41),
    // arch_prctl(2)
    ("ARCH_SET_FS", 0x1002),
    ("ARCH_REQ_XCOMP_PERM", 0x1023),
    ("XFEATURE_XTILE_DATA", 18),
    ("ARCH_CET_STATUS", 0x3001),
    ("ARCH_SHSTK_STATUS", 0x5005),
    // personality(2)
    ("PER_LINUX", 0),
    ("PER_QUERY", 0xffff_ffff),
];

/// The value of `NAME` or `NAME|NAME`.
pub(crate) fn value(names: &str) -> Option<u64> {
    names.split('|').try_fold(0, |sum, wanted| {
        let wanted = wanted.trim();
        VALUES.iter().chain(FAMILIES).find(|(name, _)| *name == wanted).map(|(_, value)| sum | value)
    })
}

/// The name of an address family.
pub(crate) fn family(number: u64) -> Option<&'static str> {
    FAMILIES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}
