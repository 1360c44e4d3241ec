//! LoRA adapters: a product of two small matrices is added to a weight as it is used.
//!
//! Source of names and arithmetic: PEFT 0.21.

use std::ops::Range;

use super::matrix::Matrix;
use crate::checkpoint::{Adapter, Config};
use crate::limits;
use crate::math::gemm::{View, ViewMut};
use crate::math::products::Products;
use crate::math::simd::{multiversion, sum};
use crate::weights::{self, Floats, Layout, Numbers, Parts, Quantised, choice, ignore};
use invarlock_error::{Error, Result, bail};

/// Members that do not change the arithmetic of a trained adapter.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "ensure_weight_tying",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
];

/// What `adapter_config.json` says.
#[derive(Debug)]
pub struct Lora {
    rank: usize,
    alpha: f64,
    ranks: Numbers,
    alphas: Numbers,
    /// Whether the product is divided by the square root of the rank.
    rank_stabilised: bool,
    /// Whether the rows of the sum are scaled to stored lengths (DoRA).
    magnitudes: bool,
}

impl Lora {
    /// Reads the members.
    pub fn read(config: &Config) -> Result<Self> {
        ignore(config, HARMLESS);
        choice(config, "peft_type", &["LORA"])?;
        // Other kinds change the base model's weights before training.
        if config.get("init_lora_weights").is_some_and(|value| !value.is_boolean()) {
            choice(config, "init_lora_weights", &["gaussian", "orthogonal", "eva"])?;
        }
        let lora = Self {
            rank: config.required_size("r", limits::WIDTH)?,
            alpha: config.required_positive("lora_alpha")?,
            ranks: Numbers::read(config, "rank_pattern")?,
            alphas: Numbers::read(config, "alpha_pattern")?,
            rank_stabilised: config.flag("use_rslora", false)?,
            magnitudes: config.flag("use_dora", false)?,
        };
        config.reject_unread(&config.keys().collect::<Vec<_>>())?;
        Ok(lora)
    }

    /// In words, for reports.
    pub fn describe(&self) -> String {
        let kind = if self.magnitudes { "DoRA" } else { "LoRA" };
        format!("{kind} adapter of rank {}", self.rank)
    }

    /// The changed weight of a module, or the weight itself where the adapter has none for it.
    pub fn apply<'a>(
        &self,
        module: &str,
        weight: Matrix<'a>,
        parts: &mut Parts<'a>,
        products: Products,
    ) -> Result<Matrix<'a>> {
        let name = |part: &str| format!("{module}.{part}");
        if !parts.contains(&name("lora_A.weight")) {
            return Ok(weight);
        }
        if weight.rounding().is_some() {
            // The sum of both weights would have to be quantised again.
            return Err(weights::undefined(
                &format!("quantised inputs of {module}, which the adapter changes"),
                parts,
            ));
        }
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        let rank = self.ranks.of(module).map_or(self.rank, |rank| rank as usize);
        let divisor = if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
        let lengths = match self.magnitudes {
            true if weight.layout() == Layout::InOut => {
                bail!(Unsupported, "{}: `use_dora` for {module}, a Conv1D, is not supported", parts.place())
            }
            true => Some(parts.floats(&name("lora_magnitude_vector"), &[&[outputs], &[outputs, 1]])?),
            false => None,
        };
        let adapted = Adapted {
            first: parts.floats(&name("lora_A.weight"), &[&[rank, inputs]])?,
            second: parts.floats(&name("lora_B.weight"), &[&[outputs, rank]])?,
            rank,
            scale: (self.alphas.of(module).unwrap_or(self.alpha) / divisor) as f32,
            lengths,
            weight,
            products,
        };
        Ok(Matrix::quantised(Box::new(adapted), None, inputs, outputs))
    }
}

/// An error where the adapter has tensors that the model does not use.
pub fn check_used(adapter: &Adapter, unused: &[String]) -> Result<()> {
    match adapter.names.iter().find(|name| unused.contains(name)) {
        Some(name) => Err(Error::unsupported(format!(
            "{}: the adapter's tensor {name} changes nothing that is supported; supported: weights of linear layers, and whole tensors",
            adapter.config.name()
        ))
        .with_hint("merge the adapter into its base model and save the result")),
        None => Ok(()),
    }
}

/// weight + scale · second · first.
#[derive(Debug)]
struct Adapted<'a> {
    weight: Matrix<'a>,
    /// [rank, inputs].
    first: Floats<'a>,
    /// [outputs, rank].
    second: Floats<'a>,
    rank: usize,
    scale: f32,
    /// Lengths of the rows of the result, `[outputs]`.
    lengths: Option<Floats<'a>>,
    products: Products,
}

impl Quantised for Adapted<'_> {
    fn layout(&self) -> Layout {
        self.weight.layout()
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let (rank, inputs, n) = (self.rank, self.weight.inputs(), outputs.len());
        self.weight.fill(outputs.clone(), out);
        let mut first = vec![0.0; rank * inputs];
        self.first.read(0, &mut first);
        let mut second = vec![0.0; n * rank];
        self.second.read(outputs.start * rank, &mut second);
        let (first, second) = (View::dense(&first, rank, inputs), View::dense(&second, n, rank));
        let mut product = vec![0.0; out.len()];
        match self.layout() {
            Layout::OutIn => {
                let mut product = ViewMut::dense(&mut product, n, inputs);
                self.products.multiply(&mut product, second, first, self.scale);
            }
            Layout::InOut => {
                let mut product = ViewMut::dense(&mut product, inputs, n);
                self.products.multiply(&mut product, first.transposed(), second.transposed(), self.scale);
            }
        }
        crate::math::activation::add(out, &product);
        if let Some(lengths) = &self.lengths {
            for (output, row) in outputs.zip(out.chunks_exact_mut(inputs)) {
                crate::math::activation::scale(row, lengths.at(output) / sum_of_squares(row).sqrt());
            }
        }
    }
}

multiversion! {
    /// Σ x².
    pub fn sum_of_squares(x: &[f32]) -> f32 {
        sum(x, |v| v * v)
    }
}
