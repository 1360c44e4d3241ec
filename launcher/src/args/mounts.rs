//! Mounts of a command: `--mount`, `-v`, `--tmpfs` and `--input`. No file is opened here.

use super::container::parse_directory_size;
use crate::device_name::DeviceName;
use clap::Args;
use std::path::PathBuf;

const HEADING: &str = "Mounts";
const DEVICES: &str = "Devices";
const MOUNT: &str = "Mount a file or directory of this machine, or an empty directory in memory; can be repeated. OPTIONS is \
    type=bind,source=PATH,target=PATH[,readonly] or type=tmpfs,target=PATH[,tmpfs-size=SIZE]";

/// The mounts of a command.
#[derive(Debug, Clone, Default, Args)]
pub struct MountArgs {
    /// `--mount`.
    #[arg(long, value_name = "OPTIONS", value_parser = parse_mount, help = MOUNT, help_heading = HEADING)]
    pub mount: Vec<MountOption>,
    /// Mount a file or directory of this machine; can be repeated. The command can write it, unless :ro is added
    #[arg(short = 'v', long, value_name = "SOURCE:TARGET[:ro|:rw]", value_parser = parse_volume, help_heading = HEADING)]
    pub volume: Vec<MountOption>,
    /// Mount an empty directory in memory; can be repeated [default size: 64M]
    #[arg(long, value_name = "TARGET[:size=SIZE]", value_parser = parse_tmpfs, help_heading = HEADING)]
    pub tmpfs: Vec<MountOption>,
    /// Give the container a device that the Container Device Interface describes, such as nvidia.com/gpu=0 or nvidia.com/gpu=all; can be repeated
    #[arg(long, value_name = "VENDOR/CLASS=NAME", value_parser = DeviceName::parse, help_heading = DEVICES)]
    pub device: Vec<DeviceName>,
    /// Directory with device specifications; can be repeated, the last one precedes [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "DIR", help_heading = DEVICES)]
    pub cdi_spec_dir: Vec<PathBuf>,
    /// Put a file, or the files of a directory, into /in/NAME, read-only; can be repeated. Each file is hashed and recorded [default NAME: that
    /// of the file or directory]
    #[arg(long, value_name = "PATH[:NAME]", value_parser = parse_input, help_heading = HEADING)]
    pub input: Vec<InputOption>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    /// Its path in the container.
    pub target: String,
    /// What is mounted.
    pub source: MountSourceOption,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSourceOption {
    /// A file or directory of this machine.
    Bind {
        /// Its path.
        path: PathBuf,
        /// Whether the command can write it.
        writable: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Its size in bytes.
        bytes: Option<u64>,
    },
}

/// An input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputOption {
    /// Its path.
    pub path: PathBuf,
    /// Its name below `/in`.
    pub name: String,
}

pub(super) fn parse_mount(text: &str) -> Result<MountOption, String> {
    let (mut kind, mut source, mut target, mut read_only, mut bytes) = (None, None, None, None, None);
    for option in text.split(',') {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let text = || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} has no value"));
        let new = match name {
            "type" => kind.replace(text()?).is_none(),
            "source" | "src" => source.replace(path(text()?)?).is_none(),
            "target" | "destination" | "dst" => target.replace(text()?).is_none(),
            "readonly" | "ro" => read_only.replace(truth(value, name)?).is_none(),
            "tmpfs-size" => bytes.replace(parse_directory_size(text()?)?).is_none(),
            other => {
                return Err(format!(
                    "unknown option {other:?}; options: type, source, target, readonly, tmpfs-size; a path cannot contain a comma"
                ));
            }
        };
        if !new {
            return Err(format!("{name} is set twice"));
        }
    }
    let target = target.ok_or("target is missing")?.to_owned();
    let source = match (kind, source, bytes) {
        (None, ..) => return Err("type is missing: use type=bind or type=tmpfs".into()),
        (Some("bind"), None, _) => return Err("source is missing".into()),
        (Some("bind"), Some(path), None) => {
            MountSourceOption::Bind { path, writable: !read_only.unwrap_or(false) }
        }
        (Some("bind"), ..) => return Err("tmpfs-size is only for type=tmpfs".into()),
        (Some("tmpfs"), None, bytes) if read_only.is_none() => MountSourceOption::Tmpfs { bytes },
        (Some("tmpfs"), ..) => return Err("type=tmpfs has no source and no readonly".into()),
        (Some(other), ..) => return Err(format!("unsupported type {other:?}; types: bind, tmpfs")),
    };
    Ok(MountOption { target, source })
}

fn truth(value: Option<&str>, name: &str) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("{name}={other}: use true or false")),
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text.contains(char::is_control) {
        true => Err("a path contains a control character".into()),
        false => Ok(text.into()),
    }
}

pub(super) fn parse_volume(text: &str) -> Result<MountOption, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] if !source.is_empty() && !target.is_empty() => (source, target, ""),
        [source, target, options] if !source.is_empty() && !target.is_empty() => (source, target, options),
        _ => {
            return Err("write SOURCE:TARGET or SOURCE:TARGET:ro; for a path with a colon use --mount".into());
        }
    };
    if !source.contains('/') && !source.starts_with('.') {
        return Err(format!("named volumes are not supported; for a file or directory write ./{source}"));
    }
    let mut writable = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let new = match option {
            "ro" => writable.replace(false),
            "rw" => writable.replace(true),
            "z" | "Z" => {
                return Err(format!(
                    "option {option:?} would change the SELinux label of the source, which is not supported; leave it out"
                ));
            }
            other => return Err(format!("unsupported option {other:?}; options: ro, rw")),
        };
        if new.is_some() {
            return Err("ro or rw is set twice".into());
        }
    }
    let source = MountSourceOption::Bind { path: path(source)?, writable: writable.unwrap_or(true) };
    Ok(MountOption { target: target.to_owned(), source })
}

