//! `engine install`: the files `podman` and `docker`.
//!
//! They are scripts, not links: callers resolve links before they start a program, and then it would not know by which name it was called.

use super::Engine;
use crate::args::InstallArgs;
use crate::error::{Context as _, Error, Kind, Result};
use crate::ui;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The second line of a script, by which an installed one is recognised.
const MARK: &str = "# Written by `invarlock runtime engine install`.";

/// Writes the scripts, and prints their paths.
pub fn run(args: &InstallArgs) -> Result<u8> {
    let program = std::env::current_exe().context("finding this program's own path")?;
    let record = args.record.as_deref().map(std::path::absolute).transpose().context("resolving --record")?;
    let directory = args.directory.display();
    fs::create_dir_all(&args.directory)
        .with_context(|| format!("creating {directory}"))
        .map_err(|error| error.with_kind(Kind::Input))?;
    let paths = Engine::ALL.map(|engine| args.directory.join(engine.name()));
    paths.iter().try_for_each(|path| refuse_other(path))?;
    for (engine, path) in Engine::ALL.into_iter().zip(&paths) {
        write(path, &script(engine, &program, record.as_deref(), args.weaker_limits)?)?;
        ui::out(&ui::printable(&path.display().to_string()));
    }
    ui::on_stderr(&ui::printable(&match &record {
        Some(record) => format!("invarlock: each run leaves a record in {}", record.display()),
        None => "invarlock: runs leave no record; --record DIR keeps one for each".to_owned(),
    }));
    Ok(0)
}

/// A file that is no script of ours could be the real engine.
fn refuse_other(path: &Path) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    let mut start = [0; 256];
    let read = match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.and_then(|mut file| file.read(&mut start)).with_context(reading)?,
    };
    match String::from_utf8_lossy(&start[..read]).lines().nth(1) == Some(MARK) {
        true => Ok(()),
        false => Err(Error::input(format!("{} is another program", path.display())))
            .hint("name a directory without `podman` and `docker`; put it first on PATH"),
    }
}

fn script(engine: Engine, program: &Path, record: Option<&Path>, weaker: bool) -> Result<String> {
    let program = quoted(program)?;
    let (set, option) = match record {
        Some(path) => {
            (format!("record={}\n", quoted(path)?), " --record \"${INVARLOCK_ENGINE_RECORD:-$record}\"")
        }
        None => (String::new(), ""),
    };
    let (name, weaker) = (engine.name(), if weaker { " --weaker-limits" } else { "" });
    Ok(format!(
        "#!/bin/sh\n{MARK}\n# It answers the commands of {name} that InvarLock's Python package calls.\n\
         program={program}\n{set}\
         [ -x \"$program\" ] || {{ echo \"error: $program cannot be run: install the engine again\" >&2; exit 125; }}\n\
         exec \"$program\" runtime engine {name}{weaker}{option} \"$@\"\n"
    ))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains('\n'));
    let text =
        text.ok_or_else(|| Error::input(format!("the path {path:?} cannot be written in a script")))?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// The complete file gets its name at once: a caller can be starting it.
fn write(path: &PathBuf, text: &str) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let directory = path.parent().unwrap_or(path);
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(writing)?;
    file.write_all(text.as_bytes()).with_context(writing)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755)).with_context(writing)?;
    file.persist(path).map(drop).map_err(|error| Error::from(error.error).context(writing()))
}

#[cfg(test)]
mod tests {
    use super::{Engine, script};
    use std::path::Path;

    #[test]
    fn paths_are_words_of_the_script() {
        let text =
            script(Engine::Podman, Path::new("/a b/it's $x"), Some(Path::new("/r")), false).expect("text");
        assert!(text.contains("program='/a b/it'\\''s $x'\n"), "{text}");
        assert!(text.contains("exec \"$program\" runtime engine podman --record "), "{text}");
        assert!(script(Engine::Docker, Path::new("/a\nb"), None, true).is_err());
    }
}
