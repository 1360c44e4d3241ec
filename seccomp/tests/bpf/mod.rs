//! An interpreter of filters, and constants, independent of the crate under test.

use invarlock_seccomp::{Answer, Arch, NotifyHandler, Program, ResolvedProfile, TRACE_FD, syscall_name};

pub const KILL: u32 = 0x8000_0000;
pub const ERRNO: u32 = 0x0005_0000;
pub const NOTIFY: u32 = 0x7fc0_0000;
pub const ALLOW: u32 = 0x7fff_0000;
pub const X32: u32 = 0x4000_0000;

/// `AUDIT_ARCH_*` of the kernel.
pub fn audit(arch: Arch) -> u32 {
    if arch == Arch::X86_64 { 0xc000_003e } else { 0xc000_00b7 }
}

/// A traced profile: its program and its handler.
pub struct Tracer {
    program: Program,
    handler: NotifyHandler,
    arch: Arch,
}

impl Tracer {
    pub fn of(resolved: &ResolvedProfile) -> Self {
        let program = resolved.compile_trace().expect("a program");
        Tracer {
            program,
            handler: NotifyHandler::new(resolved.clone()).expect("a handler"),
            arch: resolved.arch,
        }
    }

    /// Fails where tracing decides otherwise than `ordinary`, the return value of the ordinary program.
    pub fn agrees(&self, said: u32, number: u32, args: [u64; 6], ordinary: u32) {
        let first_words = matches!(syscall_name(self.arch, number), Some("read" | "write"))
            && args[0] as u32 == TRACE_FD
            && matches!(ordinary, ALLOW | 0x0005_0001);
        let expected = match ordinary {
            _ if first_words && said == audit(self.arch) => ALLOW,
            ALLOW | 0x0005_0001 => NOTIFY,
            other => other,
        };
        let seen = run(&self.program, said, number, args);
        assert_eq!(seen, expected, "{:?} {number} {args:?}", self.arch);
        if said != audit(self.arch) || ordinary == KILL && number >= X32 {
            return; // killed without a notification
        }
        match (self.handler.decide(number, &args), ordinary) {
            (Ok(Answer::Allowed(_)), ALLOW) => {}
            (Ok(Answer::Denied), refused) if refused == ERRNO | 1 => {}
            (Err(_), other) if other != ALLOW && other != ERRNO | 1 => {}
            (judged, ordinary) => panic!("{:?} {number} {args:?}: {judged:?}, not {ordinary:#x}", self.arch),
        }
    }
}

/// Interprets a program as the kernel does. An instruction that such filters do not contain fails the test.
pub fn run(program: &Program, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    data.extend(args.iter().flat_map(|arg| arg.to_le_bytes()));
    let [filter] = program.filters.as_slice() else { panic!("one filter") };
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let it = &filter[at * 8..at * 8 + 8];
        let (code, jt, jf) = (u16::from_le_bytes([it[0], it[1]]), it[2], it[3]);
        let k = u32::from_le_bytes([it[4], it[5], it[6], it[7]]);
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                let from = k as usize;
                a = u32::from_le_bytes(data[from..from + 4].try_into().expect("four bytes"));
            }
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}
