//! Copies of fixtures that tests change.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use invarlock_error::Error;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::model::{Arithmetic, Model};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Type, shape and bytes of a tensor.
pub type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// A copy of a fixture.
pub struct Changed {
    pub config: Value,
    pub tensors: BTreeMap<String, Stored>,
    /// Whether inputs of layers stay in float32.
    pub weight_only: bool,
}

impl Changed {
    /// Reads `NAME` of a set of fixtures, such as `families`.
    pub fn open(set: &str, name: &str) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        // How this format quantises inputs is not defined.
        let weight_only = name == "bnb-int8";
        Self { weight_only, ..Self::read(&fixtures.join(set).join(name)) }
    }

    /// Reads a checkpoint.
    pub fn read(directory: &Path) -> Self {
        let read = |file: &str| fs::read(directory.join(file)).expect("the fixture");
        let config = serde_json::from_slice(&read("config.json")).expect("JSON");
        let bytes = read("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let stored = |(name, t): (String, safetensors::tensor::TensorView<'_>)| {
            (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()))
        };
        let tensors = file.tensors().into_iter().map(stored).collect();
        Self { config, tensors, weight_only: false }
    }

    /// Writes the checkpoint.
    pub fn write(&self, directory: &Path) {
        fs::write(directory.join("config.json"), self.config.to_string()).expect("written");
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor");
            (name, view)
        });
        let bytes = safetensors::serialize(views, None).expect("serialized");
        fs::write(directory.join("model.safetensors"), bytes).expect("written");
    }

    /// Builds the model for windows of 8 tokens.
    pub fn load(&self) -> Result<(), Error> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        self.write(directory.path());
        let checkpoint = Checkpoint::open(directory.path())?;
        let arithmetic = Arithmetic { weight_only: self.weight_only, ..Arithmetic::default() };
        Model::load_with(&checkpoint, 8, arithmetic).map(|_| ())
    }
}
