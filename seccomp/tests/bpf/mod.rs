//! An interpreter of filters, written for the tests and not the one under test.

use invarlock_seccomp::Program;

/// What the kernel would do with these bytes: the few instructions that such filters have, any other one fails the test.
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
