//! Helpers of the whole-program tests, which run the built programs as users do and check their
//! results.
//!
//! This crate trusts only the kernel and the files that it creates. It uses no private part of
//! another crate. Tests run as root and as an ordinary user where that matters. A test that cannot
//! run on a machine reports its name and the reason ([`skip`]).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test helper that cannot go on should stop the test"
)]

pub mod accelerator;
pub mod attacks;
pub mod fixtures;
pub mod layout;
pub mod leaks;
pub mod slurm;
pub mod small;
pub mod stage;
pub mod stand;

use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A user id without an account, for runs as an ordinary user when the tests run as root.
pub const USER: u32 = 54_321;

/// The user that runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// The user that runs the tests.
    Caller,
    /// An ordinary user: [`USER`] when the tests run as root, else the caller.
    User,
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The users to test with: root and an ordinary user, or the ordinary user alone.
pub fn both() -> Vec<As> {
    if is_root() { vec![As::Caller, As::User] } else { vec![As::User] }
}

/// Reports that a test did not run, and why. The test runner does not capture the line; `make test`
/// lists these lines at the end.
pub fn skip(test: &str, why: &str) {
    drop(writeln!(std::io::stderr(), "SKIPPED {test}: {why}"));
}

/// Whether `evaluate --dtype bf16x3` can run on this processor.
pub fn has_matrix_unit() -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    ["amx_bf16", "amx_tile", "avx512_bf16"].iter().all(|flag| flags.split(' ').any(|found| found == *flag))
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The demo checkpoints, committed with the project.
pub fn demo(name: &str) -> PathBuf {
    root().join("demo").join(name)
}

/// The directory of the programs of this build: the parent of the running test's directory.
pub fn programs() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let dir = exe.parent().unwrap();
    if dir.ends_with("deps") { dir.parent().unwrap().to_path_buf() } else { dir.to_path_buf() }
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    // `<target>/<triple>/<profile>`: .cargo/config.toml always names the target triple.
    programs().ancestors().nth(2).unwrap().to_path_buf()
}

/// A program of this build.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.is_file(), "{} is not built: run the tests with `make test`", path.display());
    path
}

/// A temporary directory for runs: the programs, and a store, a home and a work directory owned by
/// the chosen user.
pub struct Place {
    /// The directory, removed on drop.
    pub dir: tempfile::TempDir,
    user: As,
}

impl Place {
    /// Creates a place for `user` with the programs of this build.
    pub fn new(user: As) -> Self {
        Place::with(user, &program("invarlock"))
    }

    /// Creates a place for `user` whose default image contains this program of the build instead of
    /// the evaluator.
    pub fn holding(user: As, name: &str) -> Self {
        let place = Place::new(user);
        place.hold(name);
        place
    }

    /// Builds the default image with this program of the build in it.
    pub fn hold(&self, name: &str) {
        let workload = self.path("bin").join(name);
        std::fs::copy(program(name), &workload).unwrap();
        self.run(&["runtime", "image", "build", "--evaluator", workload.to_str().unwrap()]).expect(0);
    }

    /// Creates a place for `user` with this `invarlock` and the evaluator in its directory.
    pub fn with(user: As, invarlock: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("invarlock-test-").tempdir().unwrap();
        let place = Place { dir, user };
        set_mode(place.dir.path(), 0o755);
        std::fs::create_dir(place.path("bin")).unwrap();
        for name in ["invarlock", "invarlock-evaluator"] {
            let to = place.path("bin").join(name);
            std::fs::copy(invarlock.with_file_name(name), &to).unwrap();
            set_mode(&to, 0o755);
        }
        for name in ["home", "store", "work"] {
            std::fs::create_dir(place.path(name)).unwrap();
            place.give(&place.path(name));
        }
        place
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the work directory.
    pub fn work(&self, name: &str) -> PathBuf {
        self.path("work").join(name)
    }

    /// Makes the user the owner of a path.
    pub fn give(&self, path: &Path) {
        if self.user == As::User && is_root() {
            std::os::unix::fs::lchown(path, Some(USER), Some(USER)).unwrap();
        }
    }

    /// Copies a directory (one level) into the work directory; the user owns the copy.
    pub fn copy_dir(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.work(name);
        std::fs::create_dir_all(&to).unwrap();
        self.give(&to);
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let file = to.join(entry.file_name());
            std::fs::copy(entry.path(), &file).unwrap();
            self.give(&file);
        }
        to
    }

