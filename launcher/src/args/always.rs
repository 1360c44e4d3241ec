//! Options that change nothing.

use clap::Args;

/// Options that people know from Podman and Docker, and that change nothing: every run is so.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct AlwaysArgs {
    /// Always: nothing is kept of a container
    #[arg(long)]
    pub rm: bool,
    /// Always: the first process of a container is an init
    #[arg(long)]
    pub init: bool,
    /// Always: the files of an image are read-only
    #[arg(long)]
    pub read_only: bool,
}
