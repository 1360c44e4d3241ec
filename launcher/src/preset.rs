//! Presets: the `dataset` section of the Python package's configuration, read from YAML.
//!
//! A setting that would change the numbers and is not supported is an error that names it; no setting is ignored silently.

use crate::adapter::Adapter;
use crate::dataset_files;
use crate::error::{Context as _, Error, Result};
use crate::inputs;
use crate::metric_choice::Choice;
use crate::preset_provider::{Fields, HUB};
use crate::preset_sections::check_members;
use crate::{preset_eval, preset_provider, preset_sections};
use invarlock_evidence::format::dataset::{Answers, MAX_TOKENS, Packing, Provider};
use invarlock_evidence::format::masking::Masking;
use invarlock_evidence::format::metrics::MetricKind;
use invarlock_evidence::format::plan as format;
use invarlock_evidence::format::warning::Warning;
use serde::Deserialize;
use serde_norway::Value;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const MAX_PRESET_BYTES: u64 = 1 << 20;
/// The most lists and mappings in brackets; a preset has some.
const MAX_LISTS: usize = 1000;

/// What the windows are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Files with rows of text, in order, as the user named them.
    pub files: Vec<PathBuf>,
    /// Which rows become windows.
    pub provider: Provider,
    /// How their texts lie in windows.
    pub packing: Packing,
    /// Member that contains the text, or the source of a pair.
    pub text_field: String,
    /// Member that contains the target of a pair; none where rows have one text.
    pub target_field: Option<String>,
    /// Members that contain choices and the right one; none unless an accuracy is measured.
    pub answers: Option<Answers>,
    /// The metric; none where the models decide.
    pub metric: Option<MetricKind>,
    /// Settings of masking; none for the default ones.
    pub masking: Option<Masking>,
    /// Largest number of lines read.
    pub max_samples: usize,
    /// Split name; only recorded.
    pub split: String,
    /// Tokens per window.
    pub seq_len: usize,
    /// Tokens between the starts of two windows; equal to `seq_len`.
    pub stride: usize,
    /// Requested preview windows.
    pub preview_n: usize,
    /// Requested final windows.
    pub final_n: usize,
    /// Seed of the bootstrap, and of the choice of masked tokens.
    pub seed: u64,
}

impl Dataset {
    /// What decides which windows are measured; `tree_sha256` is the digest of the dataset's files.
    pub fn recorded(&self, tree_sha256: String) -> format::Dataset {
        format::Dataset {
            tree_sha256,
            provider: self.provider,
            packing: self.packing,
            text_field: self.text_field.clone(),
            target_field: self.target_field.clone(),
            answers: self.answers.clone(),
            metric: self.metric,
            masking: self.masking,
            max_samples: self.max_samples,
            split: self.split.clone(),
            seed: self.seed,
            seq_len: self.seq_len,
            stride: self.stride,
            preview_n: self.preview_n,
            final_n: self.final_n,
        }
    }

    /// Sets how many rows are read, where the preset does not.
    pub fn set_rows(&mut self, set_by_preset: bool) {
        let windows = self.preview_n + self.final_n;
        match (self.provider, self.packing) {
            // As upstream, whatever the preset says.
            (Provider::Wikitext2, Packing::Rows) => {
                self.max_samples = MAX_SAMPLES.max(windows + (windows / 2).max(500));
            }
            (_, Packing::Documents) if !set_by_preset => self.max_samples = MAX_DOCUMENTS,
            _ => {}
        }
    }

    /// Lets a seed draw the windows, instead of taking the first rows.
    pub fn draw_windows(&mut self, seed: u64) -> Result<()> {
        let refused = |what: &str| {
            Err(Error::unsupported(format!("seeds draw rows with one text, but {what}")))
                .hint("leave out the seeds, so that the first rows are measured")
        };
        match (self.provider, self.packing) {
            (_, Packing::Documents) => refused("packing: documents joins all rows"),
            (Provider::LocalJsonlPairs, _) => refused("the dataset has pairs"),
            (Provider::LocalJsonlChoices | Provider::LocalJsonlLabels, _) => {
                refused("the dataset has examples with choices")
            }
            (Provider::Wikitext2, _) => {
                self.seed = seed;
                Ok(())
            }
            (Provider::LocalJsonl | Provider::HfText, _) => {
                (self.provider, self.seed) = (Provider::HfText, seed);
                Ok(())
            }
        }
    }

