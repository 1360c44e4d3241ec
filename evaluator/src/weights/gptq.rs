//! GPTQ: integers packed along the inputs, with scale and zero point for each group of inputs and each output.
//!
//! Source: AutoGPTQ and GPTQModel. Version 1 of the format stores each zero point less one.

use std::ops::Range;

use super::members::{MAX_BITS, choice, group_size, ignore};
use super::modules::Modules;
use super::parts::groups;
use super::{Floats, Format, Layout, Parts, Quantised, Wanted, bits};
use crate::checkpoint::Config;
use crate::math::simd::multiversion;
use invarlock_error::{Result, bail};

/// `quantization_config` of GPTQ.
#[derive(Debug)]
pub struct Gptq {
    bits: u32,
    group_size: Option<usize>,
    act_order: bool,
    /// What is added to stored zero points.
    zero_offset: f32,
    /// The modules of a layer that are quantised, where the configuration lists them.
    quantised: Option<Vec<String>>,
    /// Whether the output projection is quantised.
    lm_head: bool,
    plain: Modules,
}

impl Gptq {
    /// Reads the members.
    pub fn read(config: &Config) -> Result<Self> {
        // How the weights were found.
        ignore(
            config,
            &[
                "quant_method",
                "static_groups",
                "true_sequential",
                "damp_percent",
                "damp_auto_increment",
                "sym",
                "model_file_base_name",
                "model_name_or_path",
                "meta",
                "mse",
                "quantizer",
                "dataset",
                "tokenizer",
                "batch_size",
                "block_name_to_quantize",
                "cache_block_outputs",
                "cache_examples_on_gpu",
                "max_input_length",
                "module_name_preceding_first_block",
                "model_seqlen",
                "pad_token_id",
                "use_cuda_fp16",
                "exllama_config",
                "use_exllama",
                "disable_exllama",
                "backend",
                "is_marlin_format",
                "mode",
                "parallel_packing",
                "hyb_act",
                "group_aware_reordering",
                "rotation",
                "pack_dtype",
                "version",
                "uri",
            ],
        );
        let named = choice(config, "format", &["gptq", "gptq_v2"])?;
        let bits = config.required_size("bits", MAX_BITS)? as u32;
        if ![2, 3, 4, 8].contains(&bits) {
            bail!(
                Unsupported,
                "{}: `{}` {bits} is not supported; supported: 2, 3, 4, 8",
                config.name(),
                config.member("bits")
            );
        }
        if config.get("pack_dtype").and_then(|v| v.as_str()).is_some_and(|name| name != "int32") {
            config.reject_options(&["pack_dtype"])?;
        }
        config.reject_options(&["is_marlin_format", "rotation"])?;
        let format = match config.text("checkpoint_format")? {
            Some(_) => choice(config, "checkpoint_format", &["gptq", "gptq_v2"])?,
            None => named,
        };
        let list = config.get("modules_in_block_to_quantize").and_then(|v| v.as_array());
        let names = |list: &Vec<serde_json::Value>| {
            let flat = list.iter().flat_map(|v| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]));
            flat.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Ok(Self {
            bits,
            group_size: group_size(config)?,
            act_order: config.flag("desc_act", false)?,
            zero_offset: if format == "gptq" { 1.0 } else { 0.0 },
            quantised: list.map(names),
            lm_head: config.flag("lm_head", false)?,
            plain: Modules::transformers(config, "modules_to_not_convert")?,
        })
    }
}

impl Format for Gptq {
    fn describe(&self) -> String {
        let groups =
            self.group_size.map_or_else(|| "one group".to_owned(), |size| format!("groups of {size}"));
        let order = if self.act_order { ", act-order" } else { "" };
        format!("gptq: int{}, {groups}{order}", self.bits)
    }

