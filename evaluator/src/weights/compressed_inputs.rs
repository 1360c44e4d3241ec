//! What a scheme of compressed-tensors asks for the inputs and outputs of modules.

use serde_json::Value;

use super::inputs::{Numbers, Rounding, Scale, undefined};
use super::members::{MAX_BITS, choice, ignore, optional_group_size};
use super::{Parts, Wanted};
use crate::checkpoint::Config;
use invarlock_error::Result;

/// `input_activations` and `output_activations`.
#[derive(Debug)]
pub struct Activations {
    /// In words, for reports.
    pub words: String,
    /// None where this program does not quantise as it is asked.
    inputs: Option<Inputs>,
}

/// How inputs are quantised.
#[derive(Debug, Clone, Copy)]
enum Inputs {
    /// With the scale, and the zero point, that the module stores.
    Stored { numbers: Numbers, symmetric: bool },
    /// With scales of each token. None: one for all its inputs.
    OfToken { numbers: Numbers, symmetric: bool, group: Option<usize> },
}

impl Activations {
    /// Reads both members of a scheme. None where neither is asked for.
    pub fn read(config: &Config) -> Result<Option<Self>> {
        let (inputs, outputs) = (config.object("input_activations")?, config.object("output_activations")?);
        let mut words = Vec::new();
        for (arguments, what) in [(&inputs, "inputs"), (&outputs, "outputs")] {
            if let Some(arguments) = arguments {
                words.push(format!("{what} in {}", describe(arguments)?));
            }
        }
        let inputs = match (&inputs, outputs) {
            (Some(inputs), None) => Inputs::read(inputs)?,
            _ => None,
        };
        Ok((!words.is_empty()).then(|| Self { words: words.join("; "), inputs }))
    }

    /// How the inputs of a module are quantised.
    ///
    /// # Errors
    /// It is not supported, or the module's tensors are missing or wrong.
    pub fn rounding(&self, wanted: &Wanted<'_>, parts: &mut Parts<'_>) -> Result<Rounding> {
        match self.inputs {
            None => Err(undefined(&self.words, parts)),
            Some(Inputs::Stored { numbers, symmetric }) => {
                let name = |part: &str| format!("{}.{part}", wanted.stored);
                let (scale, zero) = (name("input_scale"), name("input_zero_point"));
                Rounding::fixed(numbers, (&scale, (!symmetric).then_some(&*zero)), parts)
            }
            Some(Inputs::OfToken { numbers, symmetric, group }) => {
                let group = match group {
                    None => wanted.inputs,
                    Some(size) => {
                        super::parts::groups(parts.place(), wanted.module, wanted.inputs, size)?;
                        size
                    }
                };
                let scale = match symmetric {
                    true => Scale::Largest { group, power_of_two: false },
                    false => Scale::Range { group },
                };
                Ok(Rounding { numbers, scale })
            }
        }
    }
}

/// Type, bits and kind of scale.
fn describe(arguments: &Config) -> Result<String> {
    let kind = choice(arguments, "type", &["int", "float"])?;
    let bits = arguments.required_size("num_bits", MAX_BITS)?;
    let when = match arguments.get("dynamic") {
        Some(Value::Bool(false)) | None => "static",
        _ => "dynamic",
    };
    Ok(format!("{kind}{bits}, {when}"))
}

impl Inputs {
    /// None where it is not supported: other bits, a scale of all tokens together, scales that are rounded themselves, and members that this
    /// program does not know.
    fn read(arguments: &Config) -> Result<Option<Self>> {
        ignore(arguments, &["observer", "observer_kwargs", "zp_dtype"]);
        let bits = arguments.required_size("num_bits", MAX_BITS)? as u32;
        let symmetric = arguments.flag("symmetric", true)?;
        let numbers = match (choice(arguments, "type", &["int", "float"])?, bits) {
            ("int", 2..) => Numbers::Int { bits },
            ("float", 8) if symmetric => Numbers::E4m3,
            _ => return Ok(None),
        };
        let group = optional_group_size(arguments)?;
        let strategy = arguments.text("strategy")?;
        let inputs = match (arguments.get("dynamic"), strategy.unwrap_or("tensor"), group) {
            (Some(Value::Bool(true)), "token", None) | (Some(Value::Bool(true)), "group", Some(_)) => {
                Some(Self::OfToken { numbers, symmetric, group })
            }
            (Some(Value::Bool(false)) | None, "tensor", None) => Some(Self::Stored { numbers, symmetric }),
            _ => None,
        };
        let known = arguments.reject_unread(&arguments.keys().collect::<Vec<_>>()).is_ok();
        Ok(inputs.filter(|_| known))
    }
}