    /// Tokens of preview and final windows together, at most. How many choices an example has is known when it is read.
    pub fn tokens(&self) -> usize {
        match self.provider.has_choices() {
            true => MAX_TOKENS,
            false => (self.preview_n + self.final_n) * self.seq_len,
        }
    }

    /// Reads the rows of a file that was named without a preset as examples with choices.
    pub fn take_choices(&mut self) -> Result<()> {
        let Fields { text, target, answers } =
            preset_provider::Source::default().fields(Provider::LocalJsonlChoices)?;
        (self.provider, self.text_field, self.target_field) = (Provider::LocalJsonlChoices, text, target);
        self.answers = answers;
        Ok(())
    }
}

/// `dataset`, as written. Provider settings may be next to `provider` or inside it; those inside win, as in the Python package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    provider: Value,
    packing: Option<String>,
    id: Option<String>,
    split: Option<String>,
    seq_len: Option<usize>,
    stride: Option<usize>,
    preview_n: Option<usize>,
    final_n: Option<usize>,
    seed: Option<u64>,
    #[serde(flatten)]
    source: preset_provider::Source,
}

/// The settings of [`Section`].
const SETTINGS: [&str; 9] =
    ["provider", "packing", "id", "split", "seq_len", "stride", "preview_n", "final_n", "seed"];
/// Defaults of the Python package's built-in preset for causal models.
const SEQ_LEN: usize = 512;
const WINDOWS: usize = 64;
const SEED: u64 = 43;
const MAX_SAMPLES: usize = 2000;
/// Rows that are read where windows are cut from documents: more than the splits of wikitext-2 have.
const MAX_DOCUMENTS: usize = 100_000;

/// `--dataset FILE`: that file with the built-in defaults. `hf:ORG/NAME` and `wikitext2` name datasets in the Hugging Face cache.
pub fn for_file(file: &Path) -> Result<Preset> {
    let split = "validation";
    let (provider, files) = match file.to_str() {
        Some("wikitext2") if !file.exists() => (Provider::Wikitext2, dataset_files::wikitext2(split)?),
        Some(name) if name.starts_with(HUB) && !file.exists() => {
            (Provider::LocalJsonl, dataset_files::in_cache(&name[HUB.len()..], None, split)?)
        }
        _ => (Provider::LocalJsonl, vec![file.to_path_buf()]),
    };
    let dataset = Dataset {
        files,
        provider,
        packing: Packing::Rows,
        text_field: "text".into(),
        target_field: None,
        answers: None,
        metric: None,
        masking: None,
        max_samples: MAX_SAMPLES,
        split: split.into(),
        seq_len: SEQ_LEN,
        stride: SEQ_LEN,
        preview_n: WINDOWS,
        final_n: WINDOWS,
        seed: SEED,
    };
    Ok(Preset {
        dataset,
        metric: Choice::default(),
        sets_windows: false,
        sets_rows: false,
        warnings: Vec::new(),
        adapter: None,
        model: None,
    })
}

/// A preset, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// What the windows are made from.
    pub dataset: Dataset,
    /// The metric that it names.
    pub metric: Choice,
    /// Whether it sets the number of windows of an arm.
    pub sets_windows: bool,
    /// Whether it sets the number of rows that are read.
    pub sets_rows: bool,
    /// Settings that are not obeyed.
    pub warnings: Vec<Warning>,
    /// What it says that the checkpoints are.
    pub adapter: Option<Adapter>,
    /// The model that it names.
    pub model: Option<PathBuf>,
}

/// `--preset FILE`. A relative data file is resolved in the current directory, as in the Python package, then next to the preset.
pub fn read(path: &Path) -> Result<Preset> {
    let text = read_bounded(path)?;
    parse(path, &text).with_context(|| format!("preset {}", path.display()))
}