pub(super) fn parse_tmpfs(text: &str) -> Result<MountOption, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut bytes = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) if bytes.is_none() => bytes = Some(parse_directory_size(size)?),
            Some(("size", _)) => return Err("size is set twice".into()),
            Some(("mode", "1777" | "01777")) => {}
            // What every directory in memory has.
            None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec") => {}
            _ => {
                return Err(format!(
                    "unsupported option {option:?}; options: size=SIZE, and rw, nosuid, nodev, noexec and mode=1777, which it always has"
                ));
            }
        }
    }
    Ok(MountOption { target: target.to_owned(), source: MountSourceOption::Tmpfs { bytes } })
}

fn parse_input(text: &str) -> Result<InputOption, String> {
    let (source, name) = text.rsplit_once(':').map_or((text, None), |(source, name)| (source, Some(name)));
    let source = path(source)?;
    let own = || source.file_name().and_then(|name| name.to_str());
    let name = name.or_else(own).ok_or("the path has no name: write PATH:NAME")?.to_owned();
    let is_plain = !matches!(name.as_str(), "" | "." | "..")
        && name.len() <= 255
        && !name.contains(|c: char| c == '/' || c.is_control());
    match is_plain {
        true => Ok(InputOption { path: source, name }),
        false => Err(format!("{name:?} cannot be a name in /in: write PATH:NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        InputOption, MountOption, MountSourceOption, parse_input, parse_mount, parse_tmpfs, parse_volume,
    };

    fn bind(path: &str, target: &str, writable: bool) -> MountOption {
        let source = MountSourceOption::Bind { path: path.into(), writable };
        MountOption { target: target.into(), source }
    }

    fn tmpfs(target: &str, bytes: Option<u64>) -> MountOption {
        MountOption { target: target.into(), source: MountSourceOption::Tmpfs { bytes } }
    }

    #[test]
    fn mounts_are_written_as_for_docker_and_podman() {
        for (text, expected) in [
            ("type=bind,source=/a,target=/b", bind("/a", "/b", true)),
            ("type=bind,src=a,dst=/b,readonly", bind("a", "/b", false)),
            ("ro=true,destination=/b,type=bind,source=/a b", bind("/a b", "/b", false)),
            ("type=bind,source=/a,target=/b,readonly=false", bind("/a", "/b", true)),
            ("type=tmpfs,target=/b", tmpfs("/b", None)),
            ("type=tmpfs,target=/b,tmpfs-size=2M", tmpfs("/b", Some(2 << 20))),
        ] {
            assert_eq!(parse_mount(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "type=bind",
            "source=/a,target=/b",
            "type=bind,target=/b",
            "type=bind,source=/a",
            "type=volume,source=a,target=/b",
            "type=bind,source=/a,source=/a,target=/b",
            "type=bind,source=/a,with,comma,target=/b",
            "type=bind,source=,target=/b",
            "type=bind,source=/a\n,target=/b",
            "type=tmpfs,source=/a,target=/b",
            "type=tmpfs,target=/b,readonly",
            "type=tmpfs,target=/b,tmpfs-size=x",
            "type=bind,source=/a,target=/b,tmpfs-size=1M",
            "type=bind,source=/a,target=/b,readonly=x",
            "type=bind,source=/a,target=/b,bind-propagation=shared",
        ] {
            assert!(parse_mount(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn volumes_are_a_source_a_target_and_an_option() {
        assert_eq!(parse_volume("/a:/b"), Ok(bind("/a", "/b", true)));
        assert_eq!(parse_volume("./a:/b:ro"), Ok(bind("./a", "/b", false)));
        assert_eq!(parse_volume(".:/b:rw"), Ok(bind(".", "/b", true)));
        for bad in ["", "/a", ":/b", "/a:", "a:/b", "/a:/b:z", "/a:/b:ro,rw", "/a:/b:ro:x", "/a\t:/b"] {
            assert!(parse_volume(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn directories_in_memory_have_a_size() {
        assert_eq!(parse_tmpfs("/b"), Ok(tmpfs("/b", None)));
        assert_eq!(parse_tmpfs("/b:size=1G,rw,noexec,nosuid"), Ok(tmpfs("/b", Some(1 << 30))));
        for bad in ["/b:exec", "/b:size=1", "/b:size=1M,size=1M", "/b:mode=0755", "/b:uid=0"] {
            assert!(parse_tmpfs(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn inputs_have_a_name() {
        let input = |path: &str, name: &str| InputOption { path: path.into(), name: name.into() };
        assert_eq!(parse_input("/a/b"), Ok(input("/a/b", "b")));
        assert_eq!(parse_input("b:c"), Ok(input("b", "c")));
        for bad in ["/", "..", "a:", "a:b/c", "a:.", "a:\n", "a\u{1b}"] {
            assert!(parse_input(bad).is_err(), "{bad:?}");
        }
    }
}
