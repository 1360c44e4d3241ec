//! The files of a command that `runtime run` mounts: binds, directories in memory, and inputs, which are opened once, hashed through that handle
//! and mounted from it.

use crate::args::{InputOption, MountArgs, MountOption, MountSourceOption};
use crate::cdi::{self, Devices};
use crate::error::{Context as _, Error, Kind, Result};
use crate::inputs::{self, InputFile, not_opened};
use crate::mount_source;
use crate::signals::Signals;
use crate::ui::{Level, Ui};
use invarlock_evidence::format::plan::Files;
use invarlock_runtime::{BindSource, Input, InputSource, Mount, MountSource};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Default size of a directory in memory.
const TMPFS_BYTES: u64 = 64 << 20;
/// Most files of the inputs. Each is a mount and an open file.
const MAX_INPUTS: usize = 512;
/// The writable directory whose size is a limit of the run.
const TMP: &str = "/tmp";

/// A mount, in JSON output.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct MountOutput {
    /// `bind` or `tmpfs`.
    kind: &'static str,
    /// The file or directory of the host, without links; null for a directory in memory.
    source: Option<String>,
    /// Its path in the container.
    target: String,
    /// Whether the command could write it.
    writable: bool,
    /// The size of a directory in memory; null for a bind.
    bytes: Option<u64>,
}

/// The opened files.
#[derive(Default)]
pub struct RunFiles {
    /// The mounts of the container.
    pub mounts: Vec<Mount>,
    /// The mounts for JSON output.
    pub record: Vec<MountOutput>,
    /// The devices; their mounts are among `mounts`.
    pub devices: Devices,
    /// The size of `/tmp`, if the user set it as that of a directory in memory.
    pub tmp_bytes: Option<u64>,
    inputs: Vec<OpenedInput>,
}

/// One `--input`.
struct OpenedInput {
    path: PathBuf,
    name: String,
    is_directory: bool,
    files: Vec<InputFile>,
}

impl RunFiles {
    /// Opens the files that the options name.
    pub fn open(args: &MountArgs) -> Result<Self> {
        let mut files = RunFiles::default();
        for option in args.mount.iter().chain(&args.volume).chain(&args.tmpfs) {
            files.add(option)?;
        }
        files.devices = cdi::resolve(&args.device, &args.cdi_spec_dir)?;
        files.mounts.append(&mut files.devices.mounts);
        for input in &args.input {
            if files.inputs.iter().any(|other| other.name == input.name) {
                return Err(Error::input(format!("--input: two inputs have the name {:?}", input.name)))
                    .hint("name one of them: --input PATH:NAME");
            }
            let opened = OpenedInput::open(input)?;
            files.inputs.push(opened);
        }
        let count: usize = files.inputs.iter().map(|input| input.files.len()).sum();
        if count > MAX_INPUTS {
            return Err(Error::input(format!(
                "--input: {count} files are more than the {MAX_INPUTS} allowed"
            )))
            .hint("mount a larger directory read-only, which is not hashed: -v DIR:TARGET:ro");
        }
        Ok(files)
    }

    /// Opens and adds a mount.
    pub fn add(&mut self, option: &MountOption) -> Result<()> {
        let target = option.target.clone();
        let (source, record) = match &option.source {
            MountSourceOption::Tmpfs { bytes } if target == TMP => {
                self.tmp_bytes = *bytes;
                return Ok(());
            }
            MountSourceOption::Tmpfs { bytes } => {
                let bytes = bytes.unwrap_or(TMPFS_BYTES);
                let record = MountOutput {
                    kind: "tmpfs",
                    source: None,
                    target: target.clone(),
                    writable: true,
                    bytes: Some(bytes),
                };
                (MountSource::Tmpfs { bytes }, record)
            }
            MountSourceOption::Bind { path, writable } => {
                return self.add_bind(target, BindSource::open(path)?, path, *writable);
            }
        };
        self.mounts.push(Mount { target, source });
        self.record.push(record);
        Ok(())
    }

    /// Adds a file or directory that was opened by the name `path`.
    pub fn add_bind(
        &mut self,
        target: String,
        source: BindSource,
        path: &Path,
        writable: bool,
    ) -> Result<()> {
        mount_source::check(&source, path, writable)?;
        self.record.push(MountOutput {
            kind: "bind",
            source: Some(source.path().display().to_string()),
            target: target.clone(),
            writable,
            bytes: None,
        });
        self.mounts.push(Mount { target, source: MountSource::Bind { source, writable } });
        Ok(())
    }

