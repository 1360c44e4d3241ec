//! Image, system-call profile and limits of a container.

use crate::running::check_name;
use clap::Args;
use invarlock_images::MAX_LAYER_SIZE;
use invarlock_images::Verify;
use invarlock_runtime::Limits;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// Image and evaluator of a container, and its limits.
#[derive(Debug, Clone, Default, Args)]
pub struct ContainerArgs {
    /// Image to run: a tag of the store, oci:DIR@sha256:…, oci:DIR:TAG, sha256:… or, once pulled, docker://HOST/NAME:TAG
    #[arg(long, env = "INVARLOCK_RUNTIME_IMAGE", value_name = "IMAGE", help_heading = "Container")]
    pub image: Option<String>,
    /// Required digest of the image manifest; a different digest is an error
    #[arg(
        long,
        env = "INVARLOCK_RUNTIME_IMAGE_DIGEST",
        value_name = "sha256:HEX",
        help_heading = "Container"
    )]
    pub image_digest: Option<String>,
    /// Evaluator that the default image is built from [default: next to this program]
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub evaluator: Option<PathBuf>,
    /// Verification of the image.
    #[command(flatten)]
    pub verify: VerifyImageArgs,
    /// Your own system-call profile, in Docker's, the OCI's or our format. Recorded; the default verification policy rejects it
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub seccomp: Option<PathBuf>,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How the extracted layers of an image are verified before each use.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct VerifyImageArgs {
    /// Verification of the image before use: full (every byte), quick (file metadata), fsverity (fs-verity digests; needs a file system
    /// that supports it) or auto (full up to 256 MiB, otherwise quick). The level is recorded
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = parse_level, help_heading = "Container")]
    pub verify_image: Verify,
}

/// Limits of one container. A limit set here that cannot be enforced is an error.
#[derive(Debug, Clone, Default, Args)]
pub struct LimitArgs {
    /// Memory, such as 8G [default: 90 % of the free memory]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory, help_heading = "Limits of a container")]
    pub memory: Option<u64>,
    /// Processors, such as 2 or 0.5 [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus, help_heading = "Limits of a container")]
    pub cpus: Option<f64>,
    /// Processes and threads [default: 64, plus 16 per processor]
    #[arg(long, value_name = "NUMBER", value_parser = parse_pids, help_heading = "Limits of a container")]
    pub pids: Option<u64>,
    /// Wall time, such as 90, 90s, 30m or 1h [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Limits of a container")]
    pub timeout: Option<u64>,
    /// Size of /tmp, such as 256M [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_directory_size, help_heading = "Limits of a container")]
    pub tmp_size: Option<u64>,
    /// Size of /out [default: enough for the report, at least 8M]
    #[arg(long, value_name = "SIZE", value_parser = parse_directory_size, help_heading = "Limits of a container")]
    pub output_size: Option<u64>,
    /// Whether limits may be enforced by weaker means where no cgroup can be had.
    #[arg(skip)]
    pub weaker: bool,
}

const BAD_SECONDS: &str = "use a whole number of seconds, 1 or more, or a time such as 90s, 30m, 1h, 2d";

fn parse_level(text: &str) -> Result<Verify, &'static str> {
    text.parse().map_err(|_| "use auto, full, quick or fsverity")
}

pub(super) fn parse_pids(text: &str) -> Result<u64, &'static str> {
    whole_number(text, Limits::MIN_PIDS..=4_194_304).ok_or("use a whole number from 4 to 4194304")
}

/// A time of at least a second.
fn parse_seconds(text: &str) -> Result<u64, &'static str> {
    parse_duration(text).filter(|seconds| *seconds > 0).ok_or(BAD_SECONDS)
}

/// `90`, `90s`, `30m`, `1h`, `2d`, or several such parts: `1h30m`; in seconds.
fn parse_duration(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (mut rest, mut sum) = (text, 0u64);
    while !rest.is_empty() {
        let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let factor = match unit.chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = &unit[1..];
    }
    Some(sum)
}

