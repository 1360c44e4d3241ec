//! Assembles the container's file system from handles, in the run's mount namespace.
//!
//! The image is untrusted. No path of it is followed: every mount point is a directory directly below its root, opened without following
//! links, and any other file type is an error.

use crate::boundary::{SHARED_MEMORY, TMP_INODES};
use crate::failure::SystemCall as _;
use crate::hooks::off;
use crate::identity::Identity;
use crate::mounts;
use crate::protocol::Request;
use crate::runtime_files::{self, MARK};
use crate::spec::{round_to_pages, target_components};
use crate::topology;
use crate::user_mounts::RequestMount;
use crate::{terminal, user_mounts};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where the builder assembles it.
pub(crate) const ROOT: &str = "/rootfs";
const STACKING: &str = "stacking the layers of the image";
/// Most links on the path of the working directory, as the kernel allows.
const MAX_LINKS: usize = 40;
/// Mount points. Images without them get them from an additional layer.
const MOUNT_POINTS: [&str; 5] = ["dev", "in", "out", "proc", "tmp"];

/// Mounts the image at [`ROOT`], and in it `/in`, `/out`, `/tmp` and `/dev`, and `/sys` from the directory `system`. Returns the handle of `/out`.
pub(crate) fn assemble(
    request: &Request,
    identity: Identity,
    mut handles: Vec<OwnedFd>,
    system: Option<&str>,
) -> Result<OwnedFd> {
    let mut inputs = handles.split_off(request.rootfs.len());
    let binds = inputs.split_off(request.inputs.len());
    image(handles, request)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(ROOT, flags, Mode::empty()).context("opening the image")?;
    // libcontainer mounts it later.
    mounts::real_directory(&root, "proc")?;
    let limits = &request.limits;
    // 0 means no limit.
    let size =
        |bytes: u64, control| ("size", if off(control) { 0 } else { round_to_pages(bytes) }.to_string());
    let nodes = |count: u64, control| ("nr_inodes", if off(control) { 0 } else { count }.to_string());
    let mode = |mode: &str| ("mode", mode.to_owned());
    let inside = identity.inside;

    let tmp = mounts::tmpfs(
        &[size(limits.tmp_bytes, "scratch size"), nodes(TMP_INODES, "scratch inodes"), mode("1777")],
        mounts::scratch(),
    )?;
    let shared_memory = match request.runtime_files.is_some() {
        true => Some(shared_scratch(&tmp, &root, request, identity)?),
        false => {
            mount_in(&tmp, &root, "tmp")?;
            None
        }
    };
    // One inode for the directory itself.
    let owner = [("uid", inside.uid.to_string()), ("gid", inside.gid.to_string()), mode("0700")];
    let capacity =
        [size(limits.output_bytes, "output size"), nodes(limits.output_files + 1, "output inodes")];
    let out = [capacity.to_vec(), owner.to_vec()].concat();
    let out = mounts::tmpfs(&out, mounts::scratch())?;
    mount_in(&out, &root, "out")?;
    let dev = mounts::tmpfs(
        &[("size", "65536".into()), ("nr_inodes", "64".into()), mode("0755")],
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
    )?;
    mount_in(&dev, &root, "dev")?;
    if let Some(shared_memory) = shared_memory {
        rustix::fs::mkdirat(&dev, SHARED_MEMORY, Mode::from_raw_mode(0o755)).context("creating /dev/shm")?;
        mounts::attach_at(&shared_memory, &format!("{ROOT}/dev/{SHARED_MEMORY}"))
            .context("mounting /dev/shm")?;
    }
    if request.streams.are_terminal() {
        terminal::mount(&dev, &format!("{ROOT}/dev"), inside).in_control("terminal")?;
    }
    if let Some(directory) = system {
        mount_system(directory, &root)?;
    }
    input(request, inputs, &root)?;
    user_mounts::attach(&request.mounts, binds, &root, inside)?;
    rustix::fs::openat(&out, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("opening the output directory")
}

fn mount_in(mount: &OwnedFd, root: &OwnedFd, name: &str) -> Result<()> {
    let target = mounts::real_directory(root, name)?
        .ok_or_else(|| Error::input(format!("the image has no directory /{name}")))?;
    mounts::attach(mount, &target).with_context(|| format!("mounting /{name}"))
}

/// Mounts `/sys`, read-only: a directory of the builder's own file system, so that no further one has to be created. One that the image
/// redirects by a link stays as it is.
fn mount_system(directory: &str, root: &OwnedFd) -> Result<()> {
    let Some(target) = mounts::plain_directory(root, topology::NAME)? else { return Ok(()) };
    let mount = mounts::clone_path(directory, false).context("cloning the mount of /sys")?;
    mounts::restrict(&mount, mounts::system()).context("making /sys read-only")?;
    mounts::attach(&mount, &target).context("mounting /sys")
}

/// Mounts `/tmp`, `/run` and `/var/tmp`, each a directory of the file system `scratch`, unless the caller mounts something else there. Returns
/// the mount of a further one, for `/dev/shm`.
fn shared_scratch(
    scratch: &OwnedFd,
    root: &OwnedFd,
    request: &Request,
    identity: Identity,
) -> Result<OwnedFd> {
    const AT: &str = "/l/t";
    let doing = || "creating the writable directories".to_owned();
    fs::create_dir_all(AT).with_context(doing)?;
    mounts::attach_at(scratch, AT).with_context(doing)?;
    let mount_of = |name: &str, mode: u32| {
        let path = format!("{AT}/{}", name.replace('/', "-"));
        fs::create_dir(&path).with_context(doing)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).with_context(doing)?;
        if name == MARK.0 {
            fs::write(format!("{path}/{}", MARK.1), "").with_context(doing)?;
        }
        let (uid, gid) = (identity.inside.uid, identity.inside.gid);
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chown(&path, Some(uid), Some(gid)).with_context(doing)?;
        mounts::clone_path(&path, false).with_context(doing)
    };
    mount_in(&mount_of("tmp", 0o1777)?, root, "tmp")?;
    let replaced = |name: &str| request.mounts.iter().any(|mount| mount.target[1..] == *name);
    for (name, mode) in runtime_files::DIRECTORIES.into_iter().filter(|(name, _)| !replaced(name)) {
        if let Some(target) = mounts::plain_directory(root, name)? {
            mounts::attach(&mount_of(name, mode)?, &target).with_context(|| format!("mounting /{name}"))?;
        }
    }
    mount_of(SHARED_MEMORY, 0o1777)
}

