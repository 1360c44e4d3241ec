//! Attacks on the boundary from outside: hostile images, inputs, callers and workloads against the built programs, each named by its CVE or
//! its class, once in runs that root starts and once in runs that an ordinary user starts. One file a group.
//!
//! `invarlock_tests::attacks` is the list of all attacks with the tests that make them, here and elsewhere; `make attack` runs it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod canary;
mod stage;

/// A module with one test for each of the two who may start a run.
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

mod evidence;
mod kernel;
mod lifecycle;
mod network;
mod own;
mod rootfs;