    /// Whether something is mounted at a path of the container.
    pub fn has_target(&self, target: &str) -> bool {
        self.mounts.iter().any(|mount| mount.target == target)
    }

    /// Whether the command can write files of the host.
    pub fn has_writable_bind(&self) -> bool {
        self.record.iter().any(|mount| mount.kind == "bind" && mount.writable)
    }

    /// The inputs of the container.
    pub fn container_inputs(&self) -> Result<Vec<Input>> {
        let files = self.inputs.iter().flat_map(|input| input.files.iter().map(move |file| (input, file)));
        files
            .map(|(input, file)| {
                let target = match input.is_directory {
                    true => format!("/in/{}/{}", input.name, file.name),
                    false => format!("/in/{}", input.name),
                };
                let handle = file.file.try_clone().context("duplicating the handle of an input")?;
                let source = InputSource::File { path: file.path.clone(), file: handle };
                Ok(Input { target, source })
            })
            .collect()
    }

    /// Hashes every input through its handle.
    pub fn digests(&self, signals: &Signals) -> Result<Vec<Files>> {
        let ui = Ui::new(Level::Quiet);
        let digest = |input: &OpenedInput| {
            inputs::digest(&ui, signals, &input.path.display().to_string(), &input.path, &input.files)
        };
        self.inputs.iter().map(digest).collect()
    }

    /// Fails if an input was changed during the run.
    pub fn check_unchanged(&self) -> Result<()> {
        self.inputs.iter().flat_map(|input| &input.files).try_for_each(InputFile::check_unchanged)
    }
}

impl OpenedInput {
    fn open(option: &InputOption) -> Result<Self> {
        let what = || format!("input {}", option.path.display());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let handle = openat2(CWD, &option.path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .map_err(|errno| not_opened(&what(), &errno.into()))?;
        let stat =
            rustix::fs::fstat(&handle).with_context(|| format!("reading the metadata of {}", what()))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mut input = OpenedInput {
            path: option.path.clone(),
            name: option.name.clone(),
            is_directory,
            files: Vec::new(),
        };
        match is_directory {
            true => input.add_directory(&handle, PathBuf::new())?,
            false => {
                let file = open_file(CWD, &option.path, ResolveFlags::NO_MAGICLINKS)
                    .map_err(|errno| not_opened(&what(), &errno.into()))?;
                input.add(option.name.clone(), file)?;
            }
        }
        if input.files.is_empty() {
            return Err(Error::input(format!("{} has no file", what())))
                .hint("name a file, or a directory with files");
        }
        Ok(input)
    }

    /// Adds the files below a directory. A link is followed if it ends at a file in the input.
    fn add_directory(&mut self, root: &OwnedFd, below: PathBuf) -> Result<()> {
        let shown = self.path.join(&below);
        let doing = || format!("reading the directory {}", shown.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = if below.as_os_str().is_empty() { Path::new(".") } else { &below };
        let opened =
            openat2(root, at, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS);
        let entries =
            opened.and_then(Dir::new).with_context(doing).map_err(|error| error.with_kind(Kind::Input))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.with_context(doing)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(below.join(OsStr::from_bytes(entry.file_name().to_bytes())));
            }
        }
        names.sort_unstable();
        for path in names {
            let shown = self.path.join(&path);
            let name = path.to_str().filter(|name| !name.contains(char::is_control));
            let name =
                name.ok_or_else(|| Error::input(format!("input {shown:?}: the name is not plain text")))?;
            let stat = rustix::fs::statat(root, &path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .with_context(|| format!("reading the metadata of {}", shown.display()))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.add_directory(root, path.clone())?,
                FileType::RegularFile | FileType::Symlink => {
                    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                    let file = open_file(root, &path, resolve)
                        .with_context(|| format!("opening input {}", shown.display()))
                        .map_err(|error| error.with_kind(Kind::Input))
                        .hint("every file must be readable, and a link must end at a file in the input")?;
                    self.add(name.to_owned(), file)?;
                }
                other => {
                    return Err(Error::input(format!("input {} is a {other:?}", shown.display())))
                        .hint("inputs are regular files and directories");
                }
            }
            if self.files.len() > MAX_INPUTS {
                return Ok(());
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, file: OwnedFd) -> Result<()> {
        let what = format!("input {}", self.path.join(&name).display());
        let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|error| inputs::no_path(&what, error))?;
        self.files.push(inputs::regular(what, name, real, file)?);
        Ok(())
    }
}

fn open_file(at: impl std::os::fd::AsFd, path: &Path, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(at, path, flags, Mode::empty(), resolve)
}
