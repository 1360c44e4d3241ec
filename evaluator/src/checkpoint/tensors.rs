//! Files of weights, mapped into memory. Headers are untrusted; pickles are rejected without being opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::{SafeTensorError, SafeTensors};

use super::dtype::{Dtype, Entry};
use super::{Gguf, exists, header_error};
use crate::sys::Mapped;
use crate::{files, limits};
use invarlock_error::{Error, Result, bail};

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// What to do with a checkpoint whose weights are stored in another type.
pub(crate) const FLOAT_WEIGHTS: &str =
    "convert the weights to F32, F16 or BF16 tensors (dequantise them) and save the checkpoint again";

/// The tensors of a checkpoint.
#[derive(Debug)]
pub struct Tensors {
    files: Vec<Mapped>,
    table: BTreeMap<String, Entry>,
    /// Names that the index has and no file. Only a tensor that the model needs must exist.
    absent: BTreeSet<String>,
}

/// A tensor's shape and bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Elements, little-endian.
    pub bytes: &'a [u8],
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Tensors {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` names, and checks their headers.
    pub fn open(directory: &Path) -> Result<Self> {
        let mut tensors = Self { files: Vec::new(), table: BTreeMap::new(), absent: BTreeSet::new() };
        match (exists(&directory.join(SINGLE)), exists(&directory.join(INDEX))) {
            (true, false) => tensors.add(&directory.join(SINGLE))?,
            (false, true) => tensors.add_shards(directory)?,
            (false, false) => return Err(no_weights(directory)),
            (true, true) => {
                return Err(Error::input(format!(
                    "{}: both {SINGLE} and {INDEX} exist; they may contain different weights",
                    directory.display()
                ))
                .with_hint("remove the one that is left from an earlier save"));
            }
        }
        Ok(tensors)
    }

    /// Maps a GGUF file and checks its header.
    pub fn open_gguf(path: &Path) -> Result<(Self, Gguf)> {
        let (file, size) = files::open(path)?;
        if size == 0 {
            bail!(Input, "{}: the file is empty", path.display());
        }
        let map = Mapped::new(&file, path)?;
        files::reject_lfs_pointer(path, &map)?;
        let mut gguf = Gguf::parse(path, &map)?;
        let table = std::mem::take(&mut gguf.tensors);
        Ok((Self { files: vec![map], table, absent: BTreeSet::new() }, gguf))
    }

    fn add_shards(&mut self, directory: &Path) -> Result<()> {
        let path = directory.join(INDEX);
        let index: Index = files::read_json(&path, "weight index", limits::INDEX_BYTES)?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        if shards.is_empty() || shards.len() > limits::SHARDS {
            bail!(
                Input,
                "{}: names {} files; supported: 1 to {}",
                path.display(),
                shards.len(),
                limits::SHARDS
            );
        }
        for shard in shards {
            // A name with directories could lead out of the checkpoint.
            let plain =
                Path::new(shard).file_name().is_some_and(|n| n == shard.as_str()) && !shard.contains('\0');
            if !plain {
                bail!(Input, "{}: {shard:?} is not a plain file name", path.display());
            }
            self.add(&directory.join(shard))?;
        }
        self.absent = index.weight_map.into_keys().filter(|name| !self.table.contains_key(name)).collect();
        Ok(())
    }

    /// Adds the tensors of an adapter. `name` gives the name in the model for a name in the file; a tensor with a name that exists
    /// replaces that tensor. Returns the names.
    pub fn add_adapter(
        &mut self,
        path: &Path,
        name: impl Fn(&Self, &str) -> Result<String>,
    ) -> Result<Vec<String>> {
        let mut adapter = Self { files: Vec::new(), table: BTreeMap::new(), absent: BTreeSet::new() };
        adapter.add(path)?;
        let mut names = Vec::new();
        for (stored, entry) in adapter.table {
            let name = name(self, &stored)?;
            names.push(name.clone());
            self.table.insert(name, Entry { file: entry.file + self.files.len(), ..entry });
        }
        self.files.append(&mut adapter.files);
        Ok(names)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let (file, size) = files::open(path)?;
        if size == 0 {
            // An empty file cannot be mapped.
            return Err(header_error::describe(path, &[], SafeTensorError::HeaderTooSmall));
        }
        let map = Mapped::new(&file, path)?;
        files::reject_lfs_pointer(path, &map)?;
        if is_pickle(&map) {
            return Err(pickle(path));
        }
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| header_error::describe(path, &map, error))?;
        let data = header + 8;
        for (name, info) in metadata.tensors() {
            let (start, end) = (data + info.data_offsets.0, data + info.data_offsets.1);
            let dtype = Dtype::of_header(info.dtype);
            let entry = Entry { file: self.files.len(), dtype, shape: info.shape.clone(), start, end };
            if self.table.insert(name.clone(), entry).is_some() {
                bail!(
                    Input,
                    "{}: tensor {name} is in another file of the checkpoint as well",
                    path.display()
                );
            }
        }
        self.files.push(map);
        Ok(())
    }

    /// The tensor with this name. An error when its type is not supported.
    pub fn get(&self, name: &str) -> Result<Option<Tensor<'_>>> {
        let Some(entry) = self.table.get(name) else { return Ok(None) };
        let dtype = entry.dtype.map_err(|stored| {
            let supported: Vec<String> = Dtype::ALL.iter().map(|(_, name)| format!("{name:?}")).collect();
            let message = format!("tensor {name} has dtype {stored:?}; supported: {}", supported.join(", "));
            Error::unsupported(message).with_hint(FLOAT_WEIGHTS)
        })?;
        // The header was checked against the length of the file.
        let bytes = &self.files[entry.file][entry.start..entry.end];
        Ok(Some(Tensor { dtype, shape: &entry.shape, bytes }))
    }

    /// Releases the resident pages of bytes of a tensor: the next access reads them from the file again.
    pub fn release(&self, bytes: &[u8]) {
        self.files.iter().for_each(|file| file.release(bytes));
    }

    /// Lets the kernel read bytes of a tensor in the background.
    pub fn prefetch(&self, bytes: &[u8]) {
        self.files.iter().for_each(|file| file.prefetch(bytes));
    }

    /// Whether the index names this tensor and no file contains it.
    pub fn is_absent(&self, name: &str) -> bool {
        self.absent.contains(name)
    }

    /// Whether a tensor with this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Whether a tensor with a name that starts in this way exists.
    pub fn contains_prefix(&self, prefix: &str) -> bool {
        self.table.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }
}

/// Whether the file is a pickle, or the zip file in which PyTorch stores one. The length of a safetensors header can
/// start with the same bytes; such a file has an opening brace after the length.
fn is_pickle(bytes: &[u8]) -> bool {
    let zip = bytes.starts_with(b"PK\x03\x04");
    let pickle = matches!(bytes, [0x80, 0..=5, ..]);
    (zip || pickle) && bytes.get(8) != Some(&b'{')
}

fn no_weights(directory: &Path) -> Error {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.file_name());
    let pickled = names
        .filter_map(|n| n.into_string().ok())
        .find(|name| [".bin", ".pt", ".pth", ".ckpt", ".pkl"].iter().any(|end| name.ends_with(end)));
    match pickled {
        Some(name) => pickle(&directory.join(name)),
        None => Error::input(format!("{}: neither {SINGLE} nor {INDEX} exists", directory.display()))
            .with_hint("use a Hugging Face checkpoint directory"),
    }
}

fn pickle(path: &Path) -> Error {
    Error::input(format!(
        "{}: weights are a pickle, which can run code when it is opened; the file was not opened",
        path.display()
    ))
    .with_hint("save the checkpoint as safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;
    use proptest::prelude::*;

    fn open(files: &[(&str, &[u8])]) -> Result<Tensors> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).expect("written");
        }
        Tensors::open(dir.path())
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend((0..data).map(|i| i as u8));
        bytes
    }

    const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}}"#;

    fn message(files: &[(&str, &[u8])]) -> String {
        let error = open(files).expect_err("an input error");
        assert_eq!(error.kind(), Kind::Input, "{error}");
        error.message().to_owned()
    }

    #[test]
    fn reads_tensors_at_any_alignment() {
        for spaces in 0..4 {
            let header = GOOD.replace("I8", "BOOL") + &" ".repeat(spaces);
            let tensors = open(&[(SINGLE, &file(&header, 11))]).expect("opened");
            let a = tensors.get("a").expect("supported").expect("found");
            assert_eq!((a.dtype, a.shape), (Dtype::F32, &[2usize][..]));
            assert_eq!(a.bytes[..4], [0, 1, 2, 3]);
            let error = tensors.get("b").expect_err("an unsupported dtype");
            assert_eq!((error.kind(), error.hint()), (Kind::Unsupported, Some(FLOAT_WEIGHTS)));
            assert!(error.message().contains("b has dtype BOOL"), "{error}");
            assert!(tensors.get("c").expect("no error").is_none());
        }
    }

    #[test]
    fn rejects_invalid_headers() {
        let overlap = GOOD.replace("[8,11]", "[4,7]");
        let beyond = GOOD.replace("[8,11]", "[8,4000]");
        let shape = GOOD.replace("[3]", "[4]");
        let huge = GOOD.replace("[3]", "[18446744073709551615,18446744073709551615]");
        let dtype = GOOD.replace("F32", "F64");
        let unknown = GOOD.replace("I8", "I9");
        for (header, words) in [
            (
                overlap.as_str(),
                "tensor b has dtype I8, shape [3] and data_offsets [4, 7]; expected: data_offsets that start at 8",
            ),
            (
                &beyond,
                "data_offsets [8, 4000]: the offsets hold 3992 bytes; expected: 3 bytes for that dtype and shape",
            ),
            (
                &shape,
                "tensor b has dtype I8, shape [4] and data_offsets [8, 11]: the offsets hold 3 bytes; expected: 4 bytes",
            ),
            (
                &dtype,
                "tensor a has dtype F64, shape [2] and data_offsets [0, 8]: the offsets hold 8 bytes; expected: 16 bytes",
            ),
            (&huge, "the shape is too large"),
            (&unknown, "the header describes tensor b in a way that is not valid: unknown variant `I9`"),
            ("{\"a\":1}", "the header describes tensor a in a way that is not valid"),
            ("{", "the header is not a JSON object"),
            ("[]", "not a safetensors file, or damaged"),
            ("", "not a safetensors file, or damaged"),
        ] {
            let message = message(&[(SINGLE, &file(header, 11))]);
            assert!(message.contains(words), "{header}: {message}");
        }
    }

    #[test]
    fn describes_incomplete_files_by_their_sizes() {
        let whole = file(GOOD, 11);
        let size = whole.len();
        let header = size - 11;
        for (bytes, words) in [
            (
                &whole[..size - 1],
                format!(
                    "truncated: the header describes a file of {size} bytes, but the file has {} bytes",
                    size - 1
                ),
            ),
            (
                &[&whole[..], b"xy"].concat(),
                format!(
                    "2 bytes at the end belong to no tensor: the header describes a file of {size} bytes"
                ),
            ),
            (&whole[..20], format!("truncated: its header ends at byte {header}, but the file has 20 bytes")),
            (&whole[..5], "truncated: the file has 5 bytes".to_owned()),
            (b"", "truncated: the file has 0 bytes".to_owned()),
            (&u64::MAX.to_le_bytes(), "give a header of 18446744073709551615 bytes".to_owned()),
        ] {
            let error = open(&[(SINGLE, bytes)]).expect_err("an input error");
            assert!(error.message().contains(&words), "{error}");
            assert_eq!(error.hint(), Some("copy or download the file again"));
        }
    }

    #[test]
    fn recognises_lfs_pointers_and_text_files() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548118077\n";
        let error = open(&[(SINGLE, pointer)]).expect_err("an input error");
        assert!(error.message().ends_with(
            "model.safetensors: a Git LFS pointer, not the file itself: its content was not downloaded"
        ));
        assert!(error.hint().is_some_and(|hint| hint.contains("git lfs pull")), "{error:?}");
        for (text, start) in [("Not found", "\"Not found\""), ("\n<html>\n<b>Err\u{f6}r", "\"<html>\"")] {
            let error = open(&[(SINGLE, text.as_bytes())]).expect_err("an input error");
            assert!(
                error
                    .message()
                    .ends_with(&format!("it is a text file, not a safetensors file; it starts with {start}")),
                "{error}"
            );
            assert!(
                error.hint().is_some_and(|hint| hint.contains("download the weights again")),
                "{error:?}"
            );
        }
    }

    #[test]
    fn rejects_pickles_by_content_and_by_name() {
        for content in [&b"PK\x03\x04\x00\x00\x08\x08\x00\x00"[..], b"\x80\x02}q\x00(X\x03\x00\x00"] {
            assert!(message(&[(SINGLE, content)]).contains("pickle"));
        }
        assert!(message(&[("pytorch_model.bin", b"")]).contains("pytorch_model.bin: weights are a pickle"));
        assert!(message(&[("README.md", b"")]).contains("neither model.safetensors nor"));
        // A header of 0x0280 bytes starts as a pickle of protocol 2 does.
        let header = GOOD.to_owned() + &" ".repeat(0x0280 - GOOD.len());
        assert!(open(&[(SINGLE, &file(&header, 11))]).is_ok());
    }

    #[test]
    fn rejects_shards_that_contradict_the_index() {
        let shard = file(GOOD, 11);
        let index = |map: &str| format!("{{\"weight_map\":{map}}}").into_bytes();
        let good = index(r#"{"a":"s1.safetensors","b":"s1.safetensors"}"#);
        assert!(open(&[(INDEX, &good), ("s1.safetensors", &shard)]).is_ok());
        for name in ["../s1.safetensors", "/etc/passwd", "d/s", "..", ".", ""] {
            let bad = index(&serde_json::json!({ "a": name }).to_string());
            assert!(message(&[(INDEX, &bad)]).contains("not a plain file name"), "{name}");
        }
        let missing = index(r#"{"a":"s1.safetensors","z":"s1.safetensors"}"#);
        let tensors = open(&[(INDEX, &missing), ("s1.safetensors", &shard)]).expect("opened");
        assert!(tensors.is_absent("z") && !tensors.is_absent("a") && !tensors.contains("z"));
        let twice = index(r#"{"a":"s1.safetensors","b":"s2.safetensors"}"#);
        assert!(
            message(&[(INDEX, &twice), ("s1.safetensors", &shard), ("s2.safetensors", &shard)])
                .contains("in another file")
        );
        assert!(message(&[(INDEX, b"{}")]).contains("invalid weight index"));
        assert!(message(&[(INDEX, &index("{}"))]).contains("names 0 files"));
    }

    #[test]
    fn rejects_a_single_file_beside_an_index() {
        let (shard, index) =
            (file(GOOD, 11), br#"{"weight_map":{"a":"s1.safetensors","b":"s1.safetensors"}}"#);
        let both = message(&[(SINGLE, &shard), (INDEX, index), ("s1.safetensors", &shard)]);
        assert!(both.contains(SINGLE) && both.contains(INDEX), "{both}");
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(&[(SINGLE, &bytes)]);
        }

        #[test]
        fn accepted_tensors_are_within_the_file(
            start in 0usize..40, end in 0usize..40, shape in proptest::collection::vec(0usize..5, 0..3), data in 0usize..40
        ) {
            let header = format!(r#"{{"a":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}}}"#);
            if let Ok(tensors) = open(&[(SINGLE, &file(&header, data))]) {
                let a = tensors.get("a").expect("supported").expect("found");
                prop_assert_eq!(a.bytes.len(), shape.iter().product::<usize>() * 4);
            }
        }

        #[test]
        fn damaged_files_do_not_panic(at in 0usize..120, value in any::<u8>()) {
            let mut bytes = file(GOOD, 11);
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(tensors) = open(&[(SINGLE, &bytes)]) {
                for name in tensors.names().map(str::to_owned).collect::<Vec<_>>() {
                    let _ = tensors.get(&name);
                }
            }
        }
    }
}
