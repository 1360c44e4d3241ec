//! Special files in an image, for `runtime image import` and `pull`.

use super::container::parse_layer_size;
use clap::Args;
use invarlock_images::{Policy, SpecialFilePolicy};

/// Special files in an image that no container gets, and files that are larger than usual.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct SpecialFileArgs {
    /// Leave out devices and fifos; without this flag they are an error
    #[arg(long)]
    pub drop_devices: bool,
    /// Reject set-id programs; without this flag their set-id bits are dropped
    #[arg(long)]
    pub refuse_set_id: bool,
    /// Allow so many bytes for all files of a layer, with long runs of zeros [default: 4G, or 200 times the size of its blob]; at most 64G
    #[arg(long, value_name = "SIZE", value_parser = parse_layer_size)]
    pub layer_size: Option<u64>,
}

impl From<SpecialFileArgs> for Policy {
    fn from(args: SpecialFileArgs) -> Self {
        Policy {
            devices: if args.drop_devices { SpecialFilePolicy::Drop } else { SpecialFilePolicy::Refuse },
            set_id: if args.refuse_set_id { SpecialFilePolicy::Refuse } else { SpecialFilePolicy::Drop },
            layer_size: args.layer_size,
        }
    }
}
