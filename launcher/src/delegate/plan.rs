//! The plan of the run: everything is resolved before the program starts. It is what is executed, what `--dry-run` prints, what is digested, and
//! what the manifest records.

use super::check;
use super::container::{Container, OUTPUT_BYTES, OUTPUT_FILES, TMP_BYTES};
use super::inputs::Inputs;
use super::options::{self, Request};
use crate::args::EvaluateArgs;
use crate::cdi::{self, Devices};
use crate::error::{Error, Result};
use crate::filter::{CustomProfile, Filter};
use crate::image::{self, Image};
use crate::plan::refuse_outputs_in;
use crate::policy::Policy;
use crate::record;
use crate::recorded::typed;
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_evidence::delegated;
use invarlock_evidence::format::delegated::{DELEGATED_PLAN_FORMAT, DelegatedContainer, DelegatedPlan};
use invarlock_evidence::format::plan as format;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_runtime::{ContainerSpec, Limits};
use invarlock_seccomp::{BuiltinProfile, Program};
use serde_json::json;

/// Everything that a run needs. The inputs are opened and not yet hashed.
pub struct Opened {
    request: Request,
    image: Image,
    recorded_image: format::Image,
    environment: Vec<(String, String)>,
    devices: Devices,
    /// The files below `/in`.
    pub inputs: Inputs,
    filter: Program,
    custom_filter: Option<CustomProfile>,
    limits: Limits,
    version: String,
}

/// The plan.
pub struct Plan {
    opened: Opened,
    /// As the evidence records it.
    pub recorded: DelegatedPlan,
}

impl std::ops::Deref for Plan {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.opened
    }
}

/// Resolves the request, opens its inputs and checks the image: cheap checks first.
pub fn open(args: &EvaluateArgs, policy: &Policy, ui: &Ui, signals: &Signals) -> Result<Opened> {
    let request = options::request(args)?;
    let checkpoints = [("baseline", &request.baseline.dir), ("subject", &request.subject.dir)];
    refuse_outputs_in([&request.out, &request.report_out], checkpoints)?;
    let mut filter = Filter::choose(request.seccomp.as_deref(), BuiltinProfile::General)?;
    let devices = cdi::resolve(request.device.as_slice(), &request.cdi_spec_dir)?;
    if devices.record.is_some() {
        filter = filter.with_device_requests()?;
    }
    let inputs = Inputs::open(&request)?;
    let image = image::prepare(ui, &request.image, &policy.network)?;
    policy.network.close()?;
    let recorded_image: format::Image = record::image(&image)?;
    let environment = delegated::environment(
        &recorded_image,
        &image.resolved.env,
        devices.record.as_ref(),
        &passed_on(&|name| std::env::var(name).ok()),
    );
    let mut limits = request.limits.resolve(OUTPUT_BYTES);
    limits.output_files = OUTPUT_FILES;
    if request.limits.tmp.is_none() {
        limits.tmp_bytes = TMP_BYTES;
    }
    let step = ui.step("checking image", 1, false);
    let container = Container {
        image: &image,
        environment: &environment,
        filter: &filter.program,
        limits: &limits,
        mounts: &devices.mounts,
    };
    let version = check::version(&image, &container, policy, signals)?;
    request.check_version(&version)?;
    step.done(&format!("InvarLock {version}"));
    Ok(Opened {
        request,
        image,
        recorded_image,
        environment,
        devices,
        inputs,
        filter: filter.program,
        custom_filter: filter.custom,
        limits,
        version,
    })
}

/// The variables of the caller that the program gets: those with a value.
fn passed_on(variable: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let set = delegated::PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
    set.filter(|(_, value)| !value.trim().is_empty()).collect()
}

impl Opened {
    /// Hashes the inputs.
    pub fn hash(self, policy: &Policy, ui: &Ui, signals: &Signals) -> Result<Plan> {
        let recorded = self.recorded(policy, ui, signals)?;
        Ok(Plan { opened: self, recorded })
    }

    fn recorded(&self, policy: &Policy, ui: &Ui, signals: &Signals) -> Result<DelegatedPlan> {
        let mut plan = DelegatedPlan {
            format_version: DELEGATED_PLAN_FORMAT.to_owned(),
            request: self.request.recorded.clone(),
            profile: self.request.profile.as_str().to_owned(),
            tier: self.request.tier.as_str().to_owned(),
            allowances: record::allowances(policy),
            image: self.recorded_image.clone(),
            entrypoint: self.image.resolved.entrypoint.clone(),
            version: self.version.clone(),
            custom_seccomp_profile: typed("the seccomp profile", json!(self.custom_filter))?,
            devices: self.devices.record.clone(),
            inputs: self.inputs.digests(ui, signals)?,
            settings: self.inputs.settings(),
            container: self.planned(&[])?,
        };
        // The arguments follow from the rest of the plan.
        plan.container = self.planned(&delegated::arguments(&plan))?;
        Ok(plan)
    }

    fn planned(&self, arguments: &[String]) -> Result<DelegatedContainer> {
        typed("the planned container", invarlock_runtime::describe(&self.spec(arguments)?))
    }

    fn spec(&self, arguments: &[String]) -> Result<ContainerSpec> {
        let container = Container {
            image: &self.image,
            environment: &self.environment,
            filter: &self.filter,
            limits: &self.limits,
            mounts: &self.devices.mounts,
        };
        container.spec(arguments, self.inputs.of_container()?)
    }

    /// The reference of the image, as the user named it.
    pub fn reference(&self) -> &str {
        &self.recorded_image.reference
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> &str {
        &self.recorded_image.manifest_digest
    }

    /// Profile and tier.
    pub fn policy(&self) -> (Profile, Tier) {
        (self.request.profile, self.request.tier)
    }

    /// The digest of the system-call filter.
    pub fn filter_digest(&self) -> &str {
        &self.filter.digest
    }
}

impl Plan {
    /// The container of the run.
    pub fn container(&self) -> Result<ContainerSpec> {
        let entrypoint = self.recorded.entrypoint.len();
        let arguments = self.recorded.container.argv.get(entrypoint..);
        self.spec(arguments.ok_or_else(|| Error::system("the plan has no arguments"))?)
    }

    /// Directory of what the program leaves.
    pub fn out(&self) -> &std::path::Path {
        &self.request.out
    }

    /// Directory of the evidence.
    pub fn report_out(&self) -> &std::path::Path {
        &self.request.report_out
    }
}

#[cfg(test)]
mod tests {
    use super::passed_on;

    #[test]
    fn listed_variables_with_a_value_are_passed_on() {
        let found = passed_on(&|name| match name {
            "INVARLOCK_TINY_RELAX" => Some("1".to_owned()),
            "INVARLOCK_SNAPSHOT_MODE" => Some(" ".to_owned()),
            "INVARLOCK_ALLOW_NETWORK" | "HF_TOKEN" => Some("x".to_owned()),
            _ => None,
        });
        assert_eq!(found, [("INVARLOCK_TINY_RELAX".to_owned(), "1".to_owned())]);
    }
}
