//! Reads documents that are written exactly as this program writes them, several times as fast as serde.
//!
//! Nearly all of a document are rows of integers: the windows. Their text is cut out and a mark is put in its place; what remains is small
//! and goes through serde. Each mark must then be read in the field that it belongs to, and the rest must be written again as it was. Such a
//! document has no duplicate member and no unknown one.
//!
//! A document that is written otherwise is not refused here: its caller reads it with serde, which names the fault.

use super::evaluation_report::EvaluationReport;
use super::run_report::RunReport;
use super::to_bytes;
use memchr::memmem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most fields with rows: those of a run report.
const MOST: usize = 6;

/// A document with rows of integers.
pub(crate) trait Rows: Serialize + DeserializeOwned {
    /// The fields with rows, in the order in which they are written.
    fn fields(&mut self) -> Vec<&mut dyn Field>;
}

/// Rows of integers.
pub(crate) trait Field {
    /// Whether this is the mark in the place of a text.
    fn is_mark(&self, index: usize) -> bool;

    /// Replaces the rows by those of a text; none if it is not compact JSON of such rows.
    fn read(&mut self, text: &[u8]) -> Option<()>;
}

impl Rows for RunReport {
    fn fields(&mut self) -> Vec<&mut dyn Field> {
        let windows = &mut self.evaluation_windows;
        let mut fields: Vec<&mut dyn Field> = Vec::new();
        for arm in [&mut windows.preview, &mut windows.final_] {
            fields.extend([
                &mut arm.input_ids as _,
                &mut arm.attention_masks as _,
                &mut arm.labels as &mut dyn Field,
            ]);
        }
        fields
    }
}

impl Rows for EvaluationReport {
    fn fields(&mut self) -> Vec<&mut dyn Field> {
        let windows = &mut self.evaluation_windows;
        let mut fields: Vec<&mut dyn Field> = Vec::new();
        for arm in [&mut windows.preview, &mut windows.final_] {
            fields.extend([&mut arm.input_ids as _, &mut arm.attention_masks as &mut dyn Field]);
            // Causal models have none.
            if !arm.labels.is_empty() {
                fields.push(&mut arm.labels);
            }
        }
        fields
    }
}

impl<T: TryFrom<i64> + Copy + Into<i64>> Field for Vec<Vec<T>> {
    fn is_mark(&self, index: usize) -> bool {
        matches!(&self[..], [row] if matches!(row[..], [value] if value.into() == index as i64))
    }

    fn read(&mut self, text: &[u8]) -> Option<()> {
        *self = rows(text)?;
        Some(())
    }
}

/// The document with these bytes; none if this program would write it with others.
pub(crate) fn read<T: Rows>(bytes: &[u8]) -> Option<T> {
    let (rest, texts) = cut(bytes)?;
    let mut document: T = serde_json::from_slice(&rest).ok()?;
    if to_bytes(&document) != rest {
        return None;
    }
    let mut fields = document.fields();
    if fields.len() != texts.len() || !fields.iter().enumerate().all(|(index, field)| field.is_mark(index)) {
        return None;
    }
    fields.iter_mut().zip(texts).try_for_each(|(field, text)| field.read(text))?;
    Some(document)
}

/// A document with marks, `[[0]]` and so on, in the place of its rows, and the texts of the rows.
fn cut(bytes: &[u8]) -> Option<(Vec<u8>, Vec<&[u8]>)> {
    let (mut rest, mut texts) = (Vec::new(), Vec::new());
    let mut after = bytes;
    while let Some(start) = memmem::find(after, b"[[") {
        let end = start + memmem::find(&after[start..], b"]]")? + 2;
        rest.extend_from_slice(&after[..start]);
        rest.extend_from_slice(format!("[[{}]]", texts.len()).as_bytes());
        texts.push(&after[start..end]);
        if texts.len() > MOST {
            return None;
        }
        after = &after[end..];
    }
    rest.extend_from_slice(after);
    Some((rest, texts))
}

/// Rows of compact JSON; none for any other text.
fn rows<T: TryFrom<i64> + Clone>(text: &[u8]) -> Option<Vec<Vec<T>>> {
    let mut rest = text.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let mut rows: Vec<Vec<T>> = Vec::new();
    let mut before: &[u8] = b"";
    while !rest.is_empty() {
        rest = rest.strip_prefix(if rows.is_empty() { &b"["[..] } else { b",[" })?;
        // Most masks are that of the window before.
        if let (Some(row), Some(after)) = (rows.last(), rest.strip_prefix(before)) {
            rows.push(row.clone());
            rest = after;
            continue;
        }
        // The rows of a field are equally long.
        let mut row = Vec::with_capacity(rows.last().map_or(0, Vec::len));
        let after = match rest.strip_prefix(b"]") {
            Some(after) => after,
            None => fill(&mut row, rest)?,
        };
        before = &rest[..rest.len() - after.len()];
        rest = after;
        rows.push(row);
    }
    Some(rows)
}

/// Reads integers up to the end of a row, and gives the text behind it.
fn fill<'t, T: TryFrom<i64>>(row: &mut Vec<T>, mut text: &'t [u8]) -> Option<&'t [u8]> {
    loop {
        let (value, rest) = integer(text)?;
        row.push(T::try_from(value).ok()?);
        match rest {
            [b',', after @ ..] => text = after,
            [b']', after @ ..] => return Some(after),
            _ => return None,
        }
    }
}

