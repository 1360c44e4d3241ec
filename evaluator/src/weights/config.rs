//! Chooses the storage format that a configuration names.

use super::compressed_tensors::CompressedTensors;
use super::fp8::Fp8;
use super::{Format, awq, bitsandbytes, gptq, hqq, mxfp4};
use crate::checkpoint::{Config, FLOAT_WEIGHTS};
use invarlock_error::{Context as _, Error, Result, bail};

/// `compression_config` is an older name.
const OPTIONS: [&str; 2] = ["quantization_config", "compression_config"];

/// Values of `quant_method`.
const METHODS: &str = "compressed-tensors, fp8, gptq, awq, bitsandbytes, hqq, mxfp4";

/// The format of quantised weights. None where all are plain numbers.
pub fn read(config: &Config) -> Result<Option<Box<dyn Format>>> {
    let [new, old] = OPTIONS.map(|option| config.object(option));
    let (new, old) = (new?, old?);
    let quantised = match (new, old) {
        (Some(_), Some(_)) => {
            bail!(Input, "{}: both `{}` and `{}` exist", config.name(), OPTIONS[0], OPTIONS[1])
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Ok(None),
    };
    let format = method(&quantised)?;
    quantised.reject_unread(&quantised.keys().collect::<Vec<_>>()).hint(FLOAT_WEIGHTS)?;
    Ok(format)
}

fn method(config: &Config) -> Result<Option<Box<dyn Format>>> {
    let name = match config.text("quant_method")? {
        Some(name) => name,
        // Early releases of bitsandbytes and of compressed-tensors leave it out.
        None if config.contains("load_in_8bit") || config.contains("load_in_4bit") => "bitsandbytes",
        None if config.contains("config_groups") || config.contains("sparsity_config") => {
            "compressed-tensors"
        }
        None => bail!(Input, "{}: `{}` is missing", config.name(), config.member("quant_method")),
    };
    Ok(match name {
        "compressed-tensors" => {
            CompressedTensors::read(config)?.map(|format| Box::new(format) as Box<dyn Format>)
        }
        "fp8" => Some(Box::new(Fp8::read(config)?)),
        "gptq" => Some(Box::new(gptq::Gptq::read(config)?)),
        "awq" => Some(Box::new(awq::Awq::read(config)?)),
        "bitsandbytes" => Some(bitsandbytes::read(config)?),
        "hqq" => Some(Box::new(hqq::Hqq::read(config)?)),
        "mxfp4" => Some(Box::new(mxfp4::Mxfp4::read(config)?)),
        _ => {
            return Err(Error::unsupported(format!(
                "{}: `{}` {name:?} is not supported; supported: {METHODS}",
                config.name(),
                config.member("quant_method")
            ))
            .with_hint(FLOAT_WEIGHTS));
        }
    })
}
