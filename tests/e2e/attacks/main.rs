//! Attacks on the isolation by hostile images, inputs, callers and workloads against the built
//! programs. Each test is named after its CVE or class. It runs once in runs that root starts and
//! once in runs that an ordinary user starts. One file contains one group.
//!
//! `docs/attacks.md` lists all attacks with their tests; `make attack` runs them.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod canary;
mod stage;

/// A module with one test for each user that starts a run: root and an ordinary user.
macro_rules! attack {
    ($name:ident, $attack:ident) => {
        mod $name {
            use invarlock_tests::{As, is_root, skip};

            #[test]
            fn started_by_root() {
                match is_root() {
                    true => super::$attack(As::Caller),
                    false => skip(concat!(module_path!(), "::started_by_root"), "needs root"),
                }
            }

            #[test]
            fn started_by_a_user() {
                super::$attack(As::User);
            }
        }
    };
}

mod binds;
mod evidence;
mod kernel;
mod lifecycle;
mod network;
mod own;
mod rootfs;