/// An integer of at most 18 digits in front of a text, and the text behind it.
#[inline]
fn integer(text: &[u8]) -> Option<(i64, &[u8])> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let (mut value, mut count) = (0i64, 0);
    while let Some(digit @ b'0'..=b'9') = digits.get(count) {
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
        count += 1;
    }
    // JSON has no leading zeros, and `-0` is no integer.
    let plain = match digits.first() {
        Some(b'0') => count == 1 && sign == 1,
        _ => (1..=18).contains(&count),
    };
    plain.then(|| (sign * value, &digits[count..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fast reader accepts only texts that serde reads with the same values and writes in the same way.
    fn same<T>(text: &str) -> bool
    where
        T: TryFrom<i64> + Clone + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let Some(found) = rows::<T>(text.as_bytes()) else { return false };
        assert_eq!(serde_json::from_str::<Vec<Vec<T>>>(text).ok().as_ref(), Some(&found), "{text}");
        assert_eq!(serde_json::to_string(&found).ok().as_deref(), Some(text));
        true
    }

    #[test]
    fn reads_compact_rows_only() {
        for text in ["[]", "[[]]", "[[],[]]", "[[1,2],[3]]", "[[1,2],[1,2],[1,23],[1,2]]", "[[0,255]]"] {
            assert!(same::<u8>(text) && same::<u32>(text) && same::<i64>(text), "{text}");
        }
        assert!(same::<i64>("[[-100,999999999999999999]]") && same::<u32>("[[4294967295]]"));
        for text in [
            "",
            "[",
            "null",
            "{}",
            "[1]",
            "[[1]",
            "[1]]",
            "[[1,]]",
            "[[,1]]",
            "[[1][2]]",
            "[[1],]",
            "[,[1]]",
            "[[-0]]",
            "[[01]]",
            "[[00]]",
            "[[+1]]",
            "[[-]]",
            "[[1.0]]",
            "[[1e2]]",
            "[[ 1]]",
            "[[1], [2]]",
            "[[\"1\"]]",
            "[[[1]]]",
            "[[18446744073709551617]]",
            "[[9999999999999999999]]",
            "[[]]]",
            "[[]][]",
        ] {
            assert!(!same::<i64>(text) && !same::<u32>(text), "{text}");
        }
        assert!(!same::<u8>("[[256]]") && !same::<u32>("[[4294967296]]") && !same::<u32>("[[-1]]"));
    }

    const RUN: &[u8] = include_bytes!("../../tests/data/honest/root/subject.report.json");
    const REPORT: &[u8] = include_bytes!("../../tests/data/honest/root/evaluation.report.json");

    /// The document that is read is the one that serde reads, and is written with the same bytes.
    fn sound<T: Rows + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
        let Some(found) = read::<T>(bytes) else { return false };
        assert_eq!(serde_json::from_slice::<T>(bytes).ok().as_ref(), Some(&found));
        assert!(to_bytes(&found) == bytes);
        true
    }

    #[test]
    fn reads_documents_of_this_program_only() {
        assert!(sound::<RunReport>(RUN) && sound::<EvaluationReport>(REPORT));
        assert!(!sound::<RunReport>(REPORT) && !sound::<EvaluationReport>(RUN));
        for (name, bytes) in [("run", RUN), ("report", REPORT)] {
            for at in (0..bytes.len()).step_by(bytes.len() / 400 + 1) {
                let (before, after) = bytes.split_at(at);
                for (inserted, rest) in [
                    (&after[..1], after),
                    (b"", &after[1..]),
                    (b" ", after),
                    (b"[[", after),
                    (b"0", &after[1..]),
                ] {
                    let changed = [before, inserted, rest].concat();
                    match name {
                        "run" => sound::<RunReport>(&changed),
                        _ => sound::<EvaluationReport>(&changed),
                    };
                }
            }
        }
    }

    /// Rows of another member are not taken for those of a window.
    #[test]
    fn rows_stay_in_their_member() {
        let mut value: serde_json::Value = serde_json::from_slice(RUN).expect("JSON");
        value["meta"]["model_profile"]["x"] = value["evaluation_windows"]["preview"]["input_ids"].clone();
        assert!(!sound::<RunReport>(&to_bytes(&value)));
        // As many rows as a run report has, each one member late.
        let arms = ["preview", "final"].into_iter();
        let members = ["input_ids", "attention_masks", "labels"];
        let paths: Vec<String> = arms
            .flat_map(|arm| members.map(|member| format!("/evaluation_windows/{arm}/{member}")))
            .collect();
        let mut carried = value["meta"]["model_profile"]["x"].clone();
        for path in &paths {
            carried = std::mem::replace(value.pointer_mut(path).expect("a member"), carried);
        }
        *value.pointer_mut(&paths[0]).expect("a member") = serde_json::json!([]);
        assert!(!sound::<RunReport>(&to_bytes(&value)));
        let text = String::from_utf8(RUN.to_vec()).expect("UTF-8").replace("custom", "[[1]]");
        assert!(!sound::<RunReport>(text.as_bytes()));
    }

    proptest! {
        #[test]
        fn reads_as_serde_reads(text in "[-\\[\\],0-9 .e]{0,12}", ids: Vec<Vec<u32>>) {
            same::<u8>(&text);
            same::<i64>(&format!("[[{text}]]"));
            prop_assert!(same::<u32>(&serde_json::to_string(&ids).expect("JSON")));
        }
    }
}
