//! Interprets a program as the kernel does. Supports the instructions that programs of this crate contain.

use crate::Program;
use crate::bpf::{AND, JUMP, JUMP_EQ, JUMP_GE, JUMP_GT, LOAD, RETURN};

/// Words of `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
const WORDS: usize = 16;

impl Program {
    /// The return value of the program's only filter for a call of its own architecture. None for an unsupported
    /// instruction, or when the filter ends without a return.
    pub(crate) fn interpret(&self, number: u32, args: &[u64; 6]) -> Option<u32> {
        let [filter] = self.filters.as_slice() else { return None };
        let mut data = [0u32; WORDS];
        (data[0], data[1]) = (number, self.arch.audit());
        for (i, arg) in args.iter().enumerate() {
            (data[4 + 2 * i], data[5 + 2 * i]) = (*arg as u32, (arg >> 32) as u32);
        }
        let (mut next, mut value) = (0usize, 0u32);
        // Jumps only go forward, so this terminates.
        loop {
            let instruction: &[u8; 8] = filter.get(next * 8..next * 8 + 8)?.try_into().ok()?;
            let [c0, c1, jt, jf, k0, k1, k2, k3] = *instruction;
            let (code, k) = (u16::from_le_bytes([c0, c1]), u32::from_le_bytes([k0, k1, k2, k3]));
            next += 1;
            let holds = match code {
                LOAD => {
                    value = *data.get((k / 4) as usize).filter(|_| k % 4 == 0)?;
                    continue;
                }
                AND => {
                    value &= k;
                    continue;
                }
                JUMP => {
                    next = next.checked_add(k as usize)?;
                    continue;
                }
                RETURN => return Some(k),
                JUMP_EQ => value == k,
                JUMP_GT => value > k,
                JUMP_GE => value >= k,
                _ => return None,
            };
            next += usize::from(if holds { jt } else { jf });
        }
    }
}
