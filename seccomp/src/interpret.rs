//! What the kernel does with a program: the few instructions that programs of this crate have.

use crate::Program;
use crate::compile::{JUMP, JUMP_EQ, JUMP_GE, JUMP_GT, LOAD, RETURN};

/// BPF_ALU | BPF_AND | BPF_K, with which masks are applied.
const AND: u16 = 0x54;
/// `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
const WORDS: usize = 16;

impl Program {
    /// What its only filter returns for a call of its own architecture; none where it has an instruction that is not known here, or ends
    /// without an answer.
    pub(crate) fn interpret(&self, number: u32, args: &[u64; 6]) -> Option<u32> {
        let [filter] = self.filters.as_slice() else { return None };
        let mut data = [0u32; WORDS];
        (data[0], data[1]) = (number, self.arch.audit());
        for (at, arg) in args.iter().enumerate() {
            (data[4 + 2 * at], data[5 + 2 * at]) = (*arg as u32, (arg >> 32) as u32);
        }
        let (mut at, mut value) = (0usize, 0u32);
        // Jumps only go forward, so this ends.
        loop {
            let it: &[u8; 8] = filter.get(at * 8..at * 8 + 8)?.try_into().ok()?;
            let [c0, c1, jt, jf, k0, k1, k2, k3] = *it;
            let (code, k) = (u16::from_le_bytes([c0, c1]), u32::from_le_bytes([k0, k1, k2, k3]));
            at += 1;
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
                    at = at.checked_add(k as usize)?;
                    continue;
                }
                RETURN => return Some(k),
                JUMP_EQ => value == k,
                JUMP_GT => value > k,
                JUMP_GE => value >= k,
                _ => return None,
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }
}
