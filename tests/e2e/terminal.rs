//! Terminals of `runtime run --tty`, each driven through a pty of the test, which is the caller's terminal.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::Layout;
use invarlock_tests::leaks::children;
use invarlock_tests::{As, Place, both, program, wrapped_by};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long something may take to appear on the screen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A root file system with a shell, its libraries, and the workload.
fn fill(rootfs: &Path) {
    fs::create_dir(rootfs.join("bin")).unwrap();
    fs::copy(program("invarlock-workload"), rootfs.join("bin/workload")).unwrap();
    fs::copy("/bin/sh", rootfs.join("bin/sh")).unwrap();
    let listed = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = rootfs.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
}

fn image(place: &Place) -> String {
    let config = json!({"Cmd": ["/bin/sh", "-i"], "Env": ["PATH=/bin", "PS1=ready> "]});
    Layout::of_tree(place, "image", fill).image("test", &config)
}

/// Ends a run.
type End = dyn Fn(&Screen);

/// A terminal with a run on it.
struct Screen {
    master: OwnedFd,
    /// Keeps the terminal when the run has ended.
    slave: OwnedFd,
    child: Child,
    text: String,
}

impl Screen {
    /// Starts `runtime run` on a terminal of 24 rows and 80 columns. Standard error is the file `errors`.
    fn start(place: &Place, image: &str, flags: &[&str], command: &[&str]) -> Self {
        Self::start_with(place, image, flags, command, None)
    }

