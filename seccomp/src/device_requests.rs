//! Profiles for containers that have an accelerator: programs control it by requests of ioctl(2), which the profiles otherwise deny.
//!
//! A request contains a byte that says which kind of driver it is for. Those of terminals (`T`) and file systems (`f`) stay as they were, so no
//! program types into a terminal or leaves keys in a file system.

use crate::resolved_profile::{Action, Comparison, Decision, Operator, ResolvedProfile};
use crate::table;

const CALL: &str = "ioctl";
/// The bits of a request with the kind of driver.
const KIND: u64 = 0xff00;
/// `F`: NVIDIA. `d`: the drivers of graphics cards in `/dev/dri`. `K`: AMD's `/dev/kfd`.
const KINDS: [u8; 3] = [b'F', b'd', b'K'];
/// Requests of NVIDIA's unified memory have no such byte: small numbers, and these two.
const UNIFIED_MEMORY: [u64; 2] = [0x3000_0001, 0x3000_0002];
const SMALL: u64 = 0xff;

impl ResolvedProfile {
    /// The profile with the requests of accelerators.
    pub fn with_device_requests(mut self) -> Self {
        self.name.push_str("-devices");
        let Some(number) = table::number(self.arch, CALL) else { return self };
        let compare = |op, mask, value| Comparison { index: 1, wide: false, op, mask, value };
        let of_kinds = KINDS.map(|kind| compare(Operator::MaskedEq, KIND, u64::from(kind) << 8));
        let of_unified_memory = UNIFIED_MEMORY.map(|request| compare(Operator::Eq, 0, request));
        let small = compare(Operator::Le, 0, SMALL);
        self.decisions.extend(of_kinds.into_iter().chain(of_unified_memory).chain([small]).map(|when| {
            Decision {
                syscall: CALL.to_owned(),
                number,
                when: vec![when],
                action: Action::Allow,
                reason: "requests to the driver of an accelerator".to_owned(),
            }
        }));
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::resolved_profile::Action;
    use crate::{Arch, BuiltinProfile};

    #[test]
    fn only_requests_of_accelerators_are_added() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let before = BuiltinProfile::General.profile().resolve(arch).expect("a profile");
            let after = before.clone().with_device_requests();
            let ioctl = crate::table::number(arch, "ioctl").expect("a call");
            let allowed = |request: u64| after.decide(ioctl, &[3, request, 0, 0, 0, 0]).0 == Action::Allow;
            // NV_ESC_RM_ALLOC, DRM_IOCTL_VERSION, AMDKFD_IOC_GET_VERSION, UVM_INITIALIZE, UVM_MAP_EXTERNAL_ALLOCATION.
            for request in [0xc030_462b, 0xc040_6400, 0x8008_4b01, 0x3000_0001, 33] {
                assert!(allowed(request), "{request:#x}");
            }
            // TIOCSTI, TIOCLINUX, TIOCSCTTY, FS_IOC_ADD_ENCRYPTION_KEY, TUNSETIFF, SIOCSIFFLAGS, LOOP_SET_FD.
            for request in [0x5412, 0x541c, 0x540e, 0xc050_6617, 0x4004_54ca, 0x8914, 0x4c00] {
                assert!(!allowed(request), "{request:#x}");
            }
            for number in
                before.decisions.iter().map(|decision| decision.number).filter(|number| *number != ioctl)
            {
                assert_eq!(before.decide(number, &[0; 6]), after.decide(number, &[0; 6]));
            }
        }
    }
}
