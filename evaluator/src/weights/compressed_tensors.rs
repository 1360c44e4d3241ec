//! compressed-tensors: what llm-compressor writes.
//!
//! Source of names and arithmetic: compressed-tensors 0.20, and older releases' `sparsity_config`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::compressed_inputs::Activations;
use super::members::{MAX_BITS, choice, ignore, optional_group_size};
use super::modules::Modules;
use super::packed::{Packed, words};
use super::parts::groups;
use super::scaled::{Codes, Scaled, Scales};
use super::sparse::Sparse;
use super::{Format, Layout, Parts, Quantised, Rounding, Wanted};
use crate::checkpoint::{Config, Dtype};
use crate::limits;
use invarlock_error::{Result, bail};

/// Groups of modules with a scheme of their own.
const MAX_SCHEMES: usize = 256;
/// Supported values of `format`. The last is that of a checkpoint whose groups have formats of their own.
const FORMATS: &[&str] =
    &["dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision"];
/// `quantization_config` of compressed-tensors.
#[derive(Debug)]
pub struct CompressedTensors {
    schemes: Vec<Scheme>,
    ignored: Modules,
    /// Whether weights may be stored as a bitmask and the values that are not zero.
    sparse: bool,
}

#[derive(Debug)]
struct Scheme {
    format: &'static str,
    targets: Modules,
    weights: Weights,
    activations: Option<Activations>,
}

/// How weights are quantised.
#[derive(Debug)]
struct Weights {
    bits: u32,
    float: bool,
    symmetric: bool,
    strategy: Strategy,
    /// Whether `weight_g_idx` may say which group a column belongs to.
    act_order: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Tensor,
    Channel,
    Group(usize),
    Block([usize; 2]),
}

impl CompressedTensors {
    /// None where the configuration describes plain weights.
    pub fn read(config: &Config) -> Result<Option<Self>> {
        ignore(config, &["quant_method", "version", "global_compression_ratio", "run_compressed"]);
        let format = choice(config, "format", FORMATS)?;
        let sparse = sparsity(config)?;
        let mut schemes = Vec::new();
        if let Some(groups) = config.object("config_groups")? {
            if groups.keys().count() > MAX_SCHEMES {
                bail!(Unsupported, "{}: more than {MAX_SCHEMES} groups in `config_groups`", config.name());
            }
            for key in groups.keys() {
                if let Some(scheme) = groups.object(key)? {
                    schemes.extend(Scheme::read(&scheme, format)?);
                }
            }
        }
        let status = config.text("quantization_status")?;
        if !schemes.is_empty() && status.is_some_and(|status| status != "compressed") {
            bail!(
                Unsupported,
                "{}: `{}` {:?} is not supported; supported: compressed",
                config.name(),
                config.member("quantization_status"),
                status.unwrap_or_default()
            );
        }
        let ignored = Modules::compressed_tensors(config, "ignore")?;
        Ok((!schemes.is_empty() || sparse).then_some(Self { schemes, ignored, sparse }))
    }

    fn scheme(&self, wanted: &Wanted<'_>) -> Option<&Scheme> {
        let class = match wanted.layout {
            Layout::OutIn => "Linear",
            Layout::InOut => "Conv1D",
        };
        let ignored = self.ignored.contains(class, wanted.module);
        self.schemes.iter().find(|scheme| !ignored && scheme.targets.contains(class, wanted.module))
    }
}

/// Whether `sparsity_config` says that weights may be stored sparsely. The tensors say which are.
fn sparsity(config: &Config) -> Result<bool> {
    let Some(sparsity) = config.object("sparsity_config")? else { return Ok(false) };
    let known = ["targets", "ignore", "global_sparsity", "sparsity_structure", "registry_requires_subclass"];
    ignore(&sparsity, &known);
    let format = choice(&sparsity, "format", &["dense", "sparse-bitmask"])?;
    sparsity.reject_unread(&sparsity.keys().collect::<Vec<_>>())?;
    Ok(format == "sparse-bitmask")
}

impl Scheme {
    fn read(config: &Config, format: &'static str) -> Result<Option<Self>> {
        let format = if config.get("format").is_some() { choice(config, "format", FORMATS)? } else { format };
        let activations = Activations::read(config)?;
        let targets = Modules::compressed_tensors(config, "targets")?;
        let weights = config.object("weights")?;
        config.reject_unread(&config.keys().collect::<Vec<_>>())?;
        let Some(weights) = weights else {
            return match activations {
                None => Ok(None),
                Some(asked) => bail!(
                    Unsupported,
                    "{}: `{}` asks for {}, but for no quantised weights, which is not supported",
                    config.name(),
                    config.member("input_activations"),
                    asked.words
                ),
            };
        };
        let scheme = Self { format, targets, weights: Weights::read(&weights)?, activations };
        let Weights { bits, float, symmetric, strategy, .. } = scheme.weights;
        let supported = match format {
            "pack-quantized" => {
                !float
                    && !matches!(strategy, Strategy::Block(_))
                    && (symmetric || strategy != Strategy::Tensor)
            }
            "int-quantized" | "naive-quantized" | "float-quantized" => !float || bits == 8 && symmetric,
            _ => false,
        };
        if !supported {
            bail!(
                Unsupported,
                "{}: `format` {format:?} with `{}` ({}) is not supported",
                config.name(),
                config.member("weights"),
                scheme.weights.describe()
            );
        }
        Ok(Some(scheme))
    }
}

