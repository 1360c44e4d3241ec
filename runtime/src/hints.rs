//! Hints that more than one module gives: what an administrator can do where this machine does not support a control.

pub(crate) const NAMESPACES: &str = "let ordinary users make user namespaces: `sysctl -w user.max_user_namespaces=15000` (and none of \
    user.max_*_namespaces may be used up), `sysctl -w kernel.unprivileged_userns_clone=1` (Debian), or an AppArmor profile with \
    `userns,` for this program (Ubuntu 24.04 and newer); in a container, let its filter allow clone, unshare, mount, sethostname and setdomainname; `invarlock doctor` says which";
pub(crate) const PROC: &str = "mount /proc in full: in a container, run it with an unmasked /proc";
pub(crate) const MEMFD: &str =
    "set vm.memfd_noexec to 0 or 1; in a container, let its filter allow memfd_create";
pub(crate) const PROC_SELF: &str = "mount /proc: `mount -t proc proc /proc`";