/// A name of a run.
pub(super) fn parse_name(text: &str) -> Result<String, &'static str> {
    check_name(text).map(|()| text.to_owned())
}

/// A time of at most a day.
pub(super) fn parse_stop_timeout(text: &str) -> Result<Duration, &'static str> {
    let seconds = parse_duration(text).filter(|seconds| *seconds <= 86_400);
    seconds
        .map(Duration::from_secs)
        .ok_or("use a whole number of seconds, or a time such as 10s or 1m, at most 1d")
}

fn whole_number(text: &str, range: RangeInclusive<u64>) -> Option<u64> {
    text.trim().parse().ok().filter(|number| range.contains(number))
}

/// A size of memory.
pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    let minimum = Limits::MIN_MEMORY_BYTES;
    at_least(parse_size(text)?, minimum, &format!("{}M", minimum >> 20))
}

/// The size of a directory in memory.
pub(super) fn parse_directory_size(text: &str) -> Result<u64, String> {
    let minimum = Limits::min_directory_bytes();
    at_least(parse_size(text)?, minimum, &format!("{}K", minimum >> 10))
}

/// The size of the files of a layer.
pub(super) fn parse_layer_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes > MAX_LAYER_SIZE => Err(format!("the maximum is {}G", MAX_LAYER_SIZE >> 30)),
        bytes => Ok(bytes),
    }
}

fn at_least(bytes: u64, minimum: u64, text: &str) -> Result<u64, String> {
    if bytes < minimum { Err(format!("the minimum is {text}")) } else { Ok(bytes) }
}

/// `8G`, `512M`, `1.5GiB` or a number of bytes; units are powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let exponent = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(format!("unknown unit `{unit}`; units: K, M, G, T")),
    };
    let value: f64 = number.parse().map_err(|_| "not a size; examples: 8G, 512M, 1048576".to_owned())?;
    let bytes = value * 1024f64.powi(exponent);
    if bytes < 1.0 || bytes > 2f64.powi(50) {
        return Err("out of range: 1 byte to 1024 T".into());
    }
    Ok(bytes as u64)
}

/// A number of processors; a fraction is a share of one.
pub(super) fn parse_cpus(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(cpus) if (0.01..=65_536.0).contains(&cpus) => Ok(cpus),
        Ok(_) => Err("out of range: 0.01 to 65536".into()),
        Err(_) => Err("not a number of processors; examples: 2, 0.5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        BAD_SECONDS, parse_cpus, parse_directory_size, parse_memory, parse_pids, parse_seconds, parse_size,
    };

    #[test]
    fn parses_processors() {
        assert_eq!(parse_cpus("0.5"), Ok(0.5));
        for bad in ["", "two", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_below_their_minimum_are_rejected() {
        assert_eq!(parse_memory("4M"), Ok(4 << 20));
        assert_eq!(parse_memory("1M"), Err("the minimum is 4M".to_owned()));
        assert_eq!(parse_directory_size("1M"), Ok(1 << 20));
        assert!(parse_directory_size("1").is_err_and(|why| why.starts_with("the minimum is ")));
        assert_eq!((parse_pids("4"), parse_seconds("1")), (Ok(4), Ok(1)));
        for bad in ["", "x", "0", "-1", "1.5", "3", "4194305"] {
            assert_eq!(parse_pids(bad), Err("use a whole number from 4 to 4194304"), "{bad}");
        }
        for bad in ["", "x", "0", "-1", "1.5", "+1", "s", "1x", "1h30", "0s", "1 h", "99999999999999999999"] {
            assert_eq!(parse_seconds(bad), Err(BAD_SECONDS), "{bad}");
        }
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("2d", 172_800)]
        {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn parses_sizes() {
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("77"), Ok(77));
        for bad in ["", "G", "-1", "8X", "0", "1e30G", "8Gibb"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
