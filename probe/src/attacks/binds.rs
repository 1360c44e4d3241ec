//! Attacks on the control "writable bind": what a program can leave in a directory of the host, and reach from it. They have a run of their
//! own, because no other run has such a directory.

use super::{Attack, Expect, attack, make_node, mount_options, run_script};
use crate::answer::Answer;
use crate::contract::{BIND, OUTSIDE};
use libc::{EACCES, ENOENT, ENOSYS, EPERM};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

const CONTROL: &str = "writable bind";
const SET_USER_ID: Mode = Mode::from_raw_mode(0o4755);
const SET_GROUP_ID: Mode = Mode::from_raw_mode(0o2755);

/// Control "writable bind".
pub(super) const BINDS: &[Attack] = &[
    attack(
        CONTROL,
        "bind-flags",
        "find a mount option missing on a writable bind",
        Expect::Text("nosuid,nodev,noexec"),
        Some(|| mount_options(BIND)),
    ),
    attack(
        CONTROL,
        "bind-run",
        "execute a program that it wrote to a writable bind",
        Expect::Errno(&[EACCES]),
        Some(|| with_file("script", run_script)),
    ),
    attack(
        CONTROL,
        "bind-set-id",
        "give a file of the host the set-user-id bit",
        Expect::Errno(&[EPERM]),
        Some(|| {
            with_file("file", |path| match std::fs::write(path, "#!") {
                Ok(()) => Answer::of(std::fs::set_permissions(path, Permissions::from_mode(0o4755))),
                Err(error) => Answer::Text(format!("writing the file: {error}")),
            })
        }),
    ),
    attack(
        CONTROL,
        "bind-create-set-id",
        "create a set-group-id file in a directory of the host",
        Expect::Errno(&[EPERM]),
        Some(|| {
            let create = OFlags::WRONLY | OFlags::CREATE;
            with_file("new", |path| {
                Answer::of(rustix::fs::open(path, create, SET_GROUP_ID).map_err(Into::into))
            })
        }),
    ),
    attack(
        CONTROL,
        "bind-openat2-set-id",
        "create a set-user-id file by openat2, whose mode a filter cannot read",
        Expect::Errno(&[ENOSYS]),
        Some(|| {
            let create = OFlags::WRONLY | OFlags::CREATE;
            with_file("new", |path| {
                let opened = rustix::fs::openat2(CWD, path, create, SET_USER_ID, ResolveFlags::empty());
                Answer::of(opened.map_err(Into::into))
            })
        }),
    ),
    attack(
        CONTROL,
        "bind-device",
        "create a device in a directory of the host",
        Expect::Errno(&[EPERM]),
        Some(|| with_file("null", |path| Answer::of(make_node(path, FileType::CharacterDevice)))),
    ),
    attack(
        CONTROL,
        "bind-outside",
        "read the file of the host that is next to the directory",
        Expect::Errno(&[ENOENT]),
        Some(|| Answer::of(std::fs::read(format!("{BIND}/../{OUTSIDE}")))),
    ),
    attack(
        CONTROL,
        "bind-link",
        "read a file of the host through a link in the directory",
        Expect::Errno(&[ENOENT]),
        Some(|| {
            with_file("link", |path| {
                let made = std::os::unix::fs::symlink(format!("../{OUTSIDE}"), path);
                Answer::of(made.and_then(|()| std::fs::read(path)))
            })
        }),
    ),
];

/// Attacks with a file of the writable bind, and removes it.
fn with_file(name: &str, attack: impl Fn(&str) -> Answer) -> Answer {
    let path = format!("{BIND}/{name}");
    let answer = attack(&path);
    drop(std::fs::remove_file(&path));
    answer
}
