//! What becomes other of an image's configuration, and how that is typed.

use serde_json::{Value, json};

use crate::{Error, Result};

/// The last second that the headers of an archive have room for.
const LAST_SECOND: u64 = (1 << 33) - 1;
/// Bytes of one word; more is no word that anybody types.
const LONGEST: usize = 128 << 10;

/// Labels and variables replace those of the same name; whatever else is given replaces what was there.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// The program and first arguments. With another one the base's further arguments go.
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, where a run has none of its own.
    pub cmd: Option<Vec<String>>,
    /// The working directory; absolute.
    pub workdir: Option<String>,
    /// The user that other runtimes take.
    pub user: Option<String>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.env.is_empty()
            && [&self.entrypoint, &self.cmd].iter().all(|it| it.is_none())
            && [&self.workdir, &self.user].iter().all(|it| it.is_none())
    }

    /// Makes them; the image is of `time`, where there is one.
    pub(crate) fn apply(&self, config: &mut Value, time: Option<u64>) -> Result<()> {
        let damaged = || Error::integrity("the base's configuration is not what it should be");
        let all = config.as_object_mut().ok_or_else(damaged)?;
        match time {
            Some(time) => _ = all.insert("created".to_owned(), json!(written(time)?)),
            // The base's is not this image's.
            None => _ = all.shift_remove("created"),
        }
        let run = all.entry("config").or_insert_with(|| json!({}));
        if run.is_null() {
            *run = json!({});
        }
        let run = run.as_object_mut().ok_or_else(damaged)?;
        if !self.labels.is_empty() {
            let labels = run.entry("Labels").or_insert_with(|| json!({}));
            if labels.is_null() {
                *labels = json!({});
            }
            let labels = labels.as_object_mut().ok_or_else(damaged)?;
            for (name, value) in &self.labels {
                labels.insert(name.clone(), json!(value));
            }
            // The order in which they were typed is nobody's matter.
            labels.sort_keys();
        }
        if !self.env.is_empty() {
            let env = run.entry("Env").or_insert_with(|| json!([]));
            if env.is_null() {
                *env = json!([]);
            }
            let env = env.as_array_mut().ok_or_else(damaged)?;
            for (name, value) in &self.env {
                env.retain(|it| it.as_str().and_then(|it| it.split_once('=')).is_none_or(|(n, _)| n != name));
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
                return Err(Error::input(format!("working directory {workdir:?} is no absolute path")));
            }
            run.insert("WorkingDir".to_owned(), json!(workdir));
        }
        if let Some(user) = &self.user {
            run.insert("User".to_owned(), json!(user));
        }
        Ok(())
    }
}

fn written(time: u64) -> Result<String> {
    i64::try_from(time)
        .ok()
        .and_then(|time| chrono::DateTime::from_timestamp(time, 0))
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
        .ok_or_else(|| Error::input(format!("{time} is no second of a calendar")))
}

/// Reads `NAME=VALUE`.
pub fn parse_pair(text: &str) -> Result<(String, String)> {
    let good = |name: &str| !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    match text.split_once('=') {
        Some((name, value)) if good(name) && !value.contains('\0') && text.len() <= LONGEST => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(Error::input(format!("{text:?} is not NAME=VALUE, with no space in the name"))),
    }
}

/// Reads a command: a JSON array of its words, or words with spaces between them. Nothing is quoted but in the array.
pub fn parse_command(text: &str) -> Result<Vec<String>> {
    let wrong = |why: &str| {
        Err(Error::input(format!(
            "command {text:?} {why}; write it like [\"/bin/program\", \"an argument\"]"
        )))
    };
    let words: Vec<String> = if text.trim_start().starts_with('[') {
        match serde_json::from_str(text) {
            Ok(words) => words,
            Err(_) => return wrong("is no JSON array of words"),
        }
    } else if text.contains(['"', '\'', '\\', '$', '`']) {
        return wrong("has what a shell would read");
    } else {
        text.split_whitespace().map(str::to_owned).collect()
    };
    match words.first() {
        Some(program) if !program.is_empty() => {}
        _ => return wrong("names no program"),
    }
    if text.len() > LONGEST || words.iter().any(|word| word.contains('\0')) {
        return wrong("is too long or has a NUL");
    }
    Ok(words)
}

/// Reads `SOURCE_DATE_EPOCH`: seconds since 1970, in digits and nothing else.
pub fn parse_time(text: &str) -> Result<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let time = text.parse().ok().filter(|time| digits && *time <= LAST_SECOND);
    time.ok_or_else(|| {
        Error::input(format!("SOURCE_DATE_EPOCH={text:?} is no number of seconds from 0 to {LAST_SECOND}"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_typed_is_read_or_refused_and_never_something_else(text in ".{0,40}") {
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
        fn a_command_is_read_as_it_was_written(words in prop::collection::vec("[^\\x00]{1,12}", 1..5)) {
            prop_assert_eq!(parse_command(&json!(words).to_string()).expect("command"), words);
        }

        #[test]
        fn a_time_is_written_as_a_calendar_has_it(time in 0..=LAST_SECOND) {
            prop_assert_eq!(parse_time(&time.to_string()).expect("time"), time);
            let text = written(time).expect("date");
            let back = chrono::DateTime::parse_from_rfc3339(&text).expect("date");
            prop_assert_eq!(back.timestamp().unsigned_abs(), time);
        }
    }
}
