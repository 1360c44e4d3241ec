//! Names of devices of the Container Device Interface: `vendor/class=name`.

use crate::error::{Error, Result};
use invarlock_evidence::delegated::{ALL, NVIDIA};
use invarlock_evidence::format::devices::parse_name;
use std::fmt;

/// Variables that say which GPUs the user was given, the stronger one first.
pub const GIVEN: [&str; 2] = ["SLURM_STEP_GPUS", "CUDA_VISIBLE_DEVICES"];

/// The name of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName {
    /// `vendor/class`.
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
}

impl DeviceName {
    /// Parses `vendor/class=name`.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parse_name(text) {
            Some((kind, name)) => Ok(Self { kind: kind.to_owned(), name: name.to_owned() }),
            None => Err("write VENDOR/CLASS=NAME, such as nvidia.com/gpu=0 or nvidia.com/gpu=all; a path of /dev is not accepted".into()),
        }
    }

    /// The devices that it means, where a variable of the job gives only some of them.
    ///
    /// # Errors
    /// It is a GPU that the job does not have.
    pub fn given(self, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Self>> {
        let given = GIVEN.iter().find_map(|name| Some((name, variable(name)?)));
        let Some((variable, list)) = given.filter(|_| self.kind == NVIDIA) else { return Ok(vec![self]) };
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if self.name == ALL && !names.is_empty() {
            let named = |name: &&str| Self { kind: self.kind.clone(), name: (*name).to_owned() };
            return Ok(names.iter().map(named).collect());
        }
        match names.contains(&self.name.as_str()) {
            true => Ok(vec![self]),
            false => Err(Error::input(format!("device {self}: {variable} gives this process {list:?}")))
                .map_err(|error| error.with_hint(format!("name one of these, or change {variable}"))),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceName;

    fn name(text: &str) -> DeviceName {
        DeviceName::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn a_name_has_a_vendor_a_class_and_a_name() {
        let gpu = name("nvidia.com/gpu=MIG-0a:1");
        assert_eq!((gpu.kind.as_str(), gpu.name.as_str()), ("nvidia.com/gpu", "MIG-0a:1"));
        assert_eq!(gpu.to_string(), "nvidia.com/gpu=MIG-0a:1");
        for bad in [
            "",
            "/dev/nvidia0",
            "gpu=0",
            "nvidia.com/gpu",
            "nvidia.com/gpu=",
            "a/b/c=d",
            "a/b=c=d",
            "a/b=c d",
        ] {
            assert!(DeviceName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_job_has_the_gpus_that_it_was_given() {
        let given = |text: &str, slurm: Option<&str>, cuda: Option<&str>| {
            let variable =
                |name: &str| if name == "SLURM_STEP_GPUS" { slurm } else { cuda }.map(str::to_owned);
            let names = name(text).given(variable).map_err(|error| error.to_string())?;
            Ok::<_, String>(names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let all = "nvidia.com/gpu=all";
        assert_eq!(given(all, None, None), Ok(vec![all.to_owned()]));
        assert_eq!(given(all, Some("2,3"), Some("0,1")).map(|names| names.len()), Ok(2));
        assert_eq!(
            given(all, None, Some("GPU-955ef018")),
            Ok(vec!["nvidia.com/gpu=GPU-955ef018".to_owned()])
        );
        assert_eq!(given("nvidia.com/gpu=1", None, Some("0,1")).map(|names| names.len()), Ok(1));
        for none in ["3", "", "-1"] {
            assert!(given("nvidia.com/gpu=1", None, Some(none)).is_err(), "{none:?}");
        }
        assert!(given(all, None, Some("")).is_err(), "no GPU");
        assert_eq!(given("amd.com/gpu=1", Some("2"), None).map(|names| names.len()), Ok(1));
    }
}