    /// The same with another standard output.
    fn start_with(
        place: &Place,
        image: &str,
        flags: &[&str],
        command: &[&str],
        output: Option<OwnedFd>,
    ) -> Self {
        let flags_of_open = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags_of_open).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags_of_open).unwrap();
        resize(&master, 24, 80);
        let args = [&["runtime", "run"][..], flags, &[image, "--"], command].concat();
        let mut run = wrapped_by("setsid", &["--ctty"], &place.command(&args));
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let errors = fs::File::create(place.path("errors")).unwrap();
        let output = output.map_or_else(stream, Stdio::from);
        let child = run.stdin(stream()).stdout(output).stderr(errors).spawn().unwrap();
        Screen { master, slave, child, text: String::new() }
    }

    fn keys(&self, keys: &str) {
        assert_eq!(rustix::io::write(&self.master, keys.as_bytes()), Ok(keys.len()));
    }

    /// Enters a command when the shell is ready.
    #[track_caller]
    fn enter(&mut self, command: &str) {
        self.wait_for("ready> ");
        self.keys(&format!("{command}\r"));
    }

    /// Waits until the text is on the screen; returns what is before it, and forgets both.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.text.find(text) {
                let before = self.text[..at].to_owned();
                self.text.drain(..at + text.len());
                return before;
            }
            assert!(Instant::now() < end, "{text:?} is not in {:?}", self.text);
            let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            if rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0 {
                let mut block = [0; 4096];
                let count = rustix::io::read(&self.master, &mut block).unwrap_or(0);
                self.text.push_str(&String::from_utf8_lossy(&block[..count]));
            }
        }
    }

    /// The first JSON object on the screen.
    #[track_caller]
    fn json(&mut self) -> Value {
        self.wait_for("{");
        let text = self.wait_for("}");
        serde_json::from_str(&format!("{{{text}}}")).unwrap()
    }

    /// Whether input is edited and echoed by the terminal, as before a run.
    fn is_cooked(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    #[track_caller]
    fn wait_until_cooked(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.is_cooked() {
            assert!(Instant::now() < end, "the terminal is still raw");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn supervisor(&self) -> Pid {
        only_child(self.pid())
    }

    /// The exit code.
    fn end(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[track_caller]
fn only_child(of: Pid) -> Pid {
    let children = children(of.as_raw_nonzero().get().unsigned_abs());
    let [child] = children[..] else { panic!("{children:?}") };
    Pid::from_raw(child as i32).unwrap()
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).unwrap();
}

#[test]
fn shell_is_used_through_a_terminal() {
    for user in both() {
        let place = Place::new(user);
        let mut screen = Screen::start(&place, &image(&place), &["-it", "--json"], &[]);
        screen.wait_for("ready> ");
        assert!(!screen.is_cooked(), "keys go to the container");
        screen.keys("echo $((6 * 7)) of $$\r");
        screen.wait_for("\n42 of 2");
        screen.enter("echo there > /dev/tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all");
        screen.wait_for("\nthere\r\nall");
        screen.enter("workload terminal");
        let found = screen.json();
        let expected = json!({
            "size": [24, 80], "name": "/dev/pts/0", "foreground": true, "controlling": true, "another": true,
            // Typing into a terminal, and line disciplines of the kernel, are denied.
            "typed": 1, "discipline": 1, "term": "xterm",
        });
        assert_eq!(found, expected);
        screen.enter("workload wait-for-resize");
        screen.wait_for("\nwaiting");
        resize(&screen.master, 50, 132);
        screen.wait_for("resized to (50, 132)");
        // Ctrl-C ends the command in the foreground and neither the shell nor the run.
        screen.enter("workload sleep");
        screen.wait_for("sleep\r\n");
        std::thread::sleep(Duration::from_millis(300));
        screen.keys("\x03");
        screen.wait_for("ready> ");
        screen.keys("exit 7\r");
        assert_eq!(screen.end(), Some(7));
        assert!(screen.is_cooked());
        let errors = fs::read_to_string(place.path("errors")).unwrap();
        let record: Value =
            serde_json::from_str(errors.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
        assert_eq!(record["loosened"], json!(["interactive", "tty"]));
        assert_eq!(record["seccomp"]["profile"], "terminal");
        let seen = &record["observations"];
        assert_eq!(seen["process"]["value"]["terminal"], true);
        let descriptors: Vec<Value> = (0..3).map(|fd| json!({"fd": fd, "what": "/dev/pts/0"})).collect();
        assert_eq!(seen["descriptors"]["value"], json!(descriptors));
        for (name, what) in [("tty", "5:0"), ("ptmx", "Symlink"), ("pts", "Directory")] {
            assert_eq!(seen["devices"]["value"][name], what, "{name}");
        }
        let mounts = seen["mounts"]["value"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["target"] == "/dev/pts").unwrap();
        assert_eq!(mount["kind"], "devpts");
        for option in ["ro", "nosuid", "noexec"] {
            assert!(mount["options"].as_str().unwrap().split(',').any(|found| found == option), "{mount}");
        }
    }
}

#[test]
fn whole_output_arrives() {
    let place = Place::new(As::User);
    let many = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); done; echo the end";
    let mut screen = Screen::start(&place, &image(&place), &["-t"], &["/bin/sh", "-c", many]);
    for i in [0, 1500, 2999] {
        screen.wait_for(&format!("line {i}\r"));
    }
    screen.wait_for("the end");
    assert_eq!(screen.end(), Some(0));
}

#[test]
fn terminal_is_restored_whatever_ends_the_run() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let endings: [(&str, &End); 7] = [
            ("SIGTERM", &|screen| kill_process(screen.pid(), Signal::TERM).unwrap()),
            ("two SIGTERM", &|screen| {
                kill_process(screen.pid(), Signal::TERM).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                _ = kill_process(screen.pid(), Signal::TERM);
            }),
            ("SIGKILL", &|screen| kill_process(screen.pid(), Signal::KILL).unwrap()),
            ("SIGHUP", &|screen| kill_process(screen.pid(), Signal::HUP).unwrap()),
            ("death of the command", &|screen| screen.keys("kill -9 $$\r")),
            ("death of the supervisor", &|screen| kill_process(screen.supervisor(), Signal::KILL).unwrap()),
            ("death of init", &|screen| kill_process(only_child(screen.supervisor()), Signal::KILL).unwrap()),
        ];
        for (what, end) in endings {
            let mut screen = Screen::start(&place, &image, &["-it"], &[]);
            screen.wait_for("ready> ");
            assert!(!screen.is_cooked(), "{what}");
            end(&screen);
            assert_ne!(screen.end(), Some(0), "{what}");
            screen.wait_until_cooked();
        }
        for (flags, needle) in [(&["-it"][..], "not found"), (&["-it", "--memory", "1M"], "minimum")] {
            let mut screen = Screen::start(&place, &image, flags, &["/bin/none"]);
            assert!(screen.end() == Some(125) && screen.is_cooked(), "{flags:?}");
            let errors = fs::read_to_string(place.path("errors")).unwrap();
            assert!(errors.contains(needle) || errors.contains("No such file"), "{errors}");
        }
    }
}

#[test]
fn terminal_that_goes_away_ends_the_run() {
    let place = Place::new(As::User);
    let mut screen = Screen::start(&place, &image(&place), &["-it"], &[]);
    screen.wait_for("ready> ");
    let Screen { master, slave, child, .. } = &mut screen;
    let closed = std::mem::replace(master, slave.try_clone().unwrap());
    drop(closed);
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "the run continues without a terminal");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command's terminal hangs up when nothing reads its output any more, like a pipe.
#[test]
fn closed_output_ends_the_run() {
    let place = Place::new(As::User);
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let command = ["/bin/sh", "-c", "trap 'exit 3' HUP; while :; do echo more; done"];
    let mut screen = Screen::start_with(&place, &image(&place), &["-it"], &command, Some(write));
    drop(read);
    assert_eq!(screen.end(), Some(3));
    screen.wait_until_cooked();
}

#[test]
fn input_that_was_not_read_is_discarded() {
    let place = Place::new(As::User);
    // Some escape sequences make a terminal answer. The answer must not reach the shell of the caller.
    let command = ["/bin/sh", "-c", "printf '\\033[31mred'; workload take 1 || true"];
    let mut screen = Screen::start(&place, &image(&place), &["-t"], &command);
    // Without -i, the terminal is not raw, and the command gets nothing. Escape sequences pass unchanged.
    screen.wait_for("\u{1b}[31mred");
    screen.keys("echo injected\r");
    kill_process(screen.pid(), Signal::TERM).unwrap();
    screen.end();
    let timeout = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    let mut fds = [PollFd::new(&screen.slave, PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(0), "input is left");
}

#[test]
fn tty_needs_a_terminal() {
    let place = Place::new(As::User);
    for flags in [&["-t"][..], &["-it"]] {
        let args = [&["runtime", "run"][..], flags, &["invarlock-runtime:local", "--", "/none"]].concat();
        place.run(&args).expect(125).one_error(&["error[input]", "--tty needs a terminal", "help:"]);
    }
}