impl Weights {
    fn read(config: &Config) -> Result<Self> {
        ignore(config, &["observer", "observer_kwargs", "scale_dtype", "zp_dtype"]);
        let bits = config.required_size("num_bits", MAX_BITS)? as u32;
        let float = choice(config, "type", &["int", "float"])? == "float";
        let symmetric = config.flag("symmetric", true)?;
        let act_order = match config.get("actorder") {
            Some(Value::Bool(true)) => true,
            Some(Value::Bool(false)) => false,
            _ => {
                let order = choice(config, "actorder", &["weight", "static", "group", "dynamic"])?;
                matches!(order, "group" | "dynamic")
            }
        };
        let size = optional_group_size(config)?;
        let block = config.list("block_structure", 2, "sizes", |v| {
            v.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| (1..=limits::WIDTH).contains(v))
        })?;
        let default = match (size, &block) {
            (Some(_), _) => "group",
            (_, Some(_)) => "block",
            _ if config.get("group_size").is_some() => "channel",
            _ => "tensor",
        };
        let strategy = match (config.text("strategy")?.unwrap_or(default), size, block.as_deref()) {
            ("tensor", ..) => Strategy::Tensor,
            ("channel", ..) => Strategy::Channel,
            ("group", Some(size), _) => Strategy::Group(size),
            ("block", _, Some([rows, columns])) => Strategy::Block([*rows, *columns]),
            (name, ..) => bail!(
                Unsupported,
                "{}: `{}` {name:?} is not supported with `group_size` {size:?}; supported: tensor, channel, group, block",
                config.name(),
                config.member("strategy")
            ),
        };
        config.reject_unread(&config.keys().collect::<Vec<_>>())?;
        Ok(Self { bits, float, symmetric, strategy, act_order })
    }

    fn describe(&self) -> String {
        let Self { bits, float, symmetric, .. } = self;
        let kind = if *float { "float" } else { "int" };
        let zero = if *symmetric { "" } else { " with zero points" };
        let scales = match self.strategy {
            Strategy::Tensor => "one scale".to_owned(),
            Strategy::Channel => "a scale for each output".to_owned(),
            Strategy::Group(size) => format!("groups of {size}"),
            Strategy::Block([rows, columns]) => format!("blocks of {rows} x {columns}"),
        };
        format!("{kind}{bits}{zero}, {scales}")
    }

    /// Rows and columns that share a scale.
    fn block(&self, wanted: &Wanted<'_>) -> [usize; 2] {
        match self.strategy {
            Strategy::Tensor => [wanted.outputs, wanted.inputs],
            Strategy::Channel => [1, wanted.inputs],
            Strategy::Group(size) => [1, size],
            Strategy::Block(block) => block,
        }
    }

    fn group_index(
        &self,
        wanted: &Wanted<'_>,
        parts: &mut Parts<'_>,
        groups: usize,
    ) -> Result<Option<Vec<u32>>> {
        let name = format!("{}.weight_g_idx", wanted.stored);
        match self.act_order && parts.contains(&name) {
            true => parts.group_index(&name, wanted.inputs, groups).map(Some),
            false => Ok(None),
        }
    }

    /// `pack-quantized`.
    fn packed<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Packed<'a>> {
        let Wanted { module, stored, inputs, outputs, .. } = *wanted;
        let name = |part: &str| format!("{stored}.{part}");
        let shape = parts.integers(&name("weight_shape"), &[2])?;
        if shape != [outputs as i64, inputs as i64] {
            bail!(
                Input,
                "{}: tensor {} says {shape:?}, but config.json requires {:?}",
                parts.place(),
                name("weight_shape"),
                [outputs, inputs]
            );
        }
        let groups = groups(parts.place(), module, inputs, self.block(wanted)[1])?;
        let words_of_row = words(inputs, self.bits);
        let zeros = match self.symmetric {
            true => None,
            false => Some(parts.words(&name("weight_zero_point"), &[words(outputs, self.bits), groups])?),
        };
        let single_scale = self.strategy == Strategy::Tensor;
        let shapes: &[&[usize]] = if single_scale { &[&[1], &[]] } else { &[&[outputs, groups]] };
        Ok(Packed {
            words: parts.words(&name("weight_packed"), &[outputs, words_of_row])?,
            bits: self.bits,
            scales: parts.floats(&name("weight_scale"), shapes)?,
            single_scale,
            zeros,
            groups,
            index: self.group_index(wanted, parts, groups)?,
            inputs,
        })
    }

    /// The formats with a value in each element of `weight`.
    fn scaled<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>, sparse: bool) -> Result<Scaled<'a>> {
        let Wanted { module, stored, inputs, outputs, .. } = *wanted;
        let name = |part: &str| format!("{stored}.{part}");
        let block = self.block(wanted);
        if !matches!(self.strategy, Strategy::Block(_)) {
            groups(parts.place(), module, inputs, block[1])?;
        }
        let counts = [outputs.div_ceil(block[0]), inputs.div_ceil(block[1])];
        let shapes: &[&[usize]] = match self.strategy {
            Strategy::Tensor => &[&[1], &[], &[1, 1]],
            Strategy::Channel => &[&[outputs, 1], &[outputs]],
            _ => &[&counts],
        };
        let mut scales = Scales::new(parts.floats(&name("weight_scale"), shapes)?, block);
        if !self.symmetric {
            scales.zeros = Some(parts.take_of(&name("weight_zero_point"), &[Dtype::I8], shapes)?.bytes);
        }
        scales.index = self.group_index(wanted, parts, counts[1])?;
        let codes = if sparse && parts.contains(&format!("{stored}.weight.{}", Sparse::MARKER)) {
            Codes::Sparse(Sparse::read(wanted, parts)?)
        } else if self.float {
            let shape: &[usize] = &[outputs, inputs];
            parts.take_of(&name("weight"), &[Dtype::F8E4m3], &[shape])?;
            Codes::Float(parts.floats(&name("weight"), &[shape])?)
        } else {
            Codes::I8(parts.take_of(&name("weight"), &[Dtype::I8], &[&[outputs, inputs]])?.bytes)
        };
        Ok(Scaled { codes, scales: Some(scales), inputs })
    }
}

