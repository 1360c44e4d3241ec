//! Full windows of a stream of documents: the protocol of published perplexities.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::select::{CHUNK, Selection, WindowRequest, arms, needed};
use super::{Window, Windows};
use crate::dataset::Texts;
use invarlock_error::{Error, Result, bail};
use invarlock_evidence::format::dataset::Packing;

/// How a stream is made from documents.
#[derive(Clone, Copy)]
pub struct Documents<'a> {
    /// The token after each document.
    pub end: u32,
    /// The token with which each window starts, if any.
    pub begin: Option<u32>,
    /// The token ids of a document, without special tokens, not truncated.
    pub encode: &'a (dyn Fn(&str) -> Result<Vec<u32>> + Sync),
}

/// Cuts the tokens of all documents, each followed by the end token, into full windows. Documents are rows with text, in order.
pub fn documents(
    texts: &Texts,
    documents: Documents<'_>,
    request: &WindowRequest<'_>,
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = needed(request)?;
    let Documents { end, begin, encode } = documents;
    let length = request.seq_len - usize::from(begin.is_some());
    if length == 0 {
        bail!(Input, "seq_len {} leaves no token after the begin token", request.seq_len);
    }
    let mut stream: VecDeque<u32> = VecDeque::new();
    let (mut windows, mut rows, mut tokens) = (Vec::new(), Vec::new(), 0);
    for (chunk, first) in texts.rows.chunks(CHUNK).zip((1..).step_by(CHUNK)) {
        if windows.len() >= needed {
            break;
        }
        let encoded: Vec<Vec<u32>> = chunk.par_iter().map(|row| encode(&row.text)).collect::<Result<_>>()?;
        for (ids, row) in encoded.into_iter().zip(first..) {
            tokens += ids.len() + 1;
            stream.extend(ids.into_iter().chain([end]));
            while stream.len() >= length && windows.len() < needed {
                let ids: Vec<u32> = begin.into_iter().chain(stream.drain(..length)).collect();
                windows.push(Window { real: ids.len(), ids, labels: None });
                rows.push(row);
            }
        }
        progress(windows.len() as u64, needed as u64);
    }
    if windows.len() < needed {
        return Err(Error::input(format!(
            "the dataset has {tokens} tokens in {} documents, which make {} full windows of {} tokens, but preview_n {} and final_n {} \
             need {needed}",
            texts.rows.len(),
            windows.len(),
            request.seq_len,
            request.preview,
            request.final_
        ))
        .with_hint(match texts.rows.len() + texts.blank >= request.max_samples {
            true => format!("raise max_samples in the preset, which is {}", request.max_samples),
            false => "add rows to the dataset, or lower seq_len".to_owned(),
        }));
    }
    let windows = arms(Selection { usable: windows, rows, masker: None }, request)?;
    Ok(Windows { blank: texts.blank, packing: Packing::Documents, ..windows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Row;

    fn pack(rows: &[&str], begin: Option<u32>, windows: usize) -> Result<Windows> {
        let texts = Texts { rows: rows.iter().copied().map(Row::text).collect(), blank: 1 };
        let encode = |text: &str| Ok(text.chars().map(|c| c as u32 - 96).collect());
        let request = WindowRequest {
            seq_len: 4,
            preview: windows,
            final_: windows,
            profile: "dev",
            max_samples: 2000,
            joinable: false,
        };
        documents(&texts, Documents { end: 0, begin, encode: &encode }, &request, &|_, _| ())
    }

    #[test]
    fn documents_are_joined_by_the_end_token_and_cut_into_full_windows() {
        let found = pack(&["abc", "defgh", "i"], None, 1).expect("windows");
        let ids = |windows: &[Window]| windows.iter().map(|window| window.ids.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&found.preview.windows), [[1, 2, 3, 0]]);
        assert_eq!(ids(&found.final_.windows), [[4, 5, 6, 7]]);
        assert_eq!((found.blank, found.packing, found.preview.tokens()), (1, Packing::Documents, 4));
        let begun = pack(&["abc", "defgh"], Some(9), 1).expect("windows");
        assert_eq!(ids(&begun.preview.windows), [[9, 1, 2, 3]]);
        assert_eq!(ids(&begun.final_.windows), [[9, 0, 4, 5]]);
        let error = pack(&["abc", "de"], None, 1).expect_err("too few");
        assert!(error.message().contains("7 tokens in 2 documents, which make 1 full windows"), "{error}");
    }
}
