//! Special files in an image, for `runtime image import` and `pull`.

use clap::Args;
use invarlock_images::{Policy, SpecialFilePolicy};

/// Special files in an image that no container gets.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct SpecialFileArgs {
    /// Leave out devices and fifos; without this flag they are an error
    #[arg(long)]
    pub drop_devices: bool,
    /// Reject set-id programs; without this flag their set-id bits are dropped
    #[arg(long)]
    pub refuse_set_id: bool,
}

impl From<SpecialFileArgs> for Policy {
    fn from(args: SpecialFileArgs) -> Self {
        Policy {
            devices: if args.drop_devices { SpecialFilePolicy::Drop } else { SpecialFilePolicy::Refuse },
            set_id: if args.refuse_set_id { SpecialFilePolicy::Refuse } else { SpecialFilePolicy::Drop },
        }
    }
}
