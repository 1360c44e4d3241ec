//! Images from and to registries: what `runtime image pull` and `push` take.

use super::image::UnwantedArgs;
use clap::Args;

/// How a registry is reached.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ReachArgs {
    /// Let this program open sockets, for the registry; containers get no network by it. Without it the kernel refuses them to this program,
    /// too (or INVARLOCK_ALLOW_NETWORK=1)
    #[arg(long, help_heading = "Registry")]
    pub allow_network: bool,
    /// Speak with the registry without TLS; only one on this machine is spoken to so unasked, and no password is sent to another so
    #[arg(long, help_heading = "Registry")]
    pub plain_http: bool,
}

/// `invarlock runtime image pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Where it is: docker://HOST:PORT/NAME, with :TAG or @sha256:… behind [default tag: latest]
    pub from: String,
    /// A further name for it, NAME:TAG
    #[arg(long, value_name = "NAME:TAG")]
    pub tag: Option<String>,
    /// Leave it packed, to be passed on; the first run unpacks it
    #[arg(long, conflicts_with_all = ["drop_devices", "refuse_set_id"])]
    pub no_unpack: bool,
    /// What becomes of things that no container of ours gets.
    #[command(flatten)]
    pub unwanted: UnwantedArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The registry.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// `invarlock runtime image push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Image reference
    pub image: String,
    /// Where to: docker://HOST:PORT/NAME:TAG
    pub to: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The registry.
    #[command(flatten)]
    pub reach: ReachArgs,
}
