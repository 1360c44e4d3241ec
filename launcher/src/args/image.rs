//! `invarlock runtime image …`.

use clap::{Args, Subcommand};
use invarlock_images::Verify;
use std::path::PathBuf;

/// How what is unpacked of an image is verified before each use.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct CareArgs {
    /// Verification of the image before use: full (every byte), quick (what the file system notes of changes) or auto (full up to
    /// 256 MiB, else quick); the level is recorded
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = str::parse::<Verify>, help_heading = "Container")]
    pub verify_image: Verify,
}

/// `invarlock runtime image …`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build invarlock-runtime:local from the evaluator beside this program
    Build {
        /// The evaluator [default: beside this program]
        #[arg(long, value_name = "FILE")]
        evaluator: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
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
        /// Leave out devices and fifos that its layers have, which are refused otherwise
        #[arg(long)]
        drop_devices: bool,
        /// Refuse set-id programs, whose bits are dropped otherwise
        #[arg(long)]
        refuse_set_id: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
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
            Self::Build { json, .. }
            | Self::Ls { json }
            | Self::Import { json, .. }
            | Self::Export { json, .. }
            | Self::Tag { json, .. }
            | Self::Rm { json, .. }
            | Self::Verify { json, .. }
            | Self::Gc { json, .. } => *json,
            Self::Inspect { .. } => false,
        }
    }
}