/// Whether a layer has everything that the container needs of its image, so that nothing has to be stacked below it.
fn is_complete(layer: &OwnedFd, request: &Request) -> Result<bool> {
    for name in MOUNT_POINTS {
        if mounts::real_directory(layer, name)?.is_none() {
            return Ok(false);
        }
    }
    let exists = |path: &str| exists(layer, path);
    Ok(request.mounts.iter().all(|mount| mount.has_place_in(layer))
        && request.runtime_files.as_ref().is_none_or(|files| files.passwd.is_none())
        && (request.runtime_files.is_none()
            || runtime_files::DIRECTORIES.iter().all(|(name, _)| exists(name))
                && exists(topology::NAME)
                && runtime_files::files().iter().all(|(name, _)| exists(name))
                && exists(&request.cwd)))
}

/// The lowest layer: mount points, and the files of an OCI runtime. A path that the image has hides that of this layer.
pub(crate) fn create_lowest_layer(at: &Path, runtime_files: bool, mounts: &[RequestMount]) -> Result<()> {
    let doing = || "creating the mount points of the image".to_owned();
    for name in MOUNT_POINTS {
        fs::create_dir_all(at.join(name)).with_context(doing)?;
    }
    if runtime_files {
        for name in runtime_files::DIRECTORIES.into_iter().map(|(name, _)| name).chain([topology::NAME]) {
            fs::create_dir_all(at.join(name)).with_context(doing)?;
        }
        fs::create_dir_all(at.join("etc")).with_context(doing)?;
        for (name, content) in runtime_files::files() {
            fs::write(at.join(name), content).with_context(doing)?;
        }
    }
    user_mounts::create_places(at, mounts)
}

/// The path, relative to the root, of the working directory that the image does not have. The links of the image that lead to it are
/// followed; what does not exist is taken as it is.
pub(crate) fn missing_directory(root: &OwnedFd, cwd: &str) -> Result<Option<PathBuf>> {
    if exists(root, cwd) {
        return Ok(None);
    }
    let doing = || format!("finding the working directory {cwd:?}");
    let parts = |path: &str| path.rsplit('/').map(str::to_owned).collect::<Vec<_>>();
    let (mut path, mut rest, mut links) = (PathBuf::new(), parts(cwd), 0);
    while let Some(part) = rest.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                path.pop();
                continue;
            }
            name => path.push(name),
        }
        // There is no link before the last part.
        match rustix::fs::readlinkat(root, path.as_path(), Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::input(format!("{}: too many symbolic links", doing())));
                }
                let target = target.into_string().err_kind(Kind::Input).with_context(doing)?;
                if target.starts_with('/') {
                    path.clear();
                } else {
                    path.pop();
                }
                rest.extend(parts(&target));
            }
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(error).with_context(doing).kind(Kind::Input),
        }
    }
    Ok(Some(path))
}

