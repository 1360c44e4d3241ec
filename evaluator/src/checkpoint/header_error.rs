//! Why a file is not a valid safetensors file, in words that name sizes and tensors. Reads the header again, which is untrusted.

use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::TensorInfo;
use serde_json::{Map, Value};

use invarlock_error::Error;

/// Bytes of the number with which a file starts: the length of the header.
const LENGTH: usize = 8;
/// Longest header that the library accepts.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes that are searched for text.
const START: usize = 512;
/// Characters of a text that are shown.
const SHOWN: usize = 60;

const COPY_AGAIN: &str = "copy or download the file again";
const SAVE_AGAIN: &str = "save the checkpoint again with the safetensors library, or download it again";
const NOT_WEIGHTS: &str = "download the weights again; the file may be a web page or an error message that was saved under this name";

/// The error for a file whose header the library rejected.
pub fn describe(path: &Path, file: &[u8], error: SafeTensorError) -> Error {
    let found = text_file(file).or_else(|| short_file(file)).or_else(|| wrong_tensor(file, &error));
    let (why, hint) = found
        .unwrap_or_else(|| (format!("the safetensors library cannot read the header: {error}"), SAVE_AGAIN));
    Error::input(format!("{}: {why}", path.display())).with_source(error).with_hint(hint)
}

/// A file that consists of text, as far as its start shows. A header's length in bytes always contains a zero byte.
fn text_file(file: &[u8]) -> Option<(String, &'static str)> {
    let start = &file[..file.len().min(START)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The start may end within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.trim().is_empty() || text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let shown: String = text.trim_start().lines().next()?.chars().take(SHOWN).collect();
    Some((format!("it is a text file, not a safetensors file; it starts with {shown:?}"), NOT_WEIGHTS))
}

/// A file that ends within its number or its header.
fn short_file(file: &[u8]) -> Option<(String, &'static str)> {
    let size = file.len();
    let Some(length) = header_length(file) else {
        let why = format!(
            "truncated: the file has {size} bytes, but a safetensors file starts with 8 bytes that give \
                     the length of its header"
        );
        return Some((why, COPY_AGAIN));
    };
    let is_possible = length <= MAX_HEADER && file.get(LENGTH).is_none_or(|byte| *byte == b'{');
    let end = length.saturating_add(LENGTH as u64);
    match is_possible {
        true if end <= size as u64 => None,
        true => Some((
            format!("truncated: its header ends at byte {end}, but the file has {size} bytes"),
            COPY_AGAIN,
        )),
        false => Some((
            format!(
                "not a safetensors file, or damaged: its first 8 bytes give a header of {length} bytes, and no such header \
                 follows; the file has {size} bytes"
            ),
            COPY_AGAIN,
        )),
    }
}

/// The first tensor whose data type, shape and place contradict each other, or a file of another size than its header describes.
fn wrong_tensor(file: &[u8], error: &SafeTensorError) -> Option<(String, &'static str)> {
    if let SafeTensorError::InvalidHeader(_) | SafeTensorError::InvalidHeaderDeserialization(_) = error {
        let header = header(file)?;
        return match serde_json::from_slice::<Map<String, Value>>(header) {
            Err(error) => Some((format!("damaged: the header is not a JSON object: {error}"), COPY_AGAIN)),
            Ok(members) => {
                let (name, error) = members.into_iter().filter(|(name, _)| name != "__metadata__").find_map(
                    |(name, value)| Some((name, serde_json::from_value::<TensorInfo>(value).err()?)),
                )?;
                Some((
                    format!("the header describes tensor {name} in a way that is not valid: {error}"),
                    SAVE_AGAIN,
                ))
            }
        };
    }
    let members: Map<String, Value> = serde_json::from_slice(header(file)?).ok()?;
    let tensors = members.into_iter().filter(|(name, _)| name != "__metadata__");
    let tensors =
        tensors.map(|(name, value)| Some((name, serde_json::from_value::<TensorInfo>(value).ok()?)));
    let mut tensors: Vec<(String, TensorInfo)> = tensors.collect::<Option<_>>()?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    for (name, info) in &tensors {
        let (from, to) = info.data_offsets;
        let described = format!(
            "tensor {name} has dtype {:?}, shape {:?} and data_offsets [{from}, {to}]",
            info.dtype, info.shape
        );
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, n| bits.checked_mul(*n));
        let Some(bits) = bits else {
            return Some((format!("{described}: the shape is too large"), SAVE_AGAIN));
        };
        if from != end || to < from {
            return Some((
                format!(
                    "{described}; expected: data_offsets that start at {end}, where the tensor before it ends"
                ),
                SAVE_AGAIN,
            ));
        }
        if bits % 8 != 0 || bits / 8 != to - from {
            let expected = bits.div_ceil(8);
            return Some((
                format!(
                    "{described}: the offsets hold {} bytes; expected: {expected} bytes for that dtype and shape",
                    to - from
                ),
                "the header is damaged, or its dtype or shape was changed without the data: save the checkpoint again \
                 with the safetensors library, or download it again",
            ));
        }
        end = to;
    }
    let described = end as u64 + LENGTH as u64 + header_length(file)?;
    let size = file.len() as u64;
    match size < described {
        true => Some((
            format!(
                "truncated: the header describes a file of {described} bytes, but the file has {size} bytes"
            ),
            COPY_AGAIN,
        )),
        false => Some((
            format!(
                "{} bytes at the end belong to no tensor: the header describes a file of {described} bytes, but the file \
                 has {size} bytes",
                size - described
            ),
            COPY_AGAIN,
        )),
    }
}

fn header_length(file: &[u8]) -> Option<u64> {
    file.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn header(file: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(header_length(file)?).ok()?;
    file.get(LENGTH..length.checked_add(LENGTH)?)
}
