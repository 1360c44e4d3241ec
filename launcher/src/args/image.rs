//! `invarlock runtime image …`.

use super::transport::{PullArgs, PushArgs};
use clap::{Args, Subcommand};
use invarlock_images::{Policy, SpecialFilePolicy, Verify, parse_command, parse_pair};
use std::path::PathBuf;

/// How what is unpacked of an image is verified before each use.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct CareArgs {
    /// Verification of the image before use: full (every byte), quick (what the file system notes of changes), fsverity (files that the
    /// kernel holds; needs a file system that has it) or auto (full up to 256 MiB, else quick); the level is recorded
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = str::parse::<Verify>, help_heading = "Container")]
    pub verify_image: Verify,
}

/// What becomes of things in an image that no container of ours gets.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct UnwantedArgs {
    /// Leave out devices and fifos that its layers have, which are refused otherwise
    #[arg(long)]
    pub drop_devices: bool,
    /// Refuse set-id programs, whose bits are dropped otherwise
    #[arg(long)]
    pub refuse_set_id: bool,
}

impl From<UnwantedArgs> for Policy {
    fn from(args: UnwantedArgs) -> Self {
        Policy {
            devices: if args.drop_devices { SpecialFilePolicy::Drop } else { SpecialFilePolicy::Refuse },
            set_id: if args.refuse_set_id { SpecialFilePolicy::Refuse } else { SpecialFilePolicy::Drop },
        }
    }
}

/// `invarlock runtime image build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The evaluator of the default image [default: beside this program]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "base"])]
    pub evaluator: Option<PathBuf>,
    /// Root directory that the image is made from, or a tar archive of one
    #[arg(long, value_name = "DIR|TAR", conflicts_with = "base", requires = "name")]
    pub from: Option<PathBuf>,
    /// Image that it is made from [default: the default image]
    #[arg(long, value_name = "IMAGE", requires = "name")]
    pub base: Option<String>,
    /// Directory or tar archive on top of it; can be given again
    #[arg(long = "layer", value_name = "DIR|TAR", requires = "name")]
    pub layers: Vec<PathBuf>,
    /// Name it gets, NAME:TAG
    #[arg(long, value_name = "NAME:TAG")]
    pub name: Option<String>,
    /// Label; can be given again
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair, requires = "name")]
    pub labels: Vec<(String, String)>,
    /// Variable of the environment; can be given again
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_pair, requires = "name")]
    pub env: Vec<(String, String)>,
    /// Program and first arguments: words, or a JSON array of them
    #[arg(long, value_name = "WORDS", value_parser = parse_words, requires = "name")]
    pub entrypoint: Option<Words>,
    /// Further arguments, for other runtimes: words, or a JSON array of them
    #[arg(long, value_name = "WORDS", value_parser = parse_words, requires = "name")]
    pub cmd: Option<Words>,
    /// Working directory
    #[arg(long, value_name = "PATH", requires = "name")]
    pub workdir: Option<String>,
    /// User, for other runtimes; a container of ours has its own
    #[arg(long, value_name = "UID[:GID]", requires = "name")]
    pub user: Option<String>,
    /// Leave out devices, fifos and sockets, which are refused otherwise
    #[arg(long)]
    pub drop_devices: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The words of a command.
#[derive(Debug, Clone)]
pub struct Words(pub Vec<String>);

fn parse_words(text: &str) -> invarlock_images::Result<Words> {
    parse_command(text).map(Words)
}

