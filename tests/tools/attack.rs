//! `make attack`: makes every attack of docs/attacks.md and of `invarlock runtime probe`, and prints by group how many there were, how many
//! were held, and how many were skipped, with their names. It fails where one was not held, or where there was none.
//!
//! Each test is a process of its own, one after the other: some look for what is left on the whole machine. Started by an ordinary user, it
//! skips the attacks on runs by root.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program of the tests")]

use invarlock_tests::attacks::{Mode, Row, Test, table};
use invarlock_tests::{As, Place, Ran, is_root, root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Longest that one test may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// What became of one attack in one mode.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Held,
    NotHeld(String),
    Skipped(String),
}

/// The test programs of this build, by package folder and name, with the directory they run in.
type Programs = BTreeMap<(String, String), (PathBuf, PathBuf)>;

fn main() -> ExitCode {
    let (groups, rows) = table();
    let programs = programs(&rows);
    let mut ends: BTreeMap<(Test, Mode), End> = BTreeMap::new();
    let mut all: Vec<(String, Vec<(String, End)>)> = Vec::new();
    for (letter, name) in groups {
        let mut found = Vec::new();
        for row in rows.iter().filter(|row| row.number.starts_with(letter)) {
            for (test, modes) in &row.tests {
                for mode in modes {
                    let key = (test.clone(), *mode);
                    if !ends.contains_key(&key) {
                        make(&programs, test, modes, &mut ends);
                    }
                    found.push((format!("{} {}{}", row.number, test.name, said(*mode)), ends[&key].clone()));
                }
            }
        }
        all.push((format!("{letter}  {name}"), found));
    }
    for (mode, user) in [(Mode::Root, As::Caller), (Mode::User, As::User)] {
        all.push((format!("probe{}", said(mode)), probe(mode, user)));
    }
    report(&all)
}

fn said(mode: Mode) -> &'static str {
    match mode {
        Mode::Root => ", started by root",
        Mode::User => ", started by a user",
        Mode::Any => "",
    }
}

/// Has cargo build the test programs that the table names, and say where they are.
fn programs(rows: &[Row]) -> Programs {
    let mut names: Vec<&str> =
        rows.iter().flat_map(|row| &row.tests).map(|(test, _)| test.binary.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked", "--workspace", "--all-features", "--no-run", "--message-format=json"]);
    command.args(names.iter().flat_map(|name| ["--test", name])).current_dir(root()).stderr(Stdio::inherit());
    let out = command.output().unwrap();
    assert!(out.status.success(), "the tests do not build");
    let messages = String::from_utf8_lossy(&out.stdout).into_owned();
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let directory = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
        let folder = directory.file_name()?.to_str()?.to_owned();
        let executable = PathBuf::from(message["executable"].as_str()?);
        let name = message["target"]["name"].as_str()?.to_owned();
        (message["target"]["kind"][0] == "test").then_some(((folder, name), (executable, directory)))
    };
    messages.lines().filter_map(program).collect()
}

/// Runs a test, once for each mode where it has one for each, and notes what became of it in every mode of `modes`.
fn make(programs: &Programs, test: &Test, modes: &[Mode], ends: &mut BTreeMap<(Test, Mode), End>) {
    if test.by_mode() {
        for mode in modes {
            let part = if *mode == Mode::Root { "started_by_root" } else { "started_by_a_user" };
            let end = run(programs, test, &format!("{}::{part}", test.name));
            ends.insert((test.clone(), *mode), end);
        }
        return;
    }
    let end = run(programs, test, &test.name);
    for mode in modes {
        let end = match (mode, &end) {
            (Mode::Root, End::Held | End::Skipped(_)) if !is_root() => End::Skipped("needs root".into()),
            (_, end) => end.clone(),
        };
        ends.insert((test.clone(), *mode), end);
    }
}