impl Format for CompressedTensors {
    fn describe(&self) -> String {
        let scheme = |scheme: &Scheme| format!("{}: {}", scheme.format, scheme.weights.describe());
        let mut words: Vec<String> = self.schemes.iter().map(scheme).collect();
        words.extend(self.sparse.then(|| "sparse-bitmask".to_owned()));
        format!("compressed-tensors {}", words.join(", "))
    }

    fn covers(&self, wanted: &Wanted<'_>, parts: &Parts<'_>) -> bool {
        // Sparse weights may be stored densely.
        self.scheme(wanted).is_some()
            || self.sparse && parts.contains(&format!("{}.weight.{}", wanted.stored, Sparse::MARKER))
    }

    fn marker(&self, wanted: &Wanted<'_>, parts: &Parts<'_>) -> String {
        let name = |part: &str| format!("{}.{part}", wanted.stored);
        match self.scheme(wanted).map(|scheme| scheme.format) {
            Some("pack-quantized") => name("weight_packed"),
            Some(_) => name("weight_scale"),
            None => {
                let unexpected = ["weight_packed", "weight_scale"].map(name).into_iter();
                let sparse = format!("{}.weight.{}", wanted.stored, Sparse::MARKER);
                unexpected.into_iter().find(|name| parts.contains(name)).unwrap_or(sparse)
            }
        }
    }

    fn read<'a>(&self, wanted: &Wanted<'_>, parts: &mut Parts<'a>) -> Result<Box<dyn Quantised + 'a>> {
        let Wanted { stored, inputs, .. } = *wanted;
        for scale in ["input_scale", "input_zero_point", "output_scale", "output_zero_point"] {
            parts.skip(&format!("{stored}.{scale}"));
        }
        let Some(scheme) = self.scheme(wanted) else {
            let codes = Codes::Sparse(Sparse::read(wanted, parts)?);
            return Ok(Box::new(Scaled { codes, scales: None, inputs }));
        };
        match scheme.format {
            "pack-quantized" => Ok(Box::new(scheme.weights.packed(wanted, parts)?)),
            _ => Ok(Box::new(scheme.weights.scaled(wanted, parts, self.sparse)?)),
        }
    }

    fn activations(&self) -> Option<String> {
        let asked = self.schemes.iter().filter_map(|scheme| scheme.activations.as_ref());
        let different: BTreeSet<&str> = asked.map(|activations| &*activations.words).collect();
        (!different.is_empty()).then(|| different.into_iter().collect::<Vec<_>>().join(", or "))
    }

    fn inputs(&self, wanted: &Wanted<'_>, parts: &mut Parts<'_>) -> Result<Option<Rounding>> {
        let asked = self.scheme(wanted).and_then(|scheme| scheme.activations.as_ref());
        asked.map(|activations| activations.rounding(wanted, parts)).transpose()
    }
}