    /// Writes a file in the work directory; the user owns it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.work(name);
        std::fs::write(&path, bytes).unwrap();
        self.give(&path);
        path
    }

    /// `invarlock` as the user, in the work directory, with a minimal environment.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(&self.path("bin/invarlock"), args)
    }

    /// Another program as the user, in the same directory and environment.
    pub fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = if self.user == As::User && is_root() {
            let mut setpriv = Command::new("setpriv");
            let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
            setpriv
                .args([uid.as_str(), gid.as_str(), "--clear-groups", "--inh-caps=-all", "--"])
                .arg(program);
            setpriv
        } else {
            Command::new(program)
        };
        command.args(args).env_clear().current_dir(self.path("work")).stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.path("home"));
        command.env("INVARLOCK_STORE", self.path("store"));
        command
    }

    /// The command in new namespaces (options of `unshare`). Root prepares them with `script`
    /// before the user starts the command.
    pub fn inside(&self, namespaces: &[&str], script: &str, command: &Command) -> Command {
        let mut outer = Command::new("unshare");
        outer.args(namespaces).args(["--", "sh", "-ec", &format!("{script}\nexec \"$@\""), "sh"]);
        outer.arg(command.get_program()).args(command.get_args());
        outer.env_clear().current_dir(self.path("work")).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            value.map(|value| outer.env(name, value));
        }
        outer
    }

    /// Runs `invarlock` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Runs `invarlock` to its end where no further namespace of this kind (`user`, `net`) can be
    /// created. Only for tests that run as root.
    pub fn without_namespaces(&self, kind: &str, args: &[&str]) -> Ran {
        let command = self.command(args);
        let script = format!("echo 0 > /proc/sys/user/max_{kind}_namespaces && exec \"$@\"");
        let mut unshare = Command::new("unshare");
        // The ids of the new namespace apply from the next execve on.
        unshare.args(["--user", "sh", "-c", "echo ready; read go; exec sh -c \"$0\" sh \"$@\"", &script]);
        unshare.arg(command.get_program()).args(command.get_args());
        unshare.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        unshare.current_dir(self.path("work"));
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = unshare.spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 4294967295").unwrap();
        }
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Sorted names in a directory, to check for leftovers.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(dir))
            .map(|d| d.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
}

/// The same command, started by another program.
pub fn wrapped_by(program: &str, args: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer.args(args).arg(command.get_program()).args(command.get_args()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        outer.current_dir(dir);
    }
    outer.stdin(Stdio::null());
    outer
}

/// Sets a path's mode.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A finished run.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }

    /// Fails the test unless standard error has exactly one error line and contains every needle.
    #[track_caller]
    pub fn one_error(&self, needles: &[&str]) {
        let errors = self.err.lines().filter(|l| l.starts_with("error[")).count();
        assert_eq!(errors, 1, "expected one error, got:\n{}", self.err);
        for needle in needles {
            assert!(self.err.contains(needle), "{needle:?} is not in: {}", self.err);
        }
    }
}

/// Message and hint of an error in JSON output, as one string.
#[track_caller]
pub fn message_and_hint(output: &Value) -> String {
    let error = &output["error"];
    let message = error["message"].as_str().unwrap_or_else(|| panic!("no error in {output}"));
    format!("{message}; help: {}", error["hint"].as_str().unwrap_or_default())
}

/// The content of a JSON file.
pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
