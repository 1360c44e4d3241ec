//! What a directory is that is not a checkpoint, and what to do about it.

use super::kinds::{CONVERT, PICKLES};
use super::root::{ADAPTER_CONFIG, INDEX, Root, SINGLE};
use crate::error::Error;
use crate::hub;

/// The most snapshots of a repository that are looked at.
const MAX_SNAPSHOTS: usize = 1000;

fn error(root: &Root<'_>, why: impl std::fmt::Display) -> Error {
    Error::input(format!("{} checkpoint {}: {why}", root.role, root.dir.display()))
}

/// The error for an adapter that lacks a file.
pub(super) fn adapter_without(root: &Root<'_>, name: &str) -> Error {
    match pickle(&root.names()) {
        Some(pickle) => error(root, format!("the weights of the adapter are in the pickle {pickle:?}; a pickle can run code and is never opened"))
            .with_hint("load the adapter with peft and save it with `save_pretrained`, which writes adapter_model.safetensors"),
        None => error(root, format!("a PEFT adapter, but {name} is missing")).with_hint("save the adapter again with peft"),
    }
}

/// The error for an adapter that was not passed as the subject.
fn adapter(root: &Root<'_>) -> Error {
    error(root, "a PEFT adapter (LoRA), which has no weights of its own").with_hint(
        "pass the model that it adapts as --baseline and the adapter as --subject: it is merged as it is loaded; \
         or merge it with `merge_and_unload` of peft and pass the result",
    )
}

/// The error for a directory without `config.json`.
pub(super) fn without_config(root: &Root<'_>) -> Error {
    let names = root.names();
    let has = |name: &str| names.iter().any(|found| found == name);
    if has(ADAPTER_CONFIG) {
        return adapter(root);
    }
    if has("snapshots") {
        let revision = hub::reference(&root.dir.join("refs/main"));
        let mut snapshots: Vec<String> = std::fs::read_dir(root.dir.join("snapshots"))
            .into_iter()
            .flatten()
            .take(MAX_SNAPSHOTS)
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        snapshots.sort();
        let found =
            snapshots.iter().find(|name| Some(*name) == revision.as_ref()).or_else(|| snapshots.last());
        let found = found.map_or("REVISION", String::as_str);
        return error(root, "a repository of the Hugging Face cache, not one of its snapshots")
            .with_hint(format!("pass {}/snapshots/{found}", root.dir.display()));
    }
    let error = error(root, "config.json is missing");
    match names
        .iter()
        .find(|name| name.ends_with(".safetensors") || PICKLES.iter().any(|end| name.ends_with(end)))
    {
        Some(weights) => error.with_hint(format!("copy config.json of the model beside {weights:?}")),
        None => error.with_hint("pass the directory of a Hugging Face checkpoint"),
    }
}

fn pickle(names: &[String]) -> Option<&String> {
    names.iter().find(|name| PICKLES.iter().any(|end| name.ends_with(end)) && *name != "training_args.bin")
}

/// The error for a directory without usable weights. Pickles are named and never opened.
pub(super) fn without_weights(root: &Root<'_>) -> Error {
    let names = root.names();
    if names.iter().any(|name| name == ADAPTER_CONFIG) {
        return adapter(root);
    }
    match names.iter().find(|name| name.ends_with(".safetensors")) {
        Some(name) if name.contains("-of-") => {
            return error(root, format!("{INDEX}, which names shards such as {name:?}, is missing"))
                .with_hint("download the checkpoint again, with its index");
        }
        Some(name) => {
            return error(root, format!("neither {SINGLE} nor {INDEX} exists, but {name:?} does"))
                .with_hint(format!("if it contains all weights, rename it to {SINGLE}"));
        }
        None => {}
    }
    match pickle(&names) {
        Some(name) => error(
            root,
            format!("the weights are in the pickle {name:?}; a pickle can run code and is never opened"),
        )
        .with_hint(CONVERT),
        None => error(root, format!("neither {SINGLE} nor {INDEX} exists"))
            .with_hint("save the weights as safetensors"),
    }
}
