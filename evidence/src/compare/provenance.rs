//! The blocks of a report that say where its numbers come from.

use super::{CompareContext, Comparison, GENERATOR, derive};
use crate::format::evaluation_report::{
    Artifacts, BaselineProviderDigest, EditDigest, Generator, Provenance, ProviderDigest, ReportBuild,
    SideRef, WindowPlan,
};
use crate::numerics::digest::schedule_digest;
use serde_json::{Map, json};

impl Comparison<'_> {
    pub(super) fn provenance(&self) -> Provenance {
        let (context, run) = (self.context, self.subj.report);
        let window_digest = schedule_digest(&run.evaluation_windows.final_.window_ids);
        let masking = run.provenance.provider_digest.get("masking_sha256");
        Provenance {
            policy: self.policy.provenance.clone(),
            baseline: side_ref(
                &self.baseline_run_id,
                &context.baseline_report_path,
                &context.baseline_report_sha256,
                context.baseline_checkpoint_sha256.as_ref(),
            ),
            edited: side_ref(
                &self.run_id,
                &context.subject_report_path,
                &context.subject_report_sha256,
                context.subject_checkpoint_sha256.as_ref(),
            ),
            env_flags: run.meta.more.get("env_flags").cloned().unwrap_or_else(|| json!({})),
            provider_digest: ProviderDigest {
                ids_sha256: self.subj.ids_digest.clone(),
                tokenizer_sha256: self.subj.tokenizer_hash.clone(),
                masking_sha256: masking.and_then(|digest| digest.as_str()).map(str::to_owned),
            },
            baseline_provider_digest: BaselineProviderDigest {
                ids_sha256: self.base.ids_digest.clone(),
                tokenizer_sha256: self.base.tokenizer_hash.clone(),
            },
            dataset_split: run.data.split.clone(),
            split_fallback: false,
            window_plan: self.window_plan(),
            window_ids_digest: window_digest.clone(),
            window_plan_digest: window_digest,
            edit_digest: context.subject_checkpoint_sha256.clone().map(|impl_hash| EditDigest {
                family: "report_only".to_owned(),
                impl_hash,
                version: 1,
            }),
        }
    }

    fn window_plan(&self) -> WindowPlan {
        let (context, data) = (self.context, &self.subj.report.data);
        WindowPlan {
            profile: context.profile.as_str().to_owned(),
            requested_preview: context.requested_windows.0,
            requested_final: context.requested_windows.1,
            capacity: Map::new(),
            actual_preview: data.preview_n,
            actual_final: data.final_n,
            coverage_ok: self.numbers.coverage.windows_ok(),
            preview_total_tokens: self.subj.preview.tokens,
            final_total_tokens: self.subj.last.tokens,
            min_tokens_target: context.tier.min_tokens(),
            tokens_floor_met: derive::enough_tokens(
                context.tier,
                self.subj.preview.tokens + self.subj.last.tokens,
                data.preview_n,
                data.final_n,
            ),
        }
    }
}

fn side_ref(run_id: &str, path: &str, report: &str, checkpoint: Option<&String>) -> SideRef {
    SideRef {
        run_id: run_id.to_owned(),
        report_hash: report.get(..16).unwrap_or(report).to_owned(),
        report_path: path.to_owned(),
        report_sha256: report.to_owned(),
        checkpoint_sha256: checkpoint.cloned(),
    }
}

pub(super) fn artifacts(context: &CompareContext) -> Artifacts {
    Artifacts {
        events_path: context.events_path.clone(),
        logs_path: String::new(),
        checkpoint_path: None,
        report_path: context.subject_report_path.clone(),
        generated_at: context.generated_at.clone(),
    }
}

pub(super) fn report_build() -> ReportBuild {
    ReportBuild {
        generator: Generator {
            name: GENERATOR.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pairing_evidence: "baseline_windows".to_owned(),
        },
        synthesized_fields: Vec::new(),
        repaired_fields: Vec::new(),
        fallback_fields: Vec::new(),
    }
}
