//! `make attack` runs every attack of docs/attacks.md and of `invarlock runtime probe`. For each group it prints the number of attacks, how
//! many were held and how many were skipped, with their names. It fails if an attack succeeds or if no attack was made.
//!
//! Each test is a process of its own, one after the other, because some check the whole machine for leftovers. Started by an ordinary
//! user, it skips the attacks on runs by root.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program of the tests")]

use invarlock_tests::attacks::{Mode, Row, Test, table};
use invarlock_tests::{As, Place, Ran, is_root, root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Longest time for one test.
const TEST_TIMEOUT: Duration = Duration::from_secs(300);

/// The result of one attack in one mode.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Held,
    NotHeld(String),
    Skipped(String),
}

/// The test programs of this build, by package folder and name, with the directory they run in.
type Programs = BTreeMap<(String, String), (PathBuf, PathBuf)>;

fn main() -> ExitCode {
    let (groups, rows) = table();
    let programs = programs(&rows);
    let mut verdicts: BTreeMap<(Test, Mode), Verdict> = BTreeMap::new();
    let mut all: Vec<(String, Vec<(String, Verdict)>)> = Vec::new();
    for (letter, name) in groups {
        let mut found = Vec::new();
        for row in rows.iter().filter(|row| row.number.starts_with(letter)) {
            for (test, modes) in &row.tests {
                for mode in modes {
                    let key = (test.clone(), *mode);
                    if !verdicts.contains_key(&key) {
                        run_modes(&programs, test, modes, &mut verdicts);
                    }
                    found.push((
                        format!("{} {}{}", row.number, test.name, suffix(*mode)),
                        verdicts[&key].clone(),
                    ));
                }
            }
        }
        all.push((format!("{letter}  {name}"), found));
    }
    for (mode, user) in [(Mode::Root, As::Caller), (Mode::User, As::User)] {
        all.push((format!("probe{}", suffix(mode)), probe(mode, user)));
    }
    report(&all)
}

fn suffix(mode: Mode) -> &'static str {
    match mode {
        Mode::Root => ", started by root",
        Mode::User => ", started by a user",
        Mode::Any => "",
    }
}

/// Builds the test programs that the table names; their paths come from cargo's messages.
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

/// Runs a test, once for each mode if it has one test for each, and records the verdict for every mode of `modes`.
fn run_modes(
    programs: &Programs,
    test: &Test,
    modes: &[Mode],
    verdicts: &mut BTreeMap<(Test, Mode), Verdict>,
) {
    if test.by_mode() {
        for mode in modes {
            let part = if *mode == Mode::Root { "started_by_root" } else { "started_by_a_user" };
            let verdict = run(programs, test, &format!("{}::{part}", test.name));
            verdicts.insert((test.clone(), *mode), verdict);
        }
        return;
    }
    let verdict = run(programs, test, &test.name);
    for mode in modes {
        let verdict = match (mode, &verdict) {
            (Mode::Root, Verdict::Held | Verdict::Skipped(_)) if !is_root() => {
                Verdict::Skipped("needs root".into())
            }
            (_, verdict) => verdict.clone(),
        };
        verdicts.insert((test.clone(), *mode), verdict);
    }
}

fn run(programs: &Programs, test: &Test, name: &str) -> Verdict {
    let start = Instant::now();
    let Some((program, directory)) = programs.get(&(test.package.clone(), test.binary.clone())) else {
        return Verdict::NotHeld(format!("test program {}/{} not found", test.package, test.binary));
    };
    // Two files, because the test harness prints the name of the test in the first line of standard output.
    let [out, err] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).current_dir(directory);
    command.stdin(Stdio::null()).stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap());
    let mut child = command.spawn().unwrap();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if start.elapsed() > TEST_TIMEOUT => {
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
    // A test with both modes reports the mode that it skipped; `run_modes` handles that.
    let partly = |line: &&str| line.contains(" as root: ") || line.contains(" as another user: ");
    let skipped = err.lines().filter_map(|line| line.strip_prefix("SKIPPED ")).find(|line| !partly(line));
    let verdict = match status {
        Some(status) if status.success() && ran => match skipped {
            Some(why) => Verdict::Skipped(why.rsplit_once(": ").map_or(why, |(_, why)| why).to_owned()),
            None => Verdict::Held,
        },
        Some(_) => Verdict::NotHeld(text.clone()),
        None => Verdict::NotHeld(format!("it did not verdict within {TEST_TIMEOUT:?}\n{text}")),
    };
    let word = match &verdict {
        Verdict::Held => "held",
        Verdict::NotHeld(_) => "NOT HELD",
        Verdict::Skipped(_) => "skipped",
    };
    println!("{word:<9} {:>6.1} s  {}/{}::{name}", start.elapsed().as_secs_f64(), test.package, test.binary);
    let interesting = |line: &&str| line.starts_with("RACE ") || line.ends_with(" attacks held");
    text.lines().filter(interesting).for_each(|line| println!("           {line}"));
    verdict
}