/// The preset in a text. `path` is where it was read from.
pub fn parse(path: &Path, text: &str) -> Result<Preset> {
    let document: Value = serde_norway::from_str(text).map_err(|e| invalid_yaml(text, &e))?;
    let Sections { dataset: section, mut metric, masking, adapter, model, mut warnings } =
        sections(document)?;
    check_members("dataset", &section, &[&SETTINGS[..], &preset_provider::SETTINGS[..]].concat())?;
    let section: Section =
        serde_norway::from_value(section).map_err(|e| Error::input(format!("section `dataset`: {e}")))?;
    let (provider, source) = preset_provider::read(&section.provider, section.source)?;
    let Fields { text: text_field, target: target_field, answers } = source.fields(provider)?;
    if answers.is_some() {
        metric.implied(&format!("dataset.provider {}", provider.name()), MetricKind::Accuracy)?;
    }
    let seq_len = section.seq_len.unwrap_or(SEQ_LEN);
    let split = section.split.unwrap_or_else(|| "validation".into());
    let dataset = Dataset {
        files: source.files(provider, path, &split)?,
        provider,
        packing: packing(section.packing.as_deref())?,
        text_field,
        target_field,
        answers,
        metric: metric.kind(),
        masking,
        max_samples: source.max_samples.unwrap_or(MAX_SAMPLES),
        split,
        seq_len,
        stride: section.stride.unwrap_or(seq_len),
        preview_n: section.preview_n.unwrap_or(WINDOWS),
        final_n: section.final_n.unwrap_or(WINDOWS),
        seed: section.seed.unwrap_or(SEED),
    };
    if section.id.is_some() {
        warnings.push(Warning::preset_settings(&["dataset.id"], "`dataset.provider` names the dataset"));
    }
    let sets_rows = source.max_samples.is_some();
    let mut dataset = dataset;
    dataset.set_rows(sets_rows);
    check(&dataset)?;
    let sets_windows = section.preview_n.is_some() || section.final_n.is_some();
    Ok(Preset { dataset, metric, sets_windows, sets_rows, warnings, adapter, model })
}

/// `packing`, as a preset or an option names it.
pub fn packing(name: Option<&str>) -> Result<Packing> {
    match name {
        None | Some("rows") => Ok(Packing::Rows),
        Some("documents") => Ok(Packing::Documents),
        Some(other) => Err(Error::input(format!("packing is {other:?}"))).hint("use rows or documents"),
    }
}

/// The error for a text that is not YAML.
fn invalid_yaml(text: &str, error: &serde_norway::Error) -> Error {
    let place = error.location().map(|place| (place.line(), place.column()));
    let tab = place.and_then(|(line, _)| {
        let indentation = text.lines().nth(line.checked_sub(1)?)?.chars().take_while(|c| c.is_whitespace());
        Some((line, indentation.collect::<Vec<_>>().iter().position(|c| *c == '\t')? + 1))
    });
    if let Some((line, column)) = tab {
        let message =
            format!("line {line}, column {column}: a tab is used for indentation, which YAML does not allow");
        return Error::input(message).with_hint("replace the tab with spaces");
    }
    let hint = match place {
        Some((line, _)) => format!(
            "check the indentation, quotes and colons near line {line}; demo/preset.yaml is an example"
        ),
        None => "demo/preset.yaml is an example of a preset".to_owned(),
    };
    Error::input(format!("not valid YAML; the YAML parser reports: {error}")).with_hint(hint)
}

/// The sections of a preset.
struct Sections {
    dataset: Value,
    metric: Choice,
    masking: Option<Masking>,
    adapter: Option<Adapter>,
    model: Option<PathBuf>,
    warnings: Vec<Warning>,
}

