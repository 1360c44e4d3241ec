//! Changes of the configuration of an image, and the syntax of their arguments.

use serde_json::{Value, json};

use crate::{Error, Result};

/// The largest timestamp that fits into a tar header.
const LAST_SECOND: u64 = (1 << 33) - 1;
/// Most bytes of an argument.
const MAX_LENGTH: usize = 128 << 10;

/// Changes of a configuration. Labels and variables replace those of the same name; other values replace the existing ones.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// The program and its first arguments. This removes the further arguments of the base image.
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments of a run without arguments.
    pub cmd: Option<Vec<String>>,
    /// The working directory; absolute.
    pub workdir: Option<String>,
    /// The user for other runtimes.
    pub user: Option<String>,
}

impl Changes {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.env.is_empty()
            && [&self.entrypoint, &self.cmd].iter().all(|change| change.is_none())
            && [&self.workdir, &self.user].iter().all(|change| change.is_none())
    }

    /// Applies the changes. `time` is the creation time of the image, if there is one.
    pub(crate) fn apply(&self, config: &mut Value, time: Option<u64>) -> Result<()> {
        let malformed = || Error::integrity("the configuration of the base image is malformed");
        let all = config.as_object_mut().ok_or_else(malformed)?;
        match time {
            Some(time) => _ = all.insert("created".to_owned(), json!(format_time(time)?)),
            // The creation time of the base image does not apply.
            None => _ = all.shift_remove("created"),
        }
        let run = all.entry("config").or_insert_with(|| json!({}));
        if run.is_null() {
            *run = json!({});
        }
        let run = run.as_object_mut().ok_or_else(malformed)?;
        if !self.labels.is_empty() {
            let labels = run.entry("Labels").or_insert_with(|| json!({}));
            if labels.is_null() {
                *labels = json!({});
            }
            let labels = labels.as_object_mut().ok_or_else(malformed)?;
            for (name, value) in &self.labels {
                labels.insert(name.clone(), json!(value));
            }
            // The digest must not depend on the order of the arguments.
            labels.sort_keys();
        }
        if !self.env.is_empty() {
            let env = run.entry("Env").or_insert_with(|| json!([]));
            if env.is_null() {
                *env = json!([]);
            }
            let env = env.as_array_mut().ok_or_else(malformed)?;
            for (name, value) in &self.env {
                env.retain(|variable| {
                    variable
                        .as_str()
                        .and_then(|text| text.split_once('='))
                        .is_none_or(|(found, _)| found != name)
                });
                env.push(json!(format!("{name}={value}")));
            }
        }
        if let Some(entrypoint) = &self.entrypoint {
            run.insert("Entrypoint".to_owned(), json!(entrypoint));
            run.shift_remove("Cmd");
        }
        if let Some(cmd) = &self.cmd {
            run.insert("Cmd".to_owned(), json!(cmd));
        }
        if let Some(workdir) = &self.workdir {
            if !workdir.starts_with('/') || workdir.chars().any(char::is_control) {
                return Err(Error::input(format!("working directory {workdir:?} is not an absolute path")));
            }
            run.insert("WorkingDir".to_owned(), json!(workdir));
        }
        if let Some(user) = &self.user {
            run.insert("User".to_owned(), json!(user));
        }
        Ok(())
    }
}

fn format_time(time: u64) -> Result<String> {
    i64::try_from(time)
        .ok()
        .and_then(|time| chrono::DateTime::from_timestamp(time, 0))
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
        .ok_or_else(|| Error::input(format!("{time} is not a valid timestamp")))
}

/// Parses `NAME=VALUE`.
pub fn parse_pair(text: &str) -> Result<(String, String)> {
    let is_valid =
        |name: &str| !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    match text.split_once('=') {
        Some((name, value)) if is_valid(name) && !value.contains('\0') && text.len() <= MAX_LENGTH => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(Error::input(format!("{text:?} is not NAME=VALUE, with no space in the name"))),
    }
}

/// Parses a command: a JSON array of words, or words separated by spaces. Quotes are supported only in the array.
pub fn parse_command(text: &str) -> Result<Vec<String>> {
    let invalid = |why: &str| {
        Err(Error::input(format!("command {text:?} {why}"))
            .with_hint("write it like [\"/bin/program\", \"an argument\"]"))
    };
    let words: Vec<String> = if text.trim_start().starts_with('[') {
        match serde_json::from_str(text) {
            Ok(words) => words,
            Err(_) => return invalid("is not a JSON array of words"),
        }
    } else if text.contains(['"', '\'', '\\', '$', '`']) {
        return invalid("contains shell syntax");
    } else {
        text.split_whitespace().map(str::to_owned).collect()
    };
    match words.first() {
        Some(program) if !program.is_empty() => {}
        _ => return invalid("names no program"),
    }
    if text.len() > MAX_LENGTH || words.iter().any(|word| word.contains('\0')) {
        return invalid("is too long or contains a NUL");
    }
    Ok(words)
}

/// Parses `SOURCE_DATE_EPOCH`: seconds since 1970, digits only.
pub fn parse_time(text: &str) -> Result<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let time = text.parse().ok().filter(|time| digits && *time <= LAST_SECOND);
    time.ok_or_else(|| {
        Error::input(format!("SOURCE_DATE_EPOCH={text:?} is not a number of seconds from 0 to {LAST_SECOND}"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parsed_arguments_match_their_text(text in ".{0,40}") {
            if let Ok((name, value)) = parse_pair(&text) {
                prop_assert_eq!(format!("{name}={value}"), text.clone());
                prop_assert!(!name.is_empty() && !name.contains('='));
            }
            if let Ok(words) = parse_command(&text) {
                prop_assert!(!words[0].is_empty());
                if !text.trim_start().starts_with('[') {
                    prop_assert_eq!(words.concat(), text.split_whitespace().collect::<String>());
                }
            }
            if let Ok(time) = parse_time(&text) {
                prop_assert_eq!(format!("{time:0>width$}", width = text.len()), text);
            }
        }

        #[test]
        fn parses_json_command_unchanged(words in prop::collection::vec("[^\\x00]{1,12}", 1..5)) {
            prop_assert_eq!(parse_command(&json!(words).to_string()).expect("command"), words);
        }

        #[test]
        fn formats_time_as_rfc3339(time in 0..=LAST_SECOND) {
            prop_assert_eq!(parse_time(&time.to_string()).expect("time"), time);
            let text = format_time(time).expect("date");
            let back = chrono::DateTime::parse_from_rfc3339(&text).expect("date");
            prop_assert_eq!(back.timestamp().unsigned_abs(), time);
        }
    }
}