fn exists(root: &OwnedFd, path: &str) -> bool {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).is_ok()
}

/// A single layer with all mount points is mounted directly. Otherwise the layers are stacked over a layer with the mount points.
fn image(mut layers: Vec<OwnedFd>, request: &Request) -> Result<()> {
    if let [only] = layers.as_slice()
        && is_complete(only, request)?
    {
        return mounts::attach_at(only, ROOT).context("mounting the image");
    }
    let doing = || STACKING.to_owned();
    create_lowest_layer(Path::new("/l/s"), request.runtime_files.is_some(), &request.mounts)?;
    let mut stack = Vec::new();
    if let Some(passwd) = request.runtime_files.as_ref().and_then(|files| files.passwd.as_ref()) {
        fs::create_dir_all("/l/u/etc").with_context(doing)?;
        fs::write("/l/u/etc/passwd", passwd).with_context(doing)?;
        stack.push("/l/u".to_owned());
    }
    layers.reverse();
    for (i, layer) in layers.iter().enumerate() {
        let path = format!("/l/{i}");
        fs::create_dir(&path).with_context(doing)?;
        mounts::attach_at(layer, &path).with_context(doing)?;
        stack.push(path);
    }
    let options = format!("lowerdir={}:/l/s,userxattr", stack.join(":"));
    let options = CString::new(options).err_kind(Kind::System).with_context(doing)?;
    stack_layers(&options)?;
    if request.runtime_files.is_some() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(ROOT, flags, Mode::empty()).with_context(doing)?;
        if let Some(missing) = missing_directory(&root, &request.cwd)? {
            drop(root);
            // The kernel forbids changes of a layer while it is mounted.
            rustix::mount::unmount(ROOT, UnmountFlags::empty()).with_context(doing)?;
            fs::create_dir_all(Path::new("/l/s").join(missing))
                .with_context(|| format!("creating the working directory {:?}", request.cwd))
                .kind(Kind::Input)?;
            stack_layers(&options)?;
        }
    }
    Ok(())
}

fn stack_layers(options: &CStr) -> Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("overlay", ROOT, "overlay", flags, Some(options)).or_unsupported(
        || STACKING.into(),
        "install Linux 5.11 or newer for overlay mounts in user namespaces, or use an image of one layer with /dev /in /out /proc /tmp; `runtime run` also needs /run, /sys, /var/tmp, its working directory, and group, hostname, hosts, passwd and resolv.conf in /etc",
    )
}

/// `/in`: a tmpfs in which files are mounted on empty files and bytes are written; then it becomes read-only.
fn input(request: &Request, sources: Vec<OwnedFd>, root: &OwnedFd) -> Result<()> {
    let mut bytes = 1 << 20;
    for (input, source) in request.inputs.iter().zip(&sources) {
        if input.path.is_none() {
            let size = rustix::fs::fstat(source)
                .with_context(|| format!("reading the attributes of {}", input.target))?
                .st_size;
            bytes += size.unsigned_abs() + 4096;
        }
    }
    let nodes = 64 + request.inputs.len() as u64 * 16;
    let options = [("size", bytes.to_string()), ("nr_inodes", nodes.to_string()), ("mode", "0755".into())];
    let tmpfs = mounts::tmpfs(&options, mounts::scratch())?;
    mount_in(&tmpfs, root, "in")?;
    for (input, source) in request.inputs.iter().zip(sources) {
        let mut created = mounts::create_file(&tmpfs, &target_components(&input.target)?)?;
        match &input.path {
            Some(path) => match mounts::attach(&source, &OwnedFd::from(created)) {
                Err(rustix::io::Errno::NOENT) => {
                    return Err(Error::safety(format!(
                        "{} was removed or replaced after it was checked",
                        path.display()
                    )));
                }
                other => other.with_context(|| format!("mounting {}", input.target))?,
            },
            None => drop(
                std::io::copy(&mut File::from(source), &mut created)
                    .with_context(|| format!("writing {}", input.target))?,
            ),
        }
    }
    mounts::restrict_recursively(&tmpfs, mounts::input()).context("making /in read-only")
}