    fn covers(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> bool {
        let module = wanted.module;
        let listed = |names: &Vec<String>| names.iter().any(|name| module.ends_with(&format!(".{name}")));
        match module == "lm_head" {
            true => self.lm_head,
            false => !self.plain.contains("Linear", module) && self.quantised.as_ref().is_none_or(listed),
        }
    }

    fn marker(&self, wanted: &Wanted<'_>, _: &Parts<'_>) -> String {
        format!("{}.qweight", wanted.stored)
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { module, stored, inputs, outputs, .. } = *wanted;
        let bits = self.bits as usize;
        for (count, what) in [(inputs, "inputs"), (outputs, "outputs")] {
            if !(count * bits).is_multiple_of(32) {
                bail!(
                    Input,
                    "{}: {module} has {count} {what}, which do not fill 32-bit words with {bits} bits each",
                    parts.place()
                );
            }
        }
        let size = self.group_size.unwrap_or(inputs);
        // With act-order the last group may be smaller.
        let groups =
            if self.act_order { inputs.div_ceil(size) } else { groups(parts.place(), module, inputs, size)? };
        let name = |part: &str| format!("{stored}.{part}");
        let index = match parts.contains(&name("g_idx")) {
            true => parts.group_index(&name("g_idx"), inputs, groups)?,
            false if self.act_order => {
                bail!(
                    Input,
                    "{}: config.json says `desc_act`, but the tensor {} is missing",
                    parts.place(),
                    name("g_idx")
                )
            }
            false => (0..inputs).map(|input| (input / size) as u32).collect(),
        };
        Ok(Box::new(Matrix {
            words: parts.words(&name("qweight"), &[inputs * bits / 32, outputs])?,
            zeros: parts.words(&name("qzeros"), &[groups, outputs * bits / 32])?,
            scales: parts.floats(&name("scales"), &[&[groups, outputs]])?,
            zero_offset: self.zero_offset,
            bits: self.bits,
            groups,
            index,
            outputs,
        }))
    }
}

/// A matrix [inputs, outputs].
#[derive(Debug)]
struct Matrix<'a> {
    /// [inputs · bits / 32, outputs]: integers without gaps along the inputs.
    words: &'a [[u8; 4]],
    /// [groups, outputs · bits / 32]: zero points without gaps along the outputs.
    zeros: &'a [[u8; 4]],
    /// [groups, outputs].
    scales: Floats<'a>,
    zero_offset: f32,
    bits: u32,
    groups: usize,
    /// The group of each input.
    index: Vec<u32>,
    outputs: usize,
}

impl Quantised for Matrix<'_> {
    fn layout(&self) -> Layout {
        Layout::InOut
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let (width, bits) = (outputs.len(), self.bits as usize);
        // Zero points start at a multiple of 8.
        let aligned = outputs.start / 8 * 8;
        let skip = outputs.start - aligned;
        let mut zeros = vec![0.0; self.groups * (width + skip)];
        let mut scales = vec![0.0; self.groups * width];
        for group in 0..self.groups {
            let zeros = &mut zeros[group * (width + skip)..][..width + skip];
            let row = self.outputs * bits / 32;
            let stream = self.zeros[group * row..][..row].as_flattened();
            bits::unpack(self.bits, stream, aligned, zeros);
            for zero in zeros {
                *zero += self.zero_offset;
            }
            self.scales.read(group * self.outputs + outputs.start, &mut scales[group * width..][..width]);
        }
        for (input, row) in out.chunks_exact_mut(width).enumerate() {
            let group = self.index[input] as usize;
            let (zeros, scales) =
                (&zeros[group * (width + skip) + skip..][..width], &scales[group * width..][..width]);
            let (word, shift) = (input * bits / 32, (input * bits % 32) as u32);
            let words = |word: usize| &self.words[word * self.outputs + outputs.start..][..width];
            let mask = (1 << bits) - 1;
            if shift + self.bits <= 32 {
                within(words(word), shift, mask, zeros, scales, row);
            } else {
                across([words(word), words(word + 1)], shift, mask, zeros, scales, row);
            }
        }
    }
}

multiversion! {
    /// (value - zero) · scale for each output, where the value of an input lies in one word.
    pub fn within(words: &[[u8; 4]], shift: u32, mask: u32, zeros: &[f32], scales: &[f32], out: &mut [f32]) {
        for (((out, word), zero), scale) in out.iter_mut().zip(words).zip(zeros).zip(scales) {
            let value = (u32::from_le_bytes(*word) >> shift) & mask;
            *out = (value as i32 as f32 - zero) * scale;
        }
    }

    /// The same, where its upper bits are in the next word.
    pub fn across(words: [&[[u8; 4]]; 2], shift: u32, mask: u32, zeros: &[f32], scales: &[f32], out: &mut [f32]) {
        let [low, high] = words;
        for ((((out, low), high), zero), scale) in out.iter_mut().zip(low).zip(high).zip(zeros).zip(scales) {
            let (low, high) = (u32::from_le_bytes(*low), u32::from_le_bytes(*high));
            let value = (low >> shift | high << (32 - shift)) & mask;
            *out = (value as i32 as f32 - zero) * scale;
        }
    }
}
