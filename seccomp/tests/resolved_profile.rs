//! An interpreter of the compiled BPF and an independent reading of the profile agree on random calls, for every built-in profile, on
//! both architectures, with and without notification.

mod bpf;

use bpf::{ALLOW, ERRNO, KILL, NOTIFY, X32, audit, run};
use invarlock_seccomp::{Arch, Condition, Default, Length, Operator, Profile, Value, syscall_name};
use proptest::prelude::*;

fn value(value: &Value) -> u64 {
    match value {
        Value::Number(number) => *number,
        Value::Names(names) => names.split('|').map(|name| constant(name.trim())).sum(),
    }
}

/// From the C library, not from the crate under test.
fn constant(name: &str) -> u64 {
    match name {
        "AF_UNIX" => libc::AF_UNIX as u64,
        "CLONE_VM" => libc::CLONE_VM as u64,
        "CLONE_SIGHAND" => libc::CLONE_SIGHAND as u64,
        "CLONE_THREAD" => libc::CLONE_THREAD as u64,
        "CLONE_VFORK" => libc::CLONE_VFORK as u64,
        "CLONE_PTRACE" => libc::CLONE_PTRACE as u64,
        "CLONE_UNTRACED" => libc::CLONE_UNTRACED as u64,
        "CLONE_PARENT" => libc::CLONE_PARENT as u64,
        "CLONE_PIDFD" => libc::CLONE_PIDFD as u64,
        "CLONE_NEWNS" => libc::CLONE_NEWNS as u64,
        "CLONE_NEWCGROUP" => libc::CLONE_NEWCGROUP as u64,
        "CLONE_NEWUTS" => libc::CLONE_NEWUTS as u64,
        "CLONE_NEWIPC" => libc::CLONE_NEWIPC as u64,
        "CLONE_NEWUSER" => libc::CLONE_NEWUSER as u64,
        "CLONE_NEWPID" => libc::CLONE_NEWPID as u64,
        "CLONE_NEWNET" => libc::CLONE_NEWNET as u64,
        "PROT_EXEC" => libc::PROT_EXEC as u64,
        "MAP_SHARED" => libc::MAP_SHARED as u64,
        "MAP_ANONYMOUS" => libc::MAP_ANONYMOUS as u64,
        "MAP_HUGETLB" => libc::MAP_HUGETLB as u64,
        "MFD_HUGETLB" => u64::from(libc::MFD_HUGETLB),
        "F_GETPIPE_SZ" => libc::F_GETPIPE_SZ as u64,
        "F_GET_SEALS" => libc::F_GET_SEALS as u64,
        "RLIMIT_CORE" => u64::from(libc::RLIMIT_CORE),
        "PRIO_PGRP" => u64::from(libc::PRIO_PGRP),
        "IOPRIO_WHO_PROCESS" => 1,
        "IOPRIO_WHO_PGRP" => 2,
        "SO_ATTACH_FILTER" => libc::SO_ATTACH_FILTER as u64,
        "SO_ATTACH_BPF" => libc::SO_ATTACH_BPF as u64,
        "SO_ATTACH_REUSEPORT_CBPF" => libc::SO_ATTACH_REUSEPORT_CBPF as u64,
        "SO_ATTACH_REUSEPORT_EBPF" => libc::SO_ATTACH_REUSEPORT_EBPF as u64,
        "F_GETFD" => libc::F_GETFD as u64,
        "F_SETFL" => libc::F_SETFL as u64,
        "F_DUPFD_CLOEXEC" => libc::F_DUPFD_CLOEXEC as u64,
        "TCGETS" => 0x5401,
        "TCGETS2" => 0x802c_542a,
        "TIOCGWINSZ" => 0x5413,
        "TCSETS" => libc::TCSETS,
        "TCSETSF" => libc::TCSETSF,
        "TCSETS2" => libc::TCSETS2,
        "TCSETSF2" => libc::TCSETSF2,
        "TCSBRK" => libc::TCSBRK,
        "TCFLSH" => libc::TCFLSH,
        "TIOCSCTTY" => libc::TIOCSCTTY,
        "TIOCNOTTY" => libc::TIOCNOTTY,
        "TIOCGPGRP" => libc::TIOCGPGRP,
        "TIOCOUTQ" => libc::TIOCOUTQ,
        "TIOCSWINSZ" => libc::TIOCSWINSZ,
        "TIOCGSID" => libc::TIOCGSID,
        "TIOCGPTN" => libc::TIOCGPTN,
        "TIOCSPTLCK" => libc::TIOCSPTLCK,
        "TIOCGPTPEER" => libc::TIOCGPTPEER,
        "FIONREAD" => libc::FIONREAD,
        "FIONBIO" => libc::FIONBIO,
        "FIONCLEX" => libc::FIONCLEX,
        "FIOASYNC" => 0x5452,
        "FICLONE" => libc::FICLONE,
        "PR_SET_PDEATHSIG" => libc::PR_SET_PDEATHSIG as u64,
        "PR_SET_DUMPABLE" => libc::PR_SET_DUMPABLE as u64,
        "PR_SET_NAME" => libc::PR_SET_NAME as u64,
        "PR_GET_NAME" => libc::PR_GET_NAME as u64,
        "PR_CAPBSET_READ" => libc::PR_CAPBSET_READ as u64,
        "PR_GET_SECUREBITS" => libc::PR_GET_SECUREBITS as u64,
        "PR_SET_CHILD_SUBREAPER" => libc::PR_SET_CHILD_SUBREAPER as u64,
        "PR_GET_NO_NEW_PRIVS" => libc::PR_GET_NO_NEW_PRIVS as u64,
        "PR_SET_THP_DISABLE" => libc::PR_SET_THP_DISABLE as u64,
        "PR_GET_THP_DISABLE" => libc::PR_GET_THP_DISABLE as u64,
        "PR_SVE_GET_VL" => 51,
        "PR_GET_AUXV" => 0x4155_5856,
        "PR_SET_VMA" => libc::PR_SET_VMA as u64,
        // <asm/prctl.h> and <asm/fpu/types.h> of the kernel.
        "ARCH_SET_FS" => 0x1002,
        "ARCH_REQ_XCOMP_PERM" => 0x1023,
        "ARCH_CET_STATUS" => 0x3001,
        "ARCH_SHSTK_STATUS" => 0x5005,
        "XFEATURE_XTILE_DATA" => 18,
        "PER_LINUX" => 0,
        "PER_QUERY" => 0xffff_ffff,
        other => panic!("{other} is not among the constants of this test"),
    }
}

