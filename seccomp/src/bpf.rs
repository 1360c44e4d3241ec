//! Instruction codes of classic BPF and return values of seccomp filters, as the kernel defines them.

use seccompiler::sock_filter;

pub(crate) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(crate) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(crate) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(crate) const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(crate) const JUMP_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(crate) const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

pub(crate) const EPERM: u16 = 1;
pub(crate) const ENOSYS: u16 = 38;

/// `SECCOMP_RET_*`.
pub(crate) const RET_KILL_PROCESS: u32 = 0x8000_0000;
pub(crate) const RET_ERRNO: u32 = 0x0005_0000;
pub(crate) const RET_EPERM: u32 = RET_ERRNO | EPERM as u32;
pub(crate) const RET_ALLOW: u32 = 0x7fff_0000;
pub(crate) const RET_USER_NOTIF: u32 = 0x7fc0_0000;

pub(crate) fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