/// The sections; an error if the preset has one that is not supported.
fn sections(document: Value) -> Result<Sections> {
    let hint = "start from demo/preset.yaml, which has a `dataset` section";
    let Value::Mapping(top) = document else {
        return Err(Error::input("not a mapping")).hint(hint);
    };
    let unsupported = |what: &str| {
        Err(Error::unsupported(format!("{what} is not supported"))).hint("remove it from the preset")
    };
    let (mut dataset, mut metric, mut masking) = (None, Choice::default(), None);
    let (mut adapter, mut model, mut warnings) = (None, None, Vec::new());
    for (key, value) in top {
        match key.as_str() {
            Some("dataset") => dataset = Some(value),
            // The command line replaces the preset's model and output, as in the Python package.
            Some("model") => {
                warnings.extend(preset_sections::model(&value)?);
                adapter = preset_sections::adapter(&value)?;
                model = preset_sections::model_id(&value);
            }
            Some("eval") => masking = preset_eval::read(value, &mut metric)?,
            Some("output") => warnings.extend(preset_sections::output(&value)?),
            Some("edit") => preset_sections::edit(&value)?,
            Some("auto") => warnings.extend(preset_sections::auto(&value)?),
            Some("context") => warnings.extend(preset_sections::context(&value)?),
            // The Python package always runs the guards in its canonical order.
            Some("guards") if has_only_order(&value) => warnings
                .push(Warning::preset_settings(&["guards.order"], "every guard is evaluated, in one order")),
            Some("guards") => return unsupported("a setting in section `guards` other than `order`"),
            Some(other) => return unsupported(&format!("section `{other}`")),
            None => return Err(Error::input("a section name is not a string")),
        }
    }
    let dataset = dataset.ok_or_else(|| Error::input("section `dataset` is missing")).hint(hint)?;
    Ok(Sections { dataset, metric, masking, adapter, model, warnings })
}

fn has_only_order(guards: &Value) -> bool {
    guards.as_mapping().is_some_and(|guards| guards.keys().all(|key| key.as_str() == Some("order")))
}

fn read_bounded(path: &Path) -> Result<String> {
    let failed = |e: std::io::Error| inputs::not_opened(&format!("preset {}", path.display()), &e);
    // Non-blocking: opening a named pipe would wait for a writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::input(format!("opening preset {}: not a regular file", path.display())));
    }
    let mut text = String::new();
    file.take(MAX_PRESET_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_PRESET_BYTES {
        return Err(Error::input(format!("reading preset {}: larger than 1 MiB", path.display())));
    }
    // The YAML parser takes time that grows with the square of the depth.
    let open = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if open > MAX_LISTS {
        let message = format!(
            "preset {}: {open} lists and mappings in brackets; at most {MAX_LISTS} are read",
            path.display()
        );
        return Err(Error::input(message));
    }
    Ok(text)
}

