//! Facts about a checkpoint that a user should know: the run report and the check report state the same.

use invarlock_evidence::format::check_report::CheckpointFacts;

use crate::checkpoint::Config;
use crate::model::{Arithmetic, ModelInfo};

/// Largest number of unused tensors that a report names.
const MAX_UNUSED_NAMES: usize = 32;

/// The facts of a checkpoint with this configuration and model.
pub fn of(config: &Config, info: &ModelInfo<'_>, arithmetic: Arithmetic) -> CheckpointFacts {
    // transformers 5 writes `dtype`, earlier releases `torch_dtype`; some write `torch.float16`. Without them it takes the type of the
    // first tensor.
    let configured = ["dtype", "torch_dtype"].iter().find_map(|key| config.get(key)?.as_str());
    let stored = info.tensors.first().map(|(_, tensor)| tensor.dtype.name());
    let dtype = configured.filter(|name| *name != "auto").or(stored);
    CheckpointFacts {
        model_type: info.model_type.clone(),
        checkpoint_dtype: dtype.map(|name| name.strip_prefix("torch.").unwrap_or(name).to_owned()),
        compute_dtype: arithmetic.products.dtype().name().to_owned(),
        largest_activation: None,
        weights: info.weights.clone(),
        quantised_inputs: info.activations.clone().filter(|_| !arithmetic.weight_only),
        omitted_activations: info.activations.clone().filter(|_| arithmetic.weight_only),
        unused_tensors: info.unused.len(),
        unused_tensor_names: info.unused.iter().take(MAX_UNUSED_NAMES).cloned().collect(),
        tokenizer: None,
    }
}