/// Every attack of the probe, in a run started by `user`.
fn probe(mode: Mode, user: As) -> Vec<(String, Verdict)> {
    let place = Place::new(user);
    let ran: Ran = place.run(&["runtime", "probe", "--json"]);
    let value: Value = serde_json::from_str(&ran.out).unwrap_or_default();
    let Some(attacks) = value["attacks"].as_array() else {
        return vec![("probe".into(), Verdict::NotHeld(format!("exit code {}: {}", ran.code, ran.err)))];
    };
    let verdict = |row: &Value| match row["verdict"].as_str() {
        _ if mode == Mode::Root && !is_root() => Verdict::Skipped("needs root".into()),
        Some("held") => Verdict::Held,
        _ => Verdict::NotHeld(format!("{row:#}")),
    };
    attacks.iter().map(|row| (format!("probe {}{}", row["id"], suffix(mode)), verdict(row))).collect()
}

/// Prints the table and the reasons. Fails unless at least one attack was made and all were held.
fn report(all: &[(String, Vec<(String, Verdict)>)]) -> ExitCode {
    println!("\n{:<50} {:>8} {:>6} {:>9} {:>8}", "group", "attacks", "held", "not held", "skipped");
    let count = |verdicts: &[(String, Verdict)], is: fn(&Verdict) -> bool| {
        verdicts.iter().filter(|(_, verdict)| is(verdict)).count()
    };
    let held = |verdict: &Verdict| *verdict == Verdict::Held;
    let not_held = |verdict: &Verdict| matches!(verdict, Verdict::NotHeld(_));
    let skipped = |verdict: &Verdict| matches!(verdict, Verdict::Skipped(_));
    let line = |name: &str, verdicts: &[(String, Verdict)]| {
        let counts =
            [verdicts.len(), count(verdicts, held), count(verdicts, not_held), count(verdicts, skipped)];
        println!("{name:<50} {:>8} {:>6} {:>9} {:>8}", counts[0], counts[1], counts[2], counts[3]);
    };
    all.iter().for_each(|(name, verdicts)| line(name, verdicts));
    let every: Vec<(String, Verdict)> = all.iter().flat_map(|(_, verdicts)| verdicts.clone()).collect();
    line("all", &every);
    println!();
    for (group, verdicts) in all {
        // A group whose attacks were all skipped for the same reason.
        let alone = verdicts
            .first()
            .filter(|(_, verdict)| skipped(verdict) && verdicts.iter().all(|(_, other)| other == verdict));
        match alone {
            Some((_, Verdict::Skipped(why))) => println!("SKIPPED {group}, all {}: {why}", verdicts.len()),
            _ => print_exceptions(verdicts),
        }
    }
    let good = count(&every, not_held) == 0 && count(&every, held) > 0;
    println!("{}", if good { "every attack was held" } else { "the boundary did not hold" });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_exceptions(verdicts: &[(String, Verdict)]) {
    for (name, verdict) in verdicts {
        match verdict {
            Verdict::Held => {}
            Verdict::Skipped(why) => println!("SKIPPED {name}: {why}"),
            Verdict::NotHeld(why) => println!("NOT HELD {name}:\n{why}\n"),
        }
    }
}
