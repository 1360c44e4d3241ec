//! Files and directories of the host that a container may have.

use crate::error::{Context as _, Error, Result};
use invarlock_images::Store;
use invarlock_runtime::BindSource;
use std::path::Path;

/// Opens it, and checks it.
pub fn open(path: &Path, writable: bool) -> Result<BindSource> {
    let source = BindSource::open(path)?;
    check(&source, path, writable)?;
    Ok(source)
}

/// The store must not be in reach of a container. One that can write it could replace images; one that can write this program could be anybody.
pub fn check(source: &BindSource, path: &Path, writable: bool) -> Result<()> {
    let store = Store::default_root()?;
    let refuse = |what: &str| {
        Err(Error::input(format!("mount source {} {what}", path.display())))
            .hint("mount the directory that is needed, and not one above it")
    };
    if source.contains(&store)? || source.is_in(&store) {
        return refuse(&format!("contains the image store {}, or is in it", store.display()));
    }
    if source.contains(&invarlock_runtime::state_directory()?)? {
        return refuse("contains the state of running containers");
    }
    let program = std::env::current_exe().context("finding this program's own path")?;
    if writable && source.contains(&program)? {
        return refuse("contains this program, and the command could write it");
    }
    Ok(())
}
