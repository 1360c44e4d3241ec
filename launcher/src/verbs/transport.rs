//! `invarlock runtime image pull` and `push`.

use super::images::say;
use crate::args::{PullArgs, PushArgs};
use crate::error::Result;
use crate::policy::Policy;
use crate::ui::{self, Level, Ui};
use crate::{image, transport};
use invarlock_images::Reference;
use serde_json::json;

/// Pulls an image.
pub fn pull(args: &PullArgs, policy: &Policy) -> Result<u8> {
    let name = transport::name(&args.from)?;
    let network = transport::network(policy, "pulling an image")?;
    let keep = (!args.no_unpack).then(|| args.unwanted.into());
    let store = image::store()?;
    let client = transport::client(network, &name, args.reach, false)?;
    let step = Ui::new(Level::Normal).step("pulling", 0, true);
    let pulled =
        store.pull(&name, &client, args.tag.as_deref(), keep, &|more, total| step.grow(more, total))?;
    drop(step);
    let mut value = json!(pulled);
    value["format_version"] = "runtime-image-pull-v1".into();
    say(args.json, &value, &format!("{} {}", ui::printable(&pulled.reference), pulled.manifest_digest));
    Ok(0)
}

/// Pushes an image.
pub fn push(args: &PushArgs, policy: &Policy) -> Result<u8> {
    let to = transport::name(&args.to)?;
    let reference = Reference::parse(&args.image)?;
    let network = transport::network(policy, "pushing an image")?;
    let store = image::store()?;
    // What is wrong here is said before anybody is asked anything.
    store.resolve(&reference)?;
    let client = transport::client(network, &to, args.reach, true)?;
    let step = Ui::new(Level::Normal).step("pushing", 0, true);
    let digest = store.push(&reference, &to, &client, &|more, total| step.grow(more, total))?;
    drop(step);
    let value = json!({"format_version": "runtime-image-push-v1", "to": to, "manifest_digest": digest});
    say(args.json, &value, &format!("{} {digest}", ui::printable(&args.to)));
    Ok(0)
}