/// `invarlock runtime image …`.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value a process")]
pub enum ImageCommand {
    /// Build invarlock-runtime:local from the evaluator beside this program, or an image of your own
    #[command(after_help = "Examples:\n  \
        invarlock runtime image build\n  \
        invarlock runtime image build --from root/ --name python:3.13 --env PATH=/usr/bin --entrypoint /usr/bin/python3\n  \
        invarlock runtime image build --base python:3.13 --layer models/ --name python:with-models\n\n\
        The same files give the same digest, wherever they lie, whoever owns them and whenever they were written.\n\
        SOURCE_DATE_EPOCH, in seconds since 1970, is the time of everything in the image and of itself [default: 0, and none].")]
    Build(BuildArgs),
    /// List the images of the store
    Ls {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show an image's digests, configuration and layers as JSON
    Inspect {
        /// Image reference
        #[arg(default_value = "invarlock-runtime:local")]
        image: String,
    },
    /// Print an image's bill of materials (CycloneDX)
    #[command(after_help = "Example:\n  invarlock runtime image sbom invarlock-runtime:local > bom.json")]
    Sbom {
        /// Image reference
        #[arg(default_value = "invarlock-runtime:local")]
        image: String,
    },
    /// Copy an image into the store, byte for byte, and unpack it
    #[command(after_help = "Examples:\n  \
        invarlock runtime image import oci-archive:image.tar python:3.11\n  \
        invarlock runtime image import oci:layout@sha256:… python:3.11\n  \
        invarlock runtime image import docker-archive:saved.tar")]
    Import {
        /// Where it is: oci:DIR, oci-archive:FILE or docker-archive:FILE, each with :TAG or @sha256:… where it has several
        from: String,
        /// The name it gets, NAME:TAG [default: none; it is known by its digest]
        name: Option<String>,
        /// What becomes of things that no container of ours gets.
        #[command(flatten)]
        unwanted: UnwantedArgs,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Pull an image from a registry into the store and unpack it; its digest stays
    #[command(after_help = "Examples:\n  \
        invarlock runtime image pull --allow-network docker://ghcr.io/org/runtime:1.2\n  \
        invarlock runtime image pull --allow-network docker://ghcr.io/org/runtime@sha256:… --tag runtime:1.2\n\n\
        Credentials are those of `podman login` and `docker login`. What was pulled is used by the same name, without the\n\
        network: invarlock runtime run docker://ghcr.io/org/runtime:1.2. An interrupted pull goes on where it ended.")]
    Pull(PullArgs),
    /// Push an image to a registry; its digest stays
    #[command(after_help = "Example:\n  \
        invarlock runtime image push --allow-network invarlock-runtime:local docker://ghcr.io/org/runtime:1.2")]
    Push(PushArgs),
    /// Write an image where other tools read it; its digest stays
    #[command(after_help = "Examples:\n  \
        invarlock runtime image export invarlock-runtime:local oci-archive:runtime.tar:local\n  \
        invarlock runtime image export invarlock-runtime:local docker-archive:runtime.tar:invarlock-runtime:local")]
    Export {
        /// Image reference
        image: String,
        /// Where to: oci:DIR, oci-archive:FILE or docker-archive:FILE, with :TAG or :NAME:TAG behind; an archive must not be there yet
        to: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Give an image of the store another name
    Tag {
        /// Image reference
        image: String,
        /// The new name, NAME:TAG; it may have meant something else before
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Take a name away, or with a digest all names of it; `gc` then frees the room
    Rm {
        /// Image reference
        image: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Verify in full an image, or everything in the store (exit 3: something is wrong)
    Verify {
        /// Image reference [default: everything]
        image: Option<String>,
        /// Unpack trees that are wrong anew, from blobs that are right
        #[arg(long)]
        repair: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Free what no image of the store needs; what a run uses at the moment is kept
    Gc {
        /// Only say what would be freed
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl ImageCommand {
    /// Whether errors are to be printed as JSON.
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Build(BuildArgs { json, .. })
            | Self::Ls { json }
            | Self::Import { json, .. }
            | Self::Export { json, .. }
            | Self::Tag { json, .. }
            | Self::Rm { json, .. }
            | Self::Verify { json, .. }
            | Self::Gc { json, .. } => *json,
            Self::Pull(PullArgs { json, .. }) | Self::Push(PushArgs { json, .. }) => *json,
            Self::Inspect { .. } | Self::Sbom { .. } => false,
        }
    }
}
