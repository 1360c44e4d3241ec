//! `invarlock runtime image …`.

use super::container::parse_layer_size;
use super::{PullArgs, PushArgs, SpecialFileArgs};
use clap::{Args, Subcommand};
use invarlock_images::{parse_command, parse_pair};
use std::path::PathBuf;

/// `invarlock runtime image build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Evaluator of the default image [default: next to this program]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "base"])]
    pub evaluator: Option<PathBuf>,
    /// Root directory of the image, or a tar archive of one
    #[arg(long, value_name = "DIR|TAR", conflicts_with = "base", requires = "name")]
    pub from: Option<PathBuf>,
    /// Base image [default: the default image]
    #[arg(long, value_name = "IMAGE", requires = "name")]
    pub base: Option<String>,
    /// Directory or tar archive added as a layer; can be repeated
    #[arg(long = "layer", value_name = "DIR|TAR", requires = "name")]
    pub layers: Vec<PathBuf>,
    /// Name of the image, NAME:TAG
    #[arg(long, value_name = "NAME:TAG")]
    pub name: Option<String>,
    /// Label; can be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair, requires = "name")]
    pub labels: Vec<(String, String)>,
    /// Environment variable; can be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_pair, requires = "name")]
    pub env: Vec<(String, String)>,
    /// Program and first arguments: words, or a JSON array of strings
    #[arg(long, value_name = "WORDS", value_parser = parse_words, requires = "name")]
    pub entrypoint: Option<Words>,
    /// Arguments of the entrypoint, or the command if there is none, unless a run names others: words, or a JSON array of strings
    #[arg(long, value_name = "WORDS", value_parser = parse_words, requires = "name")]
    pub cmd: Option<Words>,
    /// Working directory
    #[arg(long, value_name = "PATH", requires = "name")]
    pub workdir: Option<String>,
    /// User of the commands of the image; measurements have one of their own
    #[arg(long, value_name = "UID[:GID]", value_parser = parse_user, requires = "name")]
    pub user: Option<String>,
    /// Leave out devices, fifos and sockets; without this flag they are an error
    #[arg(long)]
    pub drop_devices: bool,
    /// Allow so many bytes for all files of a layer, with long runs of zeros [default: 4G, or 200 times the size of its blob]; at most 64G
    #[arg(long, value_name = "SIZE", value_parser = parse_layer_size, requires = "name")]
    pub layer_size: Option<u64>,
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

/// `UID` or `UID:GID`. A name would have to be looked up in each image.
fn parse_user(text: &str) -> Result<String, &'static str> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_digit()) && id.parse::<u32>().is_ok();
    match is_id(uid) && gid.is_none_or(is_id) {
        true => Ok(text.to_owned()),
        false => Err("use numbers, UID or UID:GID"),
    }
}

/// `invarlock runtime image …`.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value a process")]
pub enum ImageCommand {
    /// Build the default image invarlock-runtime:local from the evaluator, or an image of your own
    #[command(after_help = "Examples:\n  \
        invarlock runtime image build\n  \
        invarlock runtime image build --from root/ --name python:3.13 --env PATH=/usr/bin --entrypoint /usr/bin/python3\n  \
        invarlock runtime image build --base python:3.13 --layer models/ --name python:with-models\n\n\
        From a directory, the digest depends on file names, contents and modes only, not on owners,\n\
        timestamps or the path of the directory. A tar archive is used byte for byte, with its owners and timestamps.\n\
        SOURCE_DATE_EPOCH (seconds since 1970) sets the timestamp of the image and of files from a directory\n\
        [default: 0 for the files, none for the image].")]
    Build(BuildArgs),
    /// List the images of the store
    Ls {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the digests, configuration and layers of an image as JSON
    Inspect {
        /// Image reference
        #[arg(default_value = "invarlock-runtime:local")]
        image: String,
        /// Print one JSON object on one line, also for an error
        #[arg(long)]
        json: bool,
    },
    /// Print the SBOM of an image (CycloneDX)
    #[command(after_help = "Example:\n  invarlock runtime image sbom invarlock-runtime:local > bom.json")]
    Sbom {
        /// Image reference
        #[arg(default_value = "invarlock-runtime:local")]
        image: String,
    },
    /// Copy an image into the store without changing its digest, and extract its layers
    #[command(after_help = "Examples:\n  \
        invarlock runtime image import oci-archive:image.tar python:3.11\n  \
        invarlock runtime image import oci:layout@sha256:… python:3.11\n  \
        invarlock runtime image import docker-archive:saved.tar")]
    Import {
        /// Source: oci:DIR, oci-archive:FILE or docker-archive:FILE; with :TAG or @sha256:… where it contains several images
        from: String,
        /// Name in the store, NAME:TAG [default: none; the digest identifies the image]
        name: Option<String>,
        /// Special files.
        #[command(flatten)]
        special_files: SpecialFileArgs,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Pull an image from a registry into the store and extract its layers; its digest does not change
    #[command(after_help = "Examples:\n  \
        invarlock runtime image pull --allow-network docker://ghcr.io/org/runtime:1.2\n  \
        invarlock runtime image pull --allow-network docker://ghcr.io/org/runtime@sha256:… --tag runtime:1.2\n\n\
        Credentials are those of `podman login` and `docker login`. A pulled image is used by the same name, without\n\
        the network: invarlock runtime run docker://ghcr.io/org/runtime:1.2. An interrupted pull is resumed.")]
    Pull(PullArgs),
    /// Push an image to a registry; its digest does not change
    #[command(after_help = "Example:\n  \
        invarlock runtime image push --allow-network invarlock-runtime:local docker://ghcr.io/org/runtime:1.2")]
    Push(PushArgs),
    /// Export an image for other tools
    #[command(after_help = "Examples:\n  \
        invarlock runtime image export invarlock-runtime:local oci-archive:runtime.tar:local\n  \
        invarlock runtime image export invarlock-runtime:local docker-archive:runtime.tar:invarlock-runtime:local")]
    Export {
        /// Image reference
        image: String,
        /// Destination: oci:DIR, oci-archive:FILE or docker-archive:FILE, followed by :TAG or :NAME:TAG; an archive must not exist
        to: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Add a name to an image of the store
    Tag {
        /// Image reference
        image: String,
        /// New name, NAME:TAG; an existing name is moved to this image
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove a name from the store; with a digest, all names of the image. `gc` then frees the space
    Rm {
        /// Image reference
        image: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Verify every byte of an image, or of the whole store (exit 3: something is corrupt)
    Verify {
        /// Image reference [default: the whole store]
        image: Option<String>,
        /// Extract altered layers again from intact blobs, and remove altered layers that no image of the store uses
        #[arg(long)]
        repair: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Delete everything that no image of the store needs; layers of running containers are kept
    Gc {
        /// Print what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::parse_user;

    #[test]
    fn user_is_given_by_number() {
        for good in ["0", "1000", "1000:1000", "4294967295:0"] {
            assert_eq!(parse_user(good).as_deref(), Ok(good));
        }
        for bad in ["", "bob", "bob:users", "1000:", ":1000", "1:2:3", "-1", "+1", "4294967296"] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