/// Refuses window settings that can never give evidence.
pub fn check(dataset: &Dataset) -> Result<()> {
    let Dataset { seq_len, stride, preview_n, final_n, .. } = *dataset;
    let out_of_range = |why: String| Err(Error::input(why));
    if !(2..=1 << 20).contains(&seq_len) {
        return out_of_range(format!("seq_len is {seq_len}; use a number from 2 to 1048576"));
    }
    if stride != seq_len {
        let message =
            format!("stride {stride} differs from seq_len {seq_len}: windows would overlap or leave gaps");
        return Err(Error::input(message)).hint("leave out `stride`");
    }
    if preview_n == 0 || final_n == 0 {
        return out_of_range("preview_n and final_n must be 1 or more".into());
    }
    if preview_n > 100_000 || final_n > 100_000 {
        return out_of_range("preview_n and final_n must be 100000 or less".into());
    }
    if dataset.tokens() > MAX_TOKENS {
        let windows = preview_n + final_n;
        let message = format!(
            "{windows} windows of {seq_len} tokens exceed the {MAX_TOKENS} tokens a report can contain"
        );
        return Err(Error::input(message)).hint("use fewer or shorter windows");
    }
    if dataset.max_samples == 0 {
        return out_of_range("max_samples must be 1 or more".into());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn read_text(yaml: &str) -> Result<Preset> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.yaml");
        std::fs::write(&file, yaml).unwrap();
        read(&file)
    }

    #[test]
    fn reads_preset_of_python_package() {
        let Preset { dataset: d, sets_windows, warnings, .. } = read_text("dataset:\n  provider: {kind: local_jsonl, file: v.jsonl, text_field: t}\n  seq_len: 128\n  preview_n: 3\n")
            .unwrap();
        assert_eq!((d.seq_len, d.stride, d.preview_n, d.final_n, d.seed), (128, 128, 3, 64, 43));
        assert_eq!((d.files, d.text_field), (vec![PathBuf::from("v.jsonl")], "t".to_owned()));
        assert_eq!((sets_windows, warnings), (true, Vec::new()));
    }

    #[test]
    fn reads_pairs_and_the_metric() {
        let d = read_text(
            "eval: {loss: {type: seq2seq}}\nmodel: {adapter: hf_seq2seq}\n\
            dataset: {provider: {kind: local_jsonl_pairs, file: x, tgt_field: b}}\n",
        )
        .unwrap()
        .dataset;
        assert_eq!((d.text_field, d.target_field), ("source".to_owned(), Some("b".to_owned())));
        assert_eq!(d.metric, Some(MetricKind::PplSeq2Seq));
    }

    #[test]
    fn reads_choices_and_labels() {
        let d = read_text("dataset: {provider: local_jsonl_choices, file: x, answer_field: answerKey}")
            .unwrap()
            .dataset;
        let answers =
            Answers::Choices { choices_field: "choices".to_owned(), answer_field: "answerKey".to_owned() };
        assert_eq!((&*d.text_field, d.answers), ("question", Some(answers)));
        assert_eq!(d.metric, Some(MetricKind::Accuracy));
        let d = read_text("dataset: {provider: {kind: local_jsonl_labels, file: x, labels: [no, yes]}}")
            .unwrap()
            .dataset;
        let labels = Some(vec!["no".to_owned(), "yes".to_owned()]);
        assert_eq!(d.answers, Some(Answers::Labels { label_field: "label".to_owned(), labels }));
        assert_eq!((&*d.text_field, d.metric), ("text", Some(MetricKind::Accuracy)));
    }

    #[test]
    fn rows_that_are_read_follow_from_provider_and_packing() {
        let rows = |yaml: &str| read_text(yaml).unwrap().dataset.max_samples;
        assert_eq!(rows("dataset: {provider: hf_text, file: x}"), 2000);
        assert_eq!(rows("dataset: {provider: local_jsonl, file: x, packing: documents}"), 100_000);
        assert_eq!(rows("dataset: {provider: local_jsonl, file: x, packing: documents, max_samples: 7}"), 7);
        assert_eq!(rows("dataset: {provider: wikitext2, file: x}"), 2000);
        assert_eq!(
            rows("dataset: {provider: wikitext2, file: x, seq_len: 8, preview_n: 900, final_n: 900}"),
            2700
        );
    }

    #[test]
    fn warns_of_settings_without_effect() {
        let upstream = "model: {id: gpt2, adapter: hf_causal, device: auto}\noutput: {dir: runs}\n\
            guards: {order: [invariants, spectral]}\nedit: {name: noop, plan: {}}\n\
            auto: {enabled: true, tier: balanced, probes: 0}\ncontext: {profile: ci}\n\
            dataset: {provider: {kind: local_jsonl, file: x}, id: wikitext}\n";
        let warned = read_text(upstream).unwrap().warnings;
        let names: Vec<_> = warned.iter().flat_map(|warning| warning.names.clone()).collect();
        let expected = [
            "model.id",
            "output.dir",
            "guards.order",
            "auto.enabled",
            "auto.tier",
            "auto.probes",
            "context.profile",
            "dataset.id",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn unknown_settings_come_with_a_proposal() {
        let hint = |yaml: &str| read_text(yaml).unwrap_err().hint().unwrap_or_default().to_owned();
        assert_eq!(hint("dataset: {provider: local_jsonl, Seq-Len: 8}"), "did you mean seq_len?");
        assert!(
            hint("dataset: {provider: local_jsonl, colour: 8}").starts_with("known settings: provider, ")
        );
        assert_eq!(
            hint("dataset: {provider: local_jsonl, file: x, seq_len: abc}"),
            "use a whole number, 2 or more"
        );
    }

    #[test]
    fn invalid_yaml_is_reported_with_its_place() {
        let error = read_text("dataset:\n\tprovider: local_jsonl\n").unwrap_err();
        assert!(
            error.message().ends_with(
                "p.yaml: line 2, column 1: a tab is used for indentation, which YAML does not allow"
            ),
            "{error:?}"
        );
        assert_eq!(error.hint(), Some("replace the tab with spaces"));
        let error =
            read_text("dataset:\n  provider: {kind: local_jsonl, file: x\n  \tseq_len: 8\n").unwrap_err();
        assert!(error.message().contains("p.yaml: "), "{error:?}");
        let error = read_text("dataset:\n  provider: \"local\n").unwrap_err();
        let message = error.message();
        assert!(
            message.contains("p.yaml: not valid YAML; the YAML parser reports: ")
                && message.contains(" line "),
            "{error:?}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("near line ")), "{error:?}");
    }

    #[test]
    fn names_unsupported_and_invalid_settings() {
        let cases = [
            (
                "edit: {name: quant_rtn}\ndataset: {provider: local_jsonl, file: x}",
                "the edit `quant_rtn` is not made here",
                Kind::Unsupported,
            ),
            ("dataset: {provider: synthetic}", "`synthetic`", Kind::Unsupported),
            ("dataset: {provider: hf_text}", "needs `file`", Kind::Input),
            (
                "dataset: {provider: local_jsonl, file: x, packing: pages}",
                r#"packing is "pages""#,
                Kind::Input,
            ),
            ("dataset: {provider: local_jsonl, file: 'hf:a/b/c'}", "not the name of a dataset", Kind::Input),
            ("dataset: {provider: {kind: local_jsonl, file: x, shuffle: 1}}", "shuffle", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seqlen: 8}", "dataset.seqlen is not", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seq_len: abc}", r#"seq_len is "abc""#, Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seed: -1}", "dataset.seed is -1", Kind::Input),
            ("dataset: {provider: {kind: local_jsonl, file: x, max_samples: 1.5}}", "is 1.5", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seq_len: 8, stride: 9}", "stride 9", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seq_len: 8, stride: 4}", "overlap", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seq_len: 1000000}", "tokens a report", Kind::Input),
            (
                "guards: {spectral: {}}\ndataset: {provider: local_jsonl, file: x}",
                "`guards`",
                Kind::Unsupported,
            ),
            (
                "context: {run: {tiny_relax: true}}\ndataset: {provider: local_jsonl, file: x}",
                "`context.run`",
                Kind::Input,
            ),
            ("dataset: {provider: local_jsonl}", "needs `file`", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, src_field: a}", "`src_field`", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, labels: [a, b]}", "no `labels`", Kind::Input),
            ("dataset: {provider: local_jsonl_labels, file: x, labels: [a]}", "has 1 labels", Kind::Input),
            ("dataset: {provider: local_jsonl_labels, file: x, labels: [a, a]}", "named twice", Kind::Input),
            (
                "dataset: {provider: local_jsonl_labels, file: x, answer_field: a}",
                "`answer_field`",
                Kind::Input,
            ),
            (
                "eval: {metric: {kind: ppl_causal}}\ndataset: {provider: local_jsonl_choices, file: x}",
                "dataset.provider local_jsonl_choices contradicts eval.metric.kind ppl_causal",
                Kind::Input,
            ),
            ("dataset: {provider: local_jsonl_pairs, file: x, text_field: a}", "`text_field`", Kind::Input),
            ("eval: {spike_threshold: 2.0}\ndataset: {provider: local_jsonl, file: x}", "spike", Kind::Input),
            (
                "eval: {loss: {type: mlm}, metric: {kind: ppl_causal}}\ndataset: {provider: local_jsonl, file: x}",
                "contradicts",
                Kind::Input,
            ),
            ("[]", "not a mapping", Kind::Input),
            (
                "model: {dtype: float16}\ndataset: {provider: local_jsonl, file: x}",
                "`model.dtype`",
                Kind::Input,
            ),
            ("dataset: {provider: local_jsonl, file: x, shuffle: true}", "shuffle", Kind::Input),
            ("dataset: {provider: local_jsonl, data_files: '*.jsonl'}", "pattern", Kind::Unsupported),
        ];
        for (yaml, needle, kind) in cases {
            let e = read_text(yaml).unwrap_err();
            assert!(e.message().contains(needle) && e.kind() == kind, "{yaml}: {e:?}");
        }
    }
}
