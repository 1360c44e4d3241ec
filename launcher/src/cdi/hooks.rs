//! What hooks of CDI ask for. Only those of NVIDIA's toolkit are known.

use super::spec::Hook;
use crate::error::{Error, Result};

/// What a hook does, so far as it is done here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A link in the container: the text of the link, and its path.
    Link { text: String, at: String },
    /// The dynamic loader finds libraries in this directory of the container.
    Libraries(String),
}

/// Hooks whose effect a container here does not need: its `/dev` and the parameters of the driver are read-only, and it takes the libraries of
/// the host.
const UNNEEDED: [&str; 3] = ["chmod", "disable-device-node-modification", "enable-cuda-compat"];

/// The effects of a hook.
///
/// # Errors
/// The hook, or one of its arguments, is unknown.
pub fn effects(hook: &Hook) -> Result<Vec<Effect>> {
    let program = hook.path.rsplit('/').next().unwrap_or_default();
    let mut words = hook.args.iter().skip(1).map(String::as_str).peekable();
    if program == "nvidia-ctk" && words.peek() == Some(&"hook") {
        words.next();
    }
    let known = ["nvidia-cdi-hook", "nvidia-ctk"].contains(&program);
    let name = words.next().filter(|_| known);
    match name {
        Some("create-symlinks") => values(hook, words, "--link").and_then(|links| {
            links
                .into_iter()
                .map(|link| {
                    link.split_once("::")
                        .map(|(text, at)| Effect::Link { text: text.to_owned(), at: at.to_owned() })
                        .ok_or_else(|| refused(hook, &format!("the link {link:?} is not TEXT::PATH")))
                })
                .collect()
        }),
        Some("update-ldcache") => {
            let folders = values(hook, words, "--folder")?;
            Ok(folders.into_iter().map(|folder| Effect::Libraries(folder.to_owned())).collect())
        }
        Some(name) if UNNEEDED.contains(&name) => Ok(Vec::new()),
        _ => Err(refused(hook, "it is unknown")),
    }
}

/// The values of an option that can be repeated: `--name VALUE` or `--name=VALUE`. `--ldconfig-path` is that of a program of the host.
fn values<'a>(hook: &Hook, mut words: impl Iterator<Item = &'a str>, option: &str) -> Result<Vec<&'a str>> {
    let mut values = Vec::new();
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let value = value.or_else(|| words.next());
        match value {
            Some(value) if name == option => values.push(value),
            Some(_) if name == "--ldconfig-path" => {}
            _ => return Err(refused(hook, &format!("its argument {word:?} is unknown"))),
        }
    }
    Ok(values)
}

fn refused(hook: &Hook, why: &str) -> Error {
    let shown = format!("{} {}", hook.path, hook.args.get(1..).unwrap_or_default().join(" "));
    Error::input(format!(
        "the device asks for the hook {:?}: {why}",
        shown.chars().take(200).collect::<String>()
    ))
    .with_hint("no program of the host is run for a container; hooks of NVIDIA's toolkit are understood")
}