fn holds(it: &Condition, args: [u64; 6]) -> bool {
    let width = if it.len == Length::Dword { u64::from(u32::MAX) } else { u64::MAX };
    let (arg, wanted) = (args[usize::from(it.index)] & width, value(&it.value));
    match it.op {
        Operator::Eq => arg == wanted,
        Operator::Ne => arg != wanted,
        Operator::Lt => arg < wanted,
        Operator::Le => arg <= wanted,
        Operator::Gt => arg > wanted,
        Operator::Ge => arg >= wanted,
        Operator::MaskedEq => arg & it.mask.as_ref().map_or(u64::MAX, value) == wanted,
    }
}

/// The return value by the documentation of the profile.
fn promised(profile: &Profile, arch: Arch, said: u32, number: u32, args: [u64; 6], refused: u32) -> u32 {
    if said != audit(arch) || (arch == Arch::X86_64 && number >= X32) {
        return KILL;
    }
    let name = syscall_name(arch, number);
    let listed = profile
        .rules()
        .iter()
        .any(|rule| Some(rule.syscall.as_str()) == name && rule.args.iter().all(|it| holds(it, args)));
    match (profile.default, name) {
        (Default::Enosys, None | Some("clone3")) => ERRNO | 38,
        (Default::Enosys, _) if listed => ALLOW,
        (Default::Allow, _) if !listed => ALLOW,
        _ => refused,
    }
}

/// Numbers at which comparisons turn, besides any.
fn argument(profile: &Profile) -> BoxedStrategy<u64> {
    let conditions = profile.rules().iter().flat_map(|rule| &rule.args);
    let mut edges: Vec<u64> =
        conditions.flat_map(|it| it.mask.iter().chain([&it.value])).map(value).chain([0]).collect();
    edges.sort_unstable();
    edges.dedup();
    let edge = prop::sample::select(edges);
    prop_oneof![
        edge.clone(),
        (edge.clone(), 0u32..64).prop_map(|(edge, bit)| edge ^ 1 << bit),
        (edge, any::<u32>()).prop_map(|(edge, junk)| edge | u64::from(junk) << 32),
        any::<u64>(),
    ]
    .boxed()
}

fn agrees(profile: &Profile) {
    for arch in Arch::ALL {
        let programs = [
            (profile.compile_for(arch).expect("program"), ERRNO | 1),
            (profile.compile_notify_for(arch).expect("program"), NOTIFY),
        ];
        let tracer = bpf::Tracer::of(&profile.resolve(arch).expect("resolved"));
        let listed: Vec<u32> = profile
            .rules()
            .iter()
            .filter_map(|rule| invarlock_seccomp::syscall_number(arch, &rule.syscall))
            .collect();
        let with_args: Vec<u32> = profile
            .rules()
            .iter()
            .filter(|rule| !rule.args.is_empty())
            .filter_map(|rule| invarlock_seccomp::syscall_number(arch, &rule.syscall))
            .collect();
        let number = prop_oneof![
            prop::sample::select(listed),
            prop::sample::select(with_args),
            0u32..500,
            (0u32..500).prop_map(|number| number | X32),
            any::<u32>(),
        ];
        let said = prop_oneof![8 => Just(audit(arch)), 1 => any::<u32>()];
        let args = prop::array::uniform6(argument(profile));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(20_000));
        runner
            .run(&(said, number, args), |(said, number, args)| {
                for (program, refused) in &programs {
                    let seen = run(program, said, number, args);
                    let expected = promised(profile, arch, said, number, args, *refused);
                    prop_assert_eq!(seen, expected, "{} {:?} {}", profile.name, arch, number);
                }
                tracer.agrees(said, number, args, run(&programs[0].0, said, number, args));
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn evaluator() {
    agrees(&Profile::evaluator());
}

#[test]
fn evaluator_amx() {
    agrees(&Profile::evaluator_amx());
}

#[test]
fn general() {
    agrees(&Profile::general());
}

#[test]
fn terminal() {
    agrees(&Profile::terminal());
}

#[test]
fn no_network() {
    agrees(&Profile::no_network());
}
