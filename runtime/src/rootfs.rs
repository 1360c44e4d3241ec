//! Assembles the container's file system from handles, in the run's mount namespace.
//!
//! The image is untrusted. No path of it is followed: every mount point is a directory directly below its root, opened without following
//! links, and any other file type is an error.

use crate::boundary::TMP_INODES;
use crate::failure::SystemCall as _;
use crate::hooks::off;
use crate::identity::Identity;
use crate::mounts;
use crate::protocol::Request;
use crate::spec::{round_to_pages, target_components};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;

/// Where the builder assembles it.
pub(crate) const ROOT: &str = "/rootfs";
/// Mount points. Images without them get them from an additional layer.
const MOUNT_POINTS: [&str; 5] = ["dev", "in", "out", "proc", "tmp"];

/// Mounts the image at [`ROOT`], and in it `/in`, `/out`, `/tmp` and `/dev`. Returns the handle of `/out`.
pub(crate) fn assemble(request: &Request, identity: Identity, mut handles: Vec<OwnedFd>) -> Result<OwnedFd> {
    let inputs = handles.split_off(request.rootfs.len());
    image(handles)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(ROOT, flags, Mode::empty()).context("opening the image")?;
    let limits = &request.limits;
    // 0 means no limit.
    let size =
        |bytes: u64, control| ("size", if off(control) { 0 } else { round_to_pages(bytes) }.to_string());
    let nodes = |count: u64, control| ("nr_inodes", if off(control) { 0 } else { count }.to_string());
    let mode = |mode: &str| ("mode", mode.to_owned());
    let inside = identity.inside.to_string();

    let tmp = mounts::tmpfs(
        &[size(limits.tmp_bytes, "scratch size"), nodes(TMP_INODES, "scratch inodes"), mode("1777")],
        mounts::scratch(),
    )?;
    mount_in(&tmp, &root, "tmp")?;
    // One inode for the directory itself.
    let owner = [("uid", inside.clone()), ("gid", inside), mode("0700")];
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
    input(request, inputs, &root)?;
    rustix::fs::openat(&out, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("opening the output directory")
}

fn mount_in(mount: &OwnedFd, root: &OwnedFd, name: &str) -> Result<()> {
    let target = mounts::real_directory(root, name)?
        .ok_or_else(|| Error::input(format!("the image has no directory /{name}")))?;
    mounts::attach(mount, &target).with_context(|| format!("mounting /{name}"))
}

/// A single layer with all mount points is mounted directly. Otherwise the layers are stacked over a layer with the mount points.
fn image(mut layers: Vec<OwnedFd>) -> Result<()> {
    if let [only] = layers.as_slice() {
        let mut complete = true;
        for name in MOUNT_POINTS {
            complete &= mounts::real_directory(only, name)?.is_some();
        }
        if complete {
            return mounts::attach_at(only, ROOT).context("mounting the image");
        }
    }
    let doing = || "stacking the layers of the image".to_owned();
    for name in MOUNT_POINTS {
        fs::create_dir_all(format!("/l/s/{name}")).with_context(doing)?;
    }
    let mut stack = Vec::new();
    layers.reverse();
    for (i, layer) in layers.iter().enumerate() {
        let path = format!("/l/{i}");
        fs::create_dir(&path).with_context(doing)?;
        mounts::attach_at(layer, &path).with_context(doing)?;
        stack.push(path);
    }
    let options = format!("lowerdir={}:/l/s,userxattr", stack.join(":"));
    let options = CString::new(options).err_kind(Kind::System).with_context(doing)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("overlay", ROOT, "overlay", flags, Some(options.as_c_str())).or_unsupported(
        doing,
        "install Linux 5.11 or newer for overlay mounts in user namespaces, or use an image of one layer with /dev /in /out /proc /tmp",
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
