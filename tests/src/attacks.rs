//! Parses the table of attacks in `docs/attacks.md`.

use crate::root;
use std::path::PathBuf;

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// A letter for the group, and a number.
    pub number: String,
    /// The attack and its CVEs.
    pub attack: String,
    /// Tests that make the attack, and the modes of the attacked runs.
    pub tests: Vec<(Test, Vec<Mode>)>,
    /// Ids of the attacks of `invarlock runtime probe` that make it.
    pub probes: Vec<String>,
}

/// The user that starts the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Root.
    Root,
    /// An ordinary user.
    User,
    /// No run, or the user does not matter.
    Any,
}

/// A test of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    /// Folder of its package.
    pub package: String,
    /// Its test binary.
    pub binary: String,
    /// Its name there.
    pub name: String,
}

impl Test {
    fn parse(text: &str) -> Option<Self> {
        let (program, name) = text.split_once("::")?;
        let (package, binary) = program.split_once('/')?;
        Some(Test { package: package.into(), binary: binary.into(), name: name.into() })
    }

    /// Whether it has one test function for each mode.
    pub fn by_mode(&self) -> bool {
        self.package == "tests" && self.binary == "attacks"
    }

    /// Its source file.
    pub fn file(&self) -> PathBuf {
        let module = self.name.split_once("::").map_or("main", |(module, _)| module);
        match self.by_mode() {
            true => root().join(format!("tests/e2e/attacks/{module}.rs")),
            false if self.package == "tests" => {
                let file = root().join(format!("tests/e2e/{}.rs", self.binary));
                if file.is_file() { file } else { file.with_extension("").join("main.rs") }
            }
            false => root().join(format!("{}/tests/{}.rs", self.package, self.binary)),
        }
    }
}

/// The groups (letter and name) and all rows.
pub fn table() -> (Vec<(char, String)>, Vec<Row>) {
    let text = include_str!("../../docs/attacks.md");
    let (mut groups, mut rows) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, attack, modes, made_by] = cells.as_slice() else { panic!("{line}") };
        if let Some(letter) = number.strip_prefix("**") {
            groups.push((letter.chars().next().unwrap(), attack.trim_matches('*').to_owned()));
            continue;
        }
        rows.push(row(number, attack, modes, made_by));
    }
    (groups, rows)
}

fn row(number: &str, attack: &str, modes: &str, made_by: &str) -> Row {
    let mode = |mode| match mode {
        "root" => Mode::Root,
        "user" => Mode::User,
        "–" => Mode::Any,
        other => panic!("{number}: unknown mode {other:?}"),
    };
    let modes: Vec<Mode> = modes.split(", ").map(mode).collect();
    let mut row = Row { number: number.into(), attack: attack.into(), tests: Vec::new(), probes: Vec::new() };
    let parts: Vec<&str> = made_by.split('`').collect();
    for (i, name) in parts.chunks_exact(2).map(|pair| pair[1]).enumerate() {
        let needs_no_run = parts.get(2 * i + 2).is_some_and(|after| after.trim() == "–");
        match name.strip_prefix("probe:") {
            Some(id) => row.probes.push(id.to_owned()),
            None => {
                let test = Test::parse(name).unwrap_or_else(|| panic!("{number}: {name}"));
                row.tests.push((test, if needs_no_run { vec![Mode::Any] } else { modes.clone() }));
            }
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::{Mode, table};
    use crate::root;

    /// Every test and probe attack in the table exists, and every attack test is in the table.
    #[test]
    fn attack_table_matches_the_tests() {
        let (groups, rows) = table();
        assert_eq!(groups.iter().map(|(letter, _)| *letter).collect::<String>(), "ABCDEFGH");
        assert_eq!(rows.len(), 52);
        let source = |dir: &str| -> String {
            let files = std::fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
            files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
        };
        let (probe, attack_tests) = (source("probe/src/attacks"), source("tests/e2e/attacks"));
        for row in &rows {
            for (test, modes) in &row.tests {
                let text = std::fs::read_to_string(test.file()).unwrap_or_else(|e| panic!("{test:?}: {e}"));
                let name = test.name.rsplit("::").next().unwrap();
                let definition =
                    if test.by_mode() { format!("attack!({name},") } else { format!("fn {name}(") };
                assert!(!test.by_mode() || !modes.contains(&Mode::Any), "{test:?} has no mode");
                assert!(
                    text.split_whitespace().collect::<String>().contains(&definition.replace(' ', "")),
                    "{test:?}"
                );
            }
            for id in &row.probes {
                assert!(probe.contains(&format!("\"{id}\"")), "{}: the probe has no {id}", row.number);
            }
            assert!(!row.tests.is_empty(), "{} has no test", row.number);
        }
        for line in attack_tests.lines().filter_map(|line| line.strip_prefix("attack!(")) {
            let name = line.split(',').next().unwrap();
            let in_table = rows.iter().any(|row| row.tests.iter().any(|(test, _)| test.name.ends_with(name)));
            assert!(in_table, "{name} is not in docs/attacks.md");
        }
    }
}
