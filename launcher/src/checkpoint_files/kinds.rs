//! What a file is that was passed in place of a checkpoint directory.

use std::path::Path;

/// The remedy for most paths.
pub(super) const DIRECTORY: &str = "pass the directory that contains config.json";
/// Ends of the names of pickles.
pub(super) const PICKLES: [&str; 5] = [".bin", ".pt", ".pth", ".pkl", ".ckpt"];

/// Names a file that was passed instead of a directory, and the remedy.
pub(super) fn of_file(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parent = path.parent().unwrap_or_else(|| Path::new("/")).display();
    match name.as_ref() {
        name if name.ends_with(".gguf") => (
            "a GGUF file, not a directory".to_owned(),
            format!("pass the directory that contains it and no other GGUF file: {parent}"),
        ),
        name if name.ends_with(".safetensors") => (
            "a file of weights, not a directory".to_owned(),
            format!("pass the directory that contains it and config.json: {parent}"),
        ),
        name if PICKLES.iter().any(|end| name.ends_with(end)) => {
            ("a pickle; a pickle can run code and is never opened".to_owned(), CONVERT.to_owned())
        }
        _ => ("not a directory".to_owned(), DIRECTORY.to_owned()),
    }
}

/// How pickled weights become safetensors.
pub(super) const CONVERT: &str = "load the model with transformers and save it with `save_pretrained`, which writes safetensors; pass that directory";
