//! Standard streams of `runtime run`: input by `--interactive`.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const IMAGE: &str = "invarlock-runtime:local";

fn place(user: As) -> Place {
    Place::holding(user, "invarlock-workload")
}

/// `runtime run` of a command of the workload, with a pipe as standard input.
fn start(place: &Place, flags: &[&str], command: &[&str]) -> Child {
    let args = [&["runtime", "run"][..], flags, &[IMAGE, "--"], command].concat();
    let mut run = place.command(&args);
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The same to its end, with this input.
fn run(place: &Place, flags: &[&str], command: &[&str], input: &[u8]) -> Ran {
    let mut child = start(place, flags, command);
    // The command may end before it has read everything.
    drop(child.stdin.take().unwrap().write_all(input));
    Ran::from(child.wait_with_output().unwrap())
}

fn observations(ran: &Ran) -> Value {
    let line = ran.err.lines().find(|line| line.starts_with('{')).unwrap();
    serde_json::from_str::<Value>(line).unwrap()["observations"].clone()
}

#[test]
fn input_arrives_up_to_its_end() {
    for user in both() {
        let place = place(user);
        let many = vec![b'x'; (3 << 20) + 5];
        assert_eq!(run(&place, &["-i"], &["count"], &many).expect(0).out, "3145733\n");
        assert_eq!(run(&place, &["--interactive"], &["cat"], b"a\nb").expect(0).out, "a\nb");
        // By its name, the stream can be opened again.
        assert_eq!(run(&place, &["-i"], &["cat", "/dev/stdin"], b"again").expect(0).out, "again");
        assert_eq!(run(&place, &["-i"], &["count"], b"").expect(0).out, "0\n");
        let file = place.write("input", b"of a file");
        let ran = place
            .command(&["runtime", "run", "-i", "--json", IMAGE, "--", "cat"])
            .stdin(File::open(&file).unwrap())
            .output()
            .map(Ran::from)
            .unwrap()
            .expect(0);
        assert_eq!(ran.out, "of a file");
        // Not the file itself, which the command could open again for writing.
        assert_eq!(observations(&ran)["descriptors"]["value"][0], json!({"fd": 0, "what": "pipe"}));
    }
}

#[test]
fn input_and_output_alternate() {
    let place = place(As::User);
    let mut child = start(&place, &["-i"], &["cat"]);
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for line in ["one\n", "two\n", "three\n"] {
        to.write_all(line.as_bytes()).unwrap();
        let mut answer = vec![0; line.len()];
        from.read_exact(&mut answer).unwrap();
        assert_eq!(answer, line.as_bytes());
    }
    drop(to);
    assert!(child.wait().unwrap().success());
}

#[test]
fn command_that_reads_less_is_no_error() {
    for user in both() {
        let place = place(user);
        let ran = run(&place, &["-i"], &["take", "5"], &vec![b'y'; 4 << 20]).expect(0);
        assert!(ran.out == "yyyyy" && !ran.err.contains("error"), "{ran:?}");
        let ran = run(&place, &["-i"], &["noop"], &vec![b'y'; 4 << 20]).expect(0);
        assert!(!ran.err.contains("error"), "{ran:?}");
    }
}

#[test]
fn input_is_read_only_as_fast_as_the_command_reads() {
    let place = place(As::User);
    let mut child = start(&place, &["-i"], &["sleep"]);
    let mut to = child.stdin.take().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let of_thread = Arc::clone(&written);
    let writer = std::thread::spawn(move || {
        while to.write_all(&[0; 4096]).is_ok() {
            of_thread.fetch_add(4096, Ordering::SeqCst);
        }
    });
    std::thread::sleep(Duration::from_secs(2));
    // Two pipes of 64 KiB and one block.
    let written = written.load(Ordering::SeqCst);
    assert!((1..=256 << 10).contains(&written), "{written} bytes were taken");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    // Nothing reads any more.
    writer.join().unwrap();
}

#[test]
fn input_that_the_command_does_not_get_is_reported() {
    for user in both() {
        let place = place(user);
        let ran = run(&place, &["--json"], &["count"], b"some").expect(0);
        assert_eq!(ran.out, "0\n");
        assert_eq!(
            ran.err.matches("does not get standard input; --interactive (-i)").count(),
            1,
            "{}",
            ran.err
        );
        assert_eq!(observations(&ran)["descriptors"]["value"][0], json!({"fd": 0, "what": "/dev/null"}));
        let silent = place.run(&["runtime", "run", IMAGE, "--", "count"]).expect(0);
        assert!(silent.out == "0\n" && !silent.err.contains("standard input"), "{silent:?}");
        let directory = File::open(place.path("work")).unwrap();
        let mut command = place.command(&["runtime", "run", "-i", IMAGE, "--", "count"]);
        let ran = command.stdin(directory).output().map(Ran::from).unwrap().expect(125);
        ran.one_error(&["error[input]", "standard input", "directory"]);
    }
}