fn run(programs: &Programs, test: &Test, name: &str) -> End {
    let start = Instant::now();
    let Some((program, directory)) = programs.get(&(test.package.clone(), test.binary.clone())) else {
        return End::NotHeld(format!("there is no test program {}/{}", test.package, test.binary));
    };
    // Apart, since the name of the test stands in the first line of whatever it prints.
    let [out, err] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).current_dir(directory);
    command.stdin(Stdio::null()).stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap());
    let mut child = command.spawn().unwrap();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if start.elapsed() > PATIENCE => {
                drop(child.kill());
                break child.wait().ok().filter(|_| false);
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let [out, err] = [out, err].map(|file| std::fs::read(file.path()).unwrap());
    let [out, err] = [&out, &err].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let text = format!("{out}{err}");
    let ran = out.contains("test result: ok. 1 passed");
    // One that has both modes says so of the one that it could not make; that is seen to above.
    let partly = |line: &&str| line.contains(" as root: ") || line.contains(" as another user: ");
    let skipped = err.lines().filter_map(|line| line.strip_prefix("SKIPPED ")).find(|line| !partly(line));
    let end = match status {
        Some(status) if status.success() && ran => match skipped {
            Some(why) => End::Skipped(why.rsplit_once(": ").map_or(why, |(_, why)| why).to_owned()),
            None => End::Held,
        },
        Some(_) => End::NotHeld(text.clone()),
        None => End::NotHeld(format!("it did not end in {PATIENCE:?}\n{text}")),
    };
    let word = match &end {
        End::Held => "held",
        End::NotHeld(_) => "NOT HELD",
        End::Skipped(_) => "skipped",
    };
    println!("{word:<9} {:>6.1} s  {}/{}::{name}", start.elapsed().as_secs_f64(), test.package, test.binary);
    let told = |line: &&str| line.starts_with("RACE ") || line.ends_with(" attacks held");
    text.lines().filter(told).for_each(|line| println!("           {line}"));
    end
}

/// Every attack of the probe, in a run that `user` starts.
fn probe(mode: Mode, user: As) -> Vec<(String, End)> {
    let place = Place::new(user);
    let ran: Ran = place.run(&["runtime", "probe", "--json"]);
    let value: Value = serde_json::from_str(&ran.out).unwrap_or_default();
    let Some(attacks) = value["attacks"].as_array() else {
        return vec![("probe".into(), End::NotHeld(format!("it ended with {}: {}", ran.code, ran.err)))];
    };
    let end = |row: &Value| match row["verdict"].as_str() {
        _ if mode == Mode::Root && !is_root() => End::Skipped("needs root".into()),
        Some("held") => End::Held,
        _ => End::NotHeld(format!("{row:#}")),
    };
    attacks.iter().map(|row| (format!("probe {}{}", row["id"], said(mode)), end(row))).collect()
}

/// Prints the table, and why; a failure unless something was attacked and everything held.
fn report(all: &[(String, Vec<(String, End)>)]) -> ExitCode {
    println!("\n{:<50} {:>8} {:>6} {:>9} {:>8}", "group", "attacks", "held", "not held", "skipped");
    let count = |ends: &[(String, End)], is: fn(&End) -> bool| ends.iter().filter(|(_, end)| is(end)).count();
    let held = |end: &End| *end == End::Held;
    let not_held = |end: &End| matches!(end, End::NotHeld(_));
    let skipped = |end: &End| matches!(end, End::Skipped(_));
    let line = |name: &str, ends: &[(String, End)]| {
        let counts = [ends.len(), count(ends, held), count(ends, not_held), count(ends, skipped)];
        println!("{name:<50} {:>8} {:>6} {:>9} {:>8}", counts[0], counts[1], counts[2], counts[3]);
    };
    all.iter().for_each(|(name, ends)| line(name, ends));
    let every: Vec<(String, End)> = all.iter().flat_map(|(_, ends)| ends.clone()).collect();
    line("all", &every);
    println!();
    for (group, ends) in all {
        // A group of which there is nothing to say but the same of each.
        let alone =
            ends.first().filter(|(_, end)| skipped(end) && ends.iter().all(|(_, other)| other == end));
        match alone {
            Some((_, End::Skipped(why))) => println!("SKIPPED {group}, all {}: {why}", ends.len()),
            _ => name_what_did_not_hold(ends),
        }
    }
    let good = count(&every, not_held) == 0 && count(&every, held) > 0;
    println!("{}", if good { "every attack that was made was held" } else { "the boundary did not hold" });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn name_what_did_not_hold(ends: &[(String, End)]) {
    for (name, end) in ends {
        match end {
            End::Held => {}
            End::Skipped(why) => println!("SKIPPED {name}: {why}"),
            End::NotHeld(why) => println!("NOT HELD {name}:\n{why}\n"),
        }
    }
}
