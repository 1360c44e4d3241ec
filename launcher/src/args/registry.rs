//! `invarlock runtime image pull` and `push`.

use super::SpecialFileArgs;
use clap::Args;

/// Access to a registry.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct RegistryArgs {
    /// Allow this program to use the network. INVARLOCK_ALLOW_NETWORK=1 allows it too. Without either of them, the kernel denies sockets
    /// to this program. Containers never have a network
    #[arg(long, help_heading = "Registry")]
    pub allow_network: bool,
    /// Connect without TLS. Not needed for a registry on this machine; no password is sent to another machine without TLS
    #[arg(long, help_heading = "Registry")]
    pub plain_http: bool,
}

/// `invarlock runtime image pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Source: docker://HOST:PORT/NAME, with :TAG or @sha256:… [default tag: latest]
    pub from: String,
    /// Additional name in the store, NAME:TAG
    #[arg(long, value_name = "NAME:TAG")]
    pub tag: Option<String>,
    /// Do not extract the layers; the first run extracts them
    #[arg(long, conflicts_with_all = ["drop_devices", "refuse_set_id", "layer_size"])]
    pub no_unpack: bool,
    /// Special files.
    #[command(flatten)]
    pub special_files: SpecialFileArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The registry.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// `invarlock runtime image push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Image reference
    pub image: String,
    /// Destination: docker://HOST:PORT/NAME:TAG
    pub to: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The registry.
    #[command(flatten)]
    pub registry: RegistryArgs,
}
