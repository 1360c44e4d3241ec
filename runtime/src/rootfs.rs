//! The container's file system, put together inside the run's own mount namespace, out of handles.
//!
//! Nothing here follows a path of the image: every mount target is a directory directly below its root, opened without
//! following links, and refused where it is anything else.

use crate::cgroup::round_to_pages;
use crate::failure::SystemCall as _;
use crate::hooks::off;
use crate::identity::Identity;
use crate::mounts;
use crate::protocol::Request;
use crate::spec::target_components;
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};

/// Where the builder puts it together.
pub(crate) const ROOT: &str = "/rootfs";
/// Directories every image has or gets.
const TARGETS: [&str; 5] = ["dev", "in", "out", "proc", "tmp"];
/// Files in `/tmp`.
pub const TMP_INODES: u64 = 65_536;

/// Mounts the image at [`ROOT`], and in it `/in`, `/out`, `/tmp` and `/dev`. Gives the handle of `/out`.
pub(crate) fn assemble(request: &Request, identity: Identity, mut handles: Vec<OwnedFd>) -> Result<OwnedFd> {
    let inputs = handles.split_off(request.rootfs.len());
    image(handles)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(ROOT, flags, Mode::empty()).context("opening the image")?;
    let limits = &request.limits;
    // 0 is no limit.
    let size =
        |bytes: u64, control| ("size", if off(control) { 0 } else { round_to_pages(bytes) }.to_string());
    let nodes = |count: u64, control| ("nr_inodes", if off(control) { 0 } else { count }.to_string());
    let mode = |mode: &str| ("mode", mode.to_owned());
    let inside = identity.inside.to_string();

    let tmp = mounts::tmpfs(
        &[size(limits.tmp_bytes, "scratch size"), nodes(TMP_INODES, "scratch inodes"), mode("1777")],
        mounts::scratch(),
    )?;
    put(&tmp, &root, "tmp")?;
    // One inode for the directory itself.
    let owner = [("uid", inside.clone()), ("gid", inside), mode("0700")];
    let room = [size(limits.output_bytes, "output size"), nodes(limits.output_files + 1, "output inodes")];
    let out = [room.to_vec(), owner.to_vec()].concat();
    let out = mounts::tmpfs(&out, mounts::scratch())?;
    put(&out, &root, "out")?;
    let dev = mounts::tmpfs(
        &[("size", "65536".into()), ("nr_inodes", "64".into()), mode("0755")],
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
    )?;
    put(&dev, &root, "dev")?;
    input(request, inputs, &root)?;
    rustix::fs::openat(&out, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("opening the output directory")
}

fn put(mount: &OwnedFd, root: &OwnedFd, name: &str) -> Result<()> {
    let target = mounts::real_directory(root, name)?
        .ok_or_else(|| Error::input(format!("the image has no directory /{name}")))?;
    mounts::attach(mount, &target).with_context(|| format!("mounting /{name}"))
}

/// One layer that has all mount points is mounted as it is; else the layers are stacked over a skeleton that has them.
fn image(mut layers: Vec<OwnedFd>) -> Result<()> {
    if let [only] = layers.as_slice() {
        let mut complete = true;
        for name in TARGETS {
            complete &= mounts::real_directory(only, name)?.is_some();
        }
        if complete {
            return mounts::attach_at(only, ROOT).context("mounting the image");
        }
    }
    let fail = || "stacking the layers of the image".to_owned();
    for name in TARGETS {
        fs::create_dir_all(format!("/l/s/{name}")).with_context(fail)?;
    }
    let mut stack = Vec::new();
    layers.reverse();
    for (i, layer) in layers.iter().enumerate() {
        let path = format!("/l/{i}");
        fs::create_dir(&path).with_context(fail)?;
        mounts::attach_at(layer, &path).with_context(fail)?;
        stack.push(path);
    }
    let options = format!("lowerdir={}:/l/s,userxattr", stack.join(":"));
    let options = CString::new(options).err_kind(Kind::System).with_context(fail)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("overlay", ROOT, "overlay", flags, Some(options.as_c_str())).or_unsupported(
        fail,
        "overlay mounts in user namespaces need Linux 5.11 or newer; an image of one layer with /dev /in /out /proc /tmp needs none",
    )
}

/// `/in`: a tmpfs with the inputs, files mounted on empty ones, bytes written, then closed for writing.
fn input(request: &Request, sources: Vec<OwnedFd>, root: &OwnedFd) -> Result<()> {
    let mut bytes = 1 << 20;
    for (input, source) in request.inputs.iter().zip(&sources) {
        if input.path.is_none() {
            let size =
                rustix::fs::fstat(source).with_context(|| format!("looking at {}", input.target))?.st_size;
            bytes += size.unsigned_abs() + 4096;
        }
    }
    let nodes = 64 + request.inputs.len() as u64 * 16;
    let options = [("size", bytes.to_string()), ("nr_inodes", nodes.to_string()), ("mode", "0755".into())];
    let tmpfs = mounts::tmpfs(&options, mounts::scratch())?;
    put(&tmpfs, root, "in")?;
    for (input, source) in request.inputs.iter().zip(sources) {
        let mut made = mounts::make_file(&tmpfs, &target_components(&input.target)?)?;
        match &input.path {
            Some(path) => match mounts::attach(&source, &OwnedFd::from(made)) {
                Err(rustix::io::Errno::NOENT) => {
                    return Err(Error::safety(format!(
                        "{} was removed or replaced after it was checked",
                        path.display()
                    )));
                }
                other => other.with_context(|| format!("mounting {}", input.target))?,
            },
            None => drop(
                std::io::copy(&mut File::from(source), &mut made)
                    .with_context(|| format!("writing {}", input.target))?,
            ),
        }
    }
    crate::sys::mount_setattr(tmpfs.as_fd(), true, mounts::input(), None).context("closing /in for writing")
}
