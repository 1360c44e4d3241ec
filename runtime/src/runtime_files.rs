//! What programs expect of an OCI runtime beside their image, as data: one module creates it and another one observes it. Measurements have
//! none of it.

use crate::boundary::HOST_NAME;
use crate::spec::RuntimeFiles;

/// Directories of the image that are covered by writable ones, with their modes. They share the file system, and so the limit, of `/tmp`. One
/// that the image redirects by a link stays as it is.
pub(crate) const DIRECTORIES: [(&str, u32); 2] = [("run", 0o755), ("var/tmp", 0o1777)];
/// The empty file by which programs recognise that they run in a container, as Podman creates it: its directory, and its name.
pub(crate) const MARK: (&str, &str) = ("run", ".containerenv");
/// The mounts that a run can have in addition.
pub(crate) const MOUNTS: [&str; 3] = ["/dev/shm", "/run", "/var/tmp"];

/// Files that an image gets if it has none of that name: path below the root, and content.
pub(crate) fn files() -> [(&'static str, String); 5] {
    [
        ("etc/group", "root:x:0:\n".into()),
        ("etc/hostname", format!("{HOST_NAME}\n")),
        ("etc/hosts", format!("127.0.0.1\tlocalhost {HOST_NAME}\n::1\tlocalhost\n")),
        ("etc/passwd", RuntimeFiles::PASSWD.into()),
        // There is no name server: a container has no network.
        ("etc/resolv.conf", String::new()),
    ]
}
