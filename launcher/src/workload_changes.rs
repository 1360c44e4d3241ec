//! What the options of `runtime run` change in the configuration of an image.

use crate::error::{Context as _, Error, Kind, Result};
use crate::inputs::not_read;
use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest file of variables.
const MAX_FILE: u64 = 1 << 20;

/// What the options change.
#[derive(Debug, Default)]
pub struct Changes {
    /// Files with a variable a line.
    pub env_files: Vec<PathBuf>,
    /// `NAME=VALUE`, or `NAME` for the value in the environment of this program. They precede those of files.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// The program: a word, or a JSON array of words; empty for none.
    pub entrypoint: Option<String>,
    /// The user, `USER[:GROUP]`.
    pub user: Option<String>,
}

impl Changes {
    /// The variables that the options add, in order; a later one replaces an earlier one.
    pub fn variables(&self) -> Result<Vec<(String, String)>> {
        let own = |name: &str| std::env::var(name).ok();
        let mut variables = Vec::new();
        for file in &self.env_files {
            let text = read(file)?;
            for (i, line) in text.lines().enumerate() {
                let line = line.trim_start();
                if !line.is_empty() && !line.starts_with('#') {
                    let variable = variable(line, &own);
                    variables.extend(variable.with_context(|| format!("{}:{}", file.display(), i + 1))?);
                }
            }
        }
        for text in &self.env {
            variables.extend(variable(text, &own).with_context(|| format!("--env {text}"))?);
        }
        Ok(variables)
    }

    /// The environment of an image and other variables. Of those of the same name, also in the image, only the last is left: programs disagree
    /// about which of two counts.
    pub fn merged(env: Vec<(String, String)>, variables: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut names = HashSet::new();
        let last_first = variables.into_iter().rev().chain(env.into_iter().rev());
        let mut merged: Vec<_> = last_first.filter(|(name, _)| names.insert(name.clone())).collect();
        merged.reverse();
        merged
    }

    /// The words that replace the entrypoint of the image.
    pub fn entrypoint(&self) -> Result<Option<Vec<String>>> {
        let Some(text) = self.entrypoint.as_deref() else { return Ok(None) };
        if text.is_empty() {
            return Ok(Some(Vec::new()));
        }
        if !text.starts_with('[') {
            return Ok(Some(vec![text.to_owned()]));
        }
        let words = serde_json::from_str(text).map_err(|error| {
            Error::input(format!("--entrypoint {text}: {error}"))
                .with_source(error)
                .with_hint("use a word, or a JSON array of strings")
        })?;
        Ok(Some(words))
    }
}

/// A variable. One without a value is taken from the own environment, and left out if that does not have it.
fn variable(text: &str, own: &dyn Fn(&str) -> Option<String>) -> Result<Option<(String, String)>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, own(text)),
    };
    if name.is_empty() || name.contains(char::is_whitespace) || text.contains('\0') {
        return Err(
            Error::input("a variable has no name, or a name with spaces").with_hint("write NAME=VALUE")
        );
    }
    Ok(value.map(|value| (name.to_owned(), value)))
}

fn read(path: &Path) -> Result<String> {
    let reading = || format!("reading {}", path.display());
    let file = std::fs::File::open(path).map_err(|why| not_read(&why).context(reading()))?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .with_context(reading)
        .map_err(|error| error.with_kind(Kind::Input))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::input(format!("{} is longer than the {MAX_FILE} bytes allowed", path.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_a_name_and_their_own_or_the_given_value() {
        let own = |name: &str| (name == "HERE").then(|| "value".to_owned());
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        for (text, expected) in [
            ("A=1", pair("A", "1")),
            ("A=", pair("A", "")),
            ("A=b=c", pair("A", "b=c")),
            ("HERE", pair("HERE", "value")),
            ("GONE", None),
        ] {
            assert_eq!(variable(text, &own).expect(text), expected, "{text}");
        }
        for wrong in ["", "=x", "A B=1", "A\t=1", "A=\0"] {
            assert!(variable(wrong, &own).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_last_variable_of_a_name_is_left() {
        let list = |text: &[&str]| -> Vec<(String, String)> {
            let pairs = text.iter().filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let merged =
            Changes::merged(list(&["PATH=/a", "A=1", "PATH=/b", "B=1"]), list(&["A=2", "C=1", "A=3"]));
        assert_eq!(merged, list(&["PATH=/b", "B=1", "C=1", "A=3"]));
    }

    #[test]
    fn entrypoint_is_a_word_or_a_json_array() {
        let words = |text: &str| {
            let changes = Changes { entrypoint: Some(text.to_owned()), ..Changes::default() };
            changes.entrypoint().map(|words| words.expect("an entrypoint"))
        };
        assert_eq!(words("").expect("none"), Vec::<String>::new());
        assert_eq!(words("/bin/my program").expect("one"), ["/bin/my program"]);
        assert_eq!(words(r#"["sh", "-c"]"#).expect("two"), ["sh", "-c"]);
        assert!(words("[1]").is_err() && words("[").is_err());
    }
}
